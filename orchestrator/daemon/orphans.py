"""Finds agents that nobody wants and no task stands for, and lets them be looked after.

Two sources: what vendors told that fits no row of the ledger, and what people inserted. Both become
a ledger row and a status of their own; from then on an orphan goes the way that tasks go, through
the same claims, calls and settles.

Rule: nothing is called from here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVarTuple, assert_never
from uuid import uuid4

import anyio
import structlog

from orchestrator.core.fact import Event, Fact
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
from orchestrator.daemon.book import Book
from orchestrator.store import (
    accounts,
    daemons,
    fact_reading,
    orphans,
    reported,
    status_id,
)
from orchestrator.store.engine import Connection, Database, DatabaseAway
from orchestrator.store.engine import now as database_now
from orchestrator.store.fact_reading import Loose
from orchestrator.store.orphans import Found

LOOK_EVERY_S: Final = 1.0
PAGE: Final = 64
"""Facts, and insertions, that are read at a time. Each is judged in a transaction of its own: so
none holds a lock for longer than a moment, and one that cannot be judged keeps none back."""
PAGES_MAX: Final = 4
"""Of facts, in one look; the next goes on behind them. What waits costs little, however much."""
FAILING_MAX: Final = 1_000
"""Failures that are remembered, so as to be told once."""

Ts = TypeVarTuple("Ts")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Todo:
    """What one look found."""

    now: datetime
    loose: Sequence[Loose]
    inserted: Sequence[str]
    is_any_left: bool


@dataclass(slots=True, kw_only=True)
class Watch:
    """Runs beside the scheduler."""

    database: Database
    book: Book
    owner: Owner
    daemon_id: str
    daemon_name: str
    nudge: Callable[[], None]
    """Told when there is something to be claimed."""
    _after: fact_reading.Cursor = field(default=fact_reading.BEGIN, init=False)
    """Up to where facts have been looked at."""
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
        """Do what there is to do. Mostly there is nothing, and one read says so."""
        todo = await self.database.read(self._read)
        for id_ in todo.inserted:
            await self._do(id_, self._admit, id_)
        if todo.is_any_left:
            await self._do("reported", self._sweep)
        await self._judge_page(todo)
        for _ in range(PAGES_MAX - 1):
            if self._after == fact_reading.BEGIN:
                return
            await self._judge_page(await self.database.read(self._read))

    async def _judge_page(self, todo: _Todo) -> None:
        """Judge what vendors told, page by page: what must wait hides nothing behind it."""
        for loose in todo.loose:
            if self._is_ready(loose, todo.now):
                await self._do(loose.fact.key, self._judge, loose.account, loose.fact.key)
        last = todo.loose[-1] if len(todo.loose) == PAGE else None
        self._after = fact_reading.BEGIN if last is None else (last.received_at, last.fact.key)

    async def _do(self, what: str, work: Callable[[Connection, *Ts], bool], *args: *Ts) -> None:
        """Do one thing in one transaction. What fails is told once, and tried at the next look."""
        try:
            done = await self.database.write(work, *args)
        except DatabaseAway:
            raise
        except Exception:
            if what not in self._failing:
                log.exception("orphan_not_judged", what=what)
            if len(self._failing) >= FAILING_MAX:
                self._failing.clear()
            self._failing.add(what)
        else:
            if done:
                self.nudge()

    # --- what there is to do

    def _read(self, connection: Connection) -> _Todo:
        now, names = database_now(connection), self.book.names
        page = fact_reading.Page(
            accounts=names, ended_by=self._ended_by(now), after=self._after, most=PAGE
        )
        return _Todo(
            now=now,
            loose=fact_reading.loose(connection, page),
            inserted=orphans.unseen(connection, names, PAGE),
            is_any_left=self._is_any_left(connection),
        )

    def _is_ready(self, loose: Loose, now: datetime) -> bool:
        """Return whether there is anything to write about a fact now."""
        if loose.owner is not None:
            return not loose.is_announced
        return self._verdict(loose, now) is not Verdict.WAIT

    def _is_any_left(self, connection: Connection) -> bool:
        """Return whether `_sweep` has anything to do."""
        if orphans.is_any_strange(connection, self.book.names):
            return True
        names = self.book.names
        return self.book.stops_foreign and reported.is_any_reported(
            connection, names, self._named()
        )

    def _sweep(self, connection: Connection) -> bool:
        """Tell of orphans that nobody can stop, and stop foreign ones if that is wanted now."""
        now = database_now(connection)
        elsewhere = daemons.accounts_of_others(connection, self.daemon_id, now)
        orphans.delay_strange(connection, [*self.book.names, *elsewhere])
        if not self.book.stops_foreign:
            return False
        names = self.book.names
        stopped = reported.stop_reported(connection, names, self._named(), self.daemon_name, PAGE)
        return stopped > 0

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

    def _judge(self, connection: Connection, account: str, key: str) -> bool:
        """Judge one fact; return whether there is something to be claimed."""
        now = self.book.timekeeper.look(connection)
        # Two daemons may have heard of one agent: who comes second must see what the first did.
        accounts.lock_states(connection, [account])
        loose = fact_reading.lock_loose(connection, account, key, self.book.names)
        if loose is None:
            return False
        if loose.owner is not None:
            fact_reading.tell(connection, [loose.owner], self.daemon_name)
            return True
        match self._verdict(loose, now):
            case Verdict.WAIT:
                return False
            case Verdict.SKIP:
                fact_reading.take(connection, [(account, key)], now)
                return False
            case (Verdict.OURS | Verdict.FOREIGN) as verdict:
                self._find(connection, loose, now, verdict)
                fact_reading.take(connection, [(account, key)], now)
                return True
            case other:
                assert_never(other)

    def _verdict(self, loose: Loose, now: datetime) -> Verdict:
        runtime = self.book.runtimes[loose.account]
        sighting = Sighting(
            fact=loose.fact,
            age=now - loose.received_at,
            ended_at=loose.ended_at,
            is_start_open=loose.is_start_open,
            is_elsewhere=loose.is_elsewhere,
        )
        return judge(sighting, self.owner, runtime.account, runtime.call_timeout)

    def _find(
        self,
        connection: Connection,
        loose: Loose,
        now: datetime,
        verdict: Verdict,
    ) -> None:
        """Write down an agent that somebody saw, unless it is known that nothing can be done."""
        fact, id_, ours = loose.fact, uuid4().hex, verdict is Verdict.OURS
        runtime = self.book.runtimes[loose.account]
        stop = ours or (self.book.stops_foreign and not is_to_be_asked(fact, verdict))
        site = runtime.provider.site
        agent = describe(
            fact, runtime.account, site, status_id.of_orphan(id_), ours=ours, stop=stop
        )
        seen_at = min(fact.event_at, now)
        if reported.see_again(connection, loose.account, fact, seen_at):
            return
        found = Found(
            id=id_,
            account=loose.account,
            room_id=agent.room_id,
            user_id=agent.user_id,
            agent_user_id=agent.name,
            vendor_task_id=agent.vendor_task_id,
            source=_source(fact),
            ours=ours,
            stop=stop,
            first_seen_at=seen_at,
        )
        orphans.insert_found(connection, found)
        self._take_up(connection, found, agent, now)
        log.warning("orphan", orphan_id=id_, account=loose.account, ours=ours)

    # --- what people inserted

    def _admit(self, connection: Connection, id_: str) -> bool:
        """Take up one insertion; return whether there is something to be claimed."""
        now = self.book.timekeeper.look(connection)
        found = orphans.lock_unseen(connection, id_)
        if found is None or found.account not in self.book.runtimes:
            return False
        accounts.lock_states(connection, [found.account])
        runtime = self.book.runtimes[found.account]
        one_per_user = runtime.account.caps.one_per_user
        for other in orphans.same_agent(connection, found, one_per_user=one_per_user):
            if other.task_id is not None:
                orphans.ignore(connection, found.id, orphans.has_task(other.task_id))
                return False
            if other.stop:
                orphans.ignore(connection, found.id, f"SameAs: {other.orphan_id}")
                return False
        agent = Agent(
            # Drawn: a row of the same id may have been inserted before, and have ended.
            id=status_id.of_orphan(uuid4().hex),
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
        return True

    def _take_up(self, connection: Connection, found: Found, agent: Agent, now: datetime) -> None:
        status = attend(agent, status_id.of_orphan(found.id), now, stop=found.stop)
        orphans.take_up(connection, found, agent, status)


def _source(fact: Fact) -> str:
    """Return who told of an agent (`orphan_task.source`)."""
    if fact.is_asking:
        return "gateway"
    return "lookup" if fact.event is Event.SEEN else "callback"
