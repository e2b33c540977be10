"""Processes of the application that own agents, beat for them, and now and then die.

Rule: one that lives beats whatever happens to the database; when it cannot be written, that is the
daemons' gap too, and nobody may be blamed for it.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Final

import anyio

from tests.chaos.client import Client
from tests.chaos.diary import Diary
from tests.daemon.application import insert, quoted, update

TIMEOUT_S: Final = 12
"""Longer than the longest outage that the daemons take for none of theirs, and a try of ours."""
EVERY_S: Final = 1.0
LIVING: Final = 2
LIFE_S: Final = 12.0
"""About how long one lives."""


@dataclass
class Owners:
    """Always a few that live; the dead stay dead."""

    lots: Random
    client: Client
    diary: Diary
    living: list[str] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    is_calm: bool = False
    """While true nobody dies."""
    _born: int = 0

    async def begin(self) -> None:
        """Let the first be born, so that rows can name them."""
        while len(self.living) < LIVING:
            await self._bear()

    async def beat(self) -> None:
        """Beat for the living until cancelled."""
        while True:
            if not self.is_calm and self.lots.random() < EVERY_S / LIFE_S:
                self.dead.add(self.living.pop(0))
                await self._bear()
            for name in self.living:
                key = f"name = {quoted(name)}"
                beat = update("task_owner", key, heartbeat_at="CURRENT_TIMESTAMP")
                self.diary.beats[name] = (await self.client.write(beat)).committed_at
            await anyio.sleep(EVERY_S)

    async def _bear(self) -> None:
        self._born += 1
        name = f"web-{self._born}"
        row = insert("task_owner", name=quoted(name), heartbeat_timeout_s=str(TIMEOUT_S))
        told = await self.client.write(f"{row} ON CONFLICT (name) DO NOTHING")
        self.diary.beats[name] = told.committed_at
        self.living.append(name)
