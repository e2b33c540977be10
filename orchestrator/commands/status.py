"""`orchestrator status`: how everything stands, once, for people or for machines."""

from collections.abc import Sequence
from pathlib import Path

import typer

from orchestrator.commands.json_text import to_json
from orchestrator.commands.reading import read
from orchestrator.commands.status_page import page
from orchestrator.commands.terminal import console, width_of
from orchestrator.config import account_names
from orchestrator.errors import UsageError
from orchestrator.store import snapshot
from orchestrator.store.snapshot import Snapshot, Wanted


def show(option: Path | None, wanted: Wanted) -> None:
    """Print how everything stands, once.

    Raises:
        UsageError: nobody knows the account that is asked for.
        ConfigError, SchemaError, DatabaseAway, QueryFailed: as their names say.
    """
    found = _look(option, wanted)
    out = console()
    for line in page(found, width_of(out)):
        out.print(line)


def print_json(option: Path | None, wanted: Wanted) -> None:
    """Print how everything stands as one JSON object; see `as_json`. Raises as `show`."""
    typer.echo(as_json(_look(option, wanted)))


def _look(option: Path | None, wanted: Wanted) -> Snapshot:
    found = read(option, lambda connection: snapshot.take(connection, wanted))
    expect_account(found, wanted, account_names(option))
    return found


def expect_account(found: Snapshot, wanted: Wanted, configured: Sequence[str]) -> None:
    """Raise UsageError if the account that is asked for is in no row and not `configured`.

    All of nothing is as desired: that must not be the answer to a name that is misspelt.
    """
    asked = wanted.account
    if asked is None or asked in configured or found.totals or found.accounts or found.orphans:
        return
    known = ", ".join(configured) or "none"
    raise UsageError(f'--account: nobody knows "{asked}"; the configuration has: {known}')


def as_json(found: Snapshot) -> str:
    """Return everything as one JSON object; times are ISO 8601, UTC; nothing is cut.

    `at` (the database's clock), `totals` (tasks by phase), `unconverged` (tasks not as desired),
    `tasks` (rows of `task_overview`), `convergence`, `account_health` and `orphan_overview` (rows
    of these views), `accounts` (of `account_control` with `account_state`), and `daemons` (of
    `daemon`, and `is_alive`).
    """
    return to_json(
        {
            "at": found.at,
            "totals": found.totals,
            "unconverged": found.unconverged,
            "tasks": found.tasks,
            "convergence": found.convergence,
            "account_health": found.health,
            "orphan_overview": found.orphans,
            "accounts": found.accounts,
            "daemons": found.daemons,
        }
    )
