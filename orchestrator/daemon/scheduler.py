"""The loop: look for work, draw slots for it, claim it, send it off.

Rule 1: a hint wakes it, the store tells it what to do. It does the same after a time-out.
Rule 2: one pass at a time; calls and settles go on beside it. What a class may have in flight is
bounded, and no class uses what is kept for another.
Rule 3: its own trouble (a database that is away) is retried here and nowhere else.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from orchestrator.clock import boot_ns
from orchestrator.core.model import Verb, WorkClass
from orchestrator.daemon.claim import Claimed, Desk, Order, Wanted, claim
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.limiter import Action, Limiter, Ticket
from orchestrator.daemon.look import Glance, Seen, look
from orchestrator.daemon.settler import Settler
from orchestrator.store import daemons
from orchestrator.store.accounts import Standing
from orchestrator.store.engine import Database, DatabaseAway, StatementError
from orchestrator.store.queue import Candidate, Queue
from orchestrator.wake.base import Waker

IN_FLIGHT: Final[Mapping[WorkClass, int]] = MappingProxyType(
    {
        WorkClass.STOP: 64,
        WorkClass.LISTENING: 64,
        WorkClass.START: 64,
        WorkClass.OBSERVE: 32,
    }
)
"""Calls of each class at a time; none uses what is kept for another."""
BATCH: Final[Mapping[str, int]] = MappingProxyType({"postgresql": 128, "sqlite": 32})
"""Rows in one claim. SQLite's one lock is held for about 2 ms, so its batches are small."""
SMALLEST_BATCH: Final = 8
SURVEY_EVERY_NS: Final = 1_000_000_000
LONGEST_WAIT: Final = timedelta(seconds=1)
"""The bounded poll under every hint."""
SHORTEST_WAIT: Final = timedelta(milliseconds=2)
BLOCKED_WAIT: Final = timedelta(milliseconds=50)
"""Work is there and cannot be claimed: others hold it, or its class is full."""
AWAY_WAIT_MAX_S: Final = 2.0
POISON_NS: Final = 60_000_000_000
"""How long a row is left alone whose claim failed for a reason nobody thought of."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the scheduler drives."""

    database: Database
    limiter: Limiter
    gateway: Gateway
    settler: Settler
    waker: Waker
    desk: Desk
    notified: bool
    """Whether triggers wake this daemon only while its row says that it sleeps."""


