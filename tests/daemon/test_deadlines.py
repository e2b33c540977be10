"""What time alone does to a row: deadlines, heartbeats, and an agent that ends by itself."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from tests.daemon.application import delete_task, insert, quoted, update, update_task
from tests.daemon.customers import CUSTOMERS, TENCENT, VOLCENGINE, ZEGO
from tests.daemon.running import GIVEN, Scene, task, until
from tests.daemon.vendors import doubled

pytestmark = pytest.mark.anyio


def as_time(value: Any) -> datetime:
    """Return an instant as either database gives it."""
    if isinstance(value, datetime):
        return value
    return datetime.fromisoformat(value).replace(tzinfo=UTC)


async def test_what_ends_an_agent_without_a_word(scene: Scene) -> None:
    await scene.start_daemon()
    app = scene.app
    await app.write(
        insert("task_owner", name="'silent'", heartbeat_timeout_s="2"),
        insert("task_owner", name="'deleted'", heartbeat_timeout_s="600"),
        task(VOLCENGINE, "deadline", stop_at=app.in_seconds(3)),
        task(TENCENT, "heartbeat", heartbeat_timeout_s="2"),
        task(ZEGO, "owner-silent", owner="'silent'"),
        task(ZEGO, "owner-deleted", owner="'deleted'"),
        task(ZEGO, "kept", heartbeat_timeout_s="600"),
    )
    for id_ in ("deadline", "heartbeat", "owner-silent", "owner-deleted", "kept"):
        await scene.wait(id_, started_at=GIVEN)
    await app.write("DELETE FROM task_owner WHERE name = 'deleted'")
    await scene.wait("deadline", phase="stopped", end_reason="deadline")
    for id_ in ("heartbeat", "owner-silent", "owner-deleted"):
        await scene.wait(id_, phase="stopped", end_reason="heartbeat_lost")
    (kept,) = await scene.vendors.live()
    assert kept["room_id"] == "room-kept"


async def test_a_heartbeat_keeps_an_agent(scene: Scene) -> None:
    await scene.start_daemon()
    await scene.app.write(
        insert("task_owner", name="'alive'", heartbeat_timeout_s="3"),
        task(VOLCENGINE, "beating", heartbeat_timeout_s="3"),
        task(TENCENT, "owned", owner="'alive'"),
        task(ZEGO, "ends-after-them", stop_at=scene.app.in_seconds(6)),
    )
    now = scene.app.in_seconds(0)

    async def beat_until_it_ended() -> bool | None:
        await scene.app.write(
            update_task("beating", heartbeat_at=now),
            update("task_owner", "name = 'alive'", heartbeat_at=now),
        )
        ended = (await scene.status("ends-after-them"))["phase"] == "stopped"
        return True if ended else None

    async def awaited() -> str:
        return await scene.describe("ends-after-them")

    await until(beat_until_it_ended, awaited)
    assert {a["room_id"] for a in await scene.vendors.live()} == {"room-beating", "room-owned"}


async def test_max_duration_ends_whatever_the_row_says(scene: Scene) -> None:
    scene.account(TENCENT)["max_duration_s"] = 2
    await scene.start_daemon()
    await scene.ask_for(TENCENT, "long")
    await scene.wait("long", phase="stopped", end_reason="deadline")


async def test_when_a_start_may_happen(scene: Scene) -> None:
    scene.account(TENCENT)["start_within_s"] = 1
    await scene.start_daemon()
    app = scene.app
    await app.write(update("account_control", "account = 'tencent'", paused="true"))
    await app.write(
        task(VOLCENGINE, "later", start_at=app.in_seconds(3)),
        task(VOLCENGINE, "too-late", start_by=app.in_seconds(-1)),
        task(TENCENT, "not-within"),
    )
    await scene.wait("later", phase="pending", waiting_for="start_at")
    for id_ in ("too-late", "not-within"):
        row = await scene.wait(id_, phase="failed", end_reason="start_failed")
        assert row["reason"] == "StartDeadlineMissed"
        assert await scene.ledger(id_) == []
    row = await scene.wait("later", phase="running")
    (asked,) = await app.read("SELECT start_at FROM agent_task WHERE id = 'later'")
    assert as_time(row["started_at"]) >= as_time(asked["start_at"])

    # A deadline that was moved, on a failed row, asks for another start.
    await app.write(update_task("too-late", start_by=app.in_seconds(600)))
    await scene.wait("too-late", phase="running", incarnation=2, reason=None)


async def test_an_agent_that_the_vendor_ended(scene: Scene) -> None:
    await scene.start_daemon()
    asked = [
        (customer, policy, f"{policy}-{customer.name}")
        for customer in CUSTOMERS
        for policy in ("never", "always")
    ]
    await scene.app.write(
        *(task(customer, id_, restart_policy=quoted(policy)) for customer, policy, id_ in asked)
    )
    for _, _, id_ in asked:
        await scene.wait(id_, phase="running", confirmed_at=GIVEN)
    for agent in await scene.vendors.live():
        await scene.vendors.end(agent, "fault")
    for _, policy, id_ in asked:
        if policy == "never":
            row = await scene.wait(id_, phase="stopped", end_reason="vendor_gone")
            assert row["incarnation"] == 1
        else:
            await scene.wait(id_, phase="running", incarnation=2)
    live = {agent["room_id"] for agent in await scene.vendors.live()}
    assert live == {f"room-{id_}" for _, policy, id_ in asked if policy == "always"}
    assert doubled(await scene.vendors.agents()) == []


async def test_an_outage_of_ours_blames_nobody(scene: Scene) -> None:
    daemon = await scene.start_daemon()
    await scene.ask_for(VOLCENGINE, "silent", heartbeat_timeout_s="4")
    await scene.wait("silent", phase="running")
    await daemon.kill()
    stale = scene.app.in_seconds(-60)
    await scene.app.write(
        update("daemon", "true", heartbeat_at=stale),
        update_task("silent", heartbeat_at=stale),
    )
    again = await scene.start_daemon()
    (row,) = await scene.app.read("SELECT amnesty_at FROM installation")
    ended = await scene.wait("silent", phase="stopped", end_reason="heartbeat_lost")
    assert as_time(ended["phase_since"]) - as_time(row["amnesty_at"]) >= timedelta(seconds=4)
    await scene.app.write(delete_task("silent"))
    await scene.wait_gone("silent")
    assert await again.stop() == 0


# --- deadlines that have passed already, or that nobody set


async def test_what_has_passed_at_the_insert_is_never_started(scene: Scene) -> None:
    await scene.start_daemon()
    ago = scene.app.in_seconds(-1)
    await scene.app.write(
        *(task(one, f"over-{one.name}", stop_at=ago) for one in CUSTOMERS),
        task(TENCENT, "over-before-its-start", stop_at=ago, start_at=scene.app.in_seconds(600)),
        task(TENCENT, "over-in-both-ways", stop_at=ago, start_by=ago),
        task(VOLCENGINE, "too-late", start_by=ago),
        task(ZEGO, "too-late-by-a-day", start_by=scene.app.in_seconds(-86_400)),
        task(ZEGO, "in-time"),
    )
    over = [f"over-{one.name}" for one in CUSTOMERS]
    for id_ in (*over, "over-before-its-start", "over-in-both-ways"):
        await scene.wait(id_, phase="stopped", end_reason="deadline")
    for id_ in ("too-late", "too-late-by-a-day"):
        await scene.wait(id_, phase="failed", reason="StartDeadlineMissed")
    await scene.wait("in-time", phase="running")
    assert [agent["room_id"] for agent in await scene.vendors.agents()] == ["room-in-time"]


async def test_what_ends_nothing(scene: Scene) -> None:
    """A heartbeat without a time-out, an old one at the insert, a deadline that was moved."""
    await scene.start_daemon()
    app, long_ago = scene.app, scene.app.in_seconds(-3_600)
    await app.write(
        insert("task_owner", name="'steady'", heartbeat_timeout_s="600"),
        task(VOLCENGINE, "no-timeout", heartbeat_at=long_ago),
        task(TENCENT, "old-heartbeat", heartbeat_at=long_ago, heartbeat_timeout_s="600"),
        task(TENCENT, "moved", stop_at=app.in_seconds(2)),
        task(ZEGO, "lifted", stop_at=app.in_seconds(2)),
        task(ZEGO, "owned", owner="'steady'", heartbeat_at=long_ago),
        task(ZEGO, "ends-after-them", stop_at=app.in_seconds(4)),
    )
    await app.write(
        update_task("moved", stop_at=app.in_seconds(600)),
        update_task("lifted", stop_at="NULL"),
    )
    await scene.wait("ends-after-them", phase="stopped", end_reason="deadline")
    for id_ in ("no-timeout", "old-heartbeat", "moved", "lifted", "owned"):
        row = await scene.wait(id_, phase="running")
        assert row["incarnation"] == 1


async def test_a_deadline_moved_forward_ends_at_once(scene: Scene) -> None:
    await scene.start_daemon()
    app = scene.app
    await app.write(
        task(VOLCENGINE, "sooner", stop_at=app.in_seconds(600)),
        task(TENCENT, "stricter"),
        task(ZEGO, "given-an-owner"),
        insert("task_owner", name="'late'", heartbeat_timeout_s="600"),
    )
    for id_ in ("sooner", "stricter", "given-an-owner"):
        await scene.wait(id_, phase="running")
    await app.write(
        update_task("sooner", stop_at=app.in_seconds(-1)),
        update_task("stricter", heartbeat_timeout_s="1"),
        update_task("given-an-owner", owner="'late'"),
    )
    await scene.wait("sooner", phase="stopped", end_reason="deadline")
    await scene.wait("stricter", phase="stopped", end_reason="heartbeat_lost")
    await app.write(update("task_owner", "name = 'late'", heartbeat_timeout_s="1"))
    await scene.wait("given-an-owner", phase="stopped", end_reason="heartbeat_lost")


async def test_what_ended_by_itself_comes_back_only_when_asked(scene: Scene) -> None:
    await scene.start_daemon()
    app = scene.app
    await app.write(
        insert("task_owner", name="'going'", heartbeat_timeout_s="600"),
        task(VOLCENGINE, "night", stop_at=app.in_seconds(2), restart_policy="'always'"),
        task(TENCENT, "silent", heartbeat_timeout_s="2", restart_policy="'always'"),
        task(ZEGO, "unborn", owner="'going'", start_at=app.in_seconds(600)),
    )
    await scene.wait("unborn", phase="pending", waiting_for="start_at")
    await app.write("DELETE FROM task_owner WHERE name = 'going'")
    await scene.wait("night", phase="stopped", end_reason="deadline")
    for id_ in ("silent", "unborn"):
        await scene.wait(id_, phase="stopped", end_reason="heartbeat_lost")

    # The morning after: nothing of this asks for another agent.
    await app.write(
        insert("task_owner", name="'going'", heartbeat_timeout_s="600"),
        update_task("night", stop_at=app.in_seconds(600)),
        update_task("silent", heartbeat_at=app.in_seconds(0), heartbeat_timeout_s="600"),
        update_task("unborn", start_at="NULL"),
        task(VOLCENGINE, "asked-later"),
    )
    await scene.wait("asked-later", phase="running")
    for id_ in ("night", "silent", "unborn"):
        row = await scene.wait(id_, phase="stopped")
        assert (row["incarnation"], row["generation"]) == (1, row["observed_generation"])
    await app.write(*(update_task(id_, restart_token="'go'") for id_ in ("night", "silent")))
    for id_ in ("night", "silent"):
        await scene.wait(id_, phase="running", incarnation=2, end_reason=None)


# --- deadlines of what waits, and of what nobody knows


async def test_deadlines_of_what_waits_for_a_place(scene: Scene) -> None:
    scene.account(ZEGO)["max_agents"] = 1
    await scene.start_daemon()
    app = scene.app
    await scene.ask_for(ZEGO, "first")
    await scene.wait("first", phase="running")
    await app.write(
        task(ZEGO, "by", start_by=app.in_seconds(2)),
        task(ZEGO, "until", stop_at=app.in_seconds(2)),
        task(ZEGO, "changed-its-mind"),
        task(ZEGO, "patient", priority="-1"),
    )
    for id_ in ("by", "until", "changed-its-mind", "patient"):
        await scene.wait(id_, phase="pending", waiting_for="capacity")
    await app.write(update_task("changed-its-mind", desired_state="'stopped'"))
    await scene.wait("changed-its-mind", phase="stopped", end_reason="requested")
    await scene.wait("by", phase="failed", reason="StartDeadlineMissed")
    await scene.wait("until", phase="stopped", end_reason="deadline")
    for id_ in ("by", "until", "changed-its-mind"):
        assert await scene.ledger(id_) == []

    # The operator's number goes before the file's, in both directions.
    control = partial(update, "account_control", "account = 'zego'")
    await app.write(control(max_agents="0"), update_task("first", desired_state="'stopped'"))
    await scene.wait("first", phase="stopped")
    await scene.wait("patient", phase="pending", waiting_for="capacity")
    await app.write(control(max_agents="NULL"))
    await scene.wait("patient", phase="running")


async def test_a_deadline_of_a_start_that_nobody_answered(scene: Scene) -> None:
    customers = (VOLCENGINE, TENCENT, ZEGO)
    await scene.start_daemon()
    for customer in customers:
        await scene.vendors.script(customer.start, "hang")
    ids = [f"hung-{one.name}" for one in customers]
    await scene.app.write(*(task(one, id_) for one, id_ in zip(customers, ids, strict=True)))
    await scene.wait_for_faults()
    soon = scene.app.in_seconds(1)
    await scene.app.write(*(update_task(id_, stop_at=soon) for id_ in ids))
    for one in customers:
        await scene.wait(f"hung-{one.name}", phase="stopped", end_reason="deadline")
        (agent,) = await scene.ledger(f"hung-{one.name}")
        # A handle that was found proves that the start had its effect: its stop is enough.
        is_past = as_time(agent["ended_at"]) >= as_time(agent["horizon_at"])
        assert is_past or (one is TENCENT and agent["vendor_task_id"])
    assert await scene.vendors.live() == []


# --- deadlines and the operator


async def test_deadlines_in_a_paused_account_go_on(scene: Scene) -> None:
    await scene.start_daemon()
    app = scene.app
    await app.write(
        *(task(one, f"ends-{one.name}", stop_at=app.in_seconds(4)) for one in CUSTOMERS)
    )
    for one in CUSTOMERS:
        await scene.wait(f"ends-{one.name}", phase="running")
    await app.write(update("account_control", "true", paused="true"))
    await app.write(task(ZEGO, "waits"), task(ZEGO, "late", start_by=app.in_seconds(1)))
    await scene.wait("waits", phase="pending", waiting_for="paused")
    await scene.wait("late", phase="failed", reason="StartDeadlineMissed")
    for one in CUSTOMERS:
        await scene.wait(f"ends-{one.name}", phase="stopped", end_reason="deadline")
    assert len(await scene.vendors.agents()) == len(CUSTOMERS)


async def test_nothing_leaves_a_frozen_account_and_its_deadlines_hold_afterwards(
    scene: Scene,
) -> None:
    await scene.start_daemon()
    app = scene.app
    await app.write(
        *(task(one, f"ends-{one.name}", stop_at=app.in_seconds(4)) for one in CUSTOMERS)
    )
    for one in CUSTOMERS:
        await scene.wait(f"ends-{one.name}", phase="running")
    await app.write(update("account_control", "true", frozen="true"), task(ZEGO, "seen"))
    await scene.wait("seen", phase="pending", waiting_for="frozen")
    await nothing_in_flight(scene)
    before = await scene.vendors.calls()
    for one in CUSTOMERS:
        await scene.wait(f"ends-{one.name}", phase="stopping", waiting_for="frozen")
    assert await scene.vendors.calls() == before
    assert len(await scene.vendors.live()) == len(CUSTOMERS)
    await app.write(update("account_control", "true", frozen="false"))
    for one in CUSTOMERS:
        await scene.wait(f"ends-{one.name}", phase="stopped", end_reason="deadline")
    await scene.wait("seen", phase="running")


async def nothing_in_flight(scene: Scene) -> None:
    """Wait until every call that was announced has come to something."""

    async def look() -> bool | None:
        waiting = "SELECT task_id FROM agent_status WHERE intent IS NOT NULL"
        return None if await scene.app.read(waiting) else True

    async def awaited() -> str:
        return f"no call in flight\n{scene.logs()}"

    await until(look, awaited)
