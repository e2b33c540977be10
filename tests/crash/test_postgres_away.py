"""Postgres restarts, ends connections, or cannot be reached: the daemon goes on by itself."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from orchestrator.daemon.supervise import SETTLE_LAST_S, SIGN_OFF_S
from orchestrator.store.migrate import upgrade
from tests.crash.conftest import MakeDatabase
from tests.crash.worlds import PATIENCE_S, World, every_wish, open_world
from tests.daemon.application import open_application
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO
from tests.daemon.running import Daemon, until
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.postgres_server import running_server

pytestmark = pytest.mark.anyio

ROWS = every_wish([VOLCENGINE, TENCENT, ZEGO])
END_EVERY_SESSION = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
SHUTDOWN_S = 5
SLACK_S = 8
"""For closing connections on which nobody answers."""


async def test_a_server_that_is_killed_and_restarted_in_the_middle(tmp_path: Path) -> None:
    # Durable settings: what was committed must be there afterwards.
    with running_server(tmp_path / "server", settings=()) as server:
        await upgrade(server.url())
        async with open_world(server.url(), tmp_path / "world", ROWS) as world:
            daemon = await world.start("one")
            await world.insert()
            await world.scene.wait_for_calls(VOLCENGINE.start, 1)
            server.kill()
            await wait_logged(daemon, "database_away")
            server.start()
            async with open_application(server.url()) as world.scene.app:
                await world.change_minds()
                await world.wait_settled()
                assert daemon.events("database_back")
                assert await daemon.stop() == 0


async def test_a_server_that_was_stopped_in_good_order(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        await upgrade(server.url())
        async with open_world(server.url(), tmp_path / "world", ROWS) as world:
            daemon = await world.start("one")
            await world.insert()
            await world.wait_phase("running")
            await world.change_minds()
            server.stop()
            await wait_logged(daemon, "database_away")
            server.start()
            async with open_application(server.url()) as world.scene.app:
                await world.wait_settled()
                assert await daemon.stop() == 0


async def test_every_session_ended_again_and_again(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = await make_database("postgresql")
    async with open_world(url, tmp_path / "world", ROWS) as world:
        daemon = await world.start("one")
        await wait_logged(daemon, "waker_listens")
        await world.insert()
        await end_sessions(world)
        await world.wait_phase("running")
        await wait_logged(daemon, "waker_listens", times=2)
        await world.change_minds()
        await end_sessions(world)
        await world.wait_settled()
        # The channel is listened to again: its session was one of those that were ended.
        await wait_logged(daemon, "waker_listens", times=3)
        assert await daemon.stop() == 0


async def test_a_network_that_is_half_open(make_database: MakeDatabase, tmp_path: Path) -> None:
    url = await make_database("postgresql")
    async with (
        behind_proxy(url) as (proxy, through),
        open_world(url, tmp_path / "world", ROWS) as world,
    ):
        world.scene.settings["database"]["url"] = through
        daemon = await world.start("one")
        await world.insert()
        await world.wait_phase("running")
        proxy.is_half_open = True
        await world.change_minds()
        await wait_logged(daemon, "database_away")
        proxy.is_half_open = False
        await world.wait_settled()
        assert await daemon.stop() == 0


async def test_asked_to_end_while_the_database_is_away(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = await make_database("postgresql")
    async with (
        behind_proxy(url) as (proxy, through),
        open_world(url, tmp_path / "world", ROWS) as world,
    ):
        world.scene.settings["database"]["url"] = through
        world.scene.settings["daemon"] = {"shutdown_timeout_s": SHUTDOWN_S}
        first = await world.start("one")
        await world.scene.vendors.script(VOLCENGINE.start, "delay_reply", ms=500, n=3)
        await world.insert()
        await world.scene.wait_for_faults()
        proxy.is_half_open = True
        first.process.send_signal(signal.SIGTERM)
        assert await first.ended(SHUTDOWN_S + SETTLE_LAST_S + SIGN_OFF_S + SLACK_S) == 0
        proxy.is_half_open = False
        await world.change_minds()
        second = await world.start("two")
        await world.wait_settled()
        assert await second.stop() == 0


@asynccontextmanager
async def behind_proxy(url: str) -> AsyncIterator[tuple[FaultProxy, str]]:
    """Yield a proxy before the server of a URL, and the URL that leads through it."""
    parsed = make_url(url)
    async with fault_proxy(parsed.host or "127.0.0.1", parsed.port or 5432) as proxy:
        through = parsed.set(host="127.0.0.1", port=proxy.port)
        yield proxy, through.render_as_string(hide_password=False)


async def wait_logged(daemon: Daemon, event: str, times: int = 1) -> None:
    """Wait for a line of the daemon's log."""

    async def look() -> bool | None:
        return True if len(daemon.events(event)) >= times else None

    async def awaited() -> str:
        return f"{times} lines {event}; {await daemon.describe()}"

    await until(look, awaited, PATIENCE_S)


async def end_sessions(world: World) -> None:
    """End every session of the daemon."""
    ended = await world.scene.app.read(END_EVERY_SESSION)
    assert ended
