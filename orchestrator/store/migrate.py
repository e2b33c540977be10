"""Brings a database to the schema that this version knows.

Rule 1: one at a time. Whoever migrates holds an advisory lock (Postgres) or the write lock
(SQLite) in the same transaction, so that a migration happens whole or not at all.
Rule 2: a schema that is newer than this version is left alone.
Rule 3: on Postgres no statement waits for a table for longer than `LOCK_TIMEOUT`, since all others
wait behind it. Then the whole migration is undone, and tried again a moment later.
"""

import errno
import os
import sqlite3
from contextlib import suppress
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from anyio import sleep, to_thread
from sqlalchemy import text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import SchemaError
from orchestrator.store.engine import (
    DatabaseAway,
    DatabaseRefuses,
    DialectName,
    sqlite_path,
)
from orchestrator.store.schema import REVISION
from orchestrator.store.sqlite import (
    begin_immediate,
    create_sqlite_engine,
    driver_of,
    find_file_trouble,
)
from orchestrator.store.version import newer, read_revision

SQLITE_MODE: Final = 0o660
"""Applications in the daemon's group write the same file."""

_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""Why a file cannot be made today and perhaps can tomorrow; a path or a right must be put right."""
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('orchestrator ' || :schema, 0))")
_MAY_USE: Final = text(
    "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :schema"
)
LOCK_TIMEOUT: Final = "300ms"
"""Well below the second after which the server looks for deadlocks: where a migration that holds
one table waits for another that an application holds, the migration is the one that gives way."""
LOCK_TRIES: Final = 100
LOCK_REST_S: Final = 0.5
"""Between two tries, for those who had to wait."""
_IN_THE_WAY: Final = frozenset({"55P03", "40P01"})
"""SQLSTATEs of a lock that others hold, and of a deadlock with them."""
_PATIENT: Final = {
    "application_name": "orchestrator migrate",
    "timezone": "UTC",
    "lock_timeout": LOCK_TIMEOUT,
    "statement_timeout": "0",
}
"""Unlike the daemon's sessions, a migration may take its time."""


async def upgrade(database_url: str, *, schema: str = "public", revision: str = REVISION) -> None:
    """Migrate the database to the newest schema, or to another revision, forwards or back.

    Creates the SQLite file (mode 0660) or the Postgres schema if there is none. Raises SchemaError
    if the database is newer than this version, DatabaseAway if it cannot be reached, and of that
    DatabaseRefuses if waiting will not change it: a password, a right, a path.
    """
    if make_url(database_url).get_backend_name() == "sqlite":
        await to_thread.run_sync(_upgrade_sqlite, sqlite_path(database_url), revision)
    else:
        await _upgrade_postgres(database_url, schema, revision)


def sql(dialect: DialectName, *, schema: str = "public") -> str:
    """Return the SQL that makes the newest schema in an empty database, as one transaction."""
    printed = StringIO()
    config = _config(printed)
    config.attributes["dialect"] = dialect
    config.attributes["schema"] = _schema_statements(schema) if dialect == "postgresql" else ()
    command.upgrade(config, REVISION, sql=True)
    return printed.getvalue()


def _upgrade_sqlite(path: Path, revision: str) -> None:
    _create_file(path)
    try:
        _migrate_file(path, revision)
    except (DBAPIError, sqlite3.Error) as error:
        trouble = find_file_trouble(error, path)
        if trouble is None:
            raise
        raise trouble from error


def _migrate_file(path: Path, revision: str) -> None:
    engine = create_sqlite_engine(path)
    with engine.connect() as connection:
        driver = driver_of(connection)
        begin_immediate(driver, path)
        try:
            _run(connection, revision)
            driver.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.OperationalError):  # some errors have rolled back already
                driver.execute("ROLLBACK")
            raise


def _create_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, SQLITE_MODE)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.is_file():
            return
        message = f"cannot create the database: {error}"
        passes = error.errno in _PASSING
        raise (DatabaseAway if passes else DatabaseRefuses)(message) from error
    os.fchmod(descriptor, SQLITE_MODE)  # whatever the umask says
    os.close(descriptor)


async def _upgrade_postgres(database_url: str, schema: str, revision: str) -> None:
    from orchestrator.store.postgres import (  # noqa: PLC0415 - SQLite needs no asyncpg
        connect,
        create_postgres_engine,
        find_server_trouble,
    )

    url = make_url(database_url)
    engine = create_postgres_engine(url, schema, 1, session=_PATIENT, reply_timeout_s=None)
    try:
        connection = await connect(engine)
        try:
            await _run_patiently(connection, schema, revision)
        except DBAPIError as error:
            trouble = find_server_trouble(error, url)
            if trouble is None:
                raise
            raise trouble from error
        finally:
            await connection.close()
    finally:
        await engine.dispose()


async def _run_patiently(connection: AsyncConnection, schema: str, revision: str) -> None:
    """Migrate as soon as nobody else is in the way. Raises DatabaseAway if somebody stays there."""
    for _ in range(LOCK_TRIES):
        try:
            await connection.run_sync(_run_postgres, schema, revision)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _IN_THE_WAY:
                raise
            await sleep(LOCK_REST_S)
        else:
            return
    message = (
        "another migration is in the way, or a transaction that holds a table; "
        "nothing was changed. Find it in pg_stat_activity, end it, and run `orchestrator migrate` "
        "again"
    )
    raise DatabaseAway(message)


def _run_postgres(connection: Connection, schema: str, revision: str) -> None:
    with connection.begin():
        connection.execute(_LOCK, {"schema": schema})
        may_use = connection.execute(_MAY_USE, {"schema": schema}).scalar_one_or_none()
        if may_use is None:
            connection.exec_driver_sql(f"CREATE SCHEMA {_quoted(schema)}")
        elif not may_use:  # else the tables would be made among the temporary ones
            raise DatabaseRefuses(f"this user may not use the schema {schema}")
        connection.exec_driver_sql(f"SET LOCAL search_path TO {_quoted(schema)}, pg_temp")
        _run(connection, revision)


def _run(connection: Connection, revision: str) -> None:
    """Run the migrations between where the database is and `revision`."""
    found = read_revision(connection)
    if found is not None and int(found) > int(REVISION):
        raise SchemaError(newer(found))
    config = _config()
    config.attributes["connection"] = connection
    if revision == "base" or (found is not None and int(revision) < int(found)):
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


def _config(printed: StringIO | None = None) -> Config:
    config = Config(output_buffer=printed, stdout=StringIO())
    location = str(files("migrations")).replace("%", "%%")
    config.set_main_option("script_location", location)
    return config


def _schema_statements(schema: str) -> tuple[str, ...]:
    search_path = f"SET LOCAL search_path TO {_quoted(schema)}, pg_temp"
    if schema == "public":
        return (search_path,)
    return (f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}", search_path)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
