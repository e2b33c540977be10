"""How rows look to people: one spelling of times and durations, one kind of table.

Rule 1: nothing here reads a database or decides anything.
Rule 2: what an application or a vendor wrote is text: never markup, never a control sequence, and
never read backwards.
Rule 3: our ids are never cut where a table is printed once, since they are copied.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import chain
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from orchestrator.store.views import View

ROOMY = 120
"""From this many columns on there is a place for what is nice to know."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What moves the cursor, changes colours, or turns the direction of all that stands behind it."""
_GAP = "  "
_INDENT = "    "
_HANDLE_CHARS = 24
"""Of a handle that are shown among many: Tencent's are longer than a line. `explain` has all."""

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

_WAITS: Mapping[str, str] = {
    "start_at": "waits for its start_at",
    "rate_limit": "waits for the rate limit",
    "retry": "waits to be tried again",
    "circuit_open": "waits: the vendor does not answer",
    "capacity": "waits for another agent to end",
    "denied": "waits: the vendor denies the account",
    "paused": "waits: the account is paused",
    "frozen": "waits: the account is frozen",
    "account": "waits for a daemon that has the account",
    "proof": "waits for proof that nothing runs",
}
"""By `waiting_for`."""


def console() -> Console:
    """Return standard output; no colours where it is no terminal, and no edge either.

    What its encoding cannot say becomes a question mark, and is no end of everything.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, soft_wrap=True)


def width_of(out: Console) -> int | None:
    """Return the columns of a terminal; null: a file's line ends where its text ends."""
    return out.width if out.is_terminal else None


