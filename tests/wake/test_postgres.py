import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import anyio
import asyncpg
import pytest
import structlog

from orchestrator.wake.postgres import _ECHO_CHANNEL, WAKE_CHANNEL, PostgresWaker, Watch, _Listener
from tests.fault_proxy import FaultProxy, fault_proxy

pytestmark = pytest.mark.anyio

LONG = timedelta(seconds=20)
QUICK = Watch(
    every=timedelta(milliseconds=50),
    patience=timedelta(seconds=1),
    poll=timedelta(milliseconds=20),
    reconnect_first=timedelta(milliseconds=10),
    reconnect_last=timedelta(milliseconds=50),
)

# Nothing listens on the port of "discard".
NOWHERE = "postgresql://nobody:not-a-secret@127.0.0.1:9/none"

Connection = asyncpg.Connection


@pytest.fixture
async def application(empty_postgres_url: str) -> AsyncIterator["Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(empty_postgres_url)
    yield connection
    await connection.close()


@pytest.fixture
async def proxy(empty_postgres_url: str) -> AsyncIterator[FaultProxy]:
    server = urlsplit(empty_postgres_url)
    async with fault_proxy(server.hostname or "", server.port or 5432) as proxy:
        yield proxy


def through(proxy: FaultProxy, url: str) -> str:
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    netloc = f"{user}@127.0.0.1:{proxy.port}" if user else f"127.0.0.1:{proxy.port}"
    return urlunsplit(parts._replace(netloc=netloc))


async def until_listening(waker: PostgresWaker, *, is_listening: bool = True) -> None:
    with anyio.fail_after(LONG.total_seconds()):
        while waker._is_listening is not is_listening:
            await waker.wait(LONG)
    await drain(waker)


async def drain(waker: PostgresWaker) -> None:
    """Take the hint that came with the change."""
    await waker.wait(timedelta(0))


async def hinted(waker: PostgresWaker) -> None:
    """Wait for a hint, not for the time-out."""
    with anyio.fail_after(LONG.total_seconds()):
        await waker.wait(2 * LONG)


async def test_committed_notify_wakes(
    empty_postgres_url: str, application: "Connection[asyncpg.Record]"
) -> None:
    async with PostgresWaker(empty_postgres_url) as waker:
        await until_listening(waker)
        for _ in range(5):
            async with application.transaction():
                await application.execute(f"notify {WAKE_CHANNEL}")
                assert await waker._hint.wait(timedelta(milliseconds=5)) is False
            await hinted(waker)


async def test_round_trip_is_measured(empty_postgres_url: str) -> None:
    async with PostgresWaker(empty_postgres_url) as waker:
        await until_listening(waker)
        assert waker.round_trip is not None
        assert timedelta(0) < waker.round_trip < Watch().patience
    assert waker.round_trip is None


async def test_echoes_do_not_wake(empty_postgres_url: str) -> None:
    async with (
        PostgresWaker(empty_postgres_url, QUICK) as waker,
        PostgresWaker(empty_postgres_url, QUICK),
    ):
        await until_listening(waker)
        assert await waker._hint.wait(QUICK.every * 4) is False


async def test_echo_of_another_daemon_is_not_ours(
    empty_postgres_url: str, application: "Connection[asyncpg.Record]"
) -> None:
    arrived = anyio.Event()
    connection = await asyncpg.connect(empty_postgres_url)
    try:
        listener = _Listener(connection)
        await listener.listen(lambda: None)
        await connection.add_listener(_ECHO_CHANNEL, lambda *_: arrived.set())
        await application.execute("select pg_notify($1, 'another')", _ECHO_CHANNEL)
        with anyio.fail_after(LONG.total_seconds()):
            await arrived.wait()
        assert not listener._echoed.is_set()
        await listener.echo()
        assert listener._echoed.is_set()
    finally:
        connection.terminate()


async def test_nudge_ends_the_wait(empty_postgres_url: str) -> None:
    async with PostgresWaker(empty_postgres_url) as waker:
        await until_listening(waker)
        waker.nudge()
        await hinted(waker)


async def test_terminated_backend_is_replaced(
    empty_postgres_url: str, application: "Connection[asyncpg.Record]"
) -> None:
    # So rare an echo that only the loss itself can be what is noticed.
    watch = Watch(every=2 * LONG)
    with structlog.testing.capture_logs() as logs:
        async with PostgresWaker(empty_postgres_url, watch) as waker:
            await until_listening(waker)
            killed = await application.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where application_name = 'orchestrator wake' and datname = current_database()"
            )
            assert killed == 1
            await until_listening(waker, is_listening=False)
            await until_listening(waker)
            await application.execute(f"notify {WAKE_CHANNEL}")
            await hinted(waker)
    assert [entry["event"] for entry in logs] == ["waker_listens", "waker_deaf", "waker_listens"]


