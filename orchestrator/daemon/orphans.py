"""Finds agents that nobody wants and no task stands for, and lets them be looked after.

Two sources: what vendors told that fits no row of the ledger, and what people inserted. Both become
a ledger row and a status of their own; from then on an orphan goes the way that tasks go, through
the same claims, calls and settles.

Rule: nothing is called from here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never
from uuid import uuid4

import anyio
import structlog

from orchestrator.core.fact import Event
from orchestrator.core.model import Agent
from orchestrator.core.orphan import (
    Owner,
    Sighting,
    Verdict,
    attend,
    describe,
    fence,
    is_to_be_asked,
    judge,
    parked,
)
from orchestrator.daemon.book import AccountRuntime, Book
from orchestrator.store import accounts, daemons, fact_reading, orphans, reported
from orchestrator.store.engine import Connection, Database
from orchestrator.store.engine import now as database_now
from orchestrator.store.fact_reading import Loose
from orchestrator.store.ledger import ORPHAN
from orchestrator.store.orphans import Found

LOOK_EVERY_S: Final = 1.0
FAILING_MAX: Final = 1_000
"""Failures that are remembered, so as to be told once."""
BATCH_MAX: Final = 64
"""Facts, and insertions, that one transaction judges."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Judged:
    """What one transaction did."""

    found: list[Found] = field(default_factory=list)
    """New orphans, to be told."""
    changed: int = 0
    """Facts and insertions that need no second look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Runs beside the scheduler."""

    database: Database
    book: Book
    owner: Owner
    daemon_id: str
    daemon_name: str
    nudge: Callable[[], None]
    """Told when there is something to be claimed."""
    _failing: set[str] = field(default_factory=set, init=False)
    """What could not be judged, and has been told."""

    async def run(self) -> None:
        """Look every second. Trouble is logged once, and tried again."""
        failing = False
        while True:
            try:
                await self._look()
            except Exception as error:
                # Whatever it is, it ends neither the daemon nor the looks that follow.
                if not failing:
                    log.warning("orphans_not_seen", error=str(error), exc_info=error)
                failing = True
            else:
                failing = False
            await anyio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        while await self.database.read(self._is_any):
            judged = await self.database.write(self._judge_all)
            for one in judged.found:
                log.warning("orphan", orphan_id=one.id, account=one.account, ours=one.ours)
            if not judged.changed:
                return
            self.nudge()

    def _is_any(self, connection: Connection) -> bool:
        ended_by = self._ended_by(database_now(connection))
        return (
            fact_reading.is_any_loose(connection, self.book.names, ended_by)
            or orphans.is_any_unseen(connection)
            or (
                self.book.stops_foreign
                and reported.is_any_reported(connection, self.book.names, self._named())
            )
        )

    def _judge_all(self, connection: Connection) -> Judged:
        now, judged = database_now(connection), Judged()
        # Two daemons may have heard of one agent: who comes second must see what the first did.
        accounts.lock_states(connection, self.book.names)
        ended_by = self._ended_by(now)
        for loose in fact_reading.loose(connection, self.book.names, ended_by, BATCH_MAX):
            with self._alone(connection, loose.fact.key):
                self._judge(connection, loose, now, judged)
        for found in orphans.unseen(connection, self.book.names, BATCH_MAX):
            with self._alone(connection, found.id):
                self._admit(connection, found, now)
                judged.changed += 1
        if self.book.stops_foreign:
            judged.changed += reported.stop_reported(
                connection, self.book.names, self._named(), self.daemon_name, BATCH_MAX
            )
        elsewhere = daemons.accounts_of_others(connection, self.daemon_id, now)
        orphans.delay_strange(connection, [*self.book.names, *elsewhere])
        return judged

    @contextmanager
    def _alone(self, connection: Connection, what: str) -> Iterator[None]:
        """Undo what fails, tell it once, and go on: one that cannot be judged keeps none back."""
        try:
            with connection.begin_nested():
                yield
        except Exception:
            if what not in self._failing:
                log.exception("orphan_not_judged", what=what)
            if len(self._failing) >= FAILING_MAX:
                self._failing.clear()
            self._failing.add(what)

    def _ended_by(self, now: datetime) -> datetime:
        """Return when the newest end was told that need not wait for an answer any more."""
        waits = [
            parked(runtime.account, runtime.call_timeout) for runtime in self.book.runtimes.values()
        ]
        return now - min(waits, default=timedelta(0))

    def _named(self) -> list[str]:
        """Return the accounts whose handles are names, and so tell whose they are."""
        runtimes = self.book.runtimes
        return [name for name in self.book.names if runtimes[name].account.caps.names_handle]

    # --- what vendors told

    def _judge(self, connection: Connection, loose: Loose, now: datetime, judged: Judged) -> None:
        if loose.owner is not None:
            if not loose.is_announced:
                fact_reading.tell(connection, [loose.owner], self.daemon_name)
                judged.changed += 1
            return
        sighting = Sighting(
            fact=loose.fact,
            age=now - loose.received_at,
            ended_at=loose.ended_at,
            is_start_open=loose.is_start_open,
            is_elsewhere=loose.is_elsewhere,
        )
        runtime = self.book.runtimes[loose.account]
        match judge(sighting, self.owner, runtime.account, runtime.call_timeout):
            case Verdict.WAIT:
                return
            case Verdict.SKIP:
                pass
            case (Verdict.OURS | Verdict.FOREIGN) as verdict:
                found = self._find(connection, loose, runtime, now, verdict)
                judged.found += [found] if found is not None else []
            case other:
                assert_never(other)
        fact_reading.take(connection, [(loose.account, loose.fact.key)], now)
        judged.changed += 1

    def _find(
        self,
        connection: Connection,
        loose: Loose,
        runtime: AccountRuntime,
        now: datetime,
        verdict: Verdict,
    ) -> Found | None:
        """Write down an agent that somebody saw; null if nothing can be done about it."""
        fact, id_, ours = loose.fact, uuid4().hex, verdict is Verdict.OURS
        stop = ours or (self.book.stops_foreign and not is_to_be_asked(fact, verdict))
        site = runtime.provider.site
        agent = describe(fact, runtime.account, site, ORPHAN + id_, ours=ours, stop=stop)
        seen_at = min(fact.event_at, now)
        if reported.see_again(connection, loose.account, fact, seen_at):
            return None
        found = Found(
            id=id_,
            account=loose.account,
            room_id=agent.room_id,
            user_id=agent.user_id,
            agent_user_id=agent.name,
            vendor_task_id=agent.vendor_task_id,
            source="lookup" if fact.event is Event.SEEN else "callback",
            ours=ours,
            stop=stop,
            first_seen_at=seen_at,
        )
        orphans.insert_found(connection, found)
        self._take_up(connection, found, agent, now)
        return found

    # --- what people inserted

    def _admit(self, connection: Connection, found: Found, now: datetime) -> None:
        runtime = self.book.runtimes[found.account]
        one_per_user = runtime.account.caps.one_per_user
        for other in orphans.same_agent(connection, found, one_per_user=one_per_user):
            if other.task_id is not None:
                orphans.ignore(connection, found.id, orphans.has_task(other.task_id))
                return
            if other.stop:
                orphans.ignore(connection, found.id, f"SameAs: {other.orphan_id}")
                return
        agent = Agent(
            # Drawn: a row of the same id may have been inserted before, and have ended.
            id=ORPHAN + uuid4().hex,
            incarnation=1,
            try_=1,
            account=found.account,
            site=runtime.provider.site,
            room_id=found.room_id,
            user_id=found.user_id,
            name=found.agent_user_id,
            session_name="",
            stream_id="",
            vendor_task_id=found.vendor_task_id,
            announced_at=now,
        )
        self._take_up(connection, found, fence(agent, runtime.account, now), now)

    def _take_up(self, connection: Connection, found: Found, agent: Agent, now: datetime) -> None:
        status = attend(agent, ORPHAN + found.id, now, stop=found.stop)
        orphans.take_up(connection, found, agent, status)
