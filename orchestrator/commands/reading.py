"""How a command that only reads gets at the configured database, and lets go of it.

Rule 1: it needs no vendor's keys, so that whoever may read the database may look.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio

from orchestrator.config import Config, open_part
from orchestrator.store import version
from orchestrator.store.engine import Connection, Database, open_database

T = TypeVar("T")

_CONNECTIONS = 3
"""The fewest that a pool may have: one is used."""


def read(option: Path | None, operation: Callable[[Connection], T]) -> T:
    """Return what an operation reads from the database that `-c` names.

    Raises:
        ConfigError, SchemaError, DatabaseAway: as their names say.
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
        await version.check_version(database)
        return await database.read(operation)