async def test_half_open_connection_is_found_and_replaced(
    empty_postgres_url: str, proxy: FaultProxy, application: "Connection[asyncpg.Record]"
) -> None:
    async with PostgresWaker(through(proxy, empty_postgres_url), QUICK) as waker:
        await until_listening(waker)
        proxy.is_half_open = True
        # Nothing but the missing echo can tell.
        await until_listening(waker, is_listening=False)
        proxy.is_half_open = False
        await until_listening(waker)
        await application.execute(f"notify {WAKE_CHANNEL}")
        await hinted(waker)


async def test_slow_connection_is_kept(
    empty_postgres_url: str, proxy: FaultProxy, application: "Connection[asyncpg.Record]"
) -> None:
    proxy.delay = timedelta(milliseconds=30)
    async with PostgresWaker(through(proxy, empty_postgres_url), QUICK) as waker:
        await until_listening(waker)
        await application.execute(f"notify {WAKE_CHANNEL}")
        await hinted(waker)
        assert proxy.connections == 1
        assert waker.round_trip is not None
        assert waker.round_trip > proxy.delay


async def test_cut_connection_is_replaced_and_what_was_missed_is_made_up_for(
    empty_postgres_url: str, proxy: FaultProxy
) -> None:
    async with PostgresWaker(through(proxy, empty_postgres_url), QUICK) as waker:
        await until_listening(waker)
        proxy.cut()
        await until_listening(waker, is_listening=False)
        with anyio.fail_after(LONG.total_seconds()):
            while not waker._is_listening:
                await waker._hint.wait(LONG)


async def test_while_there_is_no_server_waits_are_short_and_it_is_said_once() -> None:
    with structlog.testing.capture_logs() as logs:
        async with PostgresWaker(NOWHERE, QUICK) as waker:
            with anyio.fail_after(LONG.total_seconds()):
                for _ in range(5):
                    assert await waker._hint.wait(2 * LONG)
    assert [entry["event"] for entry in logs] == ["waker_deaf"]
    # Also between two attempts to connect.
    seldom = replace(QUICK, reconnect_first=2 * LONG, reconnect_last=2 * LONG)
    async with PostgresWaker(NOWHERE, seldom) as waker:
        with anyio.fail_after(LONG.total_seconds()):
            for _ in range(5):
                await waker.wait(2 * LONG)


async def test_password_is_not_logged() -> None:
    with structlog.testing.capture_logs() as logs:
        async with PostgresWaker(NOWHERE, QUICK) as waker:
            await hinted(waker)
    assert logs
    assert "not-a-secret" not in repr(logs)


@pytest.mark.parametrize("is_half_open", [False, True])
async def test_nothing_is_left(
    empty_postgres_url: str, proxy: FaultProxy, is_half_open: bool
) -> None:
    before = asyncio.all_tasks()
    async with PostgresWaker(through(proxy, empty_postgres_url), QUICK) as waker:
        await until_listening(waker)
        proxy.is_half_open = is_half_open
        if is_half_open:
            await until_listening(waker, is_listening=False)
    proxy.cut()
    with anyio.fail_after(LONG.total_seconds()):
        while asyncio.all_tasks() != before:
            await anyio.lowlevel.checkpoint()
