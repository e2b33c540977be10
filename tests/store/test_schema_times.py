"""What may be written where an instant belongs, and how it reads."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, select
from sqlalchemy import insert as insert_into
from sqlalchemy import update as update_of
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

from orchestrator.store.columns import Timestamp
from orchestrator.store.engine import Database, open_database
from orchestrator.store.schema import agent_status, agent_task
from tests.store.rows import TASK, changes, insert, quoted, run, update, value

pytestmark = pytest.mark.anyio

NOON = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)

SPELLINGS = {
    "2030-06-01 12:00": NOON,
    "2030-06-01 12:00:00": NOON,
    "2030-06-01T12:00:00": NOON,
    "2030-06-01T12:00:00Z": NOON,
    "2030-06-01 14:00:00+02:00": NOON,
    "2030-06-01T05:30:00-06:30": NOON,
    "2030-06-01 12:00:00.5": NOON + timedelta(milliseconds=500),
    "2030-06-01 12:00:00.123000": NOON + timedelta(milliseconds=123),
    "2030-06-01 12:00:00.12345Z": NOON + timedelta(milliseconds=123),
    "2030-06-01 23:59:59.999+00:00": datetime(2030, 6, 1, 23, 59, 59, 999_000, tzinfo=UTC),
}

IDENTITY = {"id": "'t1'", "account": "'a'", "room_id": "'r'", "user_id": "'u'"}

REFUSED = [
    "12:00",
    "2025-02-30",
    "2025-02-30 10:00:00",
    "2460000.5",
    "some day",
    "",
    "0001-01-01 00:00:00",
]
REFUSED_BY_SQLITE = ["2025-01-01", "2460000.123456789", "1735689600", "2025-01-01 24:00:00", "now"]


def read_stop_at(connection: Connection) -> datetime | None:
    found: datetime | None = connection.execute(select(agent_task.c.stop_at)).scalar_one()
    return found


def write_stop_at(connection: Connection, instant: datetime) -> None:
    connection.execute(update_of(agent_task).values(stop_at=instant))


def is_due(connection: Connection, instant: datetime) -> bool:
    found = connection.execute(select(agent_task.c.id).where(agent_task.c.stop_at <= instant))
    return found.first() is not None


@pytest.mark.parametrize(("written", "meant"), SPELLINGS.items(), ids=SPELLINGS)
async def test_every_spelling_reads_and_compares_as_what_it_means(
    database: Database, written: str, meant: datetime
) -> None:
    await run(database, TASK, update("agent_task", f"stop_at = {quoted(written)}"))
    found = await database.read(read_stop_at)
    assert found is not None
    assert found.utcoffset() == timedelta(0)
    assert abs(found - meant) < timedelta(milliseconds=1)
    assert await database.read(is_due, meant + timedelta(milliseconds=1))
    assert not await database.read(is_due, meant - timedelta(milliseconds=1))
    assert await changes(database) == [("t1", "insert", False), ("t1", "timing", False)]


@pytest.mark.parametrize("written", SPELLINGS)
async def test_an_insert_with_any_spelling_is_one_change(database: Database, written: str) -> None:
    literal = quoted(written)
    await run(
        database,
        insert("agent_task", **IDENTITY, start_at=literal, start_by=literal, stop_at=literal),
    )
    assert await changes(database) == [("t1", "insert", False)]


@pytest.mark.parametrize("written", REFUSED)
async def test_what_is_no_full_date_and_time_is_refused(database: Database, written: str) -> None:
    await run(database, TASK)
    for column in ("start_at", "start_by", "stop_at", "heartbeat_at"):
        with pytest.raises(DBAPIError):
            await run(database, update("agent_task", f"{column} = {quoted(written)}"))
    assert await database.read(read_stop_at) is None


@pytest.mark.parametrize("written", [*REFUSED_BY_SQLITE, *REFUSED])
async def test_sqlite_refuses_what_it_would_misread(sqlite_url: str, written: str) -> None:
    database = open_database(sqlite_url)
    await run(database, TASK)
    bare = written if written.replace(".", "").isdigit() else "1735689600"
    for literal in (quoted(written), bare):
        with pytest.raises(DBAPIError):
            await run(database, update("agent_task", f"stop_at = {literal}"))
    await database.close()


async def test_the_daemons_microseconds_survive(database: Database) -> None:
    exact = NOON + timedelta(microseconds=123_457)
    await run(database, TASK)
    await database.write(write_stop_at, exact)
    assert await database.read(read_stop_at) == exact


async def test_an_instant_without_a_zone_is_not_bound(database: Database) -> None:
    await run(database, TASK)
    with pytest.raises(Exception, match="an instant needs a time zone"):
        await database.write(write_stop_at, NOON.replace(tzinfo=None))


async def test_sqlite_stores_the_daemons_format(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    await run(database, TASK, "UPDATE agent_task SET stop_at = '2030-06-01T14:00+02:00'")
    assert await value(database, "SELECT stop_at FROM agent_task") == "2030-06-01 12:00:00.000000"
    length = "SELECT length(created_at) FROM agent_task"
    assert await value(database, length) == len("2030-06-01 12:00:00.000000")
    await database.close()


async def test_what_cannot_be_read_comes_back_as_it_is(sqlite_url: str) -> None:
    def poison(connection: Connection) -> None:
        row = {"task_id": "t9", "account": "a", "room_id": "r", "user_id": "u"}
        connection.execute(insert_into(agent_status).values(row))
        connection.exec_driver_sql("UPDATE agent_status SET due_at = 'soon'")

    def read(connection: Connection) -> object:
        return connection.execute(select(agent_status.c.due_at)).scalar_one()

    database = open_database(sqlite_url)
    await database.write(poison)
    assert await database.read(read) == "soon"
    await database.close()


@given(st.datetimes(timezones=st.timezones()), st.datetimes(timezones=st.timezones()))
def test_sqlites_text_sorts_as_the_instants_do(one: datetime, other: datetime) -> None:
    dialect = sqlite.dialect()
    texts = [Timestamp().process_bind_param(instant, dialect) for instant in (one, other)]
    instants = [instant.astimezone(UTC) for instant in (one, other)]
    assert (texts[0] < texts[1]) == (instants[0] < instants[1])
    assert [Timestamp().process_result_value(text, dialect) for text in texts] == instants
