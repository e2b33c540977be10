"""A user of the database who waits as long as it takes.

Rule 1: what is written may be written twice: after a lost connection nobody knows whether the
commit was. So every statement given here must mean the same the second time.
Rule 2: only what passes by itself is waited for. A statement that is refused is the harness's own
mistake, and ends the run.
"""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import asyncpg

from orchestrator.clock import utc_now
from tests.daemon.application import (
    SQLITE,
    Application,
    PostgresApplication,
    Row,
    SqliteApplication,
)

T = TypeVar("T")

if TYPE_CHECKING:
    _Postgres = asyncpg.Connection[asyncpg.Record]

WAIT_S: Final = 0.05
"""For SQLite's lock, in which this process stands still; and between two tries."""
ANSWER_S: Final = 3
"""After which a server that says nothing is given up, and asked anew."""
PASSING: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a server's last words that came while nothing was asked
    OSError,
    TimeoutError,
)


@dataclass(frozen=True)
class Written:
    """When a transaction was first tried, and when it had been committed for sure."""

    begun_at: datetime
    committed_at: datetime


class Client:
    """One connection at a time, made again when it is lost."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._app: Application | None = None
        self._connection: sqlite3.Connection | _Postgres | None = None

    async def write(self, *statements: str) -> Written:
        """Run statements in one transaction, again and again until it is committed."""
        begun_at = utc_now()
        await self._persist(lambda app: app.write(*statements))
        return Written(begun_at, utc_now())

    async def read(self, query: str) -> list[Row]:
        """Return the rows of a SELECT."""
        return await self._persist(lambda app: app.read(query))

    async def _persist(self, attempt: Callable[[Application], Awaitable[T]]) -> T:
        while True:
            try:
                with anyio.fail_after(ANSWER_S):
                    return await attempt(self._app or await self._connect())
            except PASSING:
                self.close()
            except sqlite3.OperationalError as refused:
                if "locked" not in str(refused):
                    raise
            await anyio.sleep(WAIT_S)

    async def _connect(self) -> Application:
        if self._url.startswith(SQLITE):
            path = self._url.removeprefix(SQLITE)
            opened = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
            opened.row_factory = sqlite3.Row
            opened.execute("PRAGMA foreign_keys = ON")
            self._connection = opened
            self._app = SqliteApplication(opened)
            return self._app
        connected = await asyncpg.connect(self._url, timeout=ANSWER_S)
        self._connection = connected
        self._app = PostgresApplication(connected)
        return self._app

    def close(self) -> None:
        """Give up the connection, if there is one."""
        connection, self._connection, self._app = self._connection, None, None
        with suppress(*PASSING):
            match connection:
                case sqlite3.Connection():
                    connection.close()
                case asyncpg.Connection():
                    connection.terminate()
                case None:
                    pass


@asynccontextmanager
async def open_client(database_url: str) -> AsyncIterator[Client]:
    """Connect when there is something to do; let go at the end."""
    client = Client(database_url)
    try:
        yield client
    finally:
        client.close()
