"""Postgres: pools of connections, and what each of our sessions asks of the server.

The limits. A frozen or lost daemon must not hold the rows of others: the server ends a transaction
of ours that idles for 2 s, a wait for a lock after 1 s, a statement after 10 s, and a connection
whose peer does not answer. A daemon that freezes while it prepares a statement is none of these:
the driver asks for that without a Sync, and until one comes the server waits for the rest of a
command, with all locks, and stops neither the statement nor the transaction. So from Postgres 17
on, which can, it ends any transaction of ours after 15 s; before, another daemon ends the session
(`store.frozen`).

Rule 1: stops and listening have pools of their own, which no other work uses.
Rule 2: no message holds the URL, which may hold a password.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, TypeVarTuple

import anyio
import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from orchestrator.core.model import WorkClass
from orchestrator.errors import UsageError
from orchestrator.store.columns import read_json, write_json
from orchestrator.store.engine import Database, DatabaseAway, DatabaseRefuses, DialectName
from orchestrator.store.frozen import BOUNDS_TRANSACTIONS, LONGEST_TRANSACTION

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SESSION: Final = {
    "application_name": "orchestrator",
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "2s",
    "lock_timeout": "1s",
    "statement_timeout": "10s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
    "jit": "off",
}
CONNECT_TIMEOUT_S: Final = 5
REPLY_TIMEOUT_S: Final = 15
"""Longer than the server's own limits: it ends a wait that only a dead network explains."""
SMALLEST_POOL: Final = 3
REFUSALS: Final = frozenset({"28000", "28P01", "3D000", "42501"})
"""SQLSTATEs that waiting will not mend: user, password, database, a right (Appendix A of the
PostgreSQL documentation)."""
_BAD_URL: Final = frozenset({"42704", "22023", "55P02"})
"""The same at a connect: a parameter that there is not, its value, one that cannot be set."""
_READ_ONLY: Final = "25006"
"""A standby, or a server that is about to hand over."""
_SHORTAGES: Final = ("53", "58")
"""Classes of SQLSTATEs that tell of the server and of no statement: a full disk, no memory."""

_DURABLE: Final = """
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')
"""
"""At least `on`; a server that asks for more keeps it."""
_BOUND: Final = f"""
    SELECT set_config('transaction_timeout', '{LONGEST_TRANSACTION.seconds}s', false)
    WHERE current_setting('server_version_num')::integer >= {BOUNDS_TRANSACTIONS}0000
"""


