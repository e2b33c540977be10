"""The application's side: plain SQL through the plain driver, and nothing of the daemon's.

Statements are the same on both databases: parameters are `$1`, lists and documents are JSON.
"""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any, Final

import anyio
import asyncpg
from sqlalchemy.engine import make_url

Row = Sequence[Any]

PATIENCE_S: Final = 60
LOOK_S: Final = 0.05


class Application(ABC):
    """A connection. Each statement is a transaction, and has committed when the call returns."""

    @abstractmethod
    async def run(self, statement: str, *values: Any) -> None:
        """Run a statement."""

    @abstractmethod
    async def run_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement for many rows, in one transaction."""

    @abstractmethod
    async def ask(self, statement: str, *values: Any) -> list[Row]:
        """Return the rows of a SELECT."""

    async def wait_for(self, count: int, statement: str) -> None:
        """Return once the statement counts this many. Raises TimeoutError after a minute."""
        with anyio.fail_after(PATIENCE_S):
            while (await self.ask(statement))[0][0] != count:  # noqa: ASYNC110 - another process' work gives no event
                await anyio.sleep(LOOK_S)


class _Postgres(Application):
    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def run(self, statement: str, *values: Any) -> None:
        await self._connection.execute(statement, *values)

    async def run_many(self, statement: str, rows: Sequence[Row]) -> None:
        await self._connection.executemany(statement, rows)

    async def ask(self, statement: str, *values: Any) -> list[Row]:
        return [tuple(row) for row in await self._connection.fetch(statement, *values)]


class _Sqlite(Application):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def run(self, statement: str, *values: Any) -> None:
        self._connection.execute(statement, _named(values))

    async def run_many(self, statement: str, rows: Sequence[Row]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(statement, [_named(row) for row in rows])
        self._connection.execute("COMMIT")

    async def ask(self, statement: str, *values: Any) -> list[Row]:
        return list(self._connection.execute(statement, _named(values)))


def _named(values: Row) -> dict[str, Any]:
    return {str(number): value for number, value in enumerate(values, start=1)}


@asynccontextmanager
async def open_application(url: str) -> AsyncIterator[Application]:
    """Connect as an application would, with a time-out on SQLite's lock."""
    if url.startswith("sqlite"):
        path = make_url(url).database or ""
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            yield _Sqlite(connection)
        return
    session = await asyncpg.connect(url)
    try:
        yield _Postgres(session)
    finally:
        await session.close()
