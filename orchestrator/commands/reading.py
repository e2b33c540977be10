"""How a command that only reads gets at the configured database, and lets go of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio

from orchestrator.app import build_database
from orchestrator.config import Config, open_config
from orchestrator.store import version
from orchestrator.store.engine import Database
from orchestrator.store.views import Operation

T = TypeVar("T")


def read(option: Path | None, operation: Operation[T]) -> T:
    """Return what an operation reads from the database that `-c` names.

    Raises:
        ConfigError, SchemaError, DatabaseAway: as their names say.
    """
    return anyio.run(_read, open_config(option), operation)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Database]:
    """Open the configured database, and close it whatever happens."""
    database = build_database(config)
    try:
        yield database
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()


async def _read(config: Config, operation: Operation[T]) -> T:
    async with opened(config) as database:
        await version.check_version(database)
        return await database.read(operation)
