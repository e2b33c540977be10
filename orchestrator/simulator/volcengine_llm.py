"""Volcengine's CustomLLM: what `Config.LLMConfig` says of it, and the request that it gets.

Sources: docs/6348/1399966 (CustomLLM integration), 1404671 (UpdateParameters), the CustomLLM
callback of the vendor's API reference. Of defaults, only HistoryLength's is certain: the others are
those of the vendor's own models. `round_id` is a number, as RoundID is in the vendor's callbacks.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.simulator.questions import (
    Question,
    Request,
    Unheard,
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

ANSWER_WITHIN_S = 10
HISTORY_LENGTH = 3

_OPTIONAL = {"ModelName": "model", "Tools": "tools"}
_UPDATABLE = ("SystemMessages", "UserPrompts", "Tools", "VisionConfig")


def own_llm(config: Fields) -> Fields | None:
    """Return LLMConfig if it is of Mode CustomLLM and has a Url, else None."""
    llm = config.get("LLMConfig")
    if not isinstance(llm, dict) or llm.get("Mode") != "CustomLLM":
        return None
    return llm if has_url(llm, "Url") else None


def updated_llm(llm: Fields | None, update: Fields) -> Fields | None:
    """Return the LLMConfig after an UpdateVoiceChat: UpdateParameters changes some fields."""
    if llm is None or str(update["Command"]).lower() != "updateparameters":
        return llm
    config = update["Parameters"]["Config"].get("LLMConfig")
    changes = config if isinstance(config, dict) else {}
    return {**llm, **{name: changes[name] for name in _UPDATABLE if name in changes}}


def require_reachable(llm: Fields) -> None:
    """Refuse to ask a plain http Url, unless Feature is a string that allows it.

    Raises:
        Unheard: it does not.
    """
    feature, url = llm.get("Feature"), str(llm.get("Url"))
    allows = isinstance(feature, str) and _object(feature).get("Http") is True
    if url.startswith("http://") and not allows:
        raise Unheard('LLMConfig.Url is plain http, and Feature does not hold {"Http": true}')


def write_request(agent: Agent, question: Question) -> Request:
    """Return the request: the customer's own keys at the top level, the vendor's before them."""
    llm = agent.llm or {}
    history = newest(agent.exchanges, llm.get("HistoryLength"), HISTORY_LENGTH)
    system = llm.get("SystemMessages")
    body: dict[str, Any] = {
        **_object(llm.get("Custom")),
        "messages": [
            *(
                message("system", str(text))
                for text in (system if isinstance(system, list) else [])
            ),
            *customer_messages(llm.get("UserPrompts")),
            *spoken(history),
            message("user", question.text),
        ],
        "stream": True,
        "temperature": llm.get("Temperature", 0.1),
        "top_p": llm.get("TopP", 0.3),
        "max_tokens": llm.get("MaxTokens", 1024),
        **given(llm, _OPTIONAL),
        **({"round_id": question.round} if llm.get("EnableRoundId") is True else {}),
    }
    return make_request(
        url=llm["Url"],
        api_key=llm.get("APIKey"),
        headers=_object(llm.get("ExtraHeader")),
        body=body,
        answer_within_s=ANSWER_WITHIN_S,
    )


def _object(value: object) -> Mapping[str, Any]:
    """Return an object, which the customer may have written as a string that holds one."""
    if isinstance(value, str):
        return parse_object(value.encode(errors="replace")) or {}
    return value if isinstance(value, dict) else {}
