"""Plans of the statements that run all the time: by index alone, however many rows rest."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event

from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import Change, Task, Verb, What, WorkClass
from orchestrator.store import (
    accounts,
    daemons,
    facts,
    housekeeping,
    ledger,
    llm_tasks,
    queue,
    retention,
    rows,
)
from orchestrator.store.engine import Connection, Database, dialect_of
from orchestrator.store.queue import Queue, Scope
from orchestrator.store.retention import Cutoffs

pytestmark = pytest.mark.anyio

RESTING = 20_000
MILLION = 1_000_000
NOW = datetime(2026, 3, 1, tzinfo=UTC)
IDS = [f"t{n}" for n in range(0, 300, 3)]
BIG = (
    "agent_status", "agent_task", "vendor_agent", "task_change", "agent_event", "llm_task",
    "llm_turn",
)  # fmt: skip
"""Tables that grow."""

_NUMBERS = {
    "sqlite": (
        "WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last})"
    ),
    "postgresql": "WITH s(n) AS (SELECT generate_series({first}, {last}))",
}
_FILL = """
INSERT INTO agent_task (id, account, room_id, user_id)
    {numbers} SELECT 't' || n, 'acc', 'room' || n, 'human' FROM s;
DELETE FROM task_change;
UPDATE agent_status SET phase = 'running',
    due_at = '2099-01-01 00:00:00.000000', stop_due_at = '2099-01-01 00:00:00.000000'
    WHERE CAST(substr(task_id, 2) AS integer) % 4 > 0;
UPDATE agent_status SET phase = 'stopped', stopped_at = {ended} WHERE phase = 'pending';
INSERT INTO vendor_agent (id, task_id, incarnation, account, site, room_id, user_id, name,
        vendor_task_id, ended_at)
    {numbers} SELECT 'agent' || n, 't' || n, 1, 'acc', '{{}}', 'room' || n, 'human', 'agent' || n,
        'h' || n, CASE WHEN n % 4 > 0 THEN NULL ELSE {ended} END FROM s;
INSERT INTO agent_event (at, task_id, event)
    {numbers} SELECT {ended}, 't' || n, 'call' FROM s;
INSERT INTO llm_task (task_id, account, upstream)
    {numbers} SELECT 't' || n, 'acc', 'main' FROM s;
INSERT INTO llm_turn (at, task_id, account, incarnation, agent_id, upstream, outcome, total_ms)
    {numbers} SELECT {ended}, 't' || n, 'acc', 1, 'agent' || n, 'main', 'answered', 9 FROM s;
