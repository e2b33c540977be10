"""A changed spec of an agent that runs: brought about in place, or by another agent.

Which of the two, and why, is told by the events.
"""

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
from tests.daemon.running import GIVEN, Scene, as_json
from tests.daemon.talk import talk_to
from tests.daemon.vendors import doubled

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Edit:
    """A change of a spec, and the call that brings it about; null: another agent must."""

    name: str
    customer: Customer
    before: dict[str, Any]
    after: dict[str, Any]
    action: str | None

    def spec(self, changes: dict[str, Any]) -> str:
        return as_json({**self.customer.spec, **changes})


def voice(name: str) -> dict[str, Any]:
    return {"TTSConfig": {**TENCENT.spec["TTSConfig"], "VoiceId": name}}


def told_to(words: str) -> dict[str, Any]:
    config = VOLCENGINE_NEXT.spec["Config"]
    return {"Config": {**config, "LLMConfig": {**config["LLMConfig"], "SystemMessages": [words]}}}


def spoken_by(vendor: str) -> dict[str, Any]:
    return {"TTS": {"Vendor": vendor, "Params": {"app": {"api_key": "fake"}}}}


def idle_for(seconds: int) -> dict[str, Any]:
    return {"AgentConfig": {"MaxIdleTime": seconds}}


def heard_on(stream: str) -> dict[str, Any]:
    return {"RTC": {"UserStreamId": stream}}


IN_PLACE = (
    Edit("stream", ZEGO, heard_on("first"), heard_on("second"), "UpdateAgentInstance"),
    Edit("voice", TENCENT, voice("first"), voice("second"), "UpdateAIConversation"),
    Edit("words", VOLCENGINE_NEXT, told_to("be kind"), told_to("be brief"), "UpdateVoiceChat"),
)
ANEW = (
    Edit("agent", ZEGO, {}, {"AgentId": "another"}, None),
    Edit("engine", TENCENT, {}, {"TTSConfig": {"TTSType": "minimax", "VoiceId": "fake"}}, None),
    # What no update reaches, by the vendors' own words.
    Edit("speech", ZEGO, spoken_by("MiniMax"), spoken_by("CosyVoice"), None),
    Edit("idle", TENCENT, idle_for(30), idle_for(60), None),
    Edit("first", VOLCENGINE_FIRST, told_to("be kind"), told_to("be brief"), None),
    Edit("second", VOLCENGINE, told_to("be kind"), told_to("be brief"), None),
)


async def edited(scene: Scene, edit: Edit) -> None:
    """Insert a task, wait until its agent runs, and change its spec."""
    await scene.ask_for(edit.customer, edit.name, spec=edit.spec(edit.before))
    await scene.wait(edit.name, phase="running")
    await scene.app.write(update_task(edit.name, spec=edit.spec(edit.after)))


async def history(scene: Scene, id_: str, event: str) -> list[Any]:
    """Return a task's events of one name, oldest first."""
    where = f"task_id = {quoted(id_)} AND event = {quoted(event)}"
    return await scene.app.read(f"SELECT * FROM agent_event WHERE {where} ORDER BY id")  # noqa: S608 - a test's own words


async def test_a_change_that_the_vendor_takes_in_place(scene: Scene) -> None:
    await scene.start_daemon()
    for edit in IN_PLACE:
        await edited(scene, edit)
    for edit in IN_PLACE:
        await scene.wait(
            edit.name, phase="running", observed_generation=2, incarnation=1, update_due=False
        )
        calls = [call for call in await scene.calls(edit.name) if call["action"] == edit.action]
        assert [(call["outcome"], call["incarnation"]) for call in calls] == [("Done", 1)]
        assert calls[0]["request_id"]
        assert len(await scene.vendors.calls(edit.action)) == 1
    assert len(await scene.vendors.agents()) == len(await scene.vendors.live()) == len(IN_PLACE)


async def test_a_change_that_asks_for_another_agent(scene: Scene) -> None:
    await scene.start_daemon()
    for edit in ANEW:
        await edited(scene, edit)
    for edit in ANEW:
        await scene.wait(edit.name, phase="running", incarnation=2)
        ledger = await scene.ledger(edit.name)
        assert [agent["ended_at"] for agent in ledger] == [GIVEN, None]
        wishes = [event["action"] for event in await history(scene, edit.name, "wish")]
        assert wishes == ["insert", "spec"]
        turns = {event["phase_after"]: event for event in await history(scene, edit.name, "phase")}
        assert turns["stopping"]["message"] == "superseded"
    agents = await scene.vendors.agents()
    assert len(agents) == 2 * len(ANEW)
    assert doubled(agents) == []


async def test_a_change_that_the_vendor_refuses(scene: Scene) -> None:
    codes = {ZEGO: "410001004", TENCENT: "InvalidParameterValue.Fake"}
    await scene.start_daemon()
    for edit in IN_PLACE[:2]:
        assert edit.action is not None
        await scene.vendors.script(edit.action, "code", code=codes[edit.customer])
        await edited(scene, edit)
        await scene.wait(edit.name, phase="running", incarnation=2)
        refused = [call for call in await scene.calls(edit.name) if call["outcome"] == "Refused"]
        assert [(c["action"], c["code"]) for c in refused] == [(edit.action, codes[edit.customer])]
    assert doubled(await scene.vendors.agents()) == []


@pytest.mark.parametrize("fault", ["lose_request", "lose_reply", "throttle"])
async def test_a_change_that_may_have_been_lost_is_made_again(scene: Scene, fault: str) -> None:
    await scene.start_daemon()
    for edit in IN_PLACE:
        assert edit.action is not None
        await scene.vendors.script(edit.action, fault)
        await edited(scene, edit)
    for edit in IN_PLACE:
        await scene.wait(edit.name, phase="running", incarnation=1, update_due=False, intent=None)
        outcomes = [
            call["outcome"]
            for call in await scene.calls(edit.name)
            if call["action"] == edit.action
        ]
        assert outcomes == [GIVEN, "Done"]
    assert len(await scene.vendors.agents()) == len(IN_PLACE)


async def test_the_last_of_several_changes_holds(scene: Scene) -> None:
    edit = IN_PLACE[0]
    await scene.start_daemon()
    await scene.vendors.script("UpdateAgentInstance", "delay_reply", ms=500)
    await edited(scene, edit)
    await scene.wait_for_faults()
    await scene.app.write(update_task(edit.name, spec=edit.spec(heard_on("third"))))
    await scene.wait(
        edit.name, generation=3, observed_generation=3, update_due=False, intent=None, incarnation=1
    )
    assert len(await scene.vendors.calls("UpdateAgentInstance")) == 2


async def test_a_value_written_again_changes_nothing(scene: Scene) -> None:
    await scene.start_daemon()
    await talk_to(scene, "same", ZEGO)
    await scene.app.write(update_task("same", spec=as_json(ZEGO.spec)))
    other = await talk_to(scene, "other", ZEGO)
    row = await scene.status("same")
    assert (row["incarnation"], row["generation"], row["phase"]) == (1, 1, "running")
    assert await scene.vendors.calls("UpdateAgentInstance") == []
    assert (await scene.status(other))["incarnation"] == 1
