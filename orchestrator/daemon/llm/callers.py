"""Looks up who asks: many requests together, and none for longer than a talking user would bear."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import structlog

from orchestrator.core.turn import Caller
from orchestrator.errors import OrchestratorError
from orchestrator.store import llm_tasks
from orchestrator.store.engine import Database, StatementError

MOST: Final = 256
"""Requests that one statement looks up."""
WAITING_MAX: Final = 4_096
WITHIN_S: Final = 1.0
"""Who is not found by then is served: our database is slow, and the user talks."""

log = structlog.get_logger(__name__)


class Unread:
    """The database did not say in time."""


UNREAD: Final = Unread()

Found = Caller | None | Unread
"""Null: the ledger has no such row."""


@dataclass(eq=False, slots=True)
class _Asking:
    agent_id: str
    found: Found = UNREAD
    is_done: anyio.Event = field(default_factory=anyio.Event)


class Callers:
    """The ledger, as the gateway asks it. While one statement runs, the next requests gather."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._send, self._receive = anyio.create_memory_object_stream[_Asking](WAITING_MAX)
        self._is_away = False

    async def find(self, agent_id: str) -> Found:
        """Return what the database knows of an agent."""
        one = _Asking(agent_id)
        try:
            self._send.send_nowait(one)
        except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return UNREAD
        with anyio.move_on_after(WITHIN_S):
            await one.is_done.wait()
        return one.found

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

    async def _answer(self, batch: Sequence[_Asking]) -> None:
        ids = list({one.agent_id for one in batch})
        try:
            found = await self._database.read(llm_tasks.find_callers, ids)
        except (OrchestratorError, StatementError) as error:
            if not self._is_away:
                log.warning("llm_callers_unread", error=str(error))
            self._is_away = True
        else:
            self._is_away = False
            for one in batch:
                one.found = found.get(one.agent_id)
        for one in batch:
            one.is_done.set()
