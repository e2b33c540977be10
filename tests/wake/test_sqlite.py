import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
import structlog

from orchestrator.wake import sqlite
from orchestrator.wake.sqlite import HINTED, UNHINTED, Pace, SqliteWaker

pytestmark = pytest.mark.anyio

LONG = timedelta(seconds=10)
# With pauses like this between looks, only inotify can be the reason for a wake.
NEVER = Pace(first=2 * LONG, growth=1, rest=2 * LONG)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "a b#.db"
    with closing(connect(path)) as writer:
        writer.execute("pragma journal_mode = wal")
        writer.execute("create table t (x)")
    return path


@pytest.fixture
def writer(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(database)) as connection:
        connection.execute("pragma synchronous = full")
        yield connection


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


async def hinted(waker: SqliteWaker) -> None:
    """Wait for a hint, not for the time-out."""
    with anyio.fail_after(LONG.total_seconds()):
        await waker.wait(LONG * 2)


async def settle(waker: SqliteWaker) -> None:
    """Take the hint that a waker gives when it first sees the database."""
    await hinted(waker)
    await anyio.wait_all_tasks_blocked()


async def test_commit_of_another_connection_wakes_by_inotify(
    database: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "HINTED", NEVER)
    async with SqliteWaker(database) as waker:
        await settle(waker)
        for _ in range(20):
            writer.execute("insert into t values (1)")
            await hinted(waker)


async def test_commit_of_another_connection_wakes_by_polling(
    database: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    async with SqliteWaker(database) as waker:
        await settle(waker)
        for _ in range(20):
            writer.execute("insert into t values (1)")
            await hinted(waker)


async def test_commit_of_another_process_wakes(database: Path) -> None:
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"
    )
    async with SqliteWaker(database) as waker:
        await settle(waker)
        await anyio.run_process(
            [sys.executable, "-c", code, str(database), "insert into t values (1)"],
            stdout=subprocess.DEVNULL,
        )
        await hinted(waker)


async def test_commit_that_is_visible_only_after_its_hint_wakes(
    database: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without inotify the test gives the hints itself, each in time for one look before the commit.
    # The first ends the quick looks that follow the opening of the database.
    monkeypatch.setattr(sys, "platform", "darwin")
    once_more = Pace(first=timedelta(milliseconds=50), growth=1e9, rest=2 * LONG)
    monkeypatch.setattr(sqlite, "UNHINTED", once_more)
    async with SqliteWaker(database) as waker:
        await settle(waker)
        for _ in range(2):
            waker._stirred.give()
            await anyio.wait_all_tasks_blocked()
        writer.execute("insert into t values (1)")
        await hinted(waker)


async def test_rolled_back_work_does_not_wake(database: Path, writer: sqlite3.Connection) -> None:
    async with SqliteWaker(database) as waker:
        await settle(waker)
        writer.execute("begin immediate")
        writer.execute("insert into t values (1)")
        writer.execute("rollback")
        assert await waker._hint.wait(timedelta(milliseconds=50)) is False


async def test_nudge_ends_the_wait_and_is_kept(database: Path) -> None:
    async with SqliteWaker(database) as waker:
        await settle(waker)
        waker.nudge()
        waker.nudge()
        await hinted(waker)
        assert await waker._hint.wait(timedelta(milliseconds=20)) is False


async def test_database_that_is_made_later_is_found(tmp_path: Path) -> None:
    path = tmp_path / "later.db"
    with structlog.testing.capture_logs() as logs:
        async with SqliteWaker(path) as waker:
            await hinted(waker)
            await hinted(waker)
            assert not path.exists()
            with closing(connect(path)) as writer:
                writer.execute("pragma journal_mode = wal")
                writer.execute("create table t (x)")
                while waker._is_blind:
                    await hinted(waker)
                await waker.wait(timedelta(0))
                writer.execute("insert into t values (1)")
                await hinted(waker)
    assert [entry["event"] for entry in logs] == ["waker_blind", "waker_sees_again"]


async def test_link_to_the_database_is_followed(
    tmp_path: Path, database: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "HINTED", NEVER)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(database)
    async with SqliteWaker(link) as waker:
        await settle(waker)
        writer.execute("insert into t values (1)")
        await hinted(waker)


async def test_no_task_is_left(database: Path) -> None:
    before = asyncio.all_tasks()
    async with SqliteWaker(database) as waker:
        await settle(waker)
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("pace", [HINTED, UNHINTED], ids=["inotify", "polling"])
def test_pauses_grow_to_rest_and_stay(pace: Pace) -> None:
    pauses = [pace.first]
    while pauses[-1] < pace.rest:
        pauses.append(pace.after(pauses[-1]))
        assert pauses[-1] > pauses[-2]
        assert len(pauses) < 100
    assert pace.after(pauses[-1]) == pace.rest


@pytest.mark.parametrize("pace", [HINTED, UNHINTED], ids=["inotify", "polling"])
def test_rest_is_slow_enough_for_a_hundredth_of_a_core(pace: Pace) -> None:
    # A timer and a look cost 0.1 to 0.2 ms, so 25 of them in a second stay below 10 ms.
    assert timedelta(seconds=1) / pace.rest <= 25
