"""The loop of the lanes: presses and other commands, beside the tasks' loop and apart from it.

Rule 1: a press must feel immediate. Nothing of the tasks' work is waited for here, and a command
that waits for a slot, a place or its agent makes no other lane wait.
Rule 2: the database is the truth. What is in memory is the calls in flight and nothing else.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from orchestrator.clock import boot_ns
from orchestrator.core.command import Command, Kind
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Throttled
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.lane_claim import CommandOrder, LaneDesk, Room, claim_lanes
from orchestrator.daemon.lane_settle import CommandSettlement, LaneSettling, settle_lanes
from orchestrator.daemon.limiter import Action, Limiter, Ticket
from orchestrator.daemon.tally import Tally
from orchestrator.store import lanes
from orchestrator.store.engine import Connection, Database, DatabaseAway, StatementError
from orchestrator.store.engine import now as database_now
from orchestrator.store.lanes import Blocked, LaneCandidate
from orchestrator.wake.fan import Seat

LISTENING_IN_FLIGHT: Final = 64
OTHERS_IN_FLIGHT: Final = 32
"""Commands of an account at a time, of each kind of lane."""
BATCH: Final = 64
LONGEST_WAIT: Final = timedelta(seconds=1)
SHORTEST_WAIT: Final = timedelta(milliseconds=2)
BLOCKED_WAIT: Final = timedelta(milliseconds=20)
LOCKED_WAIT_S: Final = 0.01
AWAY_WAIT_S: Final = 0.5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneParts:
    """What the lanes' loop drives."""

    database: Database
    limiter: Limiter
    gateway: Gateway
    tally: Tally
    seat: Seat
    desk: LaneDesk


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    now: datetime
    candidates: Sequence[LaneCandidate]
    next_due: datetime | None


class LaneScheduler:
    """Runs passes over lanes until it is told to drain."""

    def __init__(self, parts: LaneParts) -> None:
        self._parts = parts
        self._in_flight: Counter[tuple[str, bool]] = Counter()
        self._draining = False
        self._lacking: Counter[Action] = Counter()
        """What the last claim would have sent, had it had tickets for it."""

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
                await anyio.sleep(AWAY_WAIT_S)
                continue
            is_away = False
            if wait is not None:
                await self._parts.seat.wait(wait)

    async def _pass(self, calls: TaskGroup) -> timedelta | None:
        """Do what can be done now. Return how long to rest, or null if there may be more."""
        seen = await self._parts.database.read(_look, self._blocked())
        if not seen.candidates:
            return self._rest(seen)
        wishes = self._wishes(seen.candidates) | self._lacking
        tickets = await self._draw(seen.candidates, wishes)
        claimed = await self._parts.database.write(
            claim_lanes,
            self._parts.desk,
            seen.candidates,
            tickets,
            self._room(),
            work_class=WorkClass.LISTENING,
        )
        for order in claimed.orders:
            self._in_flight[_place(order)] += 1
            calls.start_soon(self._send, order)
        await self._parts.limiter.give_back(t for left in tickets.values() for t in left)
        self._lacking = claimed.lacking
        # What no ticket was drawn for is not to wait for the next look.
        return None if claimed.written or claimed.lacking - wishes else BLOCKED_WAIT

    def _room(self) -> Room:
        names = self._parts.desk.book.names
        return {
            **{(n, True): LISTENING_IN_FLIGHT - self._in_flight[n, True] for n in names},
            **{(n, False): OTHERS_IN_FLIGHT - self._in_flight[n, False] for n in names},
        }

    # --- slots ---

    def _actions(self, account: str, kinds: Sequence[Kind]) -> set[Action]:
        """Return the limited actions that commands of these kinds count against."""
        provider = self._parts.desk.book.runtimes[account].provider
        names = {provider.command_action(_sample(kind)) for kind in kinds}
        actions = {Action(account=account, name=name) for name in names if name is not None}
        return {action for action in actions if self._parts.limiter.is_limited(action)}

    def _wishes(self, candidates: Sequence[LaneCandidate]) -> Counter[Action]:
        """Return a slot for each lane, for what it will most likely send."""
        wishes: Counter[Action] = Counter()
        for one in candidates:
            if one.account is not None:
                kinds = _kinds(one.user_id != "") if one.kind is None else (one.kind,)
                wishes.update(self._actions(one.account, kinds))
        return wishes

    async def _draw(
        self, candidates: Sequence[LaneCandidate], wishes: Counter[Action]
    ) -> dict[Action, list[Ticket]]:
        """Draw as many of these slots as there are, for the accounts of these lanes."""
        accounts = {one.account for one in candidates if one.account is not None}
        every = {action for name in accounts for action in self._actions(name, tuple(Kind))}
        return {
            action: await self._parts.limiter.draw(action, wishes[action], keep_half=False)
            for action in sorted(every, key=lambda a: (a.account, a.name))
        }

    def _blocked(self) -> Blocked:
        return Blocked(
            known=self._parts.desk.book.names,
            listening=[n for n in self._parts.desk.book.names if self._is_closed(n, listens=True)],
            others=[n for n in self._parts.desk.book.names if self._is_closed(n, listens=False)],
        )

    def _is_closed(self, account: str, *, listens: bool) -> bool:
        """Return whether no command of this kind of lane has a slot at present."""
        actions = self._actions(account, _kinds(listens))
        now_ns = boot_ns()
        return bool(actions) and all(
            self._parts.limiter.opens_ns(a, keep_half=False) > now_ns for a in actions
        )

    # --- calls ---

    async def _send(self, order: CommandOrder) -> None:
        """Send a command and settle it at once: the next one of its lane waits for that."""
        answer = await self._parts.gateway.send_command(order)
        account = order.account.name
        outcome = answer.settled.outcome
        if isinstance(outcome, Throttled) and answer.action:
            action = Action(account=account, name=answer.action)
            await self._parts.limiter.throttle(action, outcome.after)
        self._parts.tally.count(account, answer.action, answer.settled, answer.latency_ms)
        left = [CommandSettlement(order=order, answer=answer)]
        settling = LaneSettling(
            daemon_id=self._parts.desk.daemon_id,
            daemon_name=self._parts.desk.daemon_name,
            command_ttl=self._parts.desk.command_ttl,
        )
        while left:
            try:
                left = await self._parts.database.write(
                    settle_lanes, settling, left, durable=False, work_class=WorkClass.LISTENING
                )
            except (DatabaseAway, StatementError) as error:
                log.warning(
                    "command_unsettled", command_id=order.flight.command.id, error=str(error)
                )
                break  # its lease ends soon, and whoever takes it over knows that it is unknown
            if left:
                await anyio.sleep(LOCKED_WAIT_S)
        self._in_flight[_place(order)] -= 1
        self._parts.seat.nudge()

    def _rest(self, seen: _Seen) -> timedelta:
        if seen.next_due is None:
            return LONGEST_WAIT
        return max(SHORTEST_WAIT, min(LONGEST_WAIT, seen.next_due - seen.now))


def _look(connection: Connection, blocked: Blocked) -> _Seen:
    now = database_now(connection)
    return _Seen(
        now=now,
        candidates=lanes.peek(connection, now, BATCH, blocked),
        next_due=lanes.next_due(connection),
    )


def _place(order: CommandOrder) -> tuple[str, bool]:
    return order.account.name, order.lane.listens


def _kinds(listens: bool) -> tuple[Kind, ...]:  # noqa: FBT001 - the one thing that tells lanes apart
    return tuple(kind for kind in Kind if kind.listens is listens)


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
