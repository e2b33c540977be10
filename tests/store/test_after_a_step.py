"""What else a clock that is set could hold back or let through: leases, slots, heartbeats."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from orchestrator.clock import boot_ns
from orchestrator.core.bucket import AHEAD_MAX_US, SECOND_US, WINDOW_US
from orchestrator.core.model import Verb
from orchestrator.daemon.call_tally import CallTally
from orchestrator.daemon.janitor import Janitor, Keep
from orchestrator.daemon.limiter import REST_NS, Action, Limiter
from orchestrator.store import daemons, pace, queue
from orchestrator.store.engine import Connection, Database
from orchestrator.store.engine import now as database_now
from orchestrator.store.queue import LEASE_MAX
from orchestrator.store.schema import agent_status, agent_task, installation
from tests.store.claiming import Daemon, make_book, make_desk, status, want
from tests.store.rows import run
from tests.store.rows import update as update_sql

pytestmark = pytest.mark.anyio

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
CALL = Action(account="volc", name="StartVoiceChat")
LIMIT = 4
SECOND_NS = 10**9
SCOPE = queue.Scope(most=8, most_polls=8, without={})


async def make_daemon(database: Database) -> Daemon:
    return await Daemon(database, make_desk(make_book("volc"))).ready()


# --- leases


@pytest.mark.parametrize(
    ("ahead", "is_claimed"),
    [(LEASE_MAX - 10 * SECOND, False), (LEASE_MAX + 10 * SECOND, True), (HOUR, True)],
)
async def test_a_lease_that_no_clock_can_have_meant_is_none(
    database: Database, ahead: timedelta, *, is_claimed: bool
) -> None:
    """Its daemon died before the clock was set back, and a stop must not wait for hours."""
    one = await make_daemon(database)
    await want(database, "a")
    await one.claim("a")
    until = await database.read(database_now) + ahead
    await database.write(_lease, until)
    await run(database, update_sql("agent_task", "desired_state = 'stopped'"))
    seen = await database.read(queue.peek, until - ahead, SCOPE)
    assert [found.task_id for found in seen] == ["a"] * is_claimed
    assert [order.flight.verb for order in (await one.claim("a")).orders] == (
        [Verb.STOP] * is_claimed
    )


def _lease(connection: Connection, until: datetime) -> None:
    connection.execute(update(agent_status).values(lease_owner="dead", lease_until=until))


# --- pace


def _shift_slots(connection: Connection, by_us: int) -> None:
    bucket, version, _ = pace.read(connection, CALL.account, CALL.name, LIMIT)
    moved = replace(bucket, slots=tuple(slot + by_us for slot in bucket.slots))
    assert pace.swap(connection, CALL.account, CALL.name, version, moved)


async def test_after_a_step_back_calls_leave_after_a_window_and_not_after_hours(
    database: Database,
) -> None:
    one = Limiter(database, {CALL: LIMIT})
    assert len(await one.draw(CALL, LIMIT, keep_half=False)) == LIMIT
    await database.write(_shift_slots, 3600 * SECOND_US)
    again = Limiter(database, {CALL: LIMIT})
    assert await again.draw(CALL, 1, keep_half=False) == []
    left_ns = again.opens_ns(CALL, keep_half=False) - boot_ns()
    assert left_ns <= WINDOW_US * 1000
    bucket, _, now = await database.read(pace.read, CALL.account, CALL.name, LIMIT)
    assert max(bucket.slots) <= now


async def test_too_many_said_with_a_time_is_heard_up_to_a_bound(database: Database) -> None:
    one = Limiter(database, {CALL: LIMIT})
    await one.throttle(CALL, HOUR)
    bucket, _, now = await database.read(pace.read, CALL.account, CALL.name, LIMIT)
    assert AHEAD_MAX_US - 10 * SECOND_US < max(bucket.slots) - now <= AHEAD_MAX_US


@pytest.mark.parametrize(("seconds", "rests"), [(60.0, True), (0.5, True), (0.0, False)])
async def test_after_a_step_ahead_nothing_leaves_for_more_than_a_window(
    database: Database, seconds: float, *, rests: bool
) -> None:
    """The slots of the last second count as long ago by the clock as it is."""
    one = Limiter(database, {CALL: LIMIT})
    assert len(await one.draw(CALL, LIMIT, keep_half=False)) == LIMIT
    assert one._last is not None
    step_us = round(seconds * SECOND_US)
    one._last = replace(one._last, now=one._last.now - step_us)
    await database.write(_shift_slots, -max(step_us, 2 * WINDOW_US))
    one._closed_until_ns.clear()
    drawn = await one.draw(CALL, LIMIT, keep_half=False)
    assert bool(drawn) is not rests
    left_ns = one.opens_ns(CALL, keep_half=False) - boot_ns()
    assert (left_ns > REST_NS - 10 * SECOND_NS) is rests or not rests


# --- heartbeats


async def test_our_own_heartbeat_after_a_step_ahead_gives_everybody_time(
    database: Database,
) -> None:
    """By the clock as it is now nobody has said anything for an hour, we neither."""
    one = await make_daemon(database)
    now = await database.read(database_now)
    here = daemons.Daemon(
        id="d1", name="d1", host="here", pid=1, version="1", wake="poll", accounts=["volc"]
    )
    await database.write(daemons.register, here, now - HOUR)
    await want(database, "a", heartbeat_timeout_s="30")
    await one.start("a")
    await database.write(_silence, now - HOUR)
    janitor = Janitor(
        database=database,
        book=one.desk.book,
        tally=CallTally(),
        daemon_id="d1",
        daemon_name="d1",
        keep=Keep(events=HOUR, commands=HOUR, turns=HOUR, ended=None),
        is_draining=lambda: False,
    )
    await janitor._beat_once()
    await janitor._beat_once()
    assert (await one.claim("a")).orders == []
    (stop_due_at,) = await status(database, "a", "stop_due_at")
    assert await status(database, "a", "end_reason") == (None,)
    assert stop_due_at is not None


def _silence(connection: Connection, since: datetime) -> None:
    """Let an application have said for the last time then that it is there."""
    connection.execute(update(agent_task).values(heartbeat_at=since, created_at=since))
    connection.execute(update(agent_status).values(stop_due_at=since))
    connection.execute(update(installation).values(amnesty_at=since))
