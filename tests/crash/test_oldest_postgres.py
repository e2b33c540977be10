"""The oldest Postgres that the tests can start: all is well on it, and frozen sessions are ended.

It has no limit for a transaction as a whole, so what a daemon left there that froze in the middle
of a command is ended by another daemon.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from orchestrator.store import frozen
from orchestrator.store.engine import Database, open_database
from orchestrator.store.migrate import upgrade
from tests.crash.half_a_command import say_half_a_command, send
from tests.crash.worlds import PATIENCE_S
from tests.daemon.application import update_task
from tests.daemon.customers import ZEGO
from tests.daemon.running import open_scene, until
from tests.postgres_server import OLDEST, running_server

pytestmark = pytest.mark.anyio

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

OURS = "orchestrator"
ANY_AGE, AN_HOUR = timedelta(0), timedelta(hours=1)

WATCH = "SELECT state, wait_event FROM pg_stat_activity WHERE pid = $1"
LOCK_STATUS = "SELECT 1 FROM agent_status WHERE task_id = $1 FOR UPDATE"


@pytest.fixture(scope="module")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database on that server, in place of the one that all other tests use."""
    with running_server(tmp_path_factory.mktemp("oldest"), build=OLDEST) as server:
        yield server.url()


@pytest.fixture
async def url(empty_postgres_url: str) -> str:
    await upgrade(empty_postgres_url)
    return empty_postgres_url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = open_database(url)
    yield opened
    await opened.close()


@pytest.fixture
async def plain_url(url: str) -> AsyncIterator[str]:
    """The same database, for a role that may log in and nothing else."""
    async with session(url) as superuser:
        await superuser.execute("CREATE ROLE plain LOGIN")
        yield make_url(url).set(username="plain").render_as_string()
        await superuser.execute("DROP ROLE plain")


@asynccontextmanager
async def session(url: str, name: str = OURS) -> AsyncIterator[Session]:
    """Connect as a program of this name does; in the end go without a word."""
    connection = await asyncpg.connect(url, server_settings={"application_name": name})
    try:
        yield connection
    finally:
        connection.terminate()


async def freeze(one: Session, watcher: Session) -> int:
    """Stop talking in the middle of a command; return the pid of the server's process."""
    await one.execute("BEGIN")
    say_half_a_command(one)
    return await arrived(one, watcher, ("active", "ClientRead"))


async def arrived(one: Session, watcher: Session, wanted: tuple[str, str]) -> int:
    """Wait until the server says that of a session; return the pid of its process."""
    pid: int = one.get_server_pid()

    async def look() -> bool | None:
        found = await watcher.fetchrow(WATCH, pid)
        return True if found and tuple(found) == wanted else None

    async def awaited() -> str:
        return f"{wanted}, found {await watcher.fetchrow(WATCH, pid)}"

    await until(look, awaited)
    return pid


async def end_sessions(database: Database, longest: timedelta) -> list[int]:
    ended = await database.read(frozen.end_sessions, longest)
    return [one.pid for one in ended]


async def test_this_server_does_not_bound_a_transaction(url: str) -> None:
    async with session(url) as one:
        assert one.get_server_version().major < frozen.BOUNDS_TRANSACTIONS


async def test_a_session_that_froze_is_ended_and_told_once(url: str, database: Database) -> None:
    async with session(url) as one, session(url, "watcher") as watcher:
        pid = await freeze(one, watcher)
        assert await end_sessions(database, AN_HOUR) == []
        assert await end_sessions(database, ANY_AGE) == [pid]

        async def look() -> bool | None:
            return None if await watcher.fetch(WATCH, pid) else True

        async def awaited() -> str:
            return f"the end of {await watcher.fetch(WATCH, pid)}"

        await until(look, awaited)
        assert await end_sessions(database, ANY_AGE) == []


async def test_a_session_that_idles_in_a_transaction_is_ended(url: str, database: Database) -> None:
    async with session(url) as one, session(url, "watcher") as watcher:
        await one.execute("BEGIN")
        pid = await arrived(one, watcher, ("idle in transaction", "ClientRead"))
        assert await end_sessions(database, ANY_AGE) == [pid]


@pytest.mark.parametrize("name", ["psql", "orchestrator migrate", "orchestrator wake", ""])
async def test_a_session_of_another_program_is_left(
    url: str, database: Database, name: str
) -> None:
    async with session(url, name) as one, session(url, "watcher") as watcher:
        await freeze(one, watcher)
        assert await end_sessions(database, ANY_AGE) == []


async def test_a_session_in_another_database_is_left(
    url: str, database: Database, postgres_server: str
) -> None:
    async with session(postgres_server) as one, session(url, "watcher") as watcher:
        await freeze(one, watcher)
        assert await end_sessions(database, ANY_AGE) == []


async def test_a_session_of_another_role_is_left(
    url: str, plain_url: str, database: Database
) -> None:
    async with session(plain_url) as one, session(url, "watcher") as watcher:
        await freeze(one, watcher)
        assert await end_sessions(database, ANY_AGE) == []


async def test_no_right_is_needed_for_sessions_of_the_own_role(url: str, plain_url: str) -> None:
    database = open_database(plain_url)
    async with session(plain_url) as one, session(url, "watcher") as watcher:
        pid = await freeze(one, watcher)
        assert await end_sessions(database, ANY_AGE) == [pid]
    await database.close()


async def test_a_session_that_waits_for_a_lock_is_left(url: str, database: Database) -> None:
    async with session(url, "watcher") as watcher, session(url) as one:
        await watcher.execute("SELECT pg_advisory_lock(1)")
        query = b"SELECT pg_advisory_xact_lock(1)\x00"
        send(one, b"Q" + (len(query) + 4).to_bytes(4, "big") + query)
        await arrived(one, watcher, ("active", "advisory"))
        assert await end_sessions(database, ANY_AGE) == []


async def test_a_session_that_rests_is_left(url: str, database: Database) -> None:
    async with session(url, "watcher") as watcher, session(url) as one:
        await one.execute("SELECT 1")
        await arrived(one, watcher, ("idle", "ClientRead"))
        assert await end_sessions(database, ANY_AGE) == []


async def test_on_sqlite_there_is_nothing_to_end(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    assert await end_sessions(database, ANY_AGE) == []
    await database.close()


async def test_a_daemon_stops_an_agent_whose_row_a_frozen_daemon_has_locked(
    url: str, tmp_path: Path
) -> None:
    """And so, by the way, an agent's whole life on this server."""
    async with open_scene(url, tmp_path) as scene, session(url) as one, session(url) as watcher:
        daemon = await scene.start_daemon()
        await scene.ask_for(ZEGO, "a")
        await scene.wait("a", PATIENCE_S, phase="running")
        await one.execute("BEGIN")
        await one.fetch(LOCK_STATUS, "a")
        say_half_a_command(one)
        pid = await arrived(one, watcher, ("active", "ClientRead"))
        await scene.app.write(update_task("a", desired_state="'stopped'"))
        await scene.wait("a", PATIENCE_S, phase="stopped")
        told = daemon.events("frozen_session_ended")
        assert [line["backend_pid"] for line in told] == [pid]
        assert told[0]["age_s"] >= frozen.LONGEST_TRANSACTION.seconds
        assert await scene.vendors.calls("DeleteAgentInstance")
