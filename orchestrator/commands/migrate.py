"""`orchestrator migrate`: the schema of this version, or the SQL that makes it."""

from pathlib import Path

import anyio
import typer

from orchestrator.config import Config, open_config
from orchestrator.store import migrate
from orchestrator.store.engine import DialectName
from orchestrator.store.schema import REVISION


def run(option: Path | None) -> None:
    """Bring the configured database to this version's schema; nothing to do is well too.

    Raises:
        ConfigError: the configuration is wrong.
        SchemaError: the database is newer than this version.
        DatabaseAway: the database cannot be reached.
    """
    anyio.run(_upgrade, open_config(option))
    typer.echo(f"the schema is {REVISION}")


def show(option: Path | None) -> None:
    """Print the SQL that makes the schema in an empty database. Raises ConfigError."""
    config = open_config(option)
    typer.echo(migrate.sql(_dialect(config), schema=config.database.schema_))


async def _upgrade(config: Config) -> None:
    await migrate.upgrade(config.database.url.reveal(), schema=config.database.schema_)


def _dialect(config: Config) -> DialectName:
    return "sqlite" if config.database.url.reveal().startswith("sqlite:") else "postgresql"
