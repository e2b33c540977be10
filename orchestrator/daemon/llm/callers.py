"""Looks up who asks: many requests together, and none for longer than a talking user would bear."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import structlog

from orchestrator.core.turn import Caller
from orchestrator.store import llm_tasks
from orchestrator.store.engine import Database

MOST: Final = 256
"""Requests that one statement looks up."""
WAITING_MAX: Final = 4_096
WITHIN_S: Final = 1.0
"""Who is not found by then is served: our database is slow, and the user talks."""

log = structlog.get_logger(__name__)


class Untold:
    """The database did not say in time."""


UNTOLD: Final = Untold()

Found = Caller | None | Untold
"""Null: the ledger has no such row."""


@dataclass(eq=False, slots=True)
class Lookup:
    """A request that is being looked up."""

    agent_id: str
    answer: Found = UNTOLD
    is_done: anyio.Event = field(default_factory=anyio.Event)

    async def found(self) -> Found:
        """Return what the database knows of the agent, or that it did not say in time."""
        with anyio.move_on_after(WITHIN_S):
            await self.is_done.wait()
        return self.answer


class Callers:
    """The ledger, as the gateway asks it. While one statement runs, the next requests gather."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._send, self._receive = anyio.create_memory_object_stream[Lookup](WAITING_MAX)
        self._is_away = False

    def look_up(self, agent_id: str) -> Lookup:
        """Begin to look an agent up."""
        one = Lookup(agent_id)
        try:
            self._send.send_nowait(one)
        except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            one.is_done.set()
        return one

    def finish(self) -> None:
        """Take nothing more: `run` ends when all are answered."""
        self._send.close()

    async def run(self) -> None:
        """Look up until `finish`."""
        with self._receive:
            async for first in self._receive:
                batch = [first]
                while len(batch) < MOST and self._receive.statistics().current_buffer_used:
                    batch.append(self._receive.receive_nowait())
                await self._answer(batch)

    async def _answer(self, batch: Sequence[Lookup]) -> None:
        ids = list({one.agent_id for one in batch})
        try:
            found = await self._database.read(llm_tasks.find_callers, ids)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends neither this nor the turns
            if not self._is_away:
                log.warning("llm_callers_unread", error=str(error))
            self._is_away = True
        else:
            self._is_away = False
            for one in batch:
                one.answer = found.get(one.agent_id)
        for one in batch:
            one.is_done.set()
