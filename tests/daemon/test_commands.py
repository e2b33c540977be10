"""What can be said to running agents: each kind at each vendor, in order, and at most once."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.daemon.application import quoted, update_task
from tests.daemon.customers import (
    TENCENT,
    VOLCENGINE,
    VOLCENGINE_FIRST,
    VOLCENGINE_NEXT,
    ZEGO,
    Customer,
)
from tests.daemon.running import Scene, task
from tests.daemon.talk import (
    WALKIE,
    command,
    press,
    release,
    say,
    settled,
    spoken,
    states,
    talk_to,
    verdicts,
)

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Said:
    """A command that a vendor takes, and the vendor's name of its call."""

    customer: Customer
    kind: str
    payload: dict[str, Any]
    action: str


SPEECH = tuple({"Message": "hello", "InterruptMode": mode} for mode in (1, 2, 3))
LATER = {"Command": "ExternalPromptsForLLM", "Message": "it rains"}
FUNCTION = {"Message": {"ToolCallID": "call-1", "Content": "sunny"}}
VOLCENGINE_PAYLOADS: dict[str, tuple[dict[str, Any], ...]] = {
    "interrupt": ({},),
    "say": SPEECH,
    "prompt": (*SPEECH, LATER),
    "function_result": (FUNCTION,),
}
SAID = (
    *(
        Said(customer, kind, payload, "UpdateVoiceChat")
        for customer, kinds in (
            (VOLCENGINE_FIRST, ("interrupt", "function_result")),
            (VOLCENGINE, ("interrupt", "say", "prompt", "function_result")),
            (VOLCENGINE_NEXT, ("interrupt", "say", "prompt", "function_result")),
        )
        for kind in kinds
        for payload in VOLCENGINE_PAYLOADS[kind]
    ),
    Said(
        VOLCENGINE_NEXT, "update", {"Parameters": {"Config": {"InterruptMode": 1}}},
        "UpdateVoiceChat",
    ),
    Said(TENCENT, "say", {"Text": "hello"}, "ControlAIConversation"),
    Said(TENCENT, "prompt", {"Content": "hello"}, "ControlAIConversation"),
    Said(TENCENT, "update", {"WelcomeMessage": "hi"}, "UpdateAIConversation"),
    Said(ZEGO, "interrupt", {}, "InterruptAgentInstance"),
    Said(ZEGO, "say", {"Text": "hello"}, "SendAgentInstanceTTS"),
    Said(ZEGO, "prompt", {"Text": "hello"}, "SendAgentInstanceLLM"),
    Said(ZEGO, "update", {"RTC": {"UserStreamId": "mic"}}, "UpdateAgentInstance"),
)  # fmt: skip
UNSUPPORTED = (
    (VOLCENGINE_FIRST, ("say", "prompt", "update", "start_listening", "stop_listening")),
    (VOLCENGINE, ("update", "start_listening", "stop_listening")),
    (VOLCENGINE_NEXT, ("start_listening", "stop_listening")),
    (TENCENT, ("interrupt", "function_result", "start_listening", "stop_listening")),
    (ZEGO, ("function_result",)),
)
ROUND = frozenset({"InterruptAgentInstance", "SendAgentInstanceTTS", "SendAgentInstanceLLM"})


async def test_every_kind_that_a_vendor_has(scene: Scene) -> None:
    await scene.start_daemon()
    customers = {said.customer for said in SAID}
    await scene.app.write(*(task(one, one.name) for one in customers))
    for customer in customers:
        await scene.wait(customer.name, phase="running")
    for n, said in enumerate(SAID):
        await scene.app.write(say(said.customer.name, f"c{n}", said.kind, said.payload))
    rows = await settled(scene, *(f"c{n}" for n in range(len(SAID))))
    assert [row["state"] for row in rows] == ["done"] * len(SAID)
    for said, row in zip(SAID, rows, strict=True):
        assert row["request_id"], said
        assert ("Round" in str(row["result"])) == (said.action in ROUND), said
        (event,) = await told_of(scene, row["id"])
        assert (event["action"], event["outcome"]) == (said.action, "Done")
        assert event["request_id"] == row["request_id"]
    for action in {said.action for said in SAID}:
        wanted = [said for said in SAID if said.action == action]
        assert [call["code"] for call in await scene.vendors.calls(action)] == [""] * len(wanted)