INSERT INTO account_control (account) VALUES ('acc') ON CONFLICT DO NOTHING;
INSERT INTO account_state (account) VALUES ('acc') ON CONFLICT DO NOTHING
"""
"""Three in four run and will be polled some day, the others ended a while ago."""

ENDED = {
    "sqlite": "'2026-02-28 00:00:00.000000'",
    "postgresql": "timestamptz '2026-02-28 00:00:00+00'",
}


def fill(connection: Connection, first: int, last: int) -> None:
    dialect = dialect_of(connection)
    numbers = _NUMBERS[dialect].format(first=first, last=last)
    for statement in _FILL.format(numbers=numbers, ended=ENDED[dialect]).split(";"):
        connection.exec_driver_sql(statement)


def backlog(connection: Connection) -> None:
    """Leave more changes than a pass takes."""
    connection.exec_driver_sql(
        "INSERT INTO task_change (task_id, what, urgent) SELECT id, 'timing', false FROM agent_task"
    )


def tidy(connection: Connection) -> None:
    """Do what the server does by itself a little later. SQLite needs none of it."""
    if dialect_of(connection) == "postgresql":
        connection.exec_driver_sql("VACUUM ANALYZE")


def feign_a_million(connection: Connection) -> None:
    """Let Postgres plan as if there were a million rows of each, in no more pages than there are.

    A walk through them looks cheaper than it would be, so a plan without one holds for a million.
    SQLite's planner counts no rows.
    """
    if dialect_of(connection) == "postgresql":
        connection.exec_driver_sql(
            f"UPDATE pg_class SET reltuples = reltuples * {MILLION // RESTING}"  # noqa: S608 - numbers of this file
            " WHERE relnamespace = current_schema()::regnamespace AND reltuples > 0"
        )


Operation = Callable[[Connection], object]
TASK = Task(id="t9", account="acc", room_id="room9", user_id="human", running=True, created_at=NOW)
CHANGES = [Change(seq=seq, at=NOW, task_id="t9", what=What.TIMING) for seq in range(5, 8)]
TOLD = [
    facts.Told(
        account="acc",
        facts=(Fact(key=id_, event=Event.ALIVE, event_at=NOW, vendor_task_id=f"h{id_}", name=id_),),
    )
    for id_ in IDS[:50]
]
QUEUE = Queue("acc", WorkClass.START, Verb.START)
SCOPE = Scope(most=128, most_polls=128, without=dict.fromkeys(WorkClass, frozenset({"elsewhere"})))
OLD = Cutoffs(events=NOW.replace(year=2025), commands=NOW, turns=NOW, ended=NOW.replace(year=2025))

OPERATIONS: Mapping[str, Operation] = {
    "peek": lambda c: queue.peek(c, NOW, SCOPE),
    "peek_parked": lambda c: queue.peek_parked(c, QUEUE, NOW, 128),
    "find_queues": queue.find_queues,
    "next_due": lambda c: queue.next_due(c, NOW),
    "lock": lambda c: rows.lock(c, IDS, NOW),
    "lock_leases": lambda c: rows.lock_leases(c, IDS),
    "existing": lambda c: rows.existing(c, IDS),
    "read_tasks": lambda c: rows.read_tasks(c, IDS, IDS[:3]),
    "take_changes": lambda c: rows.take_changes(c, CHANGES),
    "read_changes": lambda c: rows.read_changes(c, IDS),
    "forget": lambda c: rows.forget(c, IDS),
    "read_agents": lambda c: ledger.read_agents(c, IDS),
    "last_incarnations": lambda c: ledger.last_incarnations(c, IDS),
    "rooms_of_agent_user": lambda c: ledger.rooms_of_agent_user(c, TASK, "agent9"),
    "is_pair_taken": lambda c: ledger.is_pair_taken(c, TASK),
    "lock_one": lambda c: ledger.lock_one(c, "agent9"),
    "lost_statuses": lambda c: ledger.lost_statuses(c, IDS),
    "select_news": lambda c: facts.select_news(c, TOLD),
    "read_present": accounts.read_present,
    "last_heartbeat": daemons.last_heartbeat,
    "sweep_tasks": lambda c: housekeeping.sweep_tasks(c, "", "d1"),
    "sweep_statuses": lambda c: housekeeping.sweep_statuses(c, "", "d1"),
    "sweep_ledger": lambda c: housekeeping.sweep_ledger(c, "", "d1"),
    "prune": lambda c: retention.prune(c, OLD, 100),
    "find_callers": lambda c: llm_tasks.find_callers(c, [f"agent{id_[1:]}" for id_ in IDS]),
    "has_other": lambda c: llm_tasks.has_other(c, "main", "h1", "agent9"),
    "note_talk": lambda c: llm_tasks.note_talk(c, dict.fromkeys(IDS, NOW)),
    "forget_llm_tasks": lambda c: llm_tasks.forget(c, IDS),
}
"""What passes, claims, settles, sweeps, prunes and turns at the LLM gateway read."""


def plans(connection: Connection, operation: Operation) -> list[str]:
    """Return how the database runs each statement of an operation that touches a big table."""
    ran: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if any(table in statement for table in BIG):
            ran.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    try:
        operation(connection)
    finally:
        event.remove(connection, "before_cursor_execute", note)
    return [step for statement, values in ran for step in _explain(connection, statement, values)]


def _explain(connection: Connection, statement: str, values: Any) -> Iterator[str]:
    values = values[0] if isinstance(values, list) else values
    if dialect_of(connection) == "sqlite":
        for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values):
            yield row[3]
        return
    told = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar_one()
    yield from _nodes(json.loads(told) if isinstance(told, str) else told)


def _nodes(plan: Any) -> Iterator[str]:
    for item in plan:
        node = item.get("Plan", item)
        whole = "Index Name" in node and "Index Cond" not in node
        step = f"{node['Node Type']} {node.get('Relation Name', '')} {node.get('Index Name', '')}"
        yield f"{step} from end to end" if whole else step
        yield from _nodes(node.get("Plans", []))


BY_ROWID = re.compile(r"SCAN task_change$")
"""A walk in the order of `seq` that ends at the statement's limit."""


def walks(steps: Sequence[str]) -> list[str]:
    """Return the steps that look at every row of a big table."""
    scans = [s for s in steps if s.startswith(("SCAN ", "Seq Scan "))]
    return [s for s in scans if any(t in s for t in BIG) and not BY_ROWID.match(s)]


def examine(connection: Connection) -> dict[str, list[str]]:
    """Return, for each operation that walks through a big table, the steps that do."""
    found = {name: plans(connection, operation) for name, operation in OPERATIONS.items()}
    assert all(found[name] for name in OPERATIONS.keys() - {"read_present", "last_heartbeat"})
    return {name: walks(steps) for name, steps in found.items() if walks(steps)}


async def test_every_statement_finds_its_rows_by_an_index(database: Database) -> None:
    await database.write(fill, 0, RESTING)
    await database.write(backlog)
    await database.read(tidy)
    await database.write(feign_a_million)
    assert await database.write(examine) == {}


# --- what a person looks at in the night