class PostgresDatabase(Database):
    """A schema of a Postgres database, reached through asyncpg."""

    dialect: DialectName = "postgresql"

    def __init__(self, url: URL, *, schema: str, pool_size: int) -> None:
        if pool_size < SMALLEST_POOL:
            message = f"database.pool_size: expected at least {SMALLEST_POOL}, found {pool_size}"
            raise UsageError(message)
        kept = max(1, pool_size // 4)
        self._stop = _create_bound_engine(url, schema, kept)
        self._listening = _create_bound_engine(url, schema, kept)
        self._rest = _create_bound_engine(url, schema, pool_size - 2 * kept)
        self._reading = self._rest.execution_options(isolation_level="AUTOCOMMIT")

    async def read(self, operation: Callable[[Connection, *Ts], T], *args: *Ts) -> T:
        """See `Database.read`."""
        return await self._run(self._reading, operation, *args)

    async def write(
        self,
        operation: Callable[[Connection, *Ts], T],
        *args: *Ts,
        durable: bool = True,
        work_class: WorkClass | None = None,
    ) -> T:
        """See `Database.write`."""
        engine = self._engine(work_class)
        transact = _transact if durable else _transact_lazily
        return await self._run(engine, transact, operation, args)

    async def close(self) -> None:
        """See `Database.close`."""
        for engine in (self._stop, self._listening, self._rest):
            await engine.dispose()

    def _engine(self, work_class: WorkClass | None) -> AsyncEngine:
        match work_class:
            case WorkClass.STOP:
                return self._stop
            case WorkClass.LISTENING:
                return self._listening
            case WorkClass.START | WorkClass.OBSERVE | None:
                return self._rest

    async def _run(
        self, engine: AsyncEngine, operation: Callable[[Connection, *Ts], T], *args: *Ts
    ) -> T:
        connection = await connect(engine)
        try:
            return await connection.run_sync(operation, *args)
        except DBAPIError as error:
            trouble = find_server_trouble(error, engine.url)
            if trouble is None:
                raise
            if _sqlstate(error.orig) == _READ_ONLY:
                await connection.invalidate()  # by the same name another server may answer now
            raise trouble from error
        except (OSError, asyncpg.InterfaceError) as error:
            raise _lost(error, engine.url) from error
        finally:
            with anyio.CancelScope(shield=True):
                await connection.close()


def _spell_url(url: URL) -> str:
    """Return where the database is, and nothing secret."""
    # A Unix socket's directory can only stand in the query.
    host = url.host or url.query.get("host") or "localhost"
    return f"{host}:{url.port or 5432}/{url.database}"


def _spell(cause: BaseException | None) -> str:
    """Return what is wrong in one line; some errors of the network have only their name."""
    return str(cause) or type(cause).__name__


def _transact(
    connection: Connection, operation: Callable[[Connection, *Ts], T], args: tuple[*Ts]
) -> T:
    with connection.begin():
        return operation(connection, *args)


def _transact_lazily(
    connection: Connection, operation: Callable[[Connection, *Ts], T], args: tuple[*Ts]
) -> T:
    with connection.begin():
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        return operation(connection, *args)


async def connect(engine: AsyncEngine) -> AsyncConnection:
    """Return a connection of the engine's pool. Raises DatabaseAway, of it DatabaseRefuses."""
    try:
        return await engine.connect()
    except PoolTimeout as error:
        message = f"{_spell_url(engine.url)}: no connection was free for {CONNECT_TIMEOUT_S} s"
        raise DatabaseAway(message) from error
    except (DBAPIError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        message = f"{_spell_url(engine.url)}: {_spell(cause)}"
        is_final = _refuses(cause) or _is_misconfigured(cause)
        raise (DatabaseRefuses if is_final else DatabaseAway)(message) from error


def find_server_trouble(error: DBAPIError, url: URL) -> DatabaseAway | None:
    """Return the trouble with the whole server that an error tells of; null: none of it.

    What is the server's must not be taken for a row's: an outcome waits for a disk with room.
    """
    if error.connection_invalidated:
        return _lost(error.orig, url)
    message = f"{_spell_url(url)}: {_spell(error.orig)}"
    if _refuses(error.orig):
        return DatabaseRefuses(message)
    state = _sqlstate(error.orig) or ""
    return DatabaseAway(message) if state == _READ_ONLY or state[:2] in _SHORTAGES else None


def _lost(cause: BaseException | None, url: URL) -> DatabaseAway:
    return DatabaseAway(f"{_spell_url(url)}: the connection was lost: {_spell(cause)}")


def _refuses(cause: BaseException | None) -> bool:
    return _sqlstate(cause) in REFUSALS


def _is_misconfigured(cause: BaseException | None) -> bool:
    """Return whether the URL asks for what there is not, says the driver or the server."""
    driver = getattr(cause, "__cause__", None)  # SQLAlchemy's error has the driver's below it
    return isinstance(driver, asyncpg.ClientConfigurationError) or _sqlstate(cause) in _BAD_URL


def _sqlstate(cause: BaseException | None) -> str | None:
    return getattr(cause, "sqlstate", None)


def create_postgres_engine(
    url: URL,
    schema: str,
    pool_size: int,
    session: Mapping[str, str] = SESSION,
    reply_timeout_s: float | None = REPLY_TIMEOUT_S,
) -> AsyncEngine:
    """Return an engine whose sessions have these settings and see only `schema`."""
    quoted = schema.replace('"', '""')
    engine = create_async_engine(
        _driver_url(url),
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # a specification may hold a key, and errors are logged
        pool_timeout=CONNECT_TIMEOUT_S,
        json_serializer=write_json,
        json_deserializer=read_json,
        connect_args={
            "dsn": url.render_as_string(hide_password=False),
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": reply_timeout_s,
            "prepared_statement_cache_size": 512,
            "server_settings": {**session, "search_path": f'"{quoted}"'},
        },
    )
    event.listen(engine.sync_engine, "connect", _set_durability)
    return engine


def _create_bound_engine(url: URL, schema: str, pool_size: int) -> AsyncEngine:
    """Return an engine whose transactions are short, whatever becomes of this process."""
    engine = create_postgres_engine(url, schema, pool_size)
    event.listen(engine.sync_engine, "connect", _bound_transactions)
    return engine


def _driver_url(url: URL) -> URL:
    """Return the URL without most of its parameters, which asyncpg itself reads as libpq does."""
    place = {key: value for key, value in url.query.items() if key in {"host", "port"}}
    return url.set(drivername="postgresql+asyncpg", query=place)


def _set_durability(driver: Any, _record: Any) -> None:
    driver.run_async(lambda connection: connection.execute(_DURABLE))


def _bound_transactions(driver: Any, _record: Any) -> None:
    driver.run_async(lambda connection: connection.execute(_BOUND))
