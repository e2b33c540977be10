"""Tasks shown as they change: a live table on a terminal (`dev`), a line per change elsewhere.

Rule 1: what is said stays readable: it stands above the table, or between the lines.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live

from orchestrator.commands.terminal import console, screen_of_tasks, task_line
from orchestrator.store.views import View

_LINES = 20
"""Of the live table, at most."""


class Board(Protocol):
    """Where tasks are shown."""

    def show(self, tasks: Sequence[View]) -> None:
        """Show how the tasks stand now."""
        ...

    def say(self, text: str) -> None:
        """Say something once."""
        ...


@contextmanager
def open_board() -> Iterator[Board]:
    """Yield the board that fits standard output."""
    out = console()
    if not out.is_terminal:
        yield Lines(out)
        return
    with Live(console=out, auto_refresh=False) as live:
        yield _Table(live)


class Lines:
    """One line for each task whose line has changed."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._said: dict[str, str] = {}

    def show(self, tasks: Sequence[View]) -> None:
        """Print the lines that have changed since the last call."""
        now = {task["task_id"]: task_line(task) for task in tasks}
        for task_id, line in now.items():
            if self._said.get(task_id) != line:
                self._out.print(line, markup=False)
        self._said = now

    def say(self, text: str) -> None:
        """Print the text."""
        self._out.print(text, markup=False)


class _Table:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, tasks: Sequence[View]) -> None:
        size = self._live.console.size
        lines = screen_of_tasks(tasks, size.width, min(_LINES, size.height))
        self._live.update(Group(*lines), refresh=True)

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False)
