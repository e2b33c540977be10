"""Nets under the triggers, and what is forgotten: what is found, what is kept, how much at once."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from orchestrator.core.model import Verb
from orchestrator.store import housekeeping
from orchestrator.store.engine import Connection, Database
from orchestrator.store.engine import now as database_now
from orchestrator.store.housekeeping import STEP, Horizons, Swept
from tests.store.claiming import Daemon, inbox, status, want
from tests.store.rows import query, run, value

pytestmark = pytest.mark.anyio

Sweep = Callable[[Connection, str, str], Swept]
FOUND, CLEAN = Swept(last=None, mended=1), Swept(last=None, mended=0)


async def sweep(database: Database, walk: Sweep) -> Swept:
    return await database.write(walk, "", "d1")


@pytest.fixture
async def daemon(database: Database) -> Daemon:
    return await Daemon(database).ready()


async def test_a_task_whose_insert_no_trigger_saw_is_started(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    await run(daemon.database, "DELETE FROM agent_status WHERE task_id = 'a'")
    await run(daemon.database, "DELETE FROM task_change")
    assert await sweep(daemon.database, housekeeping.sweep_tasks) == FOUND
    told = await query(daemon.database, "SELECT task_id, what, actor FROM task_change")
    assert told == [("a", "insert", "d1")]
    assert (await daemon.claim_one("a")).flight.verb is Verb.START
    assert await sweep(daemon.database, housekeeping.sweep_tasks) == CLEAN


async def test_a_status_whose_task_went_unseen_is_ended(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    await daemon.start("a")
    await run(daemon.database, "DELETE FROM agent_task WHERE id = 'a'")
    await run(daemon.database, "DELETE FROM task_change")
    assert await sweep(daemon.database, housekeeping.sweep_statuses) == FOUND
    assert (await daemon.claim_one("a")).flight.verb is Verb.STOP


async def test_what_has_been_told_is_not_told_again(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await run(daemon.database, "DELETE FROM agent_task")
    assert await sweep(daemon.database, housekeeping.sweep_statuses) == CLEAN
    assert await inbox(daemon.database) == ["a", "a"]


async def test_an_orphan_s_status_needs_no_task(daemon: Daemon) -> None:
    await run(
        daemon.database,
        "INSERT INTO agent_status (task_id, account, room_id, user_id) "
        "VALUES ('~o1', 'volc', '', '')",
    )
    assert await sweep(daemon.database, housekeeping.sweep_statuses) == CLEAN


async def test_an_open_ledger_row_that_nobody_will_look_at_is_found(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    await daemon.start("a")
    await daemon.start("b")
    assert await sweep(daemon.database, housekeeping.sweep_ledger) == CLEAN
    await run(
        daemon.database,
        "UPDATE agent_status SET phase = 'stopped', due_at = NULL, stop_due_at = NULL "
        "WHERE task_id = 'a'",
    )
    assert await sweep(daemon.database, housekeeping.sweep_ledger) == FOUND
    assert await inbox(daemon.database) == ["a"]


async def test_an_open_ledger_row_without_a_status_gets_one_and_is_stopped(
    daemon: Daemon,
) -> None:
    await want(daemon.database, "a")
    await daemon.start("a")
    await run(daemon.database, "DELETE FROM agent_task", "DELETE FROM agent_status")
    await run(daemon.database, "DELETE FROM task_change")
    assert await sweep(daemon.database, housekeeping.sweep_ledger) == FOUND
    order = await daemon.claim_one("a")
    assert (order.flight.verb, order.flight.agent.vendor_task_id) == (Verb.STOP, "handle-a")


async def test_an_ended_ledger_row_is_left_alone(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await daemon.start("a")
    await run(daemon.database, "UPDATE vendor_agent SET ended_at = announced_at")
    await run(daemon.database, "DELETE FROM agent_status")
    assert await sweep(daemon.database, housekeeping.sweep_ledger) == CLEAN


MANY = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1005)",
    "postgresql": "WITH s(n) AS (SELECT generate_series(1, 1005))",
}


MANY_TASKS = (
    "INSERT INTO agent_task (id, account, room_id, user_id) "
    "{} SELECT 't' || n, 'volc', 'r', 'u' FROM s"
)
MANY_EVENTS = "INSERT INTO agent_event (at, event) {} SELECT {}, 'call' FROM s"


async def test_a_walk_looks_at_a_bounded_number_of_rows_and_goes_on(database: Database) -> None:
    await run(
        database,
        MANY_TASKS.format(MANY[database.dialect]),
        "DELETE FROM agent_status",
        "DELETE FROM task_change",
    )
    first = await sweep(database, housekeeping.sweep_tasks)
    assert first.mended == STEP
    assert first.last is not None
    rest = await database.write(housekeeping.sweep_tasks, first.last, "d1")
    assert rest == Swept(last=None, mended=5)


# --- what is forgotten

KEPT = timedelta(days=1)


async def prune(database: Database, *, ended: bool = True) -> int:
    now = await database.read(database_now)
    before = Horizons(events=now - KEPT, commands=now - KEPT, ended=now - KEPT if ended else None)
    return await database.write(housekeeping.prune, before)


OLD, YOUNG = "'2020-01-01 00:00:00.000000'", "'2099-01-01 00:00:00.000000'"
EVENT = "INSERT INTO agent_event (at, event) VALUES ({}, 'call')"
FACT = (
    "INSERT INTO vendor_fact (account, key, event, event_at, received_at) "
    "VALUES ('{}', 'k', 'ended', {at}, {at})"
)
MINUTE = (
    "INSERT INTO call_minute (account, action, minute, bucket, calls) "
    "VALUES ('acc', 'Start', {}, 1, 1)"
)


async def test_events_facts_and_sums_go_when_they_are_old(database: Database) -> None:
    for at in (OLD, YOUNG):
        await run(database, EVENT.format(at), MINUTE.format(at))
    await run(database, FACT.format("one", at=OLD), FACT.format("two", at=YOUNG))
    assert await prune(database) == 3
    # The vendor's key is unique in its account alone.
    assert await query(database, "SELECT account FROM vendor_fact") == [("two",)]
    assert await value(database, "SELECT count(*) FROM agent_event") == 1
    assert await value(database, "SELECT count(*) FROM call_minute") == 1
    assert await prune(database) == 0


async def test_commands_go_when_they_are_done_and_old(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    command = "INSERT INTO agent_command (id, task_id, kind) VALUES ('{}', 'a', 'interrupt')"
    for id_ in ("old", "young", "queued"):
        await run(daemon.database, command.format(id_))
    if daemon.database.dialect == "postgresql":
        await run(daemon.database, "ALTER TABLE agent_command DISABLE TRIGGER USER")
    done = "UPDATE agent_command SET state = 'done', done_at = {} WHERE id = '{}'"
    await run(daemon.database, done.format(OLD, "old"), done.format(YOUNG, "young"))
    await prune(daemon.database)
    left = await query(daemon.database, "SELECT id FROM agent_command ORDER BY id")
    assert left == [("queued",), ("young",)]


async def end(daemon: Daemon, id_: str, at: str) -> None:
    """Start and end a task, as if it had been then."""
    await daemon.start(id_)
    await run(
        daemon.database,
        f"UPDATE vendor_agent SET ended_at = {at}, evidence = 'absent' WHERE task_id = '{id_}'",  # noqa: S608 - a test's own words
        f"UPDATE agent_status SET phase = 'stopped', retired = incarnation, stopped_at = {at} "  # noqa: S608 - as above
        f"WHERE task_id = '{id_}'",
    )


async def test_an_ended_task_goes_with_its_status_and_ledger(daemon: Daemon) -> None:
    await want(daemon.database, "old", "young", "live")
    await end(daemon, "old", OLD)
    await end(daemon, "young", YOUNG)
    await daemon.start("live")
    assert await prune(daemon.database) == 2
    assert await inbox(daemon.database) == ["old"]
    await daemon.claim("old")
    assert await query(daemon.database, "SELECT id FROM agent_task ORDER BY id") == [
        ("live",),
        ("young",),
    ]
    assert await query(daemon.database, "SELECT task_id FROM agent_status ORDER BY 1") == [
        ("live",),
        ("young",),
    ]


async def test_nothing_ended_goes_if_it_is_to_be_kept_for_ever(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await end(daemon, "a", OLD)
    assert await prune(daemon.database, ended=False) == 0
    assert await status(daemon.database, "a", "phase") == ("stopped",)


async def test_one_step_forgets_a_bounded_number_of_rows(database: Database) -> None:
    old = OLD if database.dialect == "sqlite" else f"timestamptz {OLD}"
    await run(
        database,
        f"INSERT INTO agent_event (at, event) {MANY[database.dialect]} SELECT {old}, 'call' FROM s",  # noqa: S608 - a test's own words
    )
    assert [await prune(database), await prune(database)] == [STEP, 5]
