"""What is wrong with a database as a whole, told apart from what is wrong with a statement."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from orchestrator.errors import UsageError
from orchestrator.store.engine import (
    DatabaseAway,
    DatabaseRefuses,
    StatementError,
    is_passing,
    now,
    open_database,
    sqlite_path,
)
from orchestrator.store.migrate import upgrade
from tests.store.rows import TASK, plain, value

pytestmark = pytest.mark.anyio

FILE = "orchestrator.db"


def insert_task(connection: Connection) -> None:
    connection.execute(plain(TASK))


def with_user(url: str, name: str) -> str:
    return make_url(url).set(username=name).render_as_string(hide_password=False)


async def run_as_owner(url: str, *statements: str) -> None:
    owner = await asyncpg.connect(url)
    for statement in statements:
        await owner.execute(statement)
    await owner.close()


# --- a server


async def test_a_right_that_is_missing_is_no_matter_of_a_row(postgres_url: str) -> None:
    await run_as_owner(
        postgres_url,
        "DROP ROLE IF EXISTS trouble_reader",
        "CREATE ROLE trouble_reader LOGIN",
    )
    database = open_database(with_user(postgres_url, "trouble_reader"))
    try:
        with pytest.raises(DatabaseRefuses, match="permission denied for"):
            await database.write(insert_task)
    finally:
        await database.close()
        await run_as_owner(postgres_url, "DROP ROLE trouble_reader")


async def test_a_server_that_only_reads_is_away_until_it_writes(postgres_url: str) -> None:
    """Like a standby: by the same name another server may answer at the next try."""
    name = make_url(postgres_url).database
    limit = f'ALTER DATABASE "{name}" SET default_transaction_read_only'
    await run_as_owner(postgres_url, f"{limit} = on")
    database = open_database(postgres_url)
    with pytest.raises(DatabaseAway, match="in a read-only transaction") as told:
        await database.write(insert_task)
    assert not isinstance(told.value, DatabaseRefuses)
    await run_as_owner(postgres_url, "SET default_transaction_read_only = off", f"{limit} = off")
    await database.write(insert_task)
    await database.close()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("53100", DatabaseAway),  # its disk is full
        ("53200", DatabaseAway),  # its memory
        ("58030", DatabaseAway),  # it cannot read or write
        ("42501", DatabaseRefuses),  # a right
        ("23505", StatementError),  # two rows of one key
        ("57014", StatementError),  # a statement that took too long
        ("42704", StatementError),  # at a connect this is the URL's
    ],
)
async def test_whose_trouble_an_error_is(
    postgres_url: str, state: str, expected: type[Exception]
) -> None:
    database = open_database(postgres_url)
    told = f"DO $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{state}'; END $$"
    with pytest.raises(expected, match="trouble") as raised:
        await database.write(lambda connection: connection.execute(plain(told)))
    assert isinstance(raised.value, DatabaseRefuses) == (expected is DatabaseRefuses)
    await database.close()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ("connect_timeout=3", 'unrecognized configuration parameter "connect_timeout"'),
        ("work_mem=much", 'invalid value for parameter "work_mem"'),
        ("sslmode=nonsense", "`sslmode` parameter must be one of"),
    ],
)
async def test_a_url_that_asks_for_what_there_is_not(
    postgres_url: str, parameters: str, sentence: str
) -> None:
    database = open_database(f"{postgres_url}?{parameters}")
    with pytest.raises(DatabaseRefuses, match=sentence):
        await database.read(now)
    await database.close()


async def test_a_url_may_set_what_the_server_knows(postgres_url: str) -> None:
    database = open_database(f"{postgres_url}?work_mem=8MB&sslmode=prefer&lock_timeout=5s")
    assert await value(database, "SHOW work_mem") == "8MB"
    assert await value(database, "SHOW lock_timeout") == "1s"  # our own limits are not for sale
    await database.close()


async def test_a_table_that_others_hold_is_a_matter_of_the_moment(postgres_url: str) -> None:
    database = open_database(postgres_url)
    holder = await asyncpg.connect(postgres_url)
    async with holder.transaction():
        await holder.execute("LOCK TABLE agent_task IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StatementError) as told:
            await database.write(insert_task)
    await holder.close()
    assert is_passing(told.value)
    await database.write(insert_task)
    with pytest.raises(StatementError) as wrong:
        await database.write(insert_task)  # the same id again
    assert not is_passing(wrong.value)
    await database.close()


async def test_a_schema_that_one_may_not_use_gets_no_tables(postgres_url: str) -> None:
    """Postgres would make them among the temporary ones, and stumble over them later."""
    await run_as_owner(
        postgres_url,
        "DROP ROLE IF EXISTS trouble_stranger",
        "CREATE ROLE trouble_stranger LOGIN",
        "CREATE SCHEMA closed",
    )
    try:
        with pytest.raises(DatabaseRefuses, match="may not use the schema closed"):
            await upgrade(with_user(postgres_url, "trouble_stranger"), schema="closed")
    finally:
        await run_as_owner(postgres_url, "DROP ROLE trouble_stranger")


# --- a file


async def test_a_file_that_somebody_has_for_himself_is_away(sqlite_url: str) -> None:
    path = sqlite_path(sqlite_url)
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("PRAGMA locking_mode = EXCLUSIVE")
        stranger.execute("BEGIN IMMEDIATE")
        stranger.execute("UPDATE installation SET amnesty_at = amnesty_at")
        stranger.execute("COMMIT")
        database = open_database(sqlite_url)
        with pytest.raises(DatabaseAway, match="database is locked") as told:
            await database.read(now)
        with pytest.raises(DatabaseAway, match="database is locked"):
            await upgrade(sqlite_url)
    assert not isinstance(told.value, DatabaseRefuses)
    await database.read(now)
    await database.close()


def attempt(folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command as a user whom the modes of files bind, which they do not if it is root."""
    config = folder / "config.toml"
    config.write_text(f'[database]\nurl = "sqlite:///{FILE}"\n', "utf-8")
    bound = ("setpriv", "--bounding-set=-all") if os.geteuid() == 0 else ()
    return subprocess.run(
        [*bound, sys.executable, "-m", "orchestrator", *command.split(), "-c", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["run", "migrate --wait"])
async def test_a_file_that_one_may_not_open_is_not_waited_for(tmp_path: Path, command: str) -> None:
    """As `migrate` run by root leaves it behind for the service."""
    await upgrade(f"sqlite:///{tmp_path / FILE}")
    (tmp_path / FILE).chmod(0)
    done = attempt(tmp_path, command)
    assert done.returncode == UsageError.exit_code, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"{FILE}: unable to open database file: this user may not read and write it" in line


async def test_a_file_that_one_may_not_even_look_for(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    await upgrade(f"sqlite:///{closed / FILE}")
    (tmp_path / FILE).symlink_to(closed / FILE)
    closed.chmod(0)
    done = attempt(tmp_path, "run")
    closed.chmod(0o700)
    assert done.returncode == UsageError.exit_code, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"{FILE}: Permission denied")


async def test_a_lock_that_root_has_left_behind_is_not_tried_for_ever(tmp_path: Path) -> None:
    await upgrade(f"sqlite:///{tmp_path / FILE}")
    lock = tmp_path / f"{FILE}.lock"
    lock.touch()
    lock.chmod(0)
    done = attempt(tmp_path, "run")
    assert done.returncode == UsageError.exit_code, done.stderr
    (line,) = done.stderr.splitlines()
    assert "cannot hold the database" in line