NIGHT = (
    "SELECT * FROM task_explain WHERE task_id = 't9'",
    "SELECT * FROM task_overview WHERE task_id = 't9'",
    "SELECT * FROM task_overview WHERE phase IN ('starting', 'stopping', 'quarantined')",
    "SELECT * FROM task_explain WHERE phase = 'quarantined'",
    "SELECT * FROM task_history WHERE task_id = 't9'",
    "SELECT * FROM convergence",
    "SELECT * FROM account_health",
    "SELECT * FROM llm_overview WHERE task_id = 't9'",
    "SELECT * FROM llm_health",
)
NEWEST = "SELECT * FROM task_overview LIMIT 50"
EVERY_ROW = (
    "SELECT sum(ran_s) FROM agent_status AS s",
    "SELECT sum(ran_s) FROM task_overview",
    "SELECT sum(turns) FROM llm_overview",
    "SELECT sum(total_ms) FROM llm_turn AS u",
)
BIG_WALK = re.compile(
    r"SCAN [stveku]( USING (COVERING )?INDEX \w+)?$"
    r"|Seq Scan (agent_status|agent_task|vendor_agent|agent_event|llm_task|llm_turn) "
    r"| from end to end$"
)
"""SQLite calls a table as its view does: s, t, v, e, k and u are the six."""
GATHERED, OWN_ROWS = "MATERIALIZE candidate", "SCAN k"
"""`convergence` gathers the few rows that it may be about, and calls these k."""
SORTS = re.compile(r"Sort|FOR ORDER BY")


def look_around(connection: Connection) -> set[str]:
    """Return the looks that walk through a big table."""
    looks = (*NIGHT, *EVERY_ROW)
    return {look for look in looks if big_walks(list(_explain(connection, look, ())))}


def big_walks(steps: Sequence[str]) -> list[str]:
    """Return the steps that walk through a big table."""
    own = OWN_ROWS if GATHERED in steps else ""
    return [step for step in steps if BIG_WALK.search(step) and step != own]


async def test_a_look_in_the_night_walks_through_nothing(database: Database) -> None:
    await database.write(fill, 0, RESTING)
    await database.write(lambda c: c.exec_driver_sql("DELETE FROM task_change"))
    await database.read(tidy)
    await database.write(feign_a_million)
    # What does ask for every row shows that such a walk is seen.
    assert await database.write(look_around) == set(EVERY_ROW)
    newest = await database.write(lambda c: list(_explain(c, NEWEST, ())))
    assert any("ix_agent_status_trouble" in step for step in newest)
    assert [step for step in newest if SORTS.search(step)] == []


# --- what is due


def explain_due(connection: Connection) -> list[str]:
    """Return the indexes by which the due rows and the next time are found."""
    steps = plans(connection, lambda c: queue.peek(c, NOW, SCOPE))
    steps += plans(connection, lambda c: queue.next_due(c, NOW))
    return [name for step in steps for name in INDEX_NAME.findall(step)]


INDEX_NAME = re.compile(r"\bix_agent_status_\w*due_at\b")


async def test_polls_and_other_due_rows_have_an_index_each(database: Database) -> None:
    await database.write(fill, 0, RESTING)
    await database.read(tidy)
    used = await database.write(explain_due)
    # Both databases use each for the look and for the next time.
    assert {name: used.count(name) for name in used} == {
        "ix_agent_status_due_at": 2,
        "ix_agent_status_poll_due_at": 2,
        "ix_agent_status_stop_due_at": 2,
    }


# --- an empty pass


def empty_pass(connection: Connection) -> None:
    assert queue.peek(connection, NOW, SCOPE) == []
    assert queue.peek_parked(connection, QUEUE, NOW, 128) == []
    assert queue.find_queues(connection) == set()
    assert queue.next_due(connection, NOW) is not None


def cost(connection: Connection) -> int:
    """Return what an empty pass costs: pages on Postgres, steps of the machine on SQLite."""
    if dialect_of(connection) == "postgresql":
        return _pages(connection)
    driver: Any = connection.connection.dbapi_connection
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    driver.set_progress_handler(count, 1)
    try:
        empty_pass(connection)
    finally:
        driver.set_progress_handler(None, 0)
    return steps


def _pages(connection: Connection) -> int:
    ran: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        ran.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    empty_pass(connection)
    event.remove(connection, "before_cursor_execute", note)
    total = 0
    for statement, values in ran:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
        told = connection.exec_driver_sql(explain, values).scalar_one()
        plan = (json.loads(told) if isinstance(told, str) else told)[0]["Plan"]
        total += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return total


async def test_the_cost_of_an_empty_pass_does_not_grow_with_the_rows(database: Database) -> None:
    few_rows = RESTING // 100
    await database.write(fill, 0, few_rows)
    await database.read(tidy)
    few = await database.read(cost)
    await database.write(fill, few_rows + 1, RESTING)
    await database.read(tidy)
    many = await database.read(cost)
    # A deeper tree costs a page more for each look.
    assert many <= few * 1.2 + 10
