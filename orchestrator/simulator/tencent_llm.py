"""Tencent's LLM of type openai: what `LLMConfig` says of it, and the request that it gets.

Sources: 68338 (large language model configuration) and the field lists of the vendor's SDK. The
page says that MetaInfo stands in the body, not under which name: it keeps its own here. X-User-Id
is the user's, by the same words that name the room's.
"""

from typing import Any

from orchestrator.simulator.questions import (
    Question,
    Request,
    customer_messages,
    given,
    has_url,
    make_request,
    message,
    newest,
    spoken,
)
from orchestrator.simulator.wire import Fields, parse_object
from orchestrator.simulator.world import Agent

TIMEOUT_S = 3
HISTORY = 0

_OPTIONAL = {
    "Temperature": "temperature",
    "TopP": "top_p",
    "MaxTokens": "max_tokens",
    "MetaInfo": "MetaInfo",
}


def own_llm(config: str) -> Fields | None:
    """Return what the string LLMConfig holds, or None if it has no APIUrl."""
    llm = parse_object(config.encode(errors="replace"))
    return llm if llm is not None and has_url(llm, "APIUrl") else None


def write_request(agent: Agent, question: Question) -> Request:
    """Return the request: what it is about stands in its headers, ExtraBody at the top level."""
    llm = agent.llm or {}
    extra, prompt = llm.get("ExtraBody"), llm.get("SystemPrompt")
    body: dict[str, Any] = {
        **(extra if isinstance(extra, dict) else {}),
        "model": llm.get("Model"),
        "messages": [
            *([message("system", str(prompt))] if prompt else []),
            *customer_messages(llm.get("UserMessages")),
            *spoken(newest(agent.exchanges, llm.get("History"), HISTORY)),
            message("user", question.text),
        ],
        "stream": llm.get("Streaming", True) is True,
        **given(llm, _OPTIONAL),
    }
    return make_request(
        url=llm["APIUrl"],
        api_key=llm.get("APIKey"),
        headers={
            "X-Task-Id": agent.handle,
            "X-Request-Id": question.request_id,
            "X-Sdk-App-Id": agent.app_id,
            "X-User-Id": agent.user_id,
            "X-Room-Id": agent.room.key.room_id,
            "X-Room-Id-Type": "1" if agent.room.key.kind == "string" else "0",
        },
        body=body,
        answer_within_s=_timeout_s(llm.get("Timeout")),
    )


def _timeout_s(value: object) -> float:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    return float(value) if fits else TIMEOUT_S  # type: ignore[arg-type]
