"""Whether the loops turn: what systemd's watchdog, `/healthz` and readiness go by.

Rule 1: a turn is told by the loop that made it. No timer speaks for a loop, so a daemon that hangs
is silent, however many other tasks of it still run.
Rule 2: a loop whose database is away turns, and has not passed: it is alive, and not ready.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum

import anyio

from orchestrator.clock import boot_ns


class Loop(StrEnum):
    """The loops that everything depends on."""

    TASKS = "tasks"
    LANES = "lanes"


class Pulse:
    """When each loop last turned, and whether each has passed once."""

    def __init__(self) -> None:
        started_ns = boot_ns()
        self._turned_ns = dict.fromkeys(Loop, started_ns)
        self._passed: set[Loop] = set()
        self._listeners: list[Callable[[], None]] = []
        self.ready = anyio.Event()
        """Each loop has looked at the database and done what it found."""

    def on_turn(self, listener: Callable[[], None]) -> None:
        """Call `listener` at each turn, in the loop that turns. It may not wait or raise."""
        self._listeners.append(listener)

    def turn(self, loop: Loop, *, passed: bool) -> None:
        """Note that a loop has turned; `passed`: its database was there."""
        self._turned_ns[loop] = boot_ns()
        if passed:
            self._passed.add(loop)
            if len(self._passed) == len(Loop):
                self.ready.set()
        for listener in self._listeners:
            listener()

    def silence_ns(self) -> Mapping[Loop, int]:
        """Return how long ago each loop turned, nanoseconds."""
        now_ns = boot_ns()
        return {loop: now_ns - turned_ns for loop, turned_ns in self._turned_ns.items()}

    @property
    def turned_ns(self) -> int:
        """When the loop turned that has not done so for longest, by `boot_ns`."""
        return min(self._turned_ns.values())
