"""Every difference between the two databases, behind one way to run a transaction.

An operation is a plain function of a SQLAlchemy `Connection`. It is run whole: on Postgres inside
one coroutine, on SQLite in one hop to a thread that keeps its connection, because a hop for each
statement would cost more than the statement.

Rule 1: a transaction is never repeated once it has begun. Only the wait for SQLite's one lock is.
Rule 2: an operation waits for nothing but its connection, and fetches what it selects.
Rule 3: no class of work uses the connections that are kept for a higher one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar, TypeVarTuple
from urllib.parse import unquote

from sqlalchemy import Boolean, Integer, Select, Table, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import SQLAlchemyError as StatementError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeEngine

from orchestrator.core.model import WorkClass
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.store.columns import NumberList, TextList, clock

__all__ = [
    "Connection",
    "Database",
    "DatabaseAway",
    "DatabaseRefuses",
    "DialectName",
    "StatementError",
    "Upsert",
    "dialect_of",
    "is_passing",
    "lock_rows",
    "none_of",
    "now",
    "one_of",
    "open_database",
    "sqlite_path",
    "upsert",
]
"""`Connection` is SQLAlchemy's, so that who writes an operation need not know whose it is."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Row = TypeVar("Row", bound=tuple[Any, ...])

DialectName = Literal["sqlite", "postgresql"]


class DatabaseAway(OrchestratorError):  # noqa: N818 - it says what is, as the others do
    """The database cannot be reached, or the connection was lost. What was sent may have run."""


class DatabaseRefuses(DatabaseAway):
    """The database is there and lets nobody in under this name, or there is none of its name.

    At the start it is the configuration that is wrong. A daemon that runs tries again, as whenever
    its database is away: somebody is at work there, and its agents run on meanwhile.
    """

    exit_code = UsageError.exit_code


_IN_THE_WAY: Final = frozenset({"55P03", "40P01", "40001"})
"""SQLSTATEs of a lock that others hold, of a deadlock, and of a transaction that lost a race."""


def is_passing(error: Exception) -> bool:
    """Return whether nothing is wrong with what was to be written: only the moment was.

    The database is away, or others hold what was needed: a migration, or an application, may lock a
    whole table for longer than our sessions wait.
    """
    if isinstance(error, DatabaseAway):
        return True
    cause = error.orig if isinstance(error, DBAPIError) else None
    return getattr(cause, "sqlstate", None) in _IN_THE_WAY


class Database(ABC):
    """An open database. Safe to use from many tasks of one event loop."""

    dialect: DialectName
    path: Path | None = None
    """SQLite: the file."""

    @abstractmethod
    async def read(self, operation: Callable[[Connection, *Ts], T], *args: *Ts) -> T:
        """Return what a read-only operation returns; each of its statements sees the newest rows.

        Raises DatabaseAway, and whatever the operation raises.
        """

    @abstractmethod
    async def write(
        self,
        operation: Callable[[Connection, *Ts], T],
        *args: *Ts,
        durable: bool = True,
        work_class: WorkClass | None = None,
    ) -> T:
        """Run an operation in one transaction and return what it returns, after the commit.

        `durable` false: a power cut may undo the last such commits, but never reorder them.
        `work_class` chooses whose connections are used; null: those kept for nobody.
        Raises DatabaseAway, and whatever the operation raises (then nothing was written).
        """

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""


def open_database(url: str, *, schema: str = "public", pool_size: int = 8) -> Database:
    """Return the database at `sqlite:///path` or `postgresql://…`. Connects at the first use.

    `schema` and `pool_size` (at least 3) are Postgres'. Raises UsageError for any other URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        message = "database.url: expected sqlite:///path or postgresql://…"
        raise UsageError(message) from None
    match parsed.get_backend_name():
        case "sqlite":
            from orchestrator.store.sqlite import SqliteDatabase  # noqa: PLC0415 - only one is used

            return SqliteDatabase(sqlite_path(url))
        case "postgresql":
            from orchestrator.store.postgres import PostgresDatabase  # noqa: PLC0415 - as above

            return PostgresDatabase(parsed, schema=schema, pool_size=pool_size)
        case other:
            message = f"database.url: expected sqlite:///path or postgresql://…, found {other}"
            raise UsageError(message)


def sqlite_path(url: str) -> Path:
    """Return the file of a `sqlite:///path` URL. Raises UsageError if it names none."""
    path = make_url(url).database
    if not path or path == ":memory:":
        message = "database.url: expected sqlite:///path with the path of a file"
        raise UsageError(message)
    return Path(unquote(path))


_NOW: Final = select(clock())


def now(connection: Connection) -> datetime:
    """Return the database's clock: an aware UTC instant, not the transaction's start."""
    instant: datetime = connection.execute(_NOW).scalar_one()
    return instant


def lock_rows(statement: Select[Row], of: Table) -> Select[Row]:
    """Return the statement that also locks the rows of `of`, leaving out those locked by others.

    SQLite needs none of it: whoever writes holds the lock of the whole database.
    """
    return statement.with_for_update(of=of, skip_locked=True)


Upsert = sqlite.Insert | postgresql.Insert


def upsert(table: Table, dialect: DialectName) -> Upsert:
    """Return an INSERT of that database that takes `on_conflict_do_nothing` and `…_do_update`."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


class _OneOf(FunctionElement[bool]):
    """Whether a column is one of a list; see `one_of`."""

    inherit_cache: bool | None = True
    type: TypeEngine[bool] = Boolean()

    def self_group(self, against: OperatorType | None = None) -> Self:  # noqa: ARG002 - the base class calls it so
        """Stand in a condition as it is.

        SQLAlchemy compares other functions with 1 there, and SQLite uses no index for that.
        """
        return self


@compiles(_OneOf, "sqlite")
def _one_of_sqlite(element: _OneOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, listed = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({listed}))"  # noqa: S608 - compiled SQL, not input


@compiles(_OneOf, "postgresql")
def _one_of_postgres(element: _OneOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, listed = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} = ANY ({listed})"


def one_of(column: ColumnElement[Any], parameter: str) -> ColumnElement[bool]:
    """Return whether the column, text or whole numbers, is one of the list bound as `parameter`.

    The list is one parameter, so the statement's text is the same for any length, and both the
    compiled statement and the server's plan are used again.
    """
    listed = NumberList() if isinstance(column.type, Integer) else TextList()
    return _OneOf(column, bindparam(parameter, type_=listed))


class _NoneOf(_OneOf):
    """Whether a column is none of a list; see `none_of`."""

    inherit_cache: bool | None = True


@compiles(_NoneOf, "sqlite")
def _none_of_sqlite(element: _NoneOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, listed = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} NOT IN (SELECT value FROM json_each({listed}))"  # noqa: S608 - compiled SQL, not input


@compiles(_NoneOf, "postgresql")
def _none_of_postgres(element: _NoneOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, listed = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} <> ALL ({listed})"


def none_of(column: ColumnElement[str], parameter: str) -> ColumnElement[bool]:
    """Return whether the text column is none of the list bound as `parameter`. See `one_of`."""
    return _NoneOf(column, bindparam(parameter, type_=TextList()))


def dialect_of(connection: Connection) -> DialectName:
    """Return which of the two databases this is."""
    return "sqlite" if connection.dialect.name == "sqlite" else "postgresql"
