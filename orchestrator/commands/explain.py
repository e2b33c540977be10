"""`orchestrator explain ID`: one sentence, then what waits and what happened."""

from pathlib import Path

import typer

from orchestrator.commands.reading import read
from orchestrator.commands.terminal import event_line
from orchestrator.errors import OrchestratorError
from orchestrator.store import views


def run(option: Path | None, id_: str) -> None:
    """Print what a task is and what it waits for, its waiting commands, and its history.

    The id may be a command's as well: then what became of it, or why it is not sent yet.

    Raises:
        OrchestratorError: there is neither.
        ConfigError, SchemaError, DatabaseAway: as their names say.
    """
    found = read(option, lambda connection: views.explain(connection, id_))
    if found is None:
        raise OrchestratorError(
            f'there is no task "{id_}", and no command; `orchestrator status` shows the tasks'
        )
    typer.echo(f"{id_}: {found.sentence}")
    for command in found.waiting:
        typer.echo(f"  {command['command_id']}: {command['explanation']}")
    for event in found.events:
        typer.echo(event_line(event))
