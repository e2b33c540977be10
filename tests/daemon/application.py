"""The application's side: plain SQL through the drivers that everybody has, nothing of ours.

Statements are text with literals, so that both databases take the same ones.
"""

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from typing import Any, Protocol

import asyncpg

Row = Mapping[str, Any]

SQLITE = "sqlite:///"


class Application(Protocol):
    """A client of the database."""

    async def write(self, *statements: str) -> None:
        """Run statements in one transaction."""
        ...

    async def read(self, query: str) -> list[Row]:
        """Return the rows of a SELECT."""
        ...

    def in_seconds(self, seconds: int) -> str:
        """Return the SQL of an instant from now on; negative: before."""
        ...


class SqliteApplication:
    """One that has the file open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def write(self, *statements: str) -> None:
        # All one batch: the lock is held for no longer than that takes.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                self._connection.execute(statement)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    async def read(self, query: str) -> list[Row]:
        return [dict(row) for row in self._connection.execute(query)]

    def in_seconds(self, seconds: int) -> str:
        return f"datetime('now', '{seconds} seconds')"


class PostgresApplication:
    """One that is connected."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def write(self, *statements: str) -> None:
        async with self._connection.transaction():
            for statement in statements:
                await self._connection.execute(statement)

    async def read(self, query: str) -> list[Row]:
        return [dict(row) for row in await self._connection.fetch(query)]

    def in_seconds(self, seconds: int) -> str:
        return f"now() + interval '{seconds} seconds'"


@asynccontextmanager
async def open_application(database_url: str) -> AsyncIterator[Application]:
    """Connect as an application would."""
    if database_url.startswith(SQLITE):
        path = database_url.removeprefix(SQLITE)
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            yield SqliteApplication(connection)
        return
    connected = await asyncpg.connect(database_url)
    try:
        yield PostgresApplication(connected)
    finally:
        await connected.close()


def quoted(value: str) -> str:
    """Return the SQL literal of a text."""
    return "'" + value.replace("'", "''") + "'"


def insert(table: str, **columns: str) -> str:
    """Return an INSERT of one row of SQL expressions."""
    names, values = ", ".join(columns), ", ".join(columns.values())
    return f"INSERT INTO {table} ({names}) VALUES ({values})"  # noqa: S608 - a test's own words


def update(table: str, key: str, **columns: str) -> str:
    """Return an UPDATE to SQL expressions of the row, or rows, that `key` (a condition) names."""
    values = ", ".join(f"{name} = {value}" for name, value in columns.items())
    return f"UPDATE {table} SET {values} WHERE {key}"  # noqa: S608 - a test's own words


def update_task(id_: str, **columns: str) -> str:
    """Return an UPDATE of one task."""
    return update("agent_task", f"id = {quoted(id_)}", **columns)


def delete_task(id_: str) -> str:
    """Return the DELETE of one task."""
    return f"DELETE FROM agent_task WHERE id = {quoted(id_)}"  # noqa: S608 - a test's own words
