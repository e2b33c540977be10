"""What the views about tasks tell."""

from datetime import timedelta

import pytest
from sqlalchemy import Connection, insert

from orchestrator.store.engine import Database, now, open_database
from orchestrator.store.schema import LATENCY_BOUNDS_MS, call_minute
from tests.store.rows import TASK, query, run, update, value
from tests.store.rows import insert as insert_row

pytestmark = pytest.mark.anyio

PAST = "2020-01-01 00:00:00+00:00"
FUTURE = "2040-01-01 00:00:00+00:00"
VIEWS = ["task_overview", "task_explain", "task_history", "orphan_overview"]
VIEWS += ["command_explain", "listening_lane", "account_health", "convergence"]
VIEWS += ["llm_overview", "llm_health"]


@pytest.fixture
async def task(database: Database) -> Database:
    """A database with one task and an empty inbox."""
    await run(database, TASK, "DELETE FROM task_change")
    return database


def status(assignment: str) -> str:
    return update("agent_status", assignment)


@pytest.mark.parametrize("view", VIEWS)
async def test_an_empty_database_has_empty_views(database: Database, view: str) -> None:
    assert await query(database, f"SELECT * FROM {view}") == []  # noqa: S608 - from the list above


async def test_trouble_comes_first_and_orphans_not_at_all(task: Database) -> None:
    await run(
        task,
        TASK.replace("'t1'", "'t2'"),
        status("reason = 'Trouble', phase_since = '2020-01-01 00:00:00'") + " WHERE task_id = 't1'",
        "INSERT INTO agent_status (task_id, account, room_id, user_id)"
        " VALUES ('~o', 'acc', 'room', 'human')",
    )
    rows = await query(task, "SELECT task_id, desired_state, account FROM task_overview")
    assert rows == [("t1", "running", "acc"), ("t2", "running", "acc")]
    ages = await query(task, "SELECT age_s FROM task_overview")
    assert ages[0][0] > 86_400 * 365
    assert ages[1][0] in range(60)


CONVERGED = {
    ("running", "phase = 'pending'"): 1,
    ("running", "phase = 'pending', waiting_for = 'start_at'"): 0,
    ("running", "phase = 'starting', due_at = '2040-01-01 00:00:00'"): 1,
    ("running", "phase = 'running', due_at = '2040-01-01 00:00:00'"): 0,
    ("running", "phase = 'failed'"): 0,
    ("running", "phase = 'stopped'"): 0,
    # Its end is due, by its deadline or its heartbeat, and nobody carries it out.
    ("running", "phase = 'running', stop_due_at = '2020-01-01 00:00:00'"): 1,
    ("running", "phase = 'running', stop_due_at = '2040-01-01 00:00:00'"): 0,
    ("running", "phase = 'stopping', due_at = '2040-01-01 00:00:00'"): 1,
    ("stopped", "phase = 'running', stop_due_at = '2020-01-01 00:00:00'"): 1,
    ("stopped", "phase = 'stopping', due_at = '2040-01-01 00:00:00'"): 1,
    ("stopped", "phase = 'stopped'"): 0,
    ("deleted", "phase = 'quarantined', due_at = '2040-01-01 00:00:00'"): 1,
    ("deleted", "phase = 'stopped'"): 0,
}


@pytest.mark.parametrize(("case", "tasks"), CONVERGED.items(), ids=str)
async def test_convergence_counts_what_is_not_as_desired(
    task: Database, case: tuple[str, str], tasks: int
) -> None:
    desired, assignment = case
    wish = {
        "running": "SELECT 1",
        "stopped": update("agent_task", "desired_state = 'stopped'"),
        "deleted": "DELETE FROM agent_task",
    }
    await run(task, wish[desired], status(assignment), "DELETE FROM task_change")
    counted = await query(task, "SELECT account, age, tasks FROM convergence")
    assert sum(row[2] for row in counted) == tasks


async def test_a_wish_that_is_not_taken_yet_is_not_converged(task: Database) -> None:
    await run(task, status("phase = 'running', due_at = '2040-01-01 00:00:00'"))
    assert await query(task, "SELECT tasks FROM convergence") == []
    await run(
        task,
        update("agent_task", "stop_at = '2040-01-01 00:00:00'"),
        update("task_change", "at = '2020-01-01 00:00:00'"),
    )
    rows = await query(task, "SELECT account, age, tasks FROM convergence")
    assert rows == [("acc", "6: over 1 h", 1)]


AGO = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now', '-30 minutes') || '000'",
    "postgresql": "clock_timestamp() - interval '30 minutes'",
}
ONCE = "asked_at = '2020-01-01 00:00:00', incarnation = 1"
ASKED_TWICE = "incarnation = 2, retired = 1, due_at = '2040-01-01 00:00:00'"
SINCE = {
    "its start_at": ("start_at = AGO", f"phase = 'pending', {ONCE}"),
    "the end of the wish for it": (
        "start_at = '2020-01-01 00:00:00'",
        (
            f"phase = 'stopping', retired = 1, {ONCE},"
            " due_at = '2040-01-01 00:00:00', phase_since = AGO"
        ),
    ),
    "the wish for the next one": (
        "start_at = '2020-01-01 00:00:00'",
        f"phase = 'stopping', {ASKED_TWICE}, phase_since = '2020-01-01 00:00:00', asked_at = AGO",
    ),
    "its end, which is overdue": (
        "start_at = '2020-01-01 00:00:00'",
        f"phase = 'running', {ONCE}, stop_due_at = AGO",
    ),
}


