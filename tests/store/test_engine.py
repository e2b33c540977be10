"""One way to run a transaction, two databases."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import asyncpg
import pytest
from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from orchestrator.core.model import WorkClass
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.store import sqlite
from orchestrator.store.engine import (
    Database,
    DatabaseAway,
    dialect_of,
    lock_rows,
    now,
    one_of,
    open_database,
    sqlite_path,
    upsert,
)
from orchestrator.store.schema import account_state, agent_status, agent_task
from tests.postgres_server import running_server
from tests.store.rows import TASK, plain, query, run, value

pytestmark = pytest.mark.anyio

COUNT = "SELECT count(*) FROM agent_task"


class Broken(Exception):  # noqa: N818 - an accident, not an error of ours
    pass


def write_and_break(connection: Connection) -> None:
    connection.execute(plain(TASK))
    raise Broken


def read_setting(connection: Connection, name: str) -> str:
    setting: str = connection.exec_driver_sql(f"SHOW {name}").scalar_one()
    return setting


def insert_tasks(connection: Connection, ids: list[str]) -> None:
    for id_ in ids:
        connection.execute(plain(TASK.replace("t1", id_)))


async def test_the_clock_is_the_databases_and_utc(database: Database) -> None:
    first, second = await database.read(now), await database.write(now)
    assert first.utcoffset() == timedelta(0)
    assert first <= second
    assert abs(datetime.now(UTC) - first) < timedelta(minutes=1)  # noqa: TID251 - the judge


async def test_an_operation_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(Broken):
        await database.write(write_and_break)
    with pytest.raises(DBAPIError):
        await run(database, TASK, "SELECT nonsense")
    assert await value(database, COUNT) == 0
    await run(database, TASK)
    assert await value(database, COUNT) == 1


@pytest.mark.parametrize("work_class", [*WorkClass, None])
@pytest.mark.parametrize("durable", [True, False])
async def test_every_class_writes(
    database: Database, work_class: WorkClass | None, durable: bool
) -> None:
    await database.write(insert_tasks, ["a"], durable=durable, work_class=work_class)
    await database.write(insert_tasks, ["b"], durable=True, work_class=work_class)
    assert await value(database, COUNT) == 2


async def test_many_writers_at_once(database: Database) -> None:
    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(database.write, insert_tasks, [f"n{number}"])
    assert await value(database, COUNT) == 30


async def test_a_list_is_one_parameter(database: Database) -> None:
    statement = select(agent_task.c.id).where(one_of(agent_task.c.id, "ids"))

    def find(connection: Connection, ids: list[str]) -> set[str]:
        return set(connection.execute(statement, {"ids": ids}).scalars())

    await database.write(insert_tasks, ["a", "b", "c"])
    assert await database.read(find, ["a", "c", "x"]) == {"a", "c"}
    assert await database.read(find, []) == set()
    assert await database.read(find, ['"', "'", "{a}", "\\", "b"]) == {"b"}


async def test_upsert(database: Database) -> None:
    def count_up(connection: Connection) -> int:
        row = upsert(account_state, dialect_of(connection)).values(account="a", live_agents=1)
        live = account_state.c.live_agents
        connection.execute(
            row.on_conflict_do_update(
                index_elements=["account"], set_={"live_agents": live + row.excluded.live_agents}
            )
        )
        total: int = connection.execute(select(live)).scalar_one()
        return total

    assert [await database.write(count_up) for _ in range(3)] == [1, 2, 3]


async def test_locked_rows_are_left_out(postgres_url: str) -> None:
    database = open_database(postgres_url)
    await database.write(insert_tasks, ["a", "b"])
    statement = lock_rows(select(agent_status.c.task_id), of=agent_status)

    def claim(connection: Connection) -> set[str]:
        return set(connection.execute(statement).scalars())

    other = await asyncpg.connect(postgres_url)
    async with other.transaction():
        await other.execute("SELECT 1 FROM agent_status WHERE task_id = 'a' FOR UPDATE")
        assert await database.write(claim) == {"b"}
    assert await database.write(claim) == {"a", "b"}
    await other.close()
    await database.close()


async def test_lock_rows_means_nothing_to_sqlite(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    await database.write(insert_tasks, ["a"])
    statement = lock_rows(select(agent_status.c.task_id), of=agent_status)
    assert (
        await database.write(lambda connection: connection.execute(statement).scalar_one()) == "a"
    )
    await database.close()


async def test_a_read_cannot_write_on_sqlite(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    with pytest.raises(DatabaseAway, match="readonly"):
        await database.read(insert_tasks, ["a"])
    await database.close()


@pytest.fixture
def stranger(sqlite_url: str) -> Iterator[sqlite3.Connection]:
    """Another program on the same file."""
    with closing(sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout = 0")
        yield connection


async def test_a_write_waits_for_the_lock(sqlite_url: str, stranger: sqlite3.Connection) -> None:
    database = open_database(sqlite_url)
    assert await value(database, COUNT) == 0
    stranger.execute("BEGIN IMMEDIATE")
    stranger.execute(TASK)
    async with anyio.create_task_group() as group:
        group.start_soon(database.write, insert_tasks, ["a"])
        await anyio.wait_all_tasks_blocked()
        assert await value(database, COUNT) == 0
        stranger.execute("COMMIT")
    assert await value(database, COUNT) == 2
    await database.close()


async def test_who_never_commits_is_told_of(
    sqlite_url: str, stranger: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_WAIT_S", 0.05)
    database = open_database(sqlite_url)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(OrchestratorError, match="whoever writes there must commit soon"):
        await database.write(insert_tasks, ["a"])
    stranger.execute("ROLLBACK")
    await database.write(insert_tasks, ["a"])
    await database.close()


async def test_the_lock_is_left_to_others_for_as_long_as_it_was_held(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    ends: list[int] = []
    begins: list[int] = []

    def hold(connection: Connection) -> None:
        begins.append(time.perf_counter_ns())
        time.sleep(0.005)
        connection.execute(select(agent_task.c.id)).all()
        ends.append(time.perf_counter_ns())

    for _ in range(3):
        await database.write(hold)
    gaps = [begin - end for begin, end in zip(begins[1:], ends, strict=False)]
    assert min(gaps) >= sqlite.LONGEST_PAUSE_S * 1e9
    await database.close()


async def test_a_cancelled_write_is_whole(database: Database) -> None:
    with anyio.move_on_after(0):
        await database.write(insert_tasks, ["a", "b"])
    assert await value(database, COUNT) in {0, 2}
    await database.write(insert_tasks, ["c"])
    assert await value(database, COUNT) in {1, 3}


def synchronous(connection: Connection) -> int:
    mode: int = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    return mode


async def test_sqlites_commits_are_durable_unless_told_otherwise(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    full, normal = 2, 1
    assert await database.write(synchronous) == full
    assert await database.write(synchronous, durable=False) == normal
    assert await database.write(synchronous) == full
    assert await value(database, "PRAGMA journal_mode") == "wal"
    await database.close()


SETTINGS = {
    "synchronous_commit": "on",
    "TimeZone": "UTC",
    "idle_in_transaction_session_timeout": "2s",
    "lock_timeout": "1s",
    "statement_timeout": "10s",
    "tcp_user_timeout": "10000",
    "jit": "off",
    "application_name": "orchestrator",
    "transaction_isolation": "read committed",
}


@pytest.mark.parametrize(("name", "expected"), SETTINGS.items())
async def test_a_session_of_ours_has_our_limits(
    postgres_url: str, name: str, expected: str
) -> None:
    database = open_database(postgres_url)
    assert await database.write(read_setting, name) == expected
    await database.close()


@pytest.mark.parametrize(
    ("servers", "ours"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")]
)
async def test_a_commit_is_never_less_durable_than_the_server_says(
    postgres_url: str, servers: str, ours: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {servers}')
    await connection.close()
    database = open_database(postgres_url)
    assert await database.write(read_setting, "synchronous_commit") == ours
    assert await database.write(read_setting, "synchronous_commit", durable=False) == "off"
    assert await database.write(read_setting, "synchronous_commit") == ours
    await database.close()


async def test_stops_have_connections_that_nothing_else_takes(postgres_url: str) -> None:
    database = open_database(postgres_url, pool_size=4)
    holder = await asyncpg.connect(postgres_url)
    await run(database, TASK)

    def wait_for_lock(connection: Connection) -> None:
        connection.execute(plain("SELECT 1 FROM agent_task FOR UPDATE"))

    async def give_up() -> None:
        with pytest.raises((DBAPIError, DatabaseAway)):
            await database.write(wait_for_lock, work_class=WorkClass.START)

    async with holder.transaction(), anyio.create_task_group() as group:
        await holder.execute("SELECT 1 FROM agent_task FOR UPDATE")
        for _ in range(4):
            group.start_soon(give_up)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(0.9):  # before the first of them loses its patience
            for work_class in (WorkClass.STOP, WorkClass.LISTENING):
                await database.write(now, work_class=work_class)
    await holder.close()
    await database.close()


async def test_a_lost_connection_is_told_and_the_next_use_connects(postgres_url: str) -> None:
    database = open_database(postgres_url)
    killer = await asyncpg.connect(postgres_url)
    await database.write(now)
    await killer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'orchestrator' AND datname = current_database()"
    )
    with pytest.raises(DatabaseAway, match="the connection was lost"):
        await database.write(now)
    await database.write(now)
    await killer.close()
    await database.close()


async def test_a_server_that_is_away_and_comes_back(tmp_path: Path) -> None:
    with running_server(tmp_path / "postgres") as server:
        database = open_database(server.url())
        await database.read(now)
        server.kill()
        # A backend may outlive its postmaster by a moment, and answer once more.
        with anyio.fail_after(10), pytest.raises(DatabaseAway):
            await read_on(database)
        with pytest.raises(DatabaseAway):
            await database.read(now)
        server.start()
        assert await value(database, "SELECT 1") == 1
        await database.close()


async def read_on(database: Database) -> None:
    while True:
        await database.read(now)


async def test_nobody_there_is_said_without_the_password() -> None:
    database = open_database("postgresql://someone:not-a-secret@127.0.0.1:9/none")
    with pytest.raises(DatabaseAway) as refused:
        await database.read(now)
    assert "127.0.0.1:9/none" in str(refused.value)
    assert "not-a-secret" not in str(refused.value)
    await database.close()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"]
)
def test_any_other_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"database\.url: expected"):
        open_database(url)


def test_a_pool_must_have_room_for_every_class() -> None:
    with pytest.raises(UsageError, match="at least 3, found 2"):
        open_database("postgresql://localhost/x", pool_size=2)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("not a database at all, but long enough to be looked at" * 10)
    database = open_database(f"sqlite:///{path}")
    with pytest.raises(DatabaseAway, match="file is not a database"):
        await database.write(now)
    await database.close()


async def test_no_parameter_is_in_an_errors_text(database: Database) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(plain(TASK))
        connection.execute(agent_task.insert(), {"id": "t2", "spec": {"key": "not-a-secret"}})

    with pytest.raises(DBAPIError) as failed:
        await database.write(fail)
    assert "not-a-secret" not in str(failed.value)


async def test_a_schema_that_is_not_ours_is_not_seen(postgres_url: str) -> None:
    database = open_database(postgres_url, schema="other")
    with pytest.raises(DBAPIError, match="does not exist"):
        await query(database, COUNT)
    await database.close()