async def told_of(scene: Scene, id_: str) -> list[Any]:
    """Return the events of a command, oldest first."""
    where = f"command_id = {quoted(id_)}"
    return await scene.app.read(f"SELECT * FROM agent_event WHERE {where} ORDER BY id")  # noqa: S608 - a test's own words


async def test_what_a_vendor_cannot_do(scene: Scene) -> None:
    await scene.start_daemon()
    await scene.app.write(*(task(one, one.name) for one, _ in UNSUPPORTED))
    for customer, kinds in UNSUPPORTED:
        await scene.wait(customer.name, phase="running")
        ids = [f"{kind}-{customer.name}" for kind in kinds]
        await scene.app.write(
            *(command(customer.name, i, k) for i, k in zip(ids, kinds, strict=True))
        )
        assert await verdicts(scene, *ids) == [("failed", "Unsupported")] * len(kinds)
    asked = {call["action"] for call in await scene.vendors.calls()}
    assert not asked & {said.action for said in SAID}


async def test_secrets_in_a_payload_are_resolved(scene: Scene) -> None:
    scene.settings["secrets"] = {"greeting": "fake-secret-greeting"}
    daemon = await scene.start_daemon()
    await talk_to(scene, "call", ZEGO)
    await scene.app.write(say("call", "c", "say", {"Text": {"$secret": "greeting"}}))
    assert await states(scene, "c") == ["done"]
    assert "fake-secret-greeting" not in str(await spoken(scene, "c"))
    assert "fake-secret-greeting" not in daemon.log()


# --- once, or again


ONCE = tuple(said for said in SAID if said.kind in {"say", "prompt", "function_result"})
AGAIN = tuple(said for said in SAID if said.kind in {"interrupt", "update"})


@pytest.mark.parametrize("fault", ["lose_request", "lose_reply", "hang", "http_500"])
async def test_what_may_have_been_said_is_not_said_twice(scene: Scene, fault: str) -> None:
    said = {one.action: one for one in ONCE}.values()
    await scene.start_daemon()
    await scene.app.write(*(task(one.customer, f"call-{one.action}") for one in said))
    for one in said:
        await scene.wait(f"call-{one.action}", phase="running")
        await scene.vendors.script(one.action, fault)
        await scene.app.write(say(f"call-{one.action}", one.action, one.kind, one.payload))
    assert await verdicts(scene, *(one.action for one in said)) == [
        ("failed", "OutcomeUnknown")
    ] * len(said)
    for one in said:
        await scene.app.write(say(f"call-{one.action}", f"{one.action}-2", one.kind, one.payload))
        assert await states(scene, f"{one.action}-2") == ["done"]
        assert len(await scene.vendors.calls(one.action)) == 2


async def test_what_was_said_by_a_daemon_that_was_killed(scene: Scene) -> None:
    scene.settings["lanes"] = {"command_ttl_ms": 60_000}
    daemon = await scene.start_daemon()
    await talk_to(scene, "call", ZEGO)
    await scene.vendors.script("SendAgentInstanceTTS", "hang")
    await scene.app.write(
        say("call", "a", "say", {"Text": "hi"}), command("call", "b", "interrupt")
    )
    await scene.wait_for_faults()
    await daemon.kill()
    await scene.start_daemon("again")
    assert await verdicts(scene, "a", "b") == [("failed", "OutcomeUnknown"), ("done", None)]
    assert len(await scene.vendors.calls("SendAgentInstanceTTS")) == 1