class Scheduler:
    """Runs passes until it is told to drain."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._batch = BATCH[parts.database.dialect]
        self._in_flight: Counter[WorkClass] = Counter()
        self._queues: set[Queue] = set()
        self._elsewhere: frozenset[str] = frozenset()
        self._surveyed_ns = 0
        self._asleep = False
        self._starved = False
        self._poison: dict[str, int] = {}
        self._draining = anyio.Event()
        self._amnesty_at = parts.desk.amnesty_at
        self.turned_ns = boot_ns()
        """When the loop last turned."""

    def drain(self) -> None:
        """Claim nothing more. Calls in flight go on."""
        self._draining.set()
        self._parts.waker.nudge()

    def is_draining(self) -> bool:
        """Return whether the daemon claims nothing more."""
        return self._draining.is_set()

    def grant_amnesty(self, at: datetime) -> None:
        """Count all heartbeats from here: nobody could write one before."""
        self._amnesty_at = at

    async def run(self, calls: TaskGroup) -> None:
        """Run passes. Calls are started in `calls`, and may outlive this."""
        away_s = 0.0
        while not self._draining.is_set():
            self.turned_ns = boot_ns()
            try:
                wait = await self._pass(calls)
            except (DatabaseAway, StatementError) as error:
                if not away_s:
                    log.warning("database_away", error=str(error))
                away_s = min(AWAY_WAIT_MAX_S, away_s * 2 or 0.05)
                await anyio.sleep(away_s)
                continue
            if away_s:
                log.info("database_back")
                away_s = 0.0
            if wait is not None:
                await self._parts.waker.wait(wait)

    # --- one pass ---

    async def _pass(self, calls: TaskGroup) -> timedelta | None:
        """Do what can be done now. Return how long to rest, or null if there may be more."""
        seen = await self._parts.database.read(look, self._glance())
        self._learn(seen)
        room = {each: IN_FLIGHT[each] - self._in_flight[each] for each in WorkClass}
        tickets = await self._draw(seen, room)
        wanted = self._wanted(seen, tickets, room)
        claimed = Claimed()
        if wanted.ids or wanted.without_status:
            claimed = await self._claim(wanted, tickets, room)
        self._resize(claimed)
        for order in claimed.orders:
            self._in_flight[order.flight.work_class] += 1
            calls.start_soon(self._carry_out, order)
        await self._parts.limiter.give_back(t for left in tickets.values() for t in left)
        self._queues |= claimed.queues
        if claimed.written:
            await self._say_asleep(asleep=False)
            return None
        self._starved = bool(wanted.ids or self._ready(seen))
        if not self._asleep and self._parts.notified:
            await self._say_asleep(asleep=True)
            return None  # what was written before the row said so notified nobody: look once more
        return BLOCKED_WAIT if seen.candidates or wanted.ids else self._rest(seen)

    def _resize(self, claimed: Claimed) -> None:
        """Let the next batch be what fits into the time for deciding: no row is read in vain."""
        if claimed.fitted is not None:
            self._batch = max(SMALLEST_BATCH, claimed.fitted)
        elif claimed.written:
            self._batch = min(BATCH[self._parts.database.dialect], self._batch * 5 // 4 + 1)

    def _glance(self) -> Glance:
        survey = boot_ns() - self._surveyed_ns > SURVEY_EVERY_NS
        if survey:
            self._surveyed_ns = boot_ns()
        now_ns = boot_ns()
        return Glance(
            daemon_id=self._parts.desk.daemon_id,
            most=self._batch,
            queues=[queue for queue in self._queues if self._opens_ns(queue) <= now_ns],
            survey=survey,
        )

    def _learn(self, seen: Seen) -> None:
        if seen.queues is not None:
            self._queues = set(seen.queues)
        else:
            self._queues -= {queue for queue, ids in seen.parked.items() if not ids}
        if seen.elsewhere is not None:
            self._elsewhere = seen.elsewhere - set(self._parts.desk.book.names)
        self._parts.settler.standings = seen.standings

    async def _draw(
        self, seen: Seen, room: Mapping[WorkClass, int]
    ) -> dict[tuple[str, Verb], list[Ticket]]:
        """Draw slots for what is waiting, as many as can be used. No transaction is open."""
        wishes: Counter[tuple[str, Verb]] = Counter()
        for one in seen.candidates:
            if one.account is not None and one.account in self._parts.desk.book.runtimes:
                wishes[one.account, one.verb] += 1
        for queue, ids in seen.parked.items():
            wishes[queue.account, queue.verb] += self._passable(queue, seen, len(ids))
        tickets: dict[tuple[str, Verb], list[Ticket]] = {}
        for name in self._parts.desk.book.names:
            for verb in Verb:
                action = self._action(name, verb)
                if not self._parts.limiter.is_limited(action):
                    continue
                most = min(wishes[name, verb], max(0, room[_class_of(verb)]))
                observes = verb is Verb.POLL
                drawn = await self._parts.limiter.draw(action, most, keep_half=observes)
                tickets[name, verb] = drawn
        return tickets

    def _wanted(
        self,
        seen: Seen,
        tickets: Mapping[tuple[str, Verb], Sequence[Ticket]],
        room: Mapping[WorkClass, int],
    ) -> Wanted:
        """Choose the rows to claim: those that cannot wait, then the parked that got a slot."""
        ids = [one.task_id for one in _admit(self._ready(seen), room)]
        for queue, parked in seen.parked.items():
            most = self._passable(queue, seen, len(parked))
            drawn = tickets.get((queue.account, queue.verb))
            ids += parked[: most if drawn is None else min(most, len(drawn))]
        return Wanted(
            ids=list(dict.fromkeys(ids))[: self._batch],
            without_status=[one.task_id for one in seen.candidates if one.account is None],
        )

    def _ready(self, seen: Seen) -> list[Candidate]:
        """Return the candidates that are ours to claim."""
        now_ns = boot_ns()
        return [
            one
            for one in seen.candidates
            if one.account is not None
            and one.account not in self._elsewhere
            and self._poison.get(one.task_id, 0) <= now_ns
        ]

    def _passable(self, queue: Queue, seen: Seen, most: int) -> int:
        """Return how many rows of a queue could be called about now, slots apart."""
        standing = seen.standings.get(queue.account)
        if queue.account not in self._parts.desk.book.runtimes:
            return 0
        if standing is None or queue.verb is not Verb.START:
            return 0 if standing is not None and standing.frozen else most
        return self._startable(queue, standing, seen.now, most)

    def _startable(self, queue: Queue, standing: Standing, now: datetime, most: int) -> int:
        account = self._parts.desk.book.account(queue.account, standing, None)
        if account.frozen or account.paused:
            return 0
        for until in (account.denied_until, account.circuit_open_until):
            if until is not None:
                return 0 if until > now else 1
        return most

    # --- claim ---

    async def _claim(
        self,
        wanted: Wanted,
        tickets: dict[tuple[str, Verb], list[Ticket]],
        room: dict[WorkClass, int],
    ) -> Claimed:
        """Claim a batch; if it fails as a whole, each of its rows alone."""
        try:
            return await self._claim_once(wanted, tickets, room)
        except DatabaseAway:
            raise
        except Exception:
            log.exception("claim_failed", rows=len(wanted.ids))
        claimed = Claimed()
        for id_ in wanted.ids:
            try:
                one = await self._claim_once(Wanted(ids=[id_]), tickets, room)
            except DatabaseAway:
                raise
            except Exception:
                log.exception("row_failed", task_id=id_)
                self._poison[id_] = boot_ns() + POISON_NS
                continue
            claimed.orders += one.orders
            claimed.queues |= one.queues
            claimed.written += one.written
        return claimed

    async def _claim_once(
        self,
        wanted: Wanted,
        tickets: dict[tuple[str, Verb], list[Ticket]],
        room: dict[WorkClass, int],
    ) -> Claimed:
        desk = replace(self._parts.desk, amnesty_at=self._amnesty_at)
        # Any claim may carry a stop, so it goes by the connections that are kept for stops.
        return await self._parts.database.write(
            claim, desk, wanted, tickets, room, work_class=WorkClass.STOP
        )

    # --- calls ---

    async def _carry_out(self, order: Order) -> None:
        settlement = await self._parts.gateway.carry_out(order)
        await self._parts.settler.put(settlement)
        work_class = order.flight.work_class
        self._in_flight[work_class] -= 1
        if self._starved and self._in_flight[work_class] <= IN_FLIGHT[work_class] * 3 // 4:
            self._starved = False
            self._parts.waker.nudge()

    # --- rest ---

    def _rest(self, seen: Seen) -> timedelta:
        """Return until when nothing but a hint can make work."""
        waits = [LONGEST_WAIT]
        if seen.next_due is not None:
            waits.append(seen.next_due - seen.now)
        now_ns = boot_ns()
        for queue in self._queues:
            opens_ns = self._opens_ns(queue)
            if opens_ns > now_ns:
                waits.append(timedelta(microseconds=(opens_ns - now_ns) // 1000))
        return max(SHORTEST_WAIT, min(waits))

    def _opens_ns(self, queue: Queue) -> int:
        if queue.account not in self._parts.desk.book.runtimes:
            return 0
        return self._parts.limiter.opens_ns(self._action(queue.account, queue.verb))

    def _action(self, account: str, verb: Verb) -> Action:
        provider = self._parts.desk.book.runtimes[account].provider
        return Action(account=account, name=provider.action(verb))

    async def _say_asleep(self, *, asleep: bool) -> None:
        if not self._parts.notified or asleep is self._asleep:
            return
        self._asleep = asleep
        said = daemons.Sleep(daemon_id=self._parts.desk.daemon_id, asleep=asleep)
        await self._parts.database.write(daemons.say_asleep, said, durable=False)


def _admit(candidates: Sequence[Candidate], room: Mapping[WorkClass, int]) -> Iterator[Candidate]:
    """Yield as many candidates of each class as it has places for.

    To lock and read a row costs as much as to call about it, so a row that would find its class
    full is left out. While more want in than there are places, a class waits until a quarter of
    it is free, and then fills it with one claim instead of many small ones.
    """
    wishes = Counter(_class_of(one.verb) for one in candidates)
    places = {
        each: 0 if wishes[each] > room[each] < IN_FLIGHT[each] // 4 else room[each]
        for each in WorkClass
    }
    for one in candidates:
        work_class = _class_of(one.verb)
        if places[work_class] > 0:
            places[work_class] -= 1
            yield one


def _class_of(verb: Verb) -> WorkClass:
    """Return the class whose places a call of this kind most likely takes."""
    match verb:
        case Verb.START:
            return WorkClass.START
        case Verb.POLL:
            return WorkClass.OBSERVE
        case Verb.STOP | Verb.FIND | Verb.KICK:
            return WorkClass.STOP
