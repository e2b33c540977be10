"""How rows look on a terminal: one table, one line per event, one spelling of times.

Rule 1: nothing here reads a database or decides anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from orchestrator.store.views import Overview, View

_WIDE = 200
"""Columns of what is no terminal: a file has no edge at which a line must end."""

_TASK_COLUMNS = (
    "task_id", "account", "phase", "age_s", "waiting_for", "reason", "vendor_task_id",
)  # fmt: skip
_FOLDED = frozenset({"reason", "vendor_task_id"})
"""Columns that give way where a terminal is narrow."""
_HANDLE_CHARS = 24
"""Of a handle that are shown: Tencent's are longer than a line; `--json` has all of it."""
_CONVERGENCE_COLUMNS = ("account", "age", "tasks", "oldest_s")
_HEALTH_COLUMNS = ("account", "action", "calls", "failures", "p50_ms", "p95_ms")
_COLOURS: Mapping[str, str] = {
    "running": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "pending": "cyan",
    "failed": "red",
    "quarantined": "magenta",
    "stopped": "dim",
}
"""By phase."""


def console() -> Console:
    """Return standard output; no colours where it is no terminal."""
    out = Console(highlight=False, soft_wrap=True)
    return out if out.is_terminal else Console(highlight=False, soft_wrap=True, width=_WIDE)


def tasks_table(tasks: Sequence[View], rows: int | None = None) -> Table:
    """Return the tasks as a table, at most `rows` of them."""
    shown = tasks[:rows]
    more = len(tasks) - len(shown)
    table = _table(_TASK_COLUMNS, shown)
    table.caption = f"and {more} more" if more else None
    return table


def overview_tables(overview: Overview, rows: int | None = None) -> RenderableType:
    """Return tasks, convergence and health, one below the other."""
    parts: list[RenderableType] = [tasks_table(overview.tasks, rows)]
    if overview.convergence:
        parts.append(_table(_CONVERGENCE_COLUMNS, overview.convergence))
    if overview.accounts:
        parts.append(_table(_HEALTH_COLUMNS, overview.accounts))
    return Group(*parts)


def event_line(event: View) -> str:
    """Return one event of a task's history as a line of text."""
    before, after = event.get("phase_before"), event.get("phase_after")
    parts = (
        spell(event["at"]),
        event.get("event"),
        event.get("action"),
        event.get("outcome"),
        event.get("code"),
        f"command {event['command_id']}" if event.get("command_id") else None,
        f"{before} → {after}" if before and before != after else None,
        f"{event['latency_ms']} ms" if event.get("latency_ms") is not None else None,
        f"by {event['actor']}" if event.get("actor") else None,
        f"RequestId {event['request_id']}" if event.get("request_id") else None,
        event.get("message"),
    )
    return "  ".join(str(part) for part in parts if part)


def task_line(task: View) -> str:
    """Return one task as a line of text, for what is no terminal."""
    parts = (
        task["task_id"],
        phase_text(task),
        f"waiting for {task['waiting_for']}" if task.get("waiting_for") else None,
        task.get("reason"),
        task.get("vendor_task_id"),
    )
    return "  ".join(str(part) for part in parts if part)


def spell(value: Any) -> str:
    """Return a value as people read it: UTC times to the second, nothing for null."""
    match value:
        case None:
            return ""
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        case float():
            return f"{value:.0f}"
        case _:
            return str(value)


def _table(columns: Sequence[str], rows: Iterable[View]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column not in _FOLDED, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(column, row) for column in columns))
    return table


def _cell(column: str, row: View) -> str:
    if column == "phase":
        return f"[{_COLOURS.get(row['phase'], 'none')}]{escape(phase_text(row))}[/]"
    text = spell(row.get(column))
    if column == "vendor_task_id" and len(text) > _HANDLE_CHARS:
        text = f"{text[:_HANDLE_CHARS]}…"
    return escape(text)


def phase_text(task: View) -> str:
    """Return a task's phase with what it is on its way to, or why it ended."""
    phase, desired = task["phase"], task["desired_state"]
    if phase in {"stopped", "failed"}:
        return f"{phase} ({task['end_reason']})" if task.get("end_reason") else phase
    return phase if desired == "running" else f"{phase} → {desired}"
