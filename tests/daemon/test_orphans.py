"""What people insert into `orphan_task`: stopped with evidence, or said why not."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from tests.daemon.application import insert, quoted, update
from tests.daemon.customers import (
    TENCENT,
    VOLCENGINE,
    VOLCENGINE_FIRST,
    VOLCENGINE_NEXT,
    ZEGO,
    Customer,
)
from tests.daemon.orphanage import (
    FORGET,
    calls_about,
    describe,
    events,
    is_live,
    orphans,
    report,
    start_stranger,
    wait_ended,
    wait_orphan,
)
from tests.daemon.running import GIVEN, Scene, until

pytestmark = pytest.mark.anyio


BILLED = {
    VOLCENGINE: ("vendor_task_id", "room_id"),
    VOLCENGINE_NEXT: ("vendor_task_id", "room_id"),
    TENCENT: ("vendor_task_id",),
    ZEGO: ("vendor_task_id",),
}
"""What must be known of an agent to stop it."""


async def test_a_task_id_on_a_bill_is_stopped(scene: Scene) -> None:
    await scene.start_daemon()
    for customer, columns in BILLED.items():
        agent = await start_stranger(scene, customer, f"billed-{customer.name}")
        known = {name: (agent | {"vendor_task_id": agent["handle"]})[name] for name in columns}
        await report(scene, customer, f"o-{customer.name}", **known)
    for customer in BILLED:
        row = await wait_orphan(scene, id=f"o-{customer.name}", phase="stopped")
        assert (row["action"], row["source"], bool(row["ours"])) == ("stop", "operator", False)
        assert (row["stopped_at"], row["request_id"], row["reason"]) == (GIVEN, GIVEN, None)
        history = await events(scene, row["id"])
        assert {"orphan", "wish", "call"} <= {event["event"] for event in history}
        assert customer.stop in {event["action"] for event in history}
        assert {event["task_id"] for event in history} == {None}
    assert await scene.vendors.live() == []
    assert await scene.app.read("SELECT task_id FROM agent_status") == []
    open_rows = "SELECT id FROM vendor_agent WHERE ended_at IS NULL"
    assert await scene.app.read(open_rows) == []


async def test_an_agent_at_zego_may_be_named_by_its_place(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    await scene.start_daemon()
    agent = await start_stranger(scene, ZEGO, "seen-in-a-room")
    place = {"room_id": agent["room_id"], "agent_user_id": agent["agent_user_id"]}
    await report(scene, ZEGO, "o1", **place)
    await wait_ended(scene, agent)
    await wait_orphan(scene, id="o1", phase="stopped")


LACKING: list[tuple[Customer, dict[str, str], str]] = [
    (VOLCENGINE, {"vendor_task_id": "T"}, "room_id"),
    (VOLCENGINE, {"room_id": "r"}, "vendor_task_id"),
    (VOLCENGINE_NEXT, {}, "room_id and vendor_task_id"),
    (VOLCENGINE_FIRST, {"vendor_task_id": "T"}, "room_id and user_id"),
    (VOLCENGINE_FIRST, {"vendor_task_id": "T2", "room_id": "r"}, "user_id"),
    (TENCENT, {"room_id": "r", "user_id": "u", "agent_user_id": "a"}, "vendor_task_id"),
    (TENCENT, {"vendor_task_id": ""}, "vendor_task_id"),
    (ZEGO, {"room_id": "r", "user_id": "u"}, "vendor_task_id"),
    (ZEGO, {"agent_user_id": "a"}, "vendor_task_id"),
]


async def test_what_is_too_little_to_stop_it_is_said(scene: Scene) -> None:
    await scene.start_daemon()
    for number, (customer, columns, _) in enumerate(LACKING):
        await report(scene, customer, f"o{number}", **columns)
    for number, (_, _, lacking) in enumerate(LACKING):
        row = await wait_orphan(scene, id=f"o{number}", phase="ignored")
        assert row["reason"] == f"Incomplete: to stop it, {lacking} must be given"
        assert row["stopped_at"] is None
    assert await scene.vendors.calls() == []
    assert await scene.app.read("SELECT task_id FROM agent_status") == []
    assert await scene.app.read("SELECT task_id FROM task_change") == []
    assert await scene.app.read("SELECT id FROM vendor_agent") == []


async def test_an_account_that_nobody_has_is_said_and_waited_for(scene: Scene) -> None:
    table = scene.settings["accounts"].pop(TENCENT.name)
    agent = await start_stranger(scene, TENCENT, "later")
    daemon = await scene.start_daemon()
    await report(scene, TENCENT, "o1", vendor_task_id=agent["handle"])
    row = await wait_orphan(scene, id="o1", reason=GIVEN)
    assert row["reason"].startswith("UnknownAccount: ")
    assert row["phase"] == "seen"
    assert await daemon.stop() == 0
    scene.settings["accounts"][TENCENT.name] = table
    await scene.start_daemon("two")
    row = await wait_orphan(scene, id="o1", phase="stopped")
    assert row["reason"] is None
    assert not await is_live(scene, agent)


async def test_the_agent_of_a_task_is_no_orphan(scene: Scene) -> None:
    await scene.start_daemon()
    pairs = {}
    for customer in (VOLCENGINE, VOLCENGINE_FIRST, TENCENT, ZEGO):
        id_ = await scene.ask_for(customer, f"t-{customer.name}")
        await scene.wait(id_, phase="running")
        (agent,) = await scene.vendors.live(account=customer.name)
        known = {"vendor_task_id": agent["handle"], "room_id": agent["room_id"]}
        if customer is VOLCENGINE_FIRST:
            # Its stop goes by room and user, and would hit the task's whatever else is said.
            known |= {"user_id": "human", "vendor_task_id": "another"}
        pairs[customer] = await report(scene, customer, f"o-{customer.name}", **known)
    for customer, orphan_id in pairs.items():
        row = await wait_orphan(scene, id=orphan_id, phase="ignored")
        assert row["reason"] == f"HasTask: it is the agent of task t-{customer.name}; stop that"
    assert len(await scene.vendors.live()) == len(pairs)


async def test_one_agent_is_stopped_once_however_often_it_is_inserted(scene: Scene) -> None:
    await scene.start_daemon()
    agent = await start_stranger(scene, ZEGO, "twice")
    await scene.vendors.script("DeleteAgentInstance", "hang", n=2)
    await report(scene, ZEGO, "o1", vendor_task_id=agent["handle"])
    await wait_orphan(scene, id="o1", phase="stopping")
    await report(scene, ZEGO, "o2", vendor_task_id=agent["handle"])
    assert (await wait_orphan(scene, id="o2", phase="ignored"))["reason"] == "SameAs: o1"
    await wait_orphan(scene, id="o1", phase="stopped")
    stops = [datetime.fromisoformat(one["at"]) for one in await calls_about(scene, agent)]
    assert len(stops) >= 3
    # A stop that hangs is given up after `call_timeout_ms`, and no other leaves before that.
    hung = pairwise(sorted(stops)[:3])
    assert all(later - earlier >= timedelta(seconds=1.9) for earlier, later in hung)


async def test_a_stuck_orphan_holds_up_no_other(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    scene.settings["leases"]["ttl_s"] = 15
    scene.account(TENCENT)["call_timeout_ms"] = 8_000
    await scene.start_daemon()
    names = ("stuck", "second", "third")
    agents = {name: await start_stranger(scene, TENCENT, name) for name in names}
    await scene.vendors.script("StopAIConversation", "hang")
    await report(scene, TENCENT, "stuck", vendor_task_id=agents["stuck"]["handle"])
    await scene.wait_for_faults()
    for name in names[1:]:
        await report(scene, TENCENT, name, vendor_task_id=agents[name]["handle"])
    for name in names[1:]:
        await wait_orphan(scene, id=name, phase="stopped")
    assert await orphans(scene, id="stuck", phase="stopping")
    assert (await scene.status("~stuck"))["intent"] == "stop"
    await wait_orphan(scene, id="stuck", phase="stopped")


async def test_a_paused_account_stops_them_and_a_frozen_one_does_not(scene: Scene) -> None:
    await scene.start_daemon()
    agents = {one: await start_stranger(scene, one, f"held-{one.name}") for one in (TENCENT, ZEGO)}
    await scene.app.write(
        update("account_control", f"account = {quoted(TENCENT.name)}", paused="true"),
        update("account_control", f"account = {quoted(ZEGO.name)}", frozen="true"),
    )
    for customer, agent in agents.items():
        await report(scene, customer, f"o-{customer.name}", vendor_task_id=agent["handle"])
    await wait_orphan(scene, id="o-tencent", phase="stopped")
    await scene.wait("~o-zego", waiting_for="frozen")
    assert await calls_about(scene, agents[ZEGO]) == []
    await scene.app.write(update("account_control", "true", frozen="false"))
    await wait_orphan(scene, id="o-zego", phase="stopped")


async def test_a_person_s_word_is_taken(scene: Scene) -> None:
    await scene.start_daemon()
    await scene.app.write(update("account_control", "true", frozen="true"))
    await report(scene, ZEGO, "o1", vendor_task_id="long-gone")
    await scene.wait("~o1", waiting_for="frozen")
    await scene.app.write(insert("task_change", task_id="'~o1'", what="'assume_gone'"))
    await wait_orphan(scene, id="o1", phase="stopped", stopped_at=GIVEN)
    ledger = await scene.app.read("SELECT orphan_id, evidence FROM vendor_agent")
    assert [tuple(row.values()) for row in ledger] == [("o1", "assumed")]
    assert await scene.vendors.calls() == []


async def test_orphans_outlive_their_daemon(scene: Scene) -> None:
    daemon = await scene.start_daemon()
    agent = await start_stranger(scene, TENCENT, "killed")
    await scene.vendors.script("StopAIConversation", "hang")
    await report(scene, TENCENT, "o1", vendor_task_id=agent["handle"])
    await scene.wait("~o1", intent="stop")
    await daemon.kill()
    await scene.start_daemon("two")
    await wait_orphan(scene, id="o1", phase="stopped")
    assert not await is_live(scene, agent)


async def test_after_a_restore_the_first_generation_is_stopped_by_room_and_user(
    scene: Scene,
) -> None:
    daemon = await scene.start_daemon()
    await scene.ask_for(VOLCENGINE_FIRST, "t1")
    await scene.wait("t1", phase="running")
    (agent,) = await scene.vendors.live()
    assert await daemon.stop() == 0
    await scene.app.write(*FORGET)
    await scene.start_daemon("two")
    place = {"room_id": agent["room_id"], "user_id": agent["user_id"]}
    await report(scene, VOLCENGINE_FIRST, "o1", **place)
    await wait_ended(scene, agent)
    await wait_orphan(scene, id="o1", phase="stopped")


async def test_what_is_taken_back_before_anybody_saw_it_is_not_stopped(scene: Scene) -> None:
    agent = await start_stranger(scene, TENCENT, "mistaken")
    await report(scene, TENCENT, "o1", vendor_task_id=agent["handle"])
    await scene.app.write("DELETE FROM orphan_task")
    await scene.start_daemon()
    other = await start_stranger(scene, TENCENT, "other")
    await report(scene, TENCENT, "o2", vendor_task_id=other["handle"])
    await wait_orphan(scene, id="o2", phase="stopped")
    assert await calls_about(scene, agent) == []


async def test_no_orphan_is_left_behind_by_a_hundred(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    await scene.start_daemon()
    for number in range(100):
        await report(scene, TENCENT, f"o{number}", vendor_task_id=f"unknown-{number}")

    async def look() -> bool | None:
        return True if len(await orphans(scene, phase="stopped")) == 100 else None

    await until(look, lambda: describe(scene, "phase stopped, each of 100"))
