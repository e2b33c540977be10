"""Nets under the triggers: what is found, and how much at once."""

from collections.abc import Callable

import pytest

from orchestrator.core.model import Verb
from orchestrator.store import housekeeping
from orchestrator.store.engine import Connection, Database
from orchestrator.store.housekeeping import STEP, Swept
from tests.store.claiming import Daemon, inbox, want
from tests.store.rows import query, run

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
