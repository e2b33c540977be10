"""Plain SQL, as an application or an operator would write it, for the tests of the store."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, TextClause, text

from orchestrator.store.engine import Database

TASK = (
    "INSERT INTO agent_task (id, account, room_id, user_id) VALUES ('t1', 'acc', 'room', 'human')"
)
COMMAND = "INSERT INTO agent_command (id, task_id, kind) VALUES ('c1', 't1', 'interrupt')"

Rows = list[tuple[Any, ...]]


def plain(statement: str) -> TextClause:
    """Return the statement with its colons as they stand."""
    return text(statement.replace(":", r"\:"))


def update(table: str, assignment: str) -> str:
    """Return an UPDATE of all rows."""
    return f"UPDATE {table} SET {assignment}"  # noqa: S608 - a test's own words


def insert(table: str, **literals: str) -> str:
    """Return an INSERT of one row of SQL literals."""
    columns, values = ", ".join(literals), ", ".join(literals.values())
    return f"INSERT INTO {table} ({columns}) VALUES ({values})"  # noqa: S608 - a test's own words


def quoted(value: str) -> str:
    """Return the SQL literal of a text."""
    return "'" + value.replace("'", "''") + "'"


def _run(connection: Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        connection.execute(plain(statement))


def _query(connection: Connection, statement: str) -> Rows:
    return [tuple(row) for row in connection.execute(plain(statement))]


async def run(database: Database, *statements: str) -> None:
    """Run statements in one transaction."""
    await database.write(_run, statements)


async def query(database: Database, statement: str) -> Rows:
    """Return the rows of a SELECT."""
    return await database.read(_query, statement)


async def value(database: Database, statement: str) -> Any:
    """Return the only value of the only row of a SELECT."""
    ((only,),) = await query(database, statement)
    return only


async def changes(database: Database) -> Rows:
    """Return what the inbox holds: task, what, urgent; and empty it."""
    rows = await query(database, "SELECT task_id, what, urgent FROM task_change ORDER BY seq")
    await run(database, "DELETE FROM task_change")
    return [(task, what, bool(urgent)) for task, what, urgent in rows]
