"""How a command that only reads gets at the configured database, and lets go of it.

Rule 1: it needs no vendor's keys, so that whoever may read the database may look.
Rule 2: what the database will not tell is one line: a query that took too long, a right that lacks.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import anyio

from orchestrator.config import Config, open_part
from orchestrator.errors import OrchestratorError
from orchestrator.store import version
from orchestrator.store.engine import Connection, Database, StatementError, open_database

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_CONNECTIONS = 3
"""The fewest that a pool may have: one is used."""


class QueryFailed(OrchestratorError):  # noqa: N818 - it says what is, as DatabaseAway does
    """The database is there, and did not answer this query."""


def read(option: Path | None, operation: Callable[[Connection], T]) -> T:
    """Return what an operation reads from the database that `-c` names.

    Raises:
        ConfigError, SchemaError, DatabaseAway, QueryFailed: as their names say.
    """
    return anyio.run(_read, open_part(option), operation)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Database]:
    """Open the configured database, and close it whatever happens."""
    configured = config.database
    database = open_database(
        configured.url.reveal(), schema=configured.schema_, pool_size=_CONNECTIONS
    )
    try:
        yield database
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()


async def _read(config: Config, operation: Callable[[Connection], T]) -> T:
    async with opened(config) as database:
        return await ask(database, operation)


async def ask(database: Database, operation: Callable[[Connection, *Ts], T], *args: *Ts) -> T:
    """Return what an operation reads, if the schema is known.

    Raises:
        SchemaError, DatabaseAway, QueryFailed: as their names say.
    """
    try:
        await version.check_version(database)
        return await database.read(operation, *args)
    except (StatementError, UnicodeEncodeError) as failed:  # the latter: asked for what is no text
        told = str(getattr(failed, "orig", None) or failed) or type(failed).__name__
        raise QueryFailed(f"a query failed: {told.splitlines()[0]}") from failed
