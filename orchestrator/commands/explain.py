"""`orchestrator explain ID`: one sentence, then what happened."""

from pathlib import Path

import typer

from orchestrator.commands.reading import read
from orchestrator.commands.terminal import event_line
from orchestrator.errors import OrchestratorError
from orchestrator.store import views


def run(option: Path | None, task_id: str) -> None:
    """Print what a task is and what it waits for, then its history, oldest first.

    Raises:
        OrchestratorError: there is no such task.
        ConfigError, SchemaError, DatabaseAway: as their names say.
    """
    found = read(option, lambda connection: views.explain(connection, task_id))
    if found is None:
        raise OrchestratorError(
            f'there is no task "{task_id}"; `orchestrator status` shows those that there are'
        )
    typer.echo(f"{task_id}: {found.sentence}")
    for event in found.events:
        typer.echo(event_line(event))