async def test_what_may_be_repeated_is_repeated(scene: Scene) -> None:
    await scene.start_daemon()
    for customer in {one.customer for one in AGAIN}:
        await scene.ask_for(customer, customer.name)
        await scene.wait(customer.name, phase="running")
    for one in AGAIN:
        for fault in ("lose_request", "lose_reply"):
            await scene.vendors.script(one.action, fault)
        id_ = f"{one.customer.name}-{one.kind}"
        await scene.app.write(say(one.customer.name, id_, one.kind, one.payload))
        assert await states(scene, id_) == ["done"]


async def test_a_refusal_is_told_in_the_vendors_words(scene: Scene) -> None:
    await scene.start_daemon()
    await talk_to(scene, "call", ZEGO)
    await scene.vendors.script("SendAgentInstanceTTS", "code", code="410001007")
    await scene.app.write(say("call", "c", "say", {"Text": "hi"}))
    (row,) = await settled(scene, "c")
    assert (row["state"], row["reason"], row["message"]) == ("failed", "410001007", "scripted")
    assert row["request_id"]


async def test_one_too_many_is_said_a_little_later(scene: Scene) -> None:
    await scene.start_daemon()
    await talk_to(scene, "call", ZEGO)
    await scene.vendors.script("SendAgentInstanceTTS", "throttle")
    await scene.app.write(say("call", "c", "say", {"Text": "hi"}))
    assert await states(scene, "c") == ["done"]
    outcomes = [event["outcome"] for event in await told_of(scene, "c")]
    assert outcomes == ["Throttled", "Done"]


# --- order


async def test_they_leave_in_the_order_of_their_insertion(scene: Scene) -> None:
    await scene.start_daemon()
    await talk_to(scene, "call", ZEGO)
    await scene.vendors.script("SendAgentInstanceTTS", "throttle")
    ids = [f"c{n}" for n in (3, 1, 4, 2, 5)]
    await scene.app.write(
        *(say("call", i, k, {"Text": i}) for i, k in zip(ids, ["say", "prompt"] * 3, strict=False))
    )
    rows = await settled(scene, *ids)
    assert [row["state"] for row in rows] == ["done"] * 5
    events = await scene.app.read(
        "SELECT command_id FROM agent_event WHERE outcome = 'Done' AND command_id IS NOT NULL"
        " ORDER BY id"
    )
    assert [event["command_id"] for event in events] == ids
    rounds = [row["result"] for row in rows]
    assert rounds == sorted(rounds)
    assert len(set(rounds)) == len(ids)


async def test_speech_waits_for_the_button_and_the_button_for_nothing(scene: Scene) -> None:
    await scene.start_daemon()
    await talk_to(scene, "call", WALKIE)
    await scene.app.write(press("call", "p", 1))
    assert await states(scene, "p") == ["done"]
    later = scene.app.in_seconds(60)
    await scene.app.write(say("call", "waits", "say", {"Text": "hi"}, expires_at=later))
    await scene.wait_for_calls("SendAgentInstanceTTS", 1)
    await scene.app.write(release("call", "r", 2))
    assert await states(scene, "r", "waits") == ["done", "done"]


# --- the agent


async def test_a_command_waits_for_its_agent_and_no_longer_than_it_may(scene: Scene) -> None:
    await scene.start_daemon()
    await scene.app.write(
        task(TENCENT, "soon"), say("soon", "greets", "say", {"Text": "hi"}),
        task(TENCENT, "late", start_at=scene.app.in_seconds(3600)),
        say("late", "too-old", "say", {"Text": "hi"}, expires_at=scene.app.in_seconds(1)),
    )  # fmt: skip
    assert await verdicts(scene, "greets", "too-old") == [("done", None), ("expired", "Expired")]


async def test_a_command_to_a_task_that_ended(scene: Scene) -> None:
    await scene.start_daemon()
    await talk_to(scene, "call", TENCENT)
    await scene.app.write(update_task("call", desired_state="'stopped'"))
    await scene.wait("call", phase="stopped")
    await scene.app.write(say("call", "late", "say", {"Text": "hi"}))
    assert await verdicts(scene, "late") == [("failed", "TaskEnded")]
    assert await scene.vendors.calls("ControlAIConversation") == []
