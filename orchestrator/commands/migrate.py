"""`orchestrator migrate`: the schema of this version, or the SQL that makes it."""

from pathlib import Path

import anyio
import typer

from orchestrator import log
from orchestrator.config import Config, find_service_manager, open_config
from orchestrator.daemon.reach import reach_at_start
from orchestrator.daemon.sd_notify import Notifier
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


def run_when_reachable(option: Path | None) -> None:
    """Do the same as soon as the database can be reached, as a service does after a boot.

    Raises:
        ConfigError, SchemaError: as `run`.
        DatabaseRefuses: the database is there, and waiting will not mend what is wrong.
    """
    config = open_config(option)
    log.configure(config.log, log.Redactor(config.secret_values))
    manager = find_service_manager()
    anyio.run(_wait_and_upgrade, config, Notifier(manager.socket, manager.watchdog_s))
    typer.echo(f"the schema is {REVISION}")


def show(option: Path | None) -> None:
    """Print the SQL that makes the schema in an empty database. Raises ConfigError."""
    config = open_config(option)
    typer.echo(migrate.sql(_dialect(config), schema=config.database.schema_))


async def _wait_and_upgrade(config: Config, notifier: Notifier) -> None:
    await reach_at_start(lambda: _upgrade(config), notifier)


async def _upgrade(config: Config) -> None:
    await migrate.upgrade(config.database.url.reveal(), schema=config.database.schema_)


def _dialect(config: Config) -> DialectName:
    return "sqlite" if config.database.url.reveal().startswith("sqlite:") else "postgresql"
