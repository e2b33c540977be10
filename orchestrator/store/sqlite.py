"""SQLite: one connection that writes, one that reads, each used by one thread at a time.

The lock. SQLite has one writer, and its own busy handler sleeps longer and longer: 30 ms and more
at the 95th percentile beside a busy application. So we ask again every 0.2 ms ourselves, and after
a transaction we leave the lock alone for as long as we held it, so that others get their turn.

Rule 1: a write begins with BEGIN IMMEDIATE: who has begun has the lock and will not lose it.
Rule 2: the file is never created here; `migrate` does that.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple, cast

import anyio
from anyio import to_thread
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from orchestrator.clock import boot_ns
from orchestrator.core.model import WorkClass
from orchestrator.errors import SchemaError
from orchestrator.store.engine import Database, DatabaseAway, DatabaseRefuses, DialectName

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LOCK_RETRY_S: Final = 0.0002
LOCK_WAIT_S: Final = 10.0
LONGEST_PAUSE_S: Final = 0.002
"""No transaction of ours should hold the lock for longer, so no pause need be longer."""

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_AWAY: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_REFUSED: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)
"""What waiting will not mend."""


class SqliteDatabase(Database):
    """An SQLite file in WAL mode."""

    dialect: DialectName = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self._reader = _Seat(path, ("PRAGMA busy_timeout = 1000", "PRAGMA query_only = ON"))
        self._writer = _Writer(path, ("PRAGMA busy_timeout = 0", "PRAGMA foreign_keys = ON"))

    async def read(self, operation: Callable[[Connection, *Ts], T], *args: *Ts) -> T:
        """See `Database.read`."""
        return await self._reader.run(lambda: operation(self._reader.connection(), *args))

    async def write(
        self,
        operation: Callable[[Connection, *Ts], T],
        *args: *Ts,
        durable: bool = True,
        work_class: WorkClass | None = None,
    ) -> T:
        """See `Database.write`. There is one writer, so the class of work makes no difference."""
        del work_class
        return await self._writer.run(
            lambda: self._writer.transact(operation, args, durable=durable)
        )

    async def close(self) -> None:
        """See `Database.close`."""
        with anyio.CancelScope(shield=True):
            await self._reader.run(self._reader.close)
            await self._writer.run(self._writer.close)


class _Seat:
    """A connection that is opened at its first use, and a thread's turn at it."""

    def __init__(self, path: Path, pragmas: tuple[str, ...]) -> None:
        self._path = path
        self._pragmas = pragmas
        self._turn = anyio.CapacityLimiter(1)
        self._connection: Connection | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Run work in a thread, alone. Once it runs it is waited for, whoever is cancelled."""
        try:
            return await to_thread.run_sync(work, limiter=self._turn)
        except (DBAPIError, sqlite3.Error) as error:
            trouble = find_file_trouble(error, self._path)
            if trouble is None:
                raise
            raise trouble from error

    def connection(self) -> Connection:
        """Return the connection. Raises SchemaError if there is no file."""
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> Connection:
        _find_file(self._path)
        connection = create_sqlite_engine(self._path).connect()
        for pragma in self._pragmas:
            connection.exec_driver_sql(pragma)
        return connection


class _Writer(_Seat):
    """The connection that writes."""

    _released_ns = 0
    _held_ns = 0
    _synchronous = ""

    def transact(
        self, operation: Callable[[Connection, *Ts], T], args: tuple[*Ts], *, durable: bool
    ) -> T:
        """Run an operation between BEGIN IMMEDIATE and COMMIT, or ROLLBACK and raise."""
        connection = self.connection()
        driver = driver_of(connection)
        self._sync(driver, "FULL" if durable else "NORMAL")
        self._leave_to_others()
        begin_immediate(driver, self._path)
        began_ns = boot_ns()
        try:
            result = operation(connection, *args)
            driver.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.OperationalError):  # some errors have rolled back already
                driver.execute("ROLLBACK")
            raise
        finally:
            self._released_ns = boot_ns()
            self._held_ns = self._released_ns - began_ns
        return result

    def _sync(self, driver: sqlite3.Connection, mode: str) -> None:
        """Sync the log at each commit (FULL), or only before it is copied into the database."""
        if mode != self._synchronous:
            driver.execute(f"PRAGMA synchronous = {mode}")
            self._synchronous = mode

    def _leave_to_others(self) -> None:
        """Wait for what is left of a pause as long as the last transaction."""
        pause_s = min(self._held_ns / 1e9, LONGEST_PAUSE_S)
        left_s = pause_s - (boot_ns() - self._released_ns) / 1e9
        if left_s > 0:
            time.sleep(left_s)


def begin_immediate(driver: sqlite3.Connection, path: Path) -> None:
    """Take the lock, asking every 0.2 ms. Raises DatabaseAway after 10 s without it."""
    give_up_ns = boot_ns() + int(LOCK_WAIT_S * 1e9)
    while True:
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if _primary_code(error) not in _BUSY:
                raise
        else:
            return
        if boot_ns() > give_up_ns:
            message = (
                f"{path}: another program has held the write lock for {LOCK_WAIT_S:.0f} s; "
                "whoever writes there must commit soon, and set a timeout (`.timeout 5000`) to "
                "wait for its turn"
            )
            raise DatabaseAway(message)
        time.sleep(LOCK_RETRY_S)


def create_sqlite_engine(path: Path) -> Engine:
    """Return an engine for an existing file that begins no transaction by itself."""

    def connect() -> sqlite3.Connection:
        driver = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        driver.execute("PRAGMA journal_mode = WAL")
        driver.text_factory = _as_text
        return driver

    # A specification may hold a key, and errors are logged: no parameters in them.
    return create_engine(
        "sqlite+pysqlite://", creator=connect, poolclass=NullPool, hide_parameters=True
    )


def _as_text(stored: bytes) -> str:
    """Return a text; what is no UTF-8 in it is U+FFFD.

    SQLite keeps whatever bytes an application calls text, and one row of them must hide neither
    the others from a person, nor itself from the stop that ends it.
    """
    return str(stored, "utf-8", "replace")


def _find_file(path: Path) -> None:
    """Raise SchemaError if there is no file, DatabaseRefuses if one may not even look for it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        message = f"there is no database at {path}: run `orchestrator migrate`"
        raise SchemaError(message) from None
    except OSError as error:
        raise DatabaseRefuses(f"{path}: {error.strerror}") from error


def find_file_trouble(error: DBAPIError | sqlite3.Error, path: Path) -> DatabaseAway | None:
    """Return the trouble with the file that an error tells of; null: it tells of something else."""
    message = f"{path}: {_driver_error(error)}"
    code = _primary_code(error)
    if code == sqlite3.SQLITE_CANTOPEN and _is_closed(path):
        return DatabaseRefuses(f"{message}: this user may not read and write it")
    if code in _REFUSED:
        return DatabaseRefuses(message)
    return DatabaseAway(message) if code in _AWAY else None


def _is_closed(path: Path) -> bool:
    """Return whether a file that is there cannot be opened for want of a right."""
    return path.exists() and not os.access(path, os.R_OK | os.W_OK)


def driver_of(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection below."""
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)


def _driver_error(error: DBAPIError | sqlite3.Error) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _primary_code(error: DBAPIError | sqlite3.Error) -> int:
    """Return SQLite's result code without its extension."""
    return getattr(_driver_error(error), "sqlite_errorcode", 0) & 0xFF
