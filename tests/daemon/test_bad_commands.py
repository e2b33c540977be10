"""What commands can get wrong: what each gets for it, and that its lane goes on as if it never was.

What SQL can see is refused at the insert; the rest is `failed` or `superseded`, with the reason.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from tests.daemon.application import quoted
from tests.daemon.customers import TENCENT, VOLCENGINE, VOLCENGINE_NEXT, ZEGO, Customer
from tests.daemon.running import Scene, task
from tests.daemon.talk import (
    START,
    STOP,
    WALKIE,
    Wire,
    command,
    press,
    release,
    say,
    settled,
    spoken,
    states,
    talk_to,
    verdicts,
    wires,
)

pytestmark = pytest.mark.anyio

REFUSED = (sqlite3.IntegrityError, asyncpg.PostgresError)
"""What the two drivers raise when the database says no."""
SPEAKING = {
    "ControlAIConversation", "InterruptAgentInstance", "SendAgentInstanceLLM",
    "SendAgentInstanceTTS", "UpdateAIConversation", "UpdateAgentInstance", "UpdateVoiceChat",
}  # fmt: skip
LONG_MS = 60_000


async def listening(scene: Scene) -> None:
    """Start a daemon and an agent that listens; nobody is waited for in vain."""
    scene.settings["lanes"] = {"gap_timeout_ms": LONG_MS, "command_ttl_ms": LONG_MS}
    await scene.start_daemon()
    await talk_to(scene, "call")


async def assert_goes_on(scene: Scene, first: int, *before: Wire) -> None:
    """A press and a release from `first` on are all that reaches the vendor after `before`."""
    await scene.app.write(press("call", "good-press", first))
    await scene.app.write(release("call", "good-release", first + 1))
    assert await states(scene, "good-press", "good-release") == ["done", "done"]
    assert await wires(scene) == [*before, (START, first), (STOP, first + 1)]


async def assert_refused(scene: Scene, words: str, *statements: str) -> None:
    """The database takes none of these, and says why."""
    with pytest.raises(REFUSED, match=words):
        await scene.app.write(*statements)


async def asked(scene: Scene) -> set[str]:
    """Return the vendors' names of what was said to agents."""
    return SPEAKING & {call["action"] for call in await scene.vendors.calls()}


# --- refused at the insert


async def test_an_unknown_kind(scene: Scene) -> None:
    await listening(scene)
    for kind in ("sing", "", "START_LISTENING"):
        await assert_refused(scene, "agent_command_kind_is_known", command("call", "x", kind))
    await assert_goes_on(scene, 1)


async def test_a_payload_that_is_no_object(scene: Scene) -> None:
    await listening(scene)
    for payload in ("[]", "7", '"hi"', "null"):
        bad = command("call", "x", "interrupt", payload=quoted(payload))
        await assert_refused(scene, "agent_command_payload_is_object", bad)
    no_json = command("call", "x", "interrupt", payload=quoted("{"))
    await assert_refused(scene, "agent_command_payload_is_object|type json", no_json)
    assert await asked(scene) == set()
    await assert_goes_on(scene, 1)


async def test_a_command_for_an_unknown_task(scene: Scene) -> None:
    await listening(scene)
    for kind in ("start_listening", "interrupt"):
        bad = command("nobody", "x", kind)
        await assert_refused(scene, "there is no such agent_task", bad)
    await assert_goes_on(scene, 1)


async def test_a_number_that_is_queued_already(scene: Scene) -> None:
    await listening(scene)
    words = "ix_agent_command_sequence|agent_command.sequence|queued already"
    one, again = press("call", "one", 1), release("call", "again", 1)
    await assert_refused(scene, words, one, again)
    # A user who is named is the one who is not.
    await assert_refused(scene, words, one, press("call", "named", 1, user_id="'human'"))
    await assert_goes_on(scene, 1)


async def test_a_sequence_that_is_not_positive(scene: Scene) -> None:
    await listening(scene)
    negative = press("call", "x", -1)
    await assert_refused(scene, "agent_command_sequence_is_not_negative", negative)
    word = command("call", "x", "start_listening", sequence="'soon'")
    await assert_refused(scene, "agent_command_sequence_is_integer|type bigint", word)
    await scene.app.write(press("call", "zero", 0))
    assert await verdicts(scene, "zero") == [("failed", "InvalidSequence")]
    await assert_goes_on(scene, 1)


