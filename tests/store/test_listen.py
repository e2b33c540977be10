"""What an application hears of changes, from a plain client: LISTEN on Postgres, `data_version`.

The client has no code of ours in it; the daemon's side is the real claim and settle.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime

import asyncpg
import pytest

from orchestrator.core.fact import Event, Fact
from orchestrator.core.outcome import Done, Indefinite
from orchestrator.store import facts
from orchestrator.store.engine import Database, open_database
from tests.store.claiming import Daemon, make_book, make_desk, settled, want
from tests.store.rows import insert, run, update, value
from tests.store.test_lanes import ZEGO_SPEC, Speaker, press
from tests.store.test_roles import ROLES

pytestmark = pytest.mark.anyio

Connection = asyncpg.Connection
CHANNELS = ("orchestrator_status", "orchestrator_command")
ROLES_THAT_HEAR = ("orchestrator_reader", "orchestrator_app")
TOLD_AT = datetime(2030, 1, 1, tzinfo=UTC)


class Client:
    """A connection of an application's, and what it heard."""

    def __init__(self, connection: "Connection[asyncpg.Record]") -> None:
        self.connection = connection
        self._heard: list[tuple[str, str]] = []

    async def listen(self) -> None:
        for channel in CHANNELS:
            await self.connection.add_listener(channel, self._note)

    def _note(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        self._heard.append((channel.removeprefix("orchestrator_"), str(payload)))

    async def heard(self) -> list[tuple[str, str]]:
        """Return what was told since the last time: it comes before the answer to a question."""
        await self.connection.execute("SELECT 1")
        heard, self._heard = self._heard, []
        return heard


@pytest.fixture
async def daemon(postgres_url: str) -> AsyncIterator[Daemon]:
    """A daemon on Postgres."""
    database = open_database(postgres_url)
    yield await Daemon(database, make_desk(make_book("zego"))).ready()
    await database.close()


@pytest.fixture(params=ROLES_THAT_HEAR)
async def client(
    request: pytest.FixtureRequest, postgres_url: str, daemon: Daemon
) -> AsyncIterator[Client]:
    """An application with the rights of one role; its task `call` is there."""
    await want(daemon.database, "call", account="zego", spec=ZEGO_SPEC)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(ROLES)
    await connection.execute(f"SET ROLE {request.param}")
    client = Client(connection)
    await client.listen()
    yield client
    await connection.close()


async def test_each_change_of_a_status_is_told_once(daemon: Daemon, client: Client) -> None:
    order = await daemon.claim_one("call")
    assert await client.heard() == [("status", "call")]  # pending to starting
    await daemon.settle(settled(order, Done(handle="h1")))
    assert await client.heard() == [("status", "call")]  # starting to running
    await seen(daemon.database, "k1", Event.STARTED)
    await daemon.claim("call")
    assert await value(daemon.database, "SELECT confirmed_at FROM agent_status") is not None
    assert await client.heard() == [("status", "call")]  # confirmed_at
    await seen(daemon.database, "k2", Event.ALIVE)
    await daemon.claim("call")
    assert await client.heard() == []  # it is as it was


async def seen(database: Database, key: str, what: Event) -> None:
    """Let the vendor tell of the agent."""
    fact = Fact(key=key, event=what, event_at=TOLD_AT, vendor_task_id="h1")
    await database.write(facts.receive, [facts.Told(account="zego", facts=(fact,))], "one")


async def test_trouble_and_its_end_are_told(daemon: Daemon, client: Client) -> None:
    order = await daemon.claim_one("call")
    await client.heard()
    await daemon.settle(settled(order, Indefinite(code="Timeout")))
    assert await client.heard() == [("status", "call")]  # the reason
    await run(daemon.database, update("agent_status", "retry_at = NULL, due_at = now()"))
    again = await daemon.claim_one("call")
    assert await client.heard() == []  # sent again: the phase and the reason stay
    await daemon.settle(settled(again, Done(handle="h1")))
    assert await client.heard() == [("status", "call")]  # running, and no reason


async def test_a_command_is_told_when_it_is_settled(daemon: Daemon, client: Client) -> None:
    await daemon.start("call")
    await client.heard()
    speaker = Speaker(daemon.database, "one")
    await press(daemon.database, 1)
    order = await speaker.claim_one()
    assert await client.heard() == []  # sent
    await speaker.settle(order, Done())
    assert await client.heard() == [("command", "c1")]
    state = await client.connection.fetchval("SELECT state FROM agent_command WHERE id = 'c1'")
    assert state == "done"


async def test_an_orphan_is_told_to_no_application(daemon: Daemon, client: Client) -> None:
    own = {"id": "'o1'", "account": "'zego'", "vendor_task_id": "'h9'"}
    await run(daemon.database, insert("orphan_task", **own))
    await daemon.claim("~o1")
    assert await client.heard() == []


async def test_a_file_tells_that_something_changed(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    daemon = await Daemon(database, make_desk(make_book("zego"))).ready()
    await want(database, "call", account="zego", spec=ZEGO_SPEC)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as client:

        def version() -> int:
            number: int = client.execute("PRAGMA data_version").fetchone()[0]
            return number

        before = version()
        assert version() == before
        order = await daemon.claim_one("call")
        claimed = version()
        await daemon.settle(settled(order, Done(handle="h1")))
        told = version()
        assert len({before, claimed, told}) == 3
        phase = "SELECT phase FROM agent_status WHERE task_id = 'call'"
        assert client.execute(phase).fetchone() == ("running",)
        assert version() == told
    await database.close()
