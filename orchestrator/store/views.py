"""What people read: the statements on the views.

Rule 1: nothing here changes a row.
Rule 2: the views are the contract; a row comes back as a mapping of all its columns, times as
aware UTC instants, so that what is shown is what a SQL client sees.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Executable, text

T = TypeVar("T")

Operation = Callable[[Connection], T]
"""What `Database.read` runs."""

View = Mapping[str, Any]
"""A row of a view, by the names of its columns."""

SHOWN_TASKS: Final = 1_000
"""Rows of `task_overview` that are read at most; the newest trouble comes first."""
SHOWN_EVENTS: Final = 500
"""Events of one task that are read at most, the newest of them; of one command, the oldest."""
SHOWN_COMMANDS: Final = 20
"""Waiting commands of one task that are read at most, the oldest of them."""

_OVERVIEW: Final = text("SELECT * FROM task_overview LIMIT :shown")
_CONVERGENCE: Final = text("SELECT * FROM convergence")
_HEALTH: Final = text("SELECT * FROM account_health")
_TASK: Final = text("SELECT * FROM task_explain WHERE task_id = :id")
_COMMAND: Final = text("SELECT * FROM command_explain WHERE command_id = :id")
_WAITING: Final = text(
    "SELECT * FROM command_explain WHERE task_id = :id AND state IN ('queued', 'sending')"
    " ORDER BY position LIMIT :shown"
)
_HISTORY: Final = text(
    "SELECT * FROM (SELECT * FROM task_history WHERE task_id = :id"
    " ORDER BY id DESC LIMIT :shown) AS newest ORDER BY id"
)
_COMMAND_HISTORY: Final = text(
    "SELECT * FROM task_history WHERE task_id = :task_id AND command_id = :id"
    " ORDER BY id LIMIT :shown"
)


@dataclass(frozen=True, slots=True)
class Overview:
    """How everything stands at one moment."""

    tasks: Sequence[View]
    convergence: Sequence[View]
    accounts: Sequence[View]


@dataclass(frozen=True, slots=True)
class Explained:
    """One task, or one command, for a person."""

    row: View
    """Of `task_explain` or `command_explain`; the latter has a `command_id`."""
    sentence: str
    waiting: Sequence[View]
    """A task's commands that are not settled, rows of `command_explain`, oldest first."""
    events: Sequence[View]
    """Its history, oldest first."""


def overview(connection: Connection) -> Overview:
    """Return the tasks, how many are not as desired, and the accounts' health."""
    return Overview(
        tasks=read_rows(connection, _OVERVIEW.bindparams(shown=SHOWN_TASKS)),
        convergence=read_rows(connection, _CONVERGENCE),
        accounts=read_rows(connection, _HEALTH),
    )


def explain(connection: Connection, id_: str) -> Explained | None:
    """Return what the task of this id is, waits for and went through; else the command of this id.

    None if there is neither.
    """
    return _explain_task(connection, id_) or _explain_command(connection, id_)


def _explain_task(connection: Connection, id_: str) -> Explained | None:
    found = read_rows(connection, _TASK.bindparams(id=id_))
    if not found:
        return None
    return Explained(
        row=found[0],
        sentence=found[0]["explanation"],
        waiting=read_rows(connection, _WAITING.bindparams(id=id_, shown=SHOWN_COMMANDS)),
        events=read_rows(connection, _HISTORY.bindparams(id=id_, shown=SHOWN_EVENTS)),
    )


def _explain_command(connection: Connection, id_: str) -> Explained | None:
    found = read_rows(connection, _COMMAND.bindparams(id=id_))
    if not found:
        return None
    told = _COMMAND_HISTORY.bindparams(id=id_, task_id=found[0]["task_id"], shown=SHOWN_EVENTS)
    return Explained(
        row=found[0],
        sentence=found[0]["explanation"],
        waiting=(),
        events=read_rows(connection, told),
    )


def read_rows(connection: Connection, statement: Executable) -> Sequence[View]:
    """Return what a statement on views or tables selects, the same from both databases."""
    return [
        {name: _as_read(name, value) for name, value in row.items()}
        for row in connection.execute(statement).mappings()
    ]


def _as_read(column: str, value: Any) -> Any:
    """Return what SQLite has no type for: an instant, JSON, or whether something is so."""
    if column == "ours":
        return bool(value)
    if not isinstance(value, str):
        return value
    try:
        if column == "labels":
            return json.loads(value)
        return datetime.fromisoformat(value).replace(tzinfo=UTC) if _is_instant(column) else value
    except ValueError:
        return value


def _is_instant(column: str) -> bool:
    return column == "at" or column.endswith(("_at", "_since", "_until"))
