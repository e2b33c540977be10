"""Figures: the numbers of the views, by account, whatever applications write."""

from datetime import timedelta

import pytest
from sqlalchemy import ClauseElement, Connection

from orchestrator.core.model import Phase, WaitingFor
from orchestrator.store import accounts
from orchestrator.store import figures as store_figures
from orchestrator.store.engine import Database, now
from orchestrator.store.figures import NOBODY, AccountFigures, read_figures
from tests.store.rows import insert, query, quoted, run, value

pytestmark = pytest.mark.anyio

LONG_AGO = "'2020-01-01 00:00:00+00:00'"
YEAR_S = timedelta(days=365) / timedelta(seconds=1)
UNKNOWN = ('a"b', "a\nb", "a\\b", "nobody's")


async def know(database: Database, *names: str) -> None:
    """Let a daemon have these accounts."""
    instant = await database.read(now)
    await database.write(accounts.ensure, names, instant)


def task(id_: str, account: str) -> str:
    return insert(
        "agent_task", id=quoted(id_), account=quoted(account), room_id="'r'", user_id="'u'"
    )


def settled(id_: str, assignment: str) -> tuple[str, str]:
    """Return what brings a task into a state, with nothing left to be told of it."""
    return (
        f"UPDATE agent_status SET {assignment} WHERE task_id = {quoted(id_)}",  # noqa: S608 - a test's own words
        f"DELETE FROM task_change WHERE task_id = {quoted(id_)}",  # noqa: S608 - as above
    )


def orphan(id_: str, account: str, **more: str) -> str:
    given = {"id": quoted(id_), "account": quoted(account), "first_seen_at": LONG_AGO}
    return insert("orphan_task", **given, **more)


async def figures(database: Database) -> dict[str, AccountFigures]:
    return {one.account: one for one in await database.read(read_figures)}


async def test_an_empty_database_has_no_figures(database: Database) -> None:
    assert await figures(database) == {}


async def test_an_account_that_rests_is_all_zeros(database: Database) -> None:
    await know(database, "acc", "other")
    found = await figures(database)
    assert list(found) == ["acc", "other"]
    one = found["acc"]
    assert one.tasks == dict.fromkeys(Phase, 0)
    assert one.orphans == {False: 0, True: 0}
    assert (one.denied, one.paused, one.frozen, one.leaked_s) == (False, False, False, 0)
    waits = [one.unconverged, one.presses, *one.parked.values()]
    assert [(wait.count, wait.oldest_s) for wait in waits] == [(0, 0.0)] * len(waits)


async def test_tasks_are_counted_by_phase_and_orphans_are_none(database: Database) -> None:
    await know(database, "acc", "other")
    await run(
        database,
        task("t1", "acc"),
        task("t2", "acc"),
        task("t3", "other"),
        *settled("t1", f"phase = 'running', due_at = {LONG_AGO}"),
        *settled("t3", "phase = 'failed'"),
        insert("agent_status", task_id="'~o'", account="'acc'", room_id="'r'", user_id="'u'"),
    )
    found = await figures(database)
    assert found["acc"].tasks == dict.fromkeys(Phase, 0) | {Phase.RUNNING: 1, Phase.PENDING: 1}
    assert found["other"].tasks == dict.fromkeys(Phase, 0) | {Phase.FAILED: 1}


async def test_what_is_not_as_desired_is_what_the_view_says(database: Database) -> None:
    await know(database, "acc", "other")
    labelled = (
        task("t3", "acc")
        .replace("user_id)", "user_id, labels)")
        .replace("'u')", "'u', '{\"a\": 1}')")
    )
    asked = f"phase = 'pending', asked_at = {LONG_AGO}, phase_since = {LONG_AGO}"
    await run(
        database,
        task("t1", "acc"),
        task("t2", "acc"),
        labelled,
        task("t4", "other"),
        *settled("t1", f"phase = 'running', due_at = {LONG_AGO}"),
        *settled("t2", asked),
        *settled("t4", "phase = 'stopped'"),
    )
    found = await figures(database)
    by_hand = await value(database, "SELECT sum(tasks) FROM convergence WHERE account = 'acc'")
    assert found["acc"].unconverged.count == by_hand == 2
    assert found["acc"].unconverged.oldest_s > YEAR_S
    assert found["other"].unconverged.count == 0


