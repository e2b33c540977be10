"""ZEGO's custom LLM: what `LLM` and `MessageHistory` say of it, and the request that it gets.

Sources: core_products/aiagent/en/server, configuring-llm and create-agent-instance. How long it
waits is not documented.
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
from orchestrator.simulator.wire import Fields
from orchestrator.simulator.world import Agent

ANSWER_WITHIN_S = 10
WINDOW_SIZE = 20
"""Messages of the past that are sent, if the customer does not say how many."""


def own_llm(llm_of: Fields, history_of: Fields) -> Fields | None:
    """Return the blocks LLM and MessageHistory, each of its body; None if LLM has no Url.

    An instance has the LLM of its template if it brings none of its own.
    """
    llm = llm_of.get("LLM")
    if not has_url(llm, "Url"):
        return None
    history = history_of.get("MessageHistory")
    return {"LLM": llm, "MessageHistory": history if isinstance(history, dict) else {}}


def write_request(agent: Agent, question: Question) -> Request:
    """Return the request: what it is about stands in `agent_info`, Params at the top level."""
    blocks = agent.llm or {}
    llm, history = blocks["LLM"], blocks["MessageHistory"]
    params, prompt = llm.get("Params"), llm.get("SystemPrompt")
    past = [*customer_messages(history.get("Messages")), *spoken(agent.exchanges)]
    body: dict[str, Any] = {
        **(params if isinstance(params, dict) else {}),
        "model": llm.get("Model"),
        "messages": [
            *([message("system", str(prompt))] if prompt else []),
            *newest(past, history.get("WindowSize"), WINDOW_SIZE),
            message("user", question.text),
        ],
        "stream": True,
        "temperature": llm.get("Temperature", 0.7),
        "top_p": llm.get("TopP", 0.9),
        **({"agent_info": _agent_info(agent, question)} if llm.get("AddAgentInfo") is True else {}),
        **given(llm, {"AgentExtraInfo": "agent_extra_info"}),
    }
    return make_request(
        url=llm["Url"],
        api_key=llm.get("ApiKey"),
        headers={},
        body=body,
        answer_within_s=ANSWER_WITHIN_S,
    )


def _agent_info(agent: Agent, question: Question) -> Fields:
    return {
        "room_id": agent.room.key.room_id,
        "agent_instance_id": agent.handle,
        "agent_user_id": agent.agent_user_id,
        "user_id": agent.user_id,
        "round_id": question.round,
        "time_stamp": int(question.at.timestamp() * 1000),
    }
