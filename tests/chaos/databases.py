"""The databases of a run, and what can be done to them."""

import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

import anyio
import asyncpg
from anyio import to_thread
from sqlalchemy.engine import make_url

from orchestrator.store.migrate import upgrade
from tests.daemon.application import SQLITE
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.postgres_server import PostgresServer, running_server

Kind = Literal["sqlite", "postgresql"]

STARTS: Final = 20
"""A server that was killed may find its own last processes still there."""
PAUSE_S: Final = 0.2
END_EVERY_SESSION: Final = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""


@dataclass
class SqliteFile:
    """A file that the daemon shares with its users."""

    url: str

    async def hold_lock(self, seconds: float) -> None:
        """Be the foreign writer that takes the lock and does not come back for long."""
        path = self.url.removeprefix(SQLITE)
        with closing(sqlite3.connect(path, timeout=PAUSE_S, isolation_level=None)) as foreign:
            await _take_lock(foreign)
            foreign.execute("UPDATE agent_task SET labels = '{\"held\": true}'")
            await anyio.sleep(seconds)
            foreign.execute("COMMIT")


async def _take_lock(foreign: sqlite3.Connection) -> None:
    while True:
        try:
            foreign.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            await anyio.sleep(PAUSE_S)
        else:
            return


@dataclass
class PostgresOfOurOwn:
    """A server that may be killed, and the way that the daemons listen to it."""

    url: str
    listen_url: str
    _server: PostgresServer
    _proxy: FaultProxy

    async def fall(self, how: signal.Signals, away: timedelta) -> None:
        """End the server without order, and start it again after a while."""
        process = self._server.process
        if process is None:
            raise RuntimeError("the server does not run")
        process.send_signal(how)
        await to_thread.run_sync(process.wait)
        await anyio.sleep(away.total_seconds())
        await self._start()

    async def end_sessions(self) -> None:
        """End every session of daemons and users."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(END_EVERY_SESSION)
        finally:
            await connection.close()

    async def go_deaf(self, seconds: float) -> None:
        """Swallow what goes through the daemons' LISTEN connections, and tell nobody."""
        self._proxy.is_half_open = True
        try:
            await anyio.sleep(seconds)
        finally:
            self._proxy.is_half_open = False

    async def _start(self) -> None:
        for _ in range(STARTS):
            try:
                return await to_thread.run_sync(self._server.start)
            except RuntimeError:
                await anyio.sleep(PAUSE_S)
        raise RuntimeError("the server does not start any more")


Base = SqliteFile | PostgresOfOurOwn


@asynccontextmanager
async def open_base(kind: Kind, folder: Path) -> AsyncIterator[Base]:
    """Yield a migrated database of a kind, with its files under a folder."""
    if kind == "sqlite":
        url = f"sqlite:///{folder / 'orchestrator.db'}"
        await upgrade(url)
        yield SqliteFile(url)
        return
    # Durable settings: what was committed must be there after a kill.
    with running_server(folder / "server", settings=()) as server:
        await upgrade(server.url())
        parsed = make_url(server.url())
        async with fault_proxy("127.0.0.1", server.port) as proxy:
            listen = parsed.set(port=proxy.port).render_as_string(hide_password=False)
            yield PostgresOfOurOwn(server.url(), listen, server, proxy)
