"""Two floors under the lanes: who says the same to the vendor with next to nothing in between.

`say_directly` is the application itself, with an HTTP client and no database: what is left of the
way is the signature, the client and the vendor. `say_from_rows` commits each press as a row; a
bare loop, woken as the daemon is, marks all new rows as sent in one durable statement, and sends.
Both run in this process, keep no order and would lose what a crash interrupts.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Final

import aiohttp
import anyio
from anyio.abc import TaskGroup

from benchmarks.application import Application, open_application
from benchmarks.floor import converse, open_client
from benchmarks.presses import Press
from orchestrator.app import build_provider
from orchestrator.clock import utc_now
from orchestrator.config import open_config
from orchestrator.core.command import Command
from orchestrator.core.model import Agent
from orchestrator.examples import SECRETS, ZEGO
from orchestrator.providers.base import Provider, Stamp
from orchestrator.providers.spec import resolve_secrets
from orchestrator.store.engine import sqlite_path
from orchestrator.wake.base import Waker
from orchestrator.wake.postgres import PostgresWaker
from orchestrator.wake.sqlite import SqliteWaker

ACCOUNT: Final = "zego"
IN_FLIGHT: Final = 64
"""As many as the daemon has."""
LONGEST_WAIT: Final = timedelta(seconds=1)

_TABLE: Final = (
    "CREATE TABLE press (lane TEXT NOT NULL, sequence BIGINT NOT NULL, sent_at TEXT, "
    "PRIMARY KEY (lane, sequence))"
)
_NEW: Final = "CREATE INDEX press_new ON press (lane) WHERE sent_at IS NULL"
_HINT: Final = """
    CREATE FUNCTION press_hint() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_notify('orchestrator_wake', ''); RETURN NULL; END $$
"""
_HINTS: Final = """
    CREATE TRIGGER press_hint AFTER INSERT ON press
    FOR EACH STATEMENT EXECUTE FUNCTION press_hint()
"""
_INSERT: Final = "INSERT INTO press (lane, sequence) VALUES ($1, $2)"
_MARK: Final = (
    "UPDATE press SET sent_at = CURRENT_TIMESTAMP WHERE sent_at IS NULL RETURNING lane, sequence"
)
_UNSENT: Final = "SELECT count(*) FROM press WHERE sent_at IS NULL"

Commit = Callable[[Press], Awaitable[None]]


class Wire:
    """A bare client with an instance for each lane."""

    def __init__(self, provider: Provider, http: aiohttp.ClientSession) -> None:
        self._provider = provider
        self._http = http
        self._numbers = count()
        self._agents: dict[str, Agent] = {}

    async def create(self, lane: str) -> None:
        """Create the instance that a lane's user talks to."""
        name = f"floor{next(self._numbers)}"
        spec, _ = resolve_secrets(ZEGO, SECRETS)
        agent = Agent(
            id=name,
            incarnation=1,
            try_=1,
            account=ACCOUNT,
            site=self._provider.site,
            room_id=lane,
            user_id=lane,
            name=name,
            session_name=name,
            stream_id=name,
            announced_at=utc_now(),
        )
        done = await converse(self._http, self._provider.start(agent, spec, self._stamp()))
        self._agents[lane] = replace(agent, vendor_task_id=done.handle)

    async def send(self, press: Press) -> None:
        """Send a press to its instance."""
        command = Command(
            id="",
            position=0,
            task_id=press.lane,
            kind=press.kind,
            user_id=press.lane,
            sequence=press.sequence,
            created_at=utc_now(),
            expires_at=utc_now(),
        )
        agent = self._agents[press.lane]
        await converse(self._http, self._provider.command(agent, command, self._stamp()))

    def _stamp(self) -> Stamp:
        return Stamp(signed_at=utc_now(), nonce=lambda: f"{next(self._numbers):016x}")


@asynccontextmanager
async def open_wire(config: Path, lanes: Sequence[str]) -> AsyncIterator[Wire]:
    """Connect to the vendor of a configuration, with an instance for each lane."""
    provider = build_provider(open_config(config).accounts[ACCOUNT])
    async with open_client(IN_FLIGHT) as http:
        wire = Wire(provider, http)
        for lane in lanes:
            await wire.create(lane)
        yield wire


@asynccontextmanager
async def say_directly(wire: Wire, url: str) -> AsyncIterator[Commit]:
    """Yield what sends a press at once; when it is left, all are sent."""
    del url
    async with anyio.create_task_group() as calls:

        async def commit(press: Press) -> None:
            calls.start_soon(wire.send, press)

        yield commit


@asynccontextmanager
async def say_from_rows(wire: Wire, url: str) -> AsyncIterator[Commit]:
    """Yield what inserts a row that a bare loop sends; when it is left, all are sent."""
    async with (
        open_application(url) as application,
        open_application(url) as marker,
        anyio.create_task_group() as calls,
    ):
        await _make_table(application, url)
        async with _open_waker(url) as waker, anyio.create_task_group() as passes:
            passes.start_soon(_send_rows, waker, marker, wire, calls)

            async def commit(press: Press) -> None:
                await application.run(_INSERT, press.lane, press.sequence)

            yield commit
            await application.wait_for(0, _UNSENT)
            passes.cancel_scope.cancel()


async def _make_table(application: Application, url: str) -> None:
    hints = () if url.startswith("sqlite") else (_HINT, _HINTS)
    for statement in (_TABLE, _NEW, *hints):
        await application.run(statement)


def _open_waker(url: str) -> Waker:
    return SqliteWaker(sqlite_path(url)) if url.startswith("sqlite") else PostgresWaker(url)


async def _send_rows(waker: Waker, marker: Application, wire: Wire, calls: TaskGroup) -> None:
    """Send new rows, each once it is durably marked, for ever."""
    while True:
        await waker.wait(LONGEST_WAIT)
        for lane, sequence in await marker.ask(_MARK):
            calls.start_soon(wire.send, Press(lane, sequence))


FLOORS: Final[Mapping[str, Callable[[Wire, str], AbstractAsyncContextManager[Commit]]]] = {
    "application sends itself": say_directly,
    "wake, mark, send": say_from_rows,
}
"""By what a report calls them."""
