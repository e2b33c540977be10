"""The loop: look for work, draw slots for it, claim it, send it off.

Rule 1: a hint wakes it, the store tells it what to do. It does the same after a time-out.
Rule 2: one pass at a time; calls and settles go on beside it. What an account may have in flight
of a class is bounded, and nobody uses what is kept for another.
Rule 3: its own trouble (a database that is away) is retried here and nowhere else.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from orchestrator.clock import boot_ns
from orchestrator.core.model import Verb, WorkClass
from orchestrator.daemon.choose import (
    IN_FLIGHT,
    choose,
    class_of,
    count_wishes,
    find_crowded,
    free_places,
    full_accounts,
)
from orchestrator.daemon.claim import Claimed, Desk, Order, Place, Room, Wanted, claim
from orchestrator.daemon.failing import Failing
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.limiter import Action, Limiter, Ticket
from orchestrator.daemon.look import Glance, Seen, look
from orchestrator.daemon.pulse import Loop, Pulse
from orchestrator.daemon.settler import Settler
from orchestrator.store import daemons
from orchestrator.store.engine import Database, DatabaseAway, StatementError
from orchestrator.store.queue import Queue
from orchestrator.wake.fan import Seat

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

ALONE_NS_MAX: Final = 5_000_000_000
"""For claiming rows one by one, after their batch has failed. Where somebody holds a table, each of
them waits as long as our sessions wait for a lock, and a loop that does not turn is taken for dead.
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the scheduler drives."""

    database: Database
    limiter: Limiter
    gateway: Gateway
    settler: Settler
    seat: Seat
    """Where this loop waits."""
    on_pass: Callable[[], None]
    """Told at each pass if `notified`: while this loop is awake, triggers notify nobody else."""
    desk: Desk
    notified: bool
    """Whether triggers wake this daemon only while its row says that it sleeps."""
    pulse: Pulse


class Scheduler:
    """Runs passes until it is told to drain."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._batch = BATCH[parts.database.dialect]
        self._in_flight: Counter[Place] = Counter()
        self._crowded: set[Place] = set()
        """Where more was wanted than there were places."""
        self._failing = Failing()
        self._queues: set[Queue] = set()
        self._elsewhere: frozenset[str] = frozenset()
        self._surveyed_ns = 0
        self._asleep = False
        self._draining = anyio.Event()

    def drain(self) -> None:
        """Claim nothing more. Calls in flight go on."""
        self._draining.set()
        self._parts.seat.nudge()

    def is_draining(self) -> bool:
        """Return whether the daemon claims nothing more."""
        return self._draining.is_set()

    async def run(self, calls: TaskGroup) -> None:
        """Run passes. Calls are started in `calls`, and may outlive this."""
        away_s = 0.0
        while not self._draining.is_set():
            try:
                wait = await self._pass(calls)
            except (DatabaseAway, StatementError) as error:
                if not away_s:
                    log.warning("database_away", error=str(error))
                self._parts.pulse.turn(Loop.TASKS, passed=False)
                away_s = min(AWAY_WAIT_MAX_S, away_s * 2 or 0.05)
                await anyio.sleep(away_s)
                continue
            if away_s:
                log.info("database_back")
                away_s = 0.0
            self._parts.pulse.turn(Loop.TASKS, passed=True)
            if wait is not None:
                await self._parts.seat.wait(wait)

    # --- one pass ---

    async def _pass(self, calls: TaskGroup) -> timedelta | None:
        """Do what can be done now. Return how long to rest, or null if there may be more."""
        if self._parts.notified:
            self._parts.on_pass()
        room = free_places(self._parts.desk.book.names, self._in_flight)
        seen = await self._parts.database.read(look, self._glance(room))
        self._learn(seen)
        wishes = count_wishes(seen, self._parts.desk.book)
        self._crowded |= find_crowded(wishes, room)
        tickets = await self._draw(wishes, room)
        wanted = choose(seen, tickets, room, self._parts.desk.book, self._batch)
        claimed = Claimed()
        if wanted.ids or wanted.without_status:
            claimed = await self._claim(wanted, tickets, room)
        self._resize(claimed)
        for order in claimed.orders:
            self._in_flight[_place(order)] += 1
            calls.start_soon(self._carry_out, order)
        await self._parts.limiter.give_back(t for left in tickets.values() for t in left)
        self._queues |= claimed.queues
        if claimed.written:
            await self._say_asleep(asleep=False)
            return None
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

    def _glance(self, room: Room) -> Glance:
        now_ns = boot_ns()
        survey = now_ns - self._surveyed_ns > SURVEY_EVERY_NS
        if survey:
            self._surveyed_ns = now_ns
        return Glance(
            daemon_id=self._parts.desk.daemon_id,
            names=self._parts.desk.book.names,
            most=self._batch,
            queues=[one for one in self._queues if self._opens_ns(one) <= now_ns],
            elsewhere=self._elsewhere,
            full=full_accounts(room, self._crowded),
            failing=self._failing.left_alone(now_ns),
            survey=survey,
        )

    def _learn(self, seen: Seen) -> None:
        if seen.queues is not None:
            self._queues = set(seen.queues)
        else:
            self._queues -= {queue for queue, ids in seen.parked.items() if not ids}
        self._elsewhere = seen.elsewhere
        self._parts.settler.standings = seen.standings

    async def _draw(
        self, wishes: Mapping[tuple[str, Verb], int], room: Room
    ) -> dict[tuple[str, Verb], list[Ticket]]:
        """Draw slots for what is waiting, as many as can be used. No transaction is open."""
        tickets: dict[tuple[str, Verb], list[Ticket]] = {}
        for name in self._parts.desk.book.names:
            for verb in Verb:
                action = self._action(name, verb)
                if not self._parts.limiter.is_limited(action):
                    continue
                most = min(wishes.get((name, verb), 0), room.get((name, class_of(verb)), 0))
                tickets[name, verb] = await self._parts.limiter.draw(
                    action, most, keep_half=_leaves_half(verb)
                )
        return tickets

    # --- claim ---

    async def _claim(
        self,
        wanted: Wanted,
        tickets: dict[tuple[str, Verb], list[Ticket]],
        room: Room,
    ) -> Claimed:
        """Claim a batch; if it fails as a whole, each of its rows alone."""
        try:
            return await self._claim_once(wanted, tickets, room)
        except DatabaseAway:
            raise
        except Exception:
            log.exception("claim_failed", rows=len(wanted.ids))
        claimed = Claimed()
        give_up_ns = boot_ns() + ALONE_NS_MAX
        for id_ in wanted.ids:
            if boot_ns() > give_up_ns:
                break  # the others are as due in the next pass
            try:
                one = await self._claim_once(Wanted(ids=[id_]), tickets, room)
            except DatabaseAway:
                raise
            except Exception:
                log.exception("row_failed", task_id=id_)
                self._failing.note(id_, boot_ns())
                continue
            claimed.orders += one.orders
            claimed.queues |= one.queues
            claimed.written += one.written
        return claimed

    async def _claim_once(
        self,
        wanted: Wanted,
        tickets: dict[tuple[str, Verb], list[Ticket]],
        room: Room,
    ) -> Claimed:
        # Any claim may carry a stop, so it goes by the connections that are kept for stops.
        claimed = await self._parts.database.write(
            claim, self._parts.desk, wanted, tickets, room, work_class=WorkClass.STOP
        )
        if claimed.fitted is None:
            self._failing.forget(wanted.ids)
        return claimed

    # --- calls ---

    async def _carry_out(self, order: Order) -> None:
        settlement = await self._parts.gateway.carry_out(order)
        await self._parts.settler.put(settlement)
        self._leave(_place(order))

    def _leave(self, place: Place) -> None:
        """Free a place, and look again if somebody may have waited for it."""
        most = IN_FLIGHT[place[1]]
        was_full = self._in_flight[place] >= most
        self._in_flight[place] -= 1
        if place not in self._crowded:
            if was_full:
                self._parts.seat.nudge()
        elif self._in_flight[place] <= most * 3 // 4:
            self._crowded.discard(place)
            self._parts.seat.nudge()

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
        action = self._action(queue.account, queue.verb)
        return self._parts.limiter.opens_ns(action, keep_half=_leaves_half(queue.verb))

    def _action(self, account: str, verb: Verb) -> Action:
        provider = self._parts.desk.book.runtimes[account].provider
        return Action(account=account, name=provider.action(verb))

    async def _say_asleep(self, *, asleep: bool) -> None:
        if not self._parts.notified or asleep is self._asleep:
            return
        self._asleep = asleep
        said = daemons.Sleep(daemon_id=self._parts.desk.daemon_id, asleep=asleep)
        await self._parts.database.write(daemons.say_asleep, said, durable=False)


def _place(order: Order) -> Place:
    return order.account.name, order.flight.work_class


def _leaves_half(verb: Verb) -> bool:
    """Return whether calls of this kind leave half of a limit to those who may not wait."""
    return verb is Verb.POLL
