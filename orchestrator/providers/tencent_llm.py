"""How Tencent asks a language model of one's own, and what its requests say of the agent.

Source: "LLM configuration" (trtc.io 68338): the fields of LLMConfig, `Timeout` of 1 to 50 s (3 if
nothing is said), `Streaming` whose default differs from page to page, and the headers X-Task-Id,
X-Request-Id (the same on a retry), X-Room-Id and X-User-Id.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from orchestrator.providers.llm import read_id
from orchestrator.providers.llm_form import Asked, LlmEndpoint, LlmForm

TIMEOUT: Final = 3
"""Seconds that the vendor waits for the first word if nobody says how long."""
LONGEST_TIMEOUT: Final = 50


def _own(endpoint: LlmEndpoint) -> Mapping[str, Any]:
    return {"APIUrl": endpoint.url, "APIKey": endpoint.key}


def _defaults(endpoint: LlmEndpoint) -> Mapping[str, Any]:
    timeout = min(LONGEST_TIMEOUT, max(TIMEOUT, endpoint.patience_s))
    return {"Model": endpoint.model, "Streaming": True, "Timeout": timeout}


def _read(headers: Mapping[str, str], _body: Mapping[str, Any]) -> Asked:
    return Asked(
        handle=read_id(headers, "x-task-id"),
        round=read_id(headers, "x-request-id"),
        room_id=read_id(headers, "x-room-id"),
        user_id=read_id(headers, "x-user-id"),
    )


FORM: Final = LlmForm(
    block=("LLMConfig",),
    required=MappingProxyType({"LLMType": "openai"}),
    own=_own,
    defaults=_defaults,
    read=_read,
)
