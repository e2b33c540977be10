"""What time alone does to a row: deadlines, heartbeats, and an agent that ends by itself."""

from datetime import UTC, datetime, timedelta
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
