"""`orchestrator status`: the views `task_overview`, `convergence` and `account_health`."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import typer
from rich.live import Live

from orchestrator.commands.reading import opened, read
from orchestrator.commands.terminal import console, overview_tables
from orchestrator.config import open_config
from orchestrator.store import version, views
from orchestrator.store.views import Overview

REFRESH_S = 0.5


def show(option: Path | None) -> None:
    """Print how everything stands, once.

    Raises:
        ConfigError, SchemaError, DatabaseAway: as their names say.
    """
    console().print(overview_tables(read(option, views.overview)))


def print_json(option: Path | None) -> None:
    """Print how everything stands as one JSON object: `tasks`, `convergence`, `accounts`.

    Each is a list of rows with the columns of its view; times are ISO 8601, UTC. Raises as `show`.
    """
    typer.echo(as_json(read(option, views.overview)))


def as_json(overview: Overview) -> str:
    """Return the overview as the JSON object that `print_json` documents."""
    return json.dumps(
        {
            "tasks": overview.tasks,
            "convergence": overview.convergence,
            "accounts": overview.accounts,
        },
        default=_plain,
        ensure_ascii=False,
    )


def watch(option: Path | None) -> None:
    """Show how everything stands, twice a second, until Ctrl-C. Raises as `show`."""
    try:
        anyio.run(_watch, option)
    except KeyboardInterrupt:
        return


async def _watch(option: Path | None) -> None:
    out = console()
    async with opened(open_config(option)) as database:
        await version.check_version(database)
        with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
            while True:
                overview = await database.read(views.overview)
                # What does not fit on the screen would scroll away: the trouble is on top.
                live.update(overview_tables(overview, max(3, out.height - 20)), refresh=True)
                await anyio.sleep(REFRESH_S)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
