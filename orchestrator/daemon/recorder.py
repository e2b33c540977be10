"""Writes what callbacks told, many together, and says to each whether it is kept.

A talking agent's signs of life are no news: they are told apart by a look, which on SQLite takes no
lock, so that a flood of them leaves the writer to the stops.

Rule 1: nothing is tried again here. What is not kept, the vendor sends again.
Rule 2: nobody waits for longer than a vendor does, and no more wait than are bounded.
Rule 3: a fact that cannot be written keeps no other back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import anyio
import structlog

from orchestrator.core.model import WorkClass
from orchestrator.daemon.batches import gather
from orchestrator.store import facts
from orchestrator.store.engine import Database, is_passing
from orchestrator.store.facts import Told

BATCH_MAX: Final[Mapping[str, int]] = {"postgresql": 256, "sqlite": 32}
"""Callbacks in one transaction. SQLite's one lock is held for about 2 ms."""
QUEUE_MAX: Final = 1024
"""Callbacks that wait to be written. One that finds no place is not kept."""
KEPT_WITHIN_S: Final = 4.0
"""The vendors wait 5 s for an answer. What is written later is kept all the same."""

log = structlog.get_logger(__name__)


class Verdict(StrEnum):
    """What became of a callback's facts."""

    KEPT = "kept"
    BUSY = "busy"  # not now: the database is away or slow, or too much waits
    FAILED = "failed"  # the database takes no such value


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the recorder works with."""

    database: Database
    daemon_name: str
    nudge: Callable[[], None]
    """Hints the tasks' loop: their inbox has something."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """A callback whose sender waits."""

    told: Told
    verdict: Verdict = Verdict.BUSY
    is_done: anyio.Event = field(default_factory=anyio.Event)

    def end(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.is_done.set()


class Recorder:
    """Takes facts from callbacks and writes them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._send, self._receive = anyio.create_memory_object_stream[_Waiting](QUEUE_MAX)
        self._most = BATCH_MAX[desk.database.dialect]
        self._is_away = False

    async def record(self, told: Told) -> Verdict:
        """Return what became of the facts: kept only after their commit."""
        one = _Waiting(told)
        try:
            self._send.send_nowait(one)
        except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return Verdict.BUSY
        with anyio.move_on_after(KEPT_WITHIN_S):
            await one.is_done.wait()
        return one.verdict

    def finish(self) -> None:
        """Take nothing more: `run` ends when all is written."""
        self._send.close()

    async def run(self) -> None:
        """Write until `finish`, and then what is left. While one batch is written, one gathers."""
        with self._receive:
            async for batch in gather(self._receive, self._most):
                await self._write(batch)

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        verdict = await self._keep([one.told for one in batch])
        if verdict is Verdict.FAILED and len(batch) > 1:
            await self._write_each(batch)
            return
        for one in batch:
            one.end(verdict)

    async def _write_each(self, batch: Sequence[_Waiting]) -> None:
        """Write each alone, so that one that cannot be written keeps no other back."""
        for one in batch:
            one.end(await self._keep([one.told]))

    async def _keep(self, told: Sequence[Told]) -> Verdict:
        """Write in one transaction, if anything of it is news."""
        try:
            news = await self._desk.database.read(facts.select_news, told)
            if news:
                await self._write_news(news)
        except Exception as error:
            if is_passing(error):
                self._tell_away(error)
                return Verdict.BUSY
            log.exception("facts_unwritten", callbacks=len(told))
            return Verdict.FAILED
        self._is_away = False
        return Verdict.KEPT

    async def _write_news(self, news: Sequence[Told]) -> None:
        concerned = await self._desk.database.write(
            facts.receive, news, self._desk.daemon_name, work_class=WorkClass.OBSERVE
        )
        if concerned:
            self._desk.nudge()

    def _tell_away(self, error: Exception) -> None:
        """Say on the edge that the vendors are asked to come again."""
        if not self._is_away:
            log.warning("callbacks_put_off", error=str(error))
        self._is_away = True