# --- settled by the daemon


async def test_a_number_at_or_below_the_last_one_sent(scene: Scene) -> None:
    await listening(scene)
    await scene.app.write(press("call", "c5", 5), release("call", "c6", 6))
    assert await states(scene, "c5", "c6") == ["done", "done"]
    await scene.app.write(press("call", "c4", 4), press("call", "again", 6))
    rows = await settled(scene, "c4", "again")
    assert [(row["state"], row["reason"]) for row in rows] == [("superseded", "Superseded")] * 2
    assert rows[0]["message"] == "sequence 4 is not above 6, where its lane is"
    await assert_goes_on(scene, 7, (START, 5), (STOP, 6))


async def test_a_press_of_the_wrong_shape(scene: Scene) -> None:
    await listening(scene)
    await scene.app.write(
        say("call", "another", "start_listening", {"UserId": "guest"}, sequence="1"),
        say("call", "number", "start_listening", {"Sequence": 9}, sequence="2"),
        press("call", "nobody", 1, user_id="'no user!'"),
    )
    rows = await settled(scene, "another", "number", "nobody")
    assert [(row["state"], row["reason"]) for row in rows] == [("failed", "InvalidPayload")] * 3
    starts = ("payload.UserId: ", "payload.Sequence: ", "user_id: expected 1 to 32 characters")
    assert [r["message"].startswith(s) for r, s in zip(rows, starts, strict=True)] == [True] * 3
    await assert_goes_on(scene, 3)


async def test_a_release_of_the_wrong_shape_leaves_its_place_to_the_next(scene: Scene) -> None:
    await listening(scene)
    await scene.app.write(press("call", "p", 1))
    await scene.app.write(
        say("call", "r", "stop_listening", {"CancelFlag": "yes"}, sequence="2"),
        release("call", "right", 3),
    )
    assert await verdicts(scene, "p", "r", "right") == [
        ("done", None),
        ("failed", "InvalidPayload"),
        ("done", None),
    ]
    await assert_goes_on(scene, 4, (START, 1), (STOP, 3))


@dataclass(frozen=True)
class Asked:
    """A command, and words of the message that it ends with."""

    customer: Customer
    kind: str
    payload: dict[str, Any]
    told: str = ""


WRONG = (
    Asked(ZEGO, "say", {}, "payload.Text"),
    Asked(ZEGO, "say", {"Text": 7}, "payload.Text"),
    Asked(ZEGO, "say", {"Text": "hi", "InterruptMode": 2}, "payload.InterruptMode"),
    Asked(ZEGO, "prompt", {"Text": "hi", "Priority": "Urgent"}, "payload.Priority"),
    Asked(ZEGO, "prompt", {"Text": "hi", "SamePriorityOption": 1}, "payload.SamePriorityOption"),
    Asked(ZEGO, "update", {"RTC": {"UserStreamId": "no stream!"}}, "payload.RTC.UserStreamId"),
    Asked(ZEGO, "update", {"LLM": "fast"}, "payload.LLM"),
    Asked(ZEGO, "update", {"LLM": {"$llm_gateway": "main"}}, "belongs into agent_task.spec"),
    Asked(ZEGO, "interrupt", {"AgentInstanceId": "7"}, "payload.AgentInstanceId"),
    Asked(ZEGO, "say", {"Text": {"$secret": "unknown"}}, "payload.Text"),
    Asked(VOLCENGINE, "say", {"Message": "hi"}, "payload.InterruptMode"),
    Asked(VOLCENGINE, "say", {"Message": "hi", "InterruptMode": 4}, "payload.InterruptMode"),
    Asked(VOLCENGINE, "prompt", {"Message": "hi", "InterruptMode": "1"}, "payload.InterruptMode"),
    Asked(VOLCENGINE, "function_result", {"Message": "no json"}, "payload.Message"),
    Asked(VOLCENGINE_NEXT, "update", {"Parameters": []}, "payload.Parameters"),
    Asked(TENCENT, "say", {"Text": ""}, "payload: expected a Text"),
    Asked(TENCENT, "say", {"Text": "hi", "DropMode": 2}, "payload.DropMode"),
    Asked(TENCENT, "say", {"Text": "hi", "MetaInfo": "no json"}, "payload.MetaInfo"),
    Asked(TENCENT, "prompt", {}, "payload.Content"),
    Asked(TENCENT, "update", {"InterruptMode": 2}, "payload.InterruptMode"),
)
TOO_LONG = (
    Asked(ZEGO, "say", {"Text": "x" * 301}, "at most 300 characters"),
    Asked(VOLCENGINE, "say", {"Message": "x" * 201, "InterruptMode": 1}, "at most 200 characters"),
)
RIGHT = (
    Asked(ZEGO, "say", {"Text": "😀" * 300, "Brand": "new"}),
    Asked(VOLCENGINE, "say", {"Message": "😀" * 200, "InterruptMode": 1, "Brand": "new"}),
    Asked(VOLCENGINE_NEXT, "interrupt", {"Brand": "new"}),
    Asked(TENCENT, "say", {"Text": "x" * 5000}),
)
"""The longest there is, and keys that nobody knows: the vendor may."""


