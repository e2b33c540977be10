"""A server's last words on a connection that is idle: the driver has read them, its end not yet.

asyncpg then refuses the next question with an InternalClientError, which is none of its errors of
the connection or of the server. SQLAlchemy knows it; who uses the driver itself must.
"""

from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from orchestrator.store.engine import DatabaseAway, open_database
from orchestrator.wake.postgres import PostgresWaker, Watch
from tests.fault_proxy import FaultProxy, fault_proxy

pytestmark = pytest.mark.anyio

PATIENCE_S = 20
TURNS = 20
"""Of the loop, in which the driver reads what loopback has delivered already."""
FIELDS = b"SFATAL\0VFATAL\0C57P02\0Mterminating connection because of crash\0\0"
LAST_WORDS = b"E" + (len(FIELDS) + 4).to_bytes(4, "big") + FIELDS
QUICK = Watch(
    every=timedelta(milliseconds=50),
    reconnect_first=timedelta(milliseconds=10),
    reconnect_last=timedelta(milliseconds=50),
)


@pytest.fixture
async def proxy(empty_postgres_url: str) -> AsyncIterator[FaultProxy]:
    server = make_url(empty_postgres_url)
    async with fault_proxy(server.host or "127.0.0.1", server.port or 5432) as opened:
        yield opened


def through(proxy: FaultProxy, url: str) -> str:
    led = make_url(url).set(host="127.0.0.1", port=proxy.port)
    return led.render_as_string(hide_password=False)


def one(connection: Connection) -> int:
    found: int = connection.execute(text("SELECT 1")).scalar_one()
    return found


async def test_the_database_is_away_and_comes_back(
    proxy: FaultProxy, empty_postgres_url: str
) -> None:
    database = open_database(through(proxy, empty_postgres_url))
    try:
        assert await database.read(one) == 1
        await proxy.say(LAST_WORDS)
        for _ in range(TURNS):
            await checkpoint()
        with pytest.raises(DatabaseAway):
            await database.read(one)
        assert await database.read(one) == 1
    finally:
        await database.close()


async def test_the_waker_listens_again(proxy: FaultProxy, empty_postgres_url: str) -> None:
    async with PostgresWaker(through(proxy, empty_postgres_url), QUICK) as waker:
        for connections in (1, 2):
            with anyio.fail_after(PATIENCE_S):
                while proxy.connections < connections or waker.round_trip is None:
                    await waker.wait(timedelta(milliseconds=10))
            await proxy.say(LAST_WORDS)