async def test_orphans_are_counted_by_whose_they_are_and_leak_until_they_end(
    database: Database,
) -> None:
    await know(database, "acc", "other")
    await run(
        database,
        orphan("o1", "acc", ours="true"),
        orphan("o2", "acc"),
        orphan("o3", "acc", stopped_at="'2020-01-01 00:01:00+00:00'", phase="'stopped'"),
        orphan("o4", "other", ours="true", phase="'ignored'"),
    )
    found = await figures(database)
    assert found["acc"].orphans == {True: 1, False: 1}
    assert found["other"].orphans == {True: 0, False: 0}
    assert found["other"].leaked_s == 0
    leaks = await query(database, "SELECT id, leaked_s FROM orphan_overview ORDER BY id")
    known = {id_: leaked_s for id_, leaked_s in leaks if leaked_s is not None}
    assert known["o3"] == 60
    assert sum(known.values()) - found["acc"].leaked_s in range(-60, 1)


async def test_standing_is_the_daemons_word_and_the_operators(database: Database) -> None:
    await know(database, "acc", "other")
    await run(
        database,
        "UPDATE account_state SET denied_code = 'Arrears' WHERE account = 'acc'",
        "UPDATE account_control SET frozen = true, paused = true WHERE account = 'other'",
    )
    found = await figures(database)
    assert (found["acc"].denied, found["acc"].paused, found["acc"].frozen) == (True, False, False)
    one = found["other"]
    assert (one.denied, one.paused, one.frozen) == (False, True, True)


async def test_what_is_parked_is_counted_by_what_it_waits_for(database: Database) -> None:
    await know(database, "acc")
    parked = f"parked_class = 'start', parked_verb = 'start', parked_at = {LONG_AGO}"
    await run(
        database,
        task("t1", "acc"),
        task("t2", "acc"),
        *settled("t1", f"waiting_for = 'rate_limit', {parked}"),
        *settled("t2", "waiting_for = 'proof'"),
    )
    one = (await figures(database))["acc"].parked
    assert one[WaitingFor.RATE_LIMIT].count == 1
    assert one[WaitingFor.RATE_LIMIT].oldest_s > YEAR_S
    assert sum(wait.count for wait in one.values()) == 1


async def test_presses_are_those_that_have_not_ended(database: Database) -> None:
    await know(database, "acc")
    listens = {"task_id": "'t1'", "kind": "'start_listening'"}
    await run(
        database,
        task("t1", "acc"),
        insert("agent_command", id="'c1'", **listens, created_at=LONG_AGO),
        insert("agent_command", id="'c2'", **listens),
        insert("agent_command", id="'c3'", task_id="'t1'", kind="'say'", created_at=LONG_AGO),
        "UPDATE agent_command SET state = 'done' WHERE id = 'c1'",
    )
    one = (await figures(database))["acc"].presses
    assert one.count == 1
    assert one.oldest_s < YEAR_S


PLANS: dict[str, ClauseElement] = {
    "ix_agent_status_phase_account": store_figures._TASKS,
    "ix_agent_status_parked": store_figures._PARKED,
    "ix_agent_command_open": store_figures._PRESSES,
}
"""The index that each statement walks along, where a walk through the table would be too much."""


def explain(connection: Connection, statement: ClauseElement) -> str:
    """Return the plan of a statement; on Postgres as if the table were too large to be read."""
    compiled = statement.compile(connection, compile_kwargs={"literal_binds": True})
    if connection.dialect.name == "sqlite":
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")
        return "\n".join(str(row[-1]) for row in plan)
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {compiled}"))


@pytest.mark.parametrize("index", PLANS)
async def test_nothing_at_rest_is_read_to_be_counted(database: Database, index: str) -> None:
    plan = await database.write(explain, PLANS[index])
    assert "Seq Scan" not in plan
    if database.dialect == "sqlite":  # of an empty table, Postgres walks along any of its indexes
        assert index in plan


async def test_names_that_no_daemon_has_are_one(database: Database) -> None:
    await know(database, "acc")
    rows = [task(f"t{number}", name) for number, name in enumerate(UNKNOWN)]
    orphans = [orphan(f"o{number}", name) for number, name in enumerate(UNKNOWN)]
    await run(database, *rows, *orphans)
    found = await figures(database)
    assert list(found) == [NOBODY, "acc"]
    assert found[NOBODY].tasks[Phase.PENDING] == len(UNKNOWN)
    assert found[NOBODY].unconverged.count == len(UNKNOWN)
    assert found[NOBODY].orphans[False] == len(UNKNOWN)
