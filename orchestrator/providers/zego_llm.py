"""How ZEGO asks a language model of one's own, and what its requests say of the agent.

Source: configuring-llm and register-agent in core_products/aiagent/en/server of
ZEGOCLOUD/docs_all: `Url`, `ApiKey`, `Vendor`, and `AddAgentInfo`, which adds `agent_info` to the
body. The block is the instance's own: that of the template under `Agent` serves every instance.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from orchestrator.providers.callbacks import object_at
from orchestrator.providers.llm import read_id
from orchestrator.providers.llm_form import Asked, LlmEndpoint, LlmForm


def _own(endpoint: LlmEndpoint) -> Mapping[str, Any]:
    return {"Url": endpoint.url, "ApiKey": endpoint.key}


def _defaults(endpoint: LlmEndpoint) -> Mapping[str, Any]:
    return {"Model": endpoint.model}


def _read(_headers: Mapping[str, str], body: Mapping[str, Any]) -> Asked:
    info = object_at(body, "agent_info")
    return Asked(
        handle=read_id(info, "agent_instance_id"),
        round=read_id(info, "round_id"),
        room_id=read_id(info, "room_id"),
        user_id=read_id(info, "user_id"),
    )


FORM: Final = LlmForm(
    block=("LLM",),
    # Without agent_info nothing tells which instance asks, and a lost one could not be stopped.
    required=MappingProxyType({"Vendor": "OpenAIChat", "AddAgentInfo": True}),
    own=_own,
    defaults=_defaults,
    read=_read,
)
