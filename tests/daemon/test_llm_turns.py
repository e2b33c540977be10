"""The straight way of a turn: asked, relayed, written down; each vendor in its own form."""

import anyio
import pytest

from tests.daemon.customers import CUSTOMERS, TENCENT, VOLCENGINE, ZEGO
from tests.daemon.llm import MODEL_KEY, TEXT, Exchange, Gate, said
from tests.daemon.running import until

pytestmark = pytest.mark.anyio


async def test_each_vendor_s_agent_is_answered_and_its_turn_is_written(gate: Gate) -> None:
    await gate.scene.start_daemon()
    for customer in CUSTOMERS:
        id_ = customer.name
        agent = await gate.start_agent(customer, id_)
        heard = await agent.ask(said("Hi", model="main", temperature=0.5))
        assert (heard.status, heard.content_type) == (200, "text/event-stream")
        assert heard.text == TEXT
        asked = gate.model.asked[-1]
        assert asked.headers["authorization"] == f"Bearer {MODEL_KEY}"
        assert asked.fields["messages"] == [{"role": "user", "content": "Hi"}]
        assert asked.fields["stream_options"] == {"include_usage": True}
        (turn,) = await gate.wait_for_turns(id_, 1)
        assert (turn["outcome"], turn["reason"], turn["upstream"]) == ("answered", None, "main")
        assert (turn["prompt_tokens"], turn["completion_tokens"]) == (7, 3)
        assert (turn["account"], turn["incarnation"]) == (customer.name, 1)
        assert turn["first_token_ms"] <= turn["total_ms"]
        assert (turn["user_text"], turn["agent_text"]) == (None, None)


async def test_the_first_request_confirms_that_the_agent_lives(gate: Gate) -> None:
    gate.scene.account(ZEGO)["poll_s"] = 3_600  # which would confirm it as well
    await gate.scene.start_daemon()
    agent = await gate.start_agent(ZEGO, "call")
    assert (await gate.scene.status("call"))["confirmed_at"] is None
    await agent.ask()

    async def look() -> bool | None:
        return (await gate.scene.status("call"))["confirmed_at"] is not None or None

    async def awaited() -> str:
        return await gate.scene.describe("call")

    await until(look, awaited)


async def test_words_are_passed_on_as_they_come(gate: Gate) -> None:
    """The second word is said when the first has arrived: who gathers would wait for ever."""
    has_arrived = anyio.Event()

    async def say_and_wait(one: Exchange) -> None:
        await one.begin()
        await one.say("First.")
        await has_arrived.wait()
        await one.say("Second.")
        await one.finish()

    await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    gate.model.script = say_and_wait
    async with agent.post(said("Hi")) as response:
        got = b""
        while b"First." not in got:
            got += await response.content.readany()
        has_arrived.set()
        got += await response.content.read()
    assert b"Second." in got
    assert got.endswith(b"data: [DONE]\n\n")


async def test_who_does_not_stream_gets_one_whole_answer(gate: Gate) -> None:
    await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    heard = await agent.ask({"messages": [{"role": "user", "content": "Hi"}]})
    assert (heard.content_type, heard.text) == ("application/json", TEXT)


async def test_a_vendor_s_own_fields_are_passed_on_only_where_that_is_asked_for(
    gate: Gate,
) -> None:
    own = {"round_id": "r1", "device_id": "d1"}
    gate.scene.settings["llm_upstreams"]["main"] |= {
        "model": "real-model",
        "pass_fields": ["device_id"],
        "pass_headers": ["X-Task-Id"],
        "headers": {"X-Team": "voice"},
    }
    await gate.scene.start_daemon()
    agent = await gate.start_agent(VOLCENGINE, "call")
    headers = {"X-Task-Id": "t1", "X-Room-Id": "elsewhere"}
    await agent.ask(said("Hi", model="main", **own), headers)
    asked = gate.model.asked[-1]
    assert asked.fields["model"] == "real-model"
    assert (asked.fields["device_id"], "round_id" in asked.fields) == ("d1", False)
    assert (asked.headers["x-task-id"], asked.headers["x-team"]) == ("t1", "voice")
    assert "x-room-id" not in asked.headers
    (turn,) = await gate.wait_for_turns("call", 1)
    assert (turn["round"], turn["try"]) == ("r1", 1)


async def test_what_was_said_is_kept_only_where_that_is_asked_for(gate: Gate) -> None:
    gate.scene.settings["llm_gateway"]["keep_text"] = True
    daemon = await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    await agent.ask(said("Where is my parcel?"))
    (turn,) = await gate.wait_for_turns("call", 1)
    assert (turn["user_text"], turn["agent_text"]) == ("Where is my parcel?", TEXT)
    assert "parcel" not in daemon.log()
