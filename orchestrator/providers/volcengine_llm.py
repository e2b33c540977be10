"""How Volcengine asks a language model of one's own, and what its requests say of the agent.

Sources: CustomLLM (docs/6348/1399966) and StartVoiceChat (1558163, 2123348): `Url`, `APIKey`,
`Feature` {"Http": true} for a URL without TLS, and `EnableRoundId`, which adds `round_id` to the
body. Nothing in a request names the task, the room or the user.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from orchestrator.providers.llm import read_id
from orchestrator.providers.llm_form import Asked, LlmEndpoint, LlmForm


def _own(endpoint: LlmEndpoint) -> Mapping[str, Any]:
    return {"Url": endpoint.url, "APIKey": endpoint.key}


def _defaults(endpoint: LlmEndpoint) -> Mapping[str, Any]:
    fields = {"ModelName": endpoint.model, "EnableRoundId": True}
    if endpoint.url.startswith("http://"):
        return {**fields, "Feature": {"Http": True}}
    return fields


def _read(_headers: Mapping[str, str], body: Mapping[str, Any]) -> Asked:
    return Asked(round=read_id(body, "round_id"))


FORM: Final = LlmForm(
    block=("Config", "LLMConfig"),
    required=MappingProxyType({"Mode": "CustomLLM"}),
    own=_own,
    defaults=_defaults,
    read=_read,
)
