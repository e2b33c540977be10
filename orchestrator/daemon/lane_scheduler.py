"""The loop of the lanes: presses and other commands, beside the tasks' loop and apart from it.

Rule 1: a press must feel immediate. Nothing of the tasks' work is waited for here, and a command
that waits for a slot, a place or its agent makes no other lane wait.
Rule 2: the database is the truth. What is in memory is the calls in flight and nothing else.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from orchestrator.clock import boot_ns
from orchestrator.core.command import Command, Kind
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Throttled
from orchestrator.daemon.call_tally import CallTally
from orchestrator.daemon.choose import IN_FLIGHT
from orchestrator.daemon.failing import Failing
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.lane_claim import (
    ClaimedLanes,
    CommandOrder,
    LaneDesk,
    LaneRoom,
    LaneTickets,
    claim_lanes,
)
from orchestrator.daemon.lane_settle import CommandSettlement
from orchestrator.daemon.lane_settler import LaneSettler
from orchestrator.daemon.limiter import Action, Limiter, Ticket
from orchestrator.daemon.pulse import Loop, Pulse
from orchestrator.store import daemons, lane_queue
from orchestrator.store.engine import Connection, Database, DatabaseAway, StatementError
from orchestrator.store.engine import now as database_now
from orchestrator.store.lane_queue import LaneCandidate, LaneScope
from orchestrator.wake.fan import Seat

LISTENING_IN_FLIGHT: Final = IN_FLIGHT[WorkClass.LISTENING]
OTHERS_IN_FLIGHT: Final = 32
"""Commands of an account at a time, of each kind of lane."""
BATCH: Final = 64
SURVEY_EVERY_NS: Final = 1_000_000_000
LONGEST_WAIT: Final = timedelta(seconds=1)
SHORTEST_WAIT: Final = timedelta(milliseconds=2)
BLOCKED_WAIT: Final = timedelta(milliseconds=20)
"""Work is there, and others hold it."""
AWAY_WAIT_S: Final = 0.5

ALONE_NS_MAX: Final = 5_000_000_000
"""For claiming lanes task by task, after their batch has failed, as in `scheduler`."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneParts:
    """What the lanes' loop drives."""

    database: Database
    limiter: Limiter
    gateway: Gateway
    settler: LaneSettler
    tally: CallTally
    seat: Seat
    desk: LaneDesk
    pulse: Pulse


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    candidates: Sequence[LaneCandidate]
    until_next: timedelta | None
    """Until time alone asks for a look; null also while there are candidates: now."""
    elsewhere: frozenset[str] | None
    """The accounts that only other live daemons have; null if that was not asked."""