def is_roomy(width: int | None) -> bool:
    """Return whether there is a place for what is nice to know."""
    return width is None or width >= ROOMY


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    cells: Sequence[Text]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A table whose last column is prose, which stands on a line of its own where it is too long.

    Columns in which no row has anything are left out. Nothing is cut, unless `one_line`.
    """

    columns: Sequence[Column]
    prose: Column
    title: str = ""

    def lines(self, width: int | None, *, one_line: bool = False) -> list[list[Text]]:
        """Return the lines of the heading, and then those of each row.

        `one_line`: a line that is too long is cut, since more would push rows off a screen.
        """
        shown = [column for column in self.columns if any(column.cells)]
        widths = [
            max(cell_len(column.title), *(cell.cell_len for cell in column.cells))
            for column in shown
        ]
        titles = [Text(column.title, style="dim") for column in shown]
        last = self.prose.title if any(self.prose.cells) else ""
        heading = [Text(self.title, style="bold")] if self.title else []
        made = [[*heading, _beside(titles, widths, Text(last, style="dim"))]]
        for number, prose in enumerate(self.prose.cells):
            cells = [column.cells[number] for column in shown]
            line = _beside(cells, widths, prose)
            if width is None or line.cell_len <= width or not prose:
                made.append([line])
            else:
                below = Text(_INDENT).append_text(prose)
                made.append([_beside(cells, widths, Text()), below])
        if one_line:
            for each in chain.from_iterable(made):
                each.no_wrap, each.overflow = True, "ellipsis"
        return made


def _beside(cells: Sequence[Text], widths: Sequence[int], prose: Text) -> Text:
    """Return cells side by side, the prose behind them, and nothing behind the last."""
    line = Text()
    for cell, width in zip(cells, widths, strict=True):
        line.append_text(cell)
        line.append(" " * (width - cell.cell_len + len(_GAP)))
    line.append_text(prose)
    line.rstrip()
    return line


def table(rows: Rows, width: int | None) -> Iterator[RenderableType]:
    """Yield the lines of a table that is printed once."""
    for line in chain.from_iterable(rows.lines(width)):
        yield hanging(line, width)


def hanging(line: Text, width: int | None) -> RenderableType:
    """Return an indented line so that what does not fit goes on below where it began."""
    if width is None or not line.plain.startswith(_INDENT):
        return line
    return Padding(line[len(_INDENT) :], (0, 0, 0, len(_INDENT)))


def screen_of_tasks(tasks: Sequence[View], width: int, height: int) -> Iterator[Text]:
    """Yield as much of the table of tasks as a screen has lines for; how many are left, last."""
    heading, *rows = _tasks(tasks, width).lines(width, one_line=True)
    yield from heading
    room = height - len(heading) - 1
    for number, lines in enumerate(rows):
        room -= len(lines)
        if room < 0:
            yield Text(f"and {len(rows) - number} more", style="dim")
            return
        yield from lines


def tasks_table(tasks: Sequence[View], width: int | None) -> Iterator[RenderableType]:
    """Yield the lines of the table of tasks."""
    return table(_tasks(tasks, width), width)


def _tasks(tasks: Sequence[View], width: int | None) -> Rows:
    columns = [
        Column("task", [plain(row["task_id"]) for row in tasks]),
        Column("account", [plain(row["account"]) for row in tasks]),
        Column("phase", [phase_cell(row["phase"]) for row in tasks]),
        Column("for", [plain(spell_age(row.get("age_s"))) for row in tasks]),
    ]
    if is_roomy(width):
        columns += [
            Column("TaskId", [_handle(row.get("vendor_task_id")) for row in tasks]),
            Column("room", [plain(row.get("room_id")) for row in tasks]),
            Column("user", [plain(row.get("user_id")) for row in tasks]),
        ]
    return Rows(columns=columns, prose=Column("why", [why(row) for row in tasks]))


def why(task: View) -> Text:
    """Return why a task is as it is: what it is on its way to, what it waits for, its trouble."""
    phase, waits, reason = task["phase"], task.get("waiting_for"), task.get("reason")
    has_ended = phase in {"stopped", "failed"}
    parts = []
    if task["desired_state"] != "running" and not has_ended:
        parts.append(plain("deleted" if task["desired_state"] == "deleted" else "to be stopped"))
    if task.get("end_reason") and (has_ended or phase == "stopping"):
        parts.append(plain(task["end_reason"], "dim"))
    if waits:
        parts.append(plain(_WAITS.get(waits, f"waits: {waits}"), "yellow"))
    if reason:
        told = f"{reason}: {task['message']}" if task.get("message") else reason
        parts.append(plain(told, "red"))
    return Text("; ").join(parts)


def task_line(task: View) -> str:
    """Return one task as a line of text, for what is no terminal."""
    parts = (
        task["task_id"],
        phase_text(task),
        f"waiting for {task['waiting_for']}" if task.get("waiting_for") else None,
        task.get("reason"),
        task.get("vendor_task_id"),
    )
    return "  ".join(_without_controls(str(part)) for part in parts if part)


def phase_text(task: View) -> str:
    """Return a task's phase with what it is on its way to, or why it ended."""
    phase, desired = task["phase"], task["desired_state"]
    if phase in {"stopped", "failed"}:
        return f"{phase} ({task['end_reason']})" if task.get("end_reason") else phase
    return phase if desired == "running" else f"{phase} → {desired}"


def phase_cell(phase: Any) -> Text:
    """Return a phase in its colour."""
    return plain(phase, _COLOURS.get(phase, ""))


def plain(value: Any, style: str = "") -> Text:
    """Return what somebody wrote as text of one line, in a style of ours."""
    return Text(_without_controls(spell(value)), style=style)


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


def spell_age(seconds: float | None) -> str:
    """Return a duration in its two largest units: `42s`, `3m 12s`, `2h 05m`, `3d 04h`."""
    if seconds is None:
        return ""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if not minutes:
        return f"{whole}s"
    if not hours:
        return f"{minutes}m {whole % 60:02}s"
    if not days:
        return f"{hours}h {minutes % 60:02}m"
    return f"{days}d {hours % 24:02}h"


def count(number: int, noun: str) -> str:
    """Return a number and its noun: `1 task`, `2 tasks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _without_controls(text: str) -> str:
    """Return one line without them, whoever wrote the text."""
    return _CONTROLS.sub("", " ".join(text.splitlines()))


def _handle(handle: str | None) -> Text:
    if handle and len(handle) > _HANDLE_CHARS:
        return plain(f"{handle[:_HANDLE_CHARS]}…")
    return plain(handle)
