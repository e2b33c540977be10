"""SQLite's one lock and its one disk: others hold the lock, the disk is full."""

import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from anyio import to_thread

from orchestrator.clock import boot_ns
from tests.crash.conftest import MakeDatabase
from tests.crash.worlds import PATIENCE_S, VENDORS, World, every_wish, open_world
from tests.daemon.application import SQLITE, update_task
from tests.daemon.running import Daemon, until

pytestmark = pytest.mark.anyio

HELD_S = 3
TIMEOUT_S = 5
"""What the documents tell users to set."""
ROWS = every_wish(VENDORS)
ROUNDS = 40
SMALL_BYTES = 8_192
"""Less than the write-ahead log has; enough for a few lines of the daemon's own log."""


async def test_a_foreign_writer_that_holds_the_lock_for_seconds(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = await make_database("sqlite")
    async with open_world(url, tmp_path / "world", ROWS) as world:
        daemon = await world.start("one")
        await world.insert()
        await world.wait_phase("running")
        await world.change_minds()
        with closing(connect(url)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            foreign.execute("UPDATE agent_task SET labels = '{\"held\": true}'")
            await wait_silent(world)
            foreign.execute("COMMIT")
        await world.wait_settled()
        assert await daemon.stop() == 0


async def wait_silent(world: World) -> None:
    """Wait until the daemon could not write its heartbeat for some seconds."""
    since = world.scene.app.in_seconds(-HELD_S)

    async def look() -> bool | None:
        return True if await world.scene.app.read(f"{_BEATS}{since}") else None

    async def awaited() -> str:
        return f"a daemon that cannot write\n{await world.describe()}"

    await until(look, awaited)


async def test_the_application_writes_while_the_daemon_is_busy(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = await make_database("sqlite")
    rows = every_wish(VENDORS, copies=5)
    async with open_world(url, tmp_path / "world", rows) as world:
        daemon = await world.start("one")
        await world.insert()
        waits = await to_thread.run_sync(flip, url, [row.id for row in rows])
        await world.change_minds()
        await world.wait_settled()
        print(f"slowest of {len(waits)} writes beside a busy daemon: {max(waits):.3f} s")  # noqa: T201 - for people
        assert max(waits) < TIMEOUT_S
        assert await daemon.stop() == 0


def flip(url: str, ids: list[str]) -> list[float]:
    """Write as an application does, one transaction after the other; return what each took."""
    waits = []
    with closing(connect(url)) as user:
        for number in range(ROUNDS):
            wanted = "'stopped'" if number % 2 else "'running'"
            for id_ in ids[number % 3 :: 3]:
                began = boot_ns()
                user.execute(update_task(id_, desired_state=wanted))
                waits.append((boot_ns() - began) / 1e9)
    return waits


async def test_nothing_is_sent_unannounced_while_the_disk_is_full(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = await make_database("sqlite")
    async with open_world(url, tmp_path / "world", ROWS) as world:
        daemon = await world.start("one")
        limits = fill_disk(daemon)
        await world.insert()
        await wait_logged(daemon, "database_away")
        assert daemon.process.poll() is None
        assert await world.scene.vendors.calls() == []
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, limits)
        await wait_logged(daemon, "database_back")
        await world.change_minds()
        await world.wait_settled()
        told = daemon.events("database_away")
        assert len(told) == 1, told
        assert "full" in told[0]["error"] or "disk" in told[0]["error"], told
        assert await daemon.stop() == 0


async def test_outcomes_wait_for_room_on_the_disk(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = await make_database("sqlite")
    async with open_world(url, tmp_path / "world", ROWS) as world:
        daemon = await world.start("one")
        for customer in VENDORS:
            await world.scene.vendors.script(customer.start, "delay_reply", ms=400, n=3)
        await world.insert()
        await world.scene.wait_for_faults()
        limits = fill_disk(daemon)
        await wait_logged(daemon, "settle_failed")
        live = {agent["id"] for agent in await world.scene.vendors.live()}
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, limits)
        await world.wait_phase("running")
        # Their outcomes were kept: nobody had to start them again.
        assert {agent["id"] for agent in await world.scene.vendors.live()} == live
        await world.change_minds()
        await world.wait_settled()
        assert await daemon.stop() == 0


def fill_disk(daemon: Daemon) -> tuple[int, int]:
    """Let no file of a process grow any more; return its limits as they were."""
    return resource.prlimit(
        daemon.pid, resource.RLIMIT_FSIZE, (SMALL_BYTES, resource.RLIM_INFINITY)
    )


_BEATS = "SELECT id FROM daemon WHERE heartbeat_at <= "


def connect(url: str) -> sqlite3.Connection:
    path = url.removeprefix(SQLITE)
    return sqlite3.connect(path, timeout=TIMEOUT_S, isolation_level=None)


async def wait_logged(daemon: Daemon, event: str) -> None:
    """Wait for a line of the daemon's log."""

    async def look() -> bool | None:
        return True if daemon.events(event) else None

    async def awaited() -> str:
        return f"the line {event}; {await daemon.describe()}"

    await until(look, awaited, PATIENCE_S)