async def speak(scene: Scene, prefix: str, all_of: tuple[Asked, ...]) -> list[Any]:
    """Insert these commands; return them once they are settled."""
    ids = [f"{prefix}{n}" for n in range(len(all_of))]
    await scene.app.write(
        *(say(a.customer.name, i, a.kind, a.payload) for i, a in zip(ids, all_of, strict=True))
    )
    return await settled(scene, *ids)


@pytest.mark.parametrize("wrong", [WRONG, TOO_LONG], ids=["wrong_shape", "too_long"])
async def test_what_the_vendor_would_refuse_is_not_sent(
    scene: Scene, wrong: tuple[Asked, ...]
) -> None:
    await scene.start_daemon()
    customers = {one.customer for one in RIGHT}
    await scene.app.write(*(task(one, one.name) for one in customers))
    for customer in customers:
        await scene.wait(customer.name, phase="running")
    rows = await speak(scene, "wrong", wrong)
    for row, one in zip(rows, wrong, strict=True):
        assert (row["state"], row["reason"]) == ("failed", "InvalidPayload"), one
        assert one.told in row["message"], one
        assert (row["sent_at"], row["request_id"]) == (None, None)
    assert await asked(scene) == set()
    assert [row["state"] for row in await speak(scene, "right", RIGHT)] == ["done"] * len(RIGHT)


async def test_a_wrong_command_fails_before_its_agent_runs(scene: Scene) -> None:
    await scene.start_daemon()
    later = scene.app.in_seconds(3600)
    await scene.app.write(task(TENCENT, "later", start_at=later))
    await scene.app.write(
        press("later", "press", 1, expires_at=later),
        command("later", "none", "interrupt", expires_at=later),
        say("later", "waits", "say", {"Text": "hi"}, expires_at=later),
        say("later", "wrong", "say", {"Text": 7}, expires_at=later),
    )
    assert await verdicts(scene, "press", "none", "wrong") == [
        ("failed", "Unsupported"),
        ("failed", "Unsupported"),
        ("failed", "InvalidPayload"),
    ]
    assert (await spoken(scene, "waits"))["state"] == "queued"
    assert await asked(scene) == set()


async def test_what_only_the_vendor_finds_too_long(scene: Scene) -> None:
    """Where it counts UTF-16 units or bytes, it refuses in its own words."""
    await scene.start_daemon()
    await talk_to(scene, "call", ZEGO)
    await scene.vendors.turn(character="utf16_unit")
    await scene.app.write(say("call", "long", "say", {"Text": "😀" * 151}))
    await scene.app.write(say("call", "short", "say", {"Text": "😀" * 150}))
    assert await verdicts(scene, "long", "short") == [("failed", "410000003"), ("done", None)]


async def test_a_press_where_nobody_can_press(scene: Scene) -> None:
    """Neither the vendor that has no such thing nor the mode that has none opens a microphone."""
    await scene.start_daemon()
    await talk_to(scene, "other-vendor", TENCENT)
    await talk_to(scene, "other-mode", ZEGO)
    await talk_to(scene, "call", WALKIE)
    await scene.app.write(press("other-vendor", "unsupported", 1), press("other-mode", "mode", 1))
    assert await verdicts(scene, "unsupported", "mode") == [
        ("failed", "Unsupported"),
        ("failed", "410001042"),
    ]
    await assert_goes_on(scene, 1, (START, 1))
