"""Forgets what is old: how fast, how much at a time, and by which clock.

The pace. A pass goes through the kinds one by one, in batches of one short transaction each, and
rests after each batch for nine times as long as it took. So it takes a tenth of one connection, or
of SQLite's one writer, on any machine, and less where others wait for the same lock. A pass lasts
until nothing is left, so what is written faster than usual is forgotten faster than usual.

The clock. Age is told by the database's clock, which may be wrong for a while, and what is
forgotten does not come back.

Rule 1: a pass forgets of each kind the oldest that may go and what is up to `SPAN` younger, or one
batch. A clock that is wrong by a year costs six hours of history a minute, and not all of it.
Rule 2: after a clock was seen to be set, nothing is forgotten for an hour.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import anyio

from orchestrator.clock import boot_ns
from orchestrator.daemon.timekeeper import Timekeeper
from orchestrator.store import retention
from orchestrator.store.engine import Database, DialectName
from orchestrator.store.retention import KINDS, Cutoffs, Forgotten, Kind, Page

SPAN: Final = timedelta(hours=6)
"""360 times as fast as time goes by, if a pass begins each minute."""
CALM_NS: Final = 3_600_000_000_000
BATCH: Final[dict[DialectName, int]] = {"sqlite": 50, "postgresql": 500}
"""Rows of one transaction: it takes 1 to 3 ms on SQLite, where everybody waits for it, and 10 ms on
Postgres, where nobody does."""
REST: Final = 9
"""How many times as long as a batch took it rests after it."""
REST_MAX_S: Final = 2.0


class Pruner:
    """Forgets, pass by pass."""

    def __init__(
        self,
        database: Database,
        timekeeper: Timekeeper,
        before: Callable[[datetime], Cutoffs],
    ) -> None:
        """`before` returns the cutoffs at a present."""
        self._database = database
        self._timekeeper = timekeeper
        self._before = before
        self._batch = BATCH[database.dialect]
        self._set_by = timekeeper.set_by
        self._calm_ns = 0
        """When, by the boot clock, the database's will have gone right for long enough."""

    async def run(self) -> None:
        """Make one pass. Raises what `Database.write` raises; what is left goes in the next."""
        now = await self._database.write(self._timekeeper.look, durable=False)
        if not self._is_calm():
            return
        cutoffs = self._before(now)
        for kind in KINDS:
            cutoff = kind.cutoff(cutoffs)
            if cutoff is not None:
                await self._prune(kind, cutoff)

    def _is_calm(self) -> bool:
        if self._timekeeper.set_by != self._set_by:
            self._set_by = self._timekeeper.set_by
            self._calm_ns = boot_ns() + CALM_NS
        return boot_ns() >= self._calm_ns

    async def _prune(self, kind: Kind, cutoff: datetime) -> None:
        """Forget the oldest rows of a kind. Mostly there are none, and one read says so."""
        if not await self._database.read(retention.is_any_old, kind, cutoff):
            return
        page: Page | None = Page(before=cutoff, most=self._batch)
        while page is not None:
            began_ns = boot_ns()
            done = await self._database.write(retention.forget, kind, page, durable=False)
            took_s = (boot_ns() - began_ns) / 1e9
            await anyio.sleep(min(REST_MAX_S, took_s * REST))
            page = _next(page, done)


def _next(page: Page, done: Forgotten) -> Page | None:
    """Return the next page, no younger than `SPAN` after the first row that went; null: none."""
    if done.last is None:
        return None
    before = page.before if done.oldest is None else min(page.before, done.oldest + SPAN)
    return Page(before=before, most=page.most, after=done.last)
