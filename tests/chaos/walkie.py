"""Buttons that are pressed and released: listening commands of ZEGO's users.

Rule: half of the rows have numbers of the application's own, which have gaps and come in disorder;
for the others the daemon draws them. A number is never given twice, over all lives of a row.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

import anyio

from tests.chaos.client import Client
from tests.chaos.diary import Diary
from tests.daemon.talk import press, release

Command = Callable[[str, str, int | None], str]
"""What returns the INSERT of a command, from the row's id, its own and its number."""

HELD_S: Final = 0.5
"""How long a button is held at most."""
SKIPS: Final = 0.1
DISORDER: Final = 0.1


@dataclass
class Walkie:
    """All buttons."""

    lots: Random
    client: Client
    diary: Diary
    _numbers: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _held: dict[str, float] = field(default_factory=dict)
    """Row: when its button will be let go."""

    async def press(self, task_id: str) -> None:
        """Press a row's button; one that is held is let go first."""
        if task_id in self._held:
            await self._release(task_id)
            return
        if self.lots.random() < DISORDER and _is_numbered(task_id):
            await self._press_in_disorder(task_id)
            return
        if self.lots.random() < SKIPS:
            self._numbers[task_id] += 1
        await self._write(task_id, press)
        self._held[task_id] = anyio.current_time() + self.lots.uniform(0, HELD_S)

    async def release_due(self) -> None:
        """Let go of what was held long enough."""
        for task_id, until in list(self._held.items()):
            if until <= anyio.current_time():
                await self._release(task_id)

    def forget(self, task_id: str) -> None:
        """Say nothing more to a row that is deleted."""
        self._held.pop(task_id, None)

    async def _release(self, task_id: str) -> None:
        del self._held[task_id]
        await self._write(task_id, release)

    async def _press_in_disorder(self, task_id: str) -> None:
        """Write the release before its press, as two processes of an application might."""
        self._numbers[task_id] += 2
        late = self._numbers[task_id]
        for command, number in ((release, late), (press, late - 1)):
            await self._insert(command, task_id, number)

    async def _write(self, task_id: str, command: Command) -> None:
        if not _is_numbered(task_id):
            await self._insert(command, task_id, None)
            return
        self._numbers[task_id] += 1
        await self._insert(command, task_id, self._numbers[task_id])

    async def _insert(self, command: Command, task_id: str, sequence: int | None) -> None:
        self.diary.presses += 1
        row = command(task_id, f"{task_id}-press-{self.diary.presses}", sequence)
        await self.client.write(f"{row} ON CONFLICT (id) DO NOTHING")


def _is_numbered(task_id: str) -> bool:
    """Return whether the application numbers a row's commands."""
    return int(task_id.rpartition("-")[2]) % 2 == 0
