"""What a daemon does beside its work: says that it runs, sweeps, forgets, frees what others hold.

Each of the four goes on for itself; trouble in one is logged once and tried again, and stops
neither the others nor the work.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import anyio
import structlog

from orchestrator.daemon.book import Book
from orchestrator.daemon.call_tally import CallTally
from orchestrator.daemon.pruner import Pruner
from orchestrator.store import accounts, call_minutes, daemons, frozen, housekeeping
from orchestrator.store.accounts import Observed
from orchestrator.store.daemons import Beat
from orchestrator.store.engine import Connection, Database, DatabaseAway, StatementError
from orchestrator.store.frozen import LONGEST_TRANSACTION
from orchestrator.store.housekeeping import Swept
from orchestrator.store.retention import Cutoffs

BEAT_S: Final = 2.0
SWEEP_EVERY_S: Final = 3600.0
SWEEP_STEP_S: Final = 1.0
"""Between two steps of a walk: it is a net, and in no hurry."""
PRUNE_EVERY_S: Final = 60.0
FREE_EVERY_S: Final = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long things are kept; null: for ever."""

    events: timedelta
    commands: timedelta
    turns: timedelta
    ended: timedelta | None

    def before(self, now: datetime) -> Cutoffs:
        """Return before when things are forgotten."""
        ended = None if self.ended is None else now - self.ended
        return Cutoffs(
            events=now - self.events,
            commands=now - self.commands,
            turns=now - self.turns,
            ended=ended,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Janitor:
    """Runs beside the scheduler."""

    database: Database
    book: Book
    tally: CallTally
    daemon_id: str
    daemon_name: str
    keep: Keep
    is_draining: Callable[[], bool]

    async def beat(self) -> None:
        """Say every two seconds that this daemon runs, and what it sees."""
        await self._repeat("beat", BEAT_S, self._beat_once)

    async def sweep(self) -> None:
        """Walk through tasks, statuses, ledger and orphans once an hour, a thousand rows at a time.

        Each walk goes for itself: what one of them cannot get past is in no other's way.
        """
        steps = (
            housekeeping.sweep_tasks,
            housekeeping.sweep_statuses,
            housekeeping.sweep_ledger,
            housekeeping.sweep_orphans,
        )
        async with anyio.create_task_group() as walks:
            for step in steps:
                walk = partial(self._walk, step)
                walks.start_soon(self._repeat, step.__name__, SWEEP_EVERY_S, walk)

    async def prune(self) -> None:
        """Forget what is old, and count what is left."""
        pruner = Pruner(self.database, self.book.timekeeper, self.keep.before)
        async with anyio.create_task_group() as works:
            works.start_soon(self._repeat, "count", PRUNE_EVERY_S, self._count_once)
            works.start_soon(self._repeat, "prune", PRUNE_EVERY_S, pruner.run)

    async def free(self) -> None:
        """End what a frozen daemon has left at the server, with the rows that it has locked."""
        await self._repeat("free", FREE_EVERY_S, self._free_once)

    async def _repeat(self, name: str, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
        failing = False
        while True:
            try:
                await work()
            except (DatabaseAway, StatementError) as error:
                if not failing:
                    log.warning("janitor_failed", work=name, error=str(error))
                failing = True
            else:
                failing = False
            await anyio.sleep(min(every_s, BEAT_S) if failing else every_s)

    async def _beat_once(self) -> None:
        gap_end = await self.database.write(self._say, durable=False)
        if gap_end is not None:
            log.warning("gap_ended", at=gap_end.isoformat())
        sums = self.tally.take()
        if sums:
            await self.database.write(call_minutes.add, sums, durable=False)

    def _say(self, connection: Connection) -> datetime | None:
        now = self.book.timekeeper.look(connection)
        return _beat(connection, self._beat_of(), self._observed(), now)

    def _beat_of(self) -> Beat:
        return Beat(daemon_id=self.daemon_id, draining=self.is_draining())

    def _observed(self) -> list[Observed]:
        return [
            Observed(
                account=name,
                breaker="open" if self.book.breaker(name).is_open else None,
                clock_offset_ms=self.book.offset(name) // timedelta(milliseconds=1),
            )
            for name in self.book.names
        ]

    async def _walk(self, step: Callable[[Connection, str, str], Swept]) -> None:
        after: str | None = ""
        while after is not None:
            swept = await self.database.write(step, after, self.daemon_name, durable=False)
            if swept.mended:
                log.warning("swept", walk=step.__name__, mended=swept.mended)
            after = swept.last
            if after is not None:
                await anyio.sleep(SWEEP_STEP_S)

    async def _count_once(self) -> None:
        await self.database.write(accounts.recount, self.book.names, durable=False)

    async def _free_once(self) -> None:
        ended = await self.database.read(frozen.end_sessions, LONGEST_TRANSACTION)
        for one in ended:
            age_s = one.age // timedelta(seconds=1)
            log.warning("frozen_session_ended", backend_pid=one.pid, age_s=age_s)


def _beat(
    connection: Connection, beat: Beat, observed: list[Observed], now: datetime
) -> datetime | None:
    """Write the heartbeat; return the present if the last one of any daemon is too long ago."""
    last = daemons.last_heartbeat(connection)
    daemons.beat(connection, beat, now)
    accounts.observe(connection, observed, now)
    if not daemons.is_gap(last, now):
        return None
    daemons.grant_amnesty(connection, now)
    return now