@pytest.mark.parametrize(("desired", "stands"), SINCE.values(), ids=SINCE)
async def test_what_is_not_as_desired_is_as_old_as_the_wish(
    task: Database, desired: str, stands: str
) -> None:
    ago = AGO[task.dialect]
    await run(
        task,
        update("agent_task", desired.replace("AGO", ago)),
        status(stands.replace("AGO", ago)),
        "DELETE FROM task_change",
    )
    ((age, tasks, oldest_s),) = await query(task, "SELECT age, tasks, oldest_s FROM convergence")
    assert (age, tasks) == ("5: under 1 h", 1)
    assert oldest_s in range(1_790, 3_500)


COLUMNS = {
    "sqlite": "SELECT name FROM pragma_table_info('{view}') ORDER BY cid",
    "postgresql": (
        "SELECT attname FROM pg_attribute WHERE attrelid = '{view}'::regclass AND attnum > 0"
        " ORDER BY attnum"
    ),
}
SAID = "SELECT relname FROM pg_class WHERE relkind = 'v' AND obj_description(oid, 'pg_class') <> ''"
OF_TASKS = {"task_overview", "task_explain", "task_history", "command_explain", "listening_lane"}
OF_TASKS |= {"llm_overview"}


@pytest.mark.parametrize("view", VIEWS)
async def test_a_view_has_the_same_columns_on_both(
    sqlite_url: str, postgres_url: str, view: str
) -> None:
    columns = []
    for url in (sqlite_url, postgres_url):
        database = open_database(url)
        rows = await query(database, COLUMNS[database.dialect].format(view=view))
        columns.append([name for (name,) in rows])
        await database.close()
    assert columns[0] == columns[1]
    assert "account" in columns[0]
    assert ("labels" in columns[0]) == (view in OF_TASKS | {"convergence"})


async def test_every_view_says_what_it_shows_on_postgres(postgres_url: str) -> None:
    database = open_database(postgres_url)
    said = {name for (name,) in await query(database, f"{SAID} AND relnamespace <> 11")}
    await database.close()
    assert said == set(VIEWS)


async def test_history_is_in_order_and_has_the_labels(task: Database) -> None:
    await run(
        task,
        update("agent_task", """labels = '{"a":1}'"""),
        "INSERT INTO agent_event (task_id, event) VALUES ('t1', 'wish')",
        "INSERT INTO agent_event (task_id, event, latency_ms) VALUES ('t1', 'call', 12)",
        "INSERT INTO agent_event (event) VALUES ('elsewhere')",
    )
    rows = await query(task, "SELECT task_id, event, latency_ms FROM task_history")
    assert rows == [("t1", "wish", None), ("t1", "call", 12)]
    assert '"a"' in str(await value(task, "SELECT max(CAST(labels AS text)) FROM task_history"))


async def test_an_orphan_leaks_until_it_is_stopped(task: Database) -> None:
    await run(
        task,
        insert_row("orphan_task", id="'o1'", account="'a'", first_seen_at="'2030-01-01 00:00'"),
        update("orphan_task", "stopped_at = '2030-01-01 00:01:30'"),
        insert_row("orphan_task", id="'o2'", account="'a'", first_seen_at="'2020-01-01 00:00'"),
    )
    leaked: dict[str, int] = dict(await query(task, "SELECT id, leaked_s FROM orphan_overview"))
    assert leaked["o1"] == 90
    assert leaked["o2"] > 86_400 * 365


async def test_what_is_ignored_leaks_nothing_that_is_known(task: Database) -> None:
    old = "'2020-01-01 00:00'"
    await run(
        task,
        insert_row("orphan_task", id="'o1'", account="'a'", first_seen_at=old, phase="'ignored'"),
        insert_row("orphan_task", id="'o2'", account="'a'"),
        insert_row(
            "orphan_task",
            id="'o3'",
            account="'a'",
            phase="'ignored'",
            ours="true",
            reason="'Incomplete: to stop it, room_id must be given'",
        ),
    )
    rows = await query(task, "SELECT id, leaked_s IS NULL FROM orphan_overview")
    leaks = {id_: not is_null for id_, is_null in rows}
    # One of ours that nobody can stop does run.
    assert leaks == {"o1": False, "o2": True, "o3": True}


def write_minutes(connection: Connection, rows: list[dict[str, object]]) -> None:
    connection.execute(insert(call_minute), rows)


async def test_health_has_percentiles_of_the_last_minutes(task: Database) -> None:
    present = await task.read(now)
    row = {"account": "acc", "action": "Start", "minute": present, "failures": 0}
    old = present - timedelta(minutes=10)
    await task.write(
        write_minutes,
        [
            {**row, "bucket": 3, "calls": 90},
            {**row, "bucket": 3, "calls": 10, "minute": present - timedelta(minutes=1)},
            {**row, "bucket": 9, "calls": 80, "failures": 2},
            {**row, "bucket": 20, "calls": 20, "failures": 1},
            {**row, "bucket": 23, "calls": 9_000, "minute": old},
        ],
    )
    rows = await query(task, "SELECT * FROM account_health")
    assert rows == [("acc", "Start", 200, 3, LATENCY_BOUNDS_MS[3], LATENCY_BOUNDS_MS[20])]
