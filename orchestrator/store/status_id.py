"""Whom a status stands for: the one place that knows how its id tells a task from an orphan.

A task's status has the task's id. An orphan's begins with a mark that no task's id can have.
"""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, literal

_MARK: Final = "~"


def of_orphan(orphan_id: str) -> str:
    """Return the id of the status that stands for an orphan."""
    return f"{_MARK}{orphan_id}"


def of_orphan_column(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the same of a column that holds ids of orphans."""
    return literal(_MARK) + column


def is_task_column(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return whether a column holds the id of a task's status."""
    return column.not_like(f"{_MARK}%")


def to_orphan(id_: str) -> str | None:
    """Return the orphan that a status stands for; null: it stands for a task."""
    return id_[1:] if id_[0] == _MARK else None


def to_orphans(ids: Iterable[str]) -> list[str]:
    """Return the orphans for which these statuses stand; those of tasks are left out."""
    return [orphan for id_ in ids if (orphan := to_orphan(id_)) is not None]


def to_tasks(ids: Iterable[str]) -> list[str]:
    """Return the tasks for which these statuses stand; those of orphans are left out."""
    return [id_ for id_ in ids if to_orphan(id_) is None]


def of_row(task_id: str | None, orphan_id: str | None) -> str:
    """Return the id of the status that a ledger row belongs to."""
    return task_id if task_id is not None else of_orphan(orphan_id or "")