class LaneScheduler:
    """Runs passes over lanes until it is told to drain."""

    def __init__(self, parts: LaneParts) -> None:
        self._parts = parts
        self._in_flight: Counter[tuple[str, bool]] = Counter()
        self._parked: set[tuple[str, Kind]] = set()
        """What lanes were parked for, by account: its slots are worth waking up for."""
        self._failing = Failing()
        self._elsewhere: frozenset[str] = frozenset()
        self._surveyed_ns = 0
        self._draining = False

    def drain(self) -> None:
        """Claim nothing more. Commands in flight go on."""
        self._draining = True
        self._parts.seat.nudge()

    async def run(self, calls: TaskGroup) -> None:
        """Run passes. Commands are sent in `calls`, and may outlive this."""
        is_away = False
        while not self._draining:
            try:
                wait = await self._pass(calls)
            except (DatabaseAway, StatementError) as error:
                if not is_away:
                    log.warning("lanes_away", error=str(error))
                is_away = True
                self._parts.pulse.turn(Loop.LANES, passed=False)
                await anyio.sleep(AWAY_WAIT_S)
                continue
            is_away = False
            self._parts.pulse.turn(Loop.LANES, passed=True)
            if wait is not None:
                await self._parts.seat.wait(wait)

    async def _pass(self, calls: TaskGroup) -> timedelta | None:
        """Do what can be done now. Return how long to rest, or null if there may be more."""
        seen = await self._look()
        if not seen.candidates:
            return self._rest(seen)
        room = self._room()
        tickets = await self._draw(seen.candidates, room)
        claimed = await self._claim(seen.candidates, tickets, room)
        for order in claimed.orders:
            self._in_flight[_place(order)] += 1
            calls.start_soon(self._send, order)
        await self._parts.limiter.give_back(t for left in tickets.values() for t in left)
        self._parked |= claimed.lacking.keys()
        return None if claimed.written else BLOCKED_WAIT

    # --- look ---

    async def _look(self) -> _Seen:
        now_ns = boot_ns()
        is_survey = now_ns - self._surveyed_ns > SURVEY_EVERY_NS
        if is_survey:
            self._surveyed_ns = now_ns
        scope = LaneScope(most=BATCH, elsewhere=self._elsewhere, closed=self._closed())
        asked_by = self._parts.desk.daemon_id if is_survey else None
        seen = await self._parts.database.read(_look, scope, asked_by)
        if seen.elsewhere is not None:
            self._elsewhere = seen.elsewhere - set(self._parts.desk.book.names)
        left_alone = self._failing.left_alone(now_ns)
        candidates = [one for one in seen.candidates if one.task_id not in left_alone]
        return replace(seen, candidates=candidates[:BATCH])

    def _closed(self) -> list[tuple[str, Kind]]:
        """Return of which accounts and kinds no call can be made now, as far as is known."""
        room = self._room()
        return [
            (name, kind)
            for name in self._parts.desk.book.names
            for kind in Kind
            if room[name, kind.listens] <= 0 or self._opens_ns(name, kind) > boot_ns()
        ]

    def _room(self) -> LaneRoom:
        names = self._parts.desk.book.names
        return {
            **{(n, True): LISTENING_IN_FLIGHT - self._in_flight[n, True] for n in names},
            **{(n, False): OTHERS_IN_FLIGHT - self._in_flight[n, False] for n in names},
        }

    def _rest(self, seen: _Seen) -> timedelta:
        """Return until when nothing but a hint can make work."""
        waits = [LONGEST_WAIT]
        if seen.until_next is not None:
            waits.append(seen.until_next)
        now_ns = boot_ns()
        opens_ns = {each: self._opens_ns(*each) for each in self._parked}
        self._parked = {each for each, ns in opens_ns.items() if ns > now_ns}
        waits += [timedelta(microseconds=(ns - now_ns) // 1000) for ns in opens_ns.values()]
        return max(SHORTEST_WAIT, min(waits))

    # --- slots ---

    def _opens_ns(self, account: str, kind: Kind) -> int:
        action = self._action(account, kind)
        return 0 if action is None else self._parts.limiter.opens_ns(action, keep_half=False)

    def _action(self, account: str, kind: Kind) -> Action | None:
        """Return the limited action that a command counts against, if there is one."""
        runtime = self._parts.desk.book.runtimes.get(account)
        name = runtime.provider.command_action(_SAMPLES[kind]) if runtime is not None else None
        action = Action(account=account, name=name) if name is not None else None
        return action if action is not None and self._parts.limiter.is_limited(action) else None

    async def _draw(
        self, candidates: Sequence[LaneCandidate], room: LaneRoom
    ) -> dict[Action, list[Ticket]]:
        """Draw as many slots as these lanes will most likely use. No transaction is open."""
        wishes = self._wishes(candidates)
        most: dict[Action, int] = {}
        for name in {one.account for one in candidates if one.account is not None}:
            for kind in Kind:
                action = self._action(name, kind)
                if action is not None:
                    most[action] = min(wishes[action], max(0, room[name, kind.listens]))
        return await self._parts.limiter.draw_all(most, keep_half=False)

    def _wishes(self, candidates: Sequence[LaneCandidate]) -> Counter[Action]:
        wishes: Counter[Action] = Counter()
        for one in candidates:
            kinds = _KINDS[one.listens] if one.kind is None else (one.kind,)
            actions = {self._action(one.account or "", kind) for kind in kinds}
            wishes.update(action for action in actions if action is not None)
        return wishes

    # --- claim ---

    async def _claim(
        self, candidates: Sequence[LaneCandidate], tickets: LaneTickets, room: LaneRoom
    ) -> ClaimedLanes:
        """Claim a batch; if it fails as a whole, the lanes of each task alone."""
        try:
            return await self._claim_once(candidates, tickets, room)
        except DatabaseAway:
            raise
        except Exception:
            log.exception("lanes_failed", lanes=len(candidates))
        claimed = ClaimedLanes()
        give_up_ns = boot_ns() + ALONE_NS_MAX
        for id_ in dict.fromkeys(one.task_id for one in candidates):
            if boot_ns() > give_up_ns:
                break  # the others are as due in the next pass
            some = [one for one in candidates if one.task_id == id_]
            try:
                one = await self._claim_once(some, tickets, room)
            except DatabaseAway:
                raise
            except Exception:
                log.exception("lane_failed", task_id=id_)
                self._failing.note(id_, boot_ns())
                continue
            claimed.orders += one.orders
            claimed.lacking += one.lacking
            claimed.written += one.written
        return claimed

    async def _claim_once(
        self, candidates: Sequence[LaneCandidate], tickets: LaneTickets, room: LaneRoom
    ) -> ClaimedLanes:
        # What fails draws on copies: the tickets of one that fails go to the others.
        room_left, left = dict(room), {action: list(some) for action, some in tickets.items()}
        claimed = await self._parts.database.write(
            claim_lanes,
            self._parts.desk,
            candidates,
            left,
            room_left,
            work_class=WorkClass.LISTENING,
        )
        room.update(room_left)
        for action, some in left.items():
            tickets[action][:] = some
        self._failing.forget(one.task_id for one in candidates)
        return claimed

    # --- calls ---

    async def _send(self, order: CommandOrder) -> None:
        """Send a command, and hand over what it came to."""
        answer = await self._parts.gateway.send_command(order)
        account, outcome = order.account.name, answer.settled.outcome
        if isinstance(outcome, Throttled) and answer.action:
            action = Action(account=account, name=answer.action)
            await self._parts.limiter.throttle(action, outcome.after)
        self._parts.tally.count(account, answer.action, answer.settled, answer.latency_ms)
        self._in_flight[_place(order)] -= 1
        await self._parts.settler.put(CommandSettlement(order=order, answer=answer))


def _look(connection: Connection, scope: LaneScope, asked_by: str | None) -> _Seen:
    elsewhere = None
    if asked_by is not None:
        others = daemons.accounts_of_others(connection, asked_by, database_now(connection))
        elsewhere = frozenset(others)
    candidates = lane_queue.peek(connection, scope)
    until_next = None if candidates else lane_queue.until_next(connection)
    return _Seen(candidates=candidates, until_next=until_next, elsewhere=elsewhere)


def _place(order: CommandOrder) -> tuple[str, bool]:
    return order.account.name, order.lane.listens


def _sample(kind: Kind) -> Command:
    """Return a command of a kind, to ask which action it would count against."""
    never = datetime(1970, 1, 1, tzinfo=UTC)
    return Command(
        id="",
        position=0,
        task_id="",
        kind=kind,
        user_id="",
        sequence=None,
        created_at=never,
        expires_at=never,
    )


_SAMPLES: Final = {kind: _sample(kind) for kind in Kind}
_KINDS: Final = {
    listens: tuple(kind for kind in Kind if kind.listens is listens) for listens in (True, False)
}
