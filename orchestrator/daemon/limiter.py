"""The rate limit of all daemons together: slots drawn from the database before anything is claimed.

Arithmetic is in `core.bucket` and `core.lead`, the row in `store.pace`. This file draws by
compare-and-swap, turns a slot into a time on this machine's clock, and gives back what no call
used.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import anyio
import structlog

from orchestrator.clock import boot_ns
from orchestrator.core.bucket import AHEAD_MAX_US, GRACE_US, JITTER_US, WINDOW_US, Bucket, Slot
from orchestrator.core.lead import LEAD_MAX_US, Lead
from orchestrator.core.steps import set_by
from orchestrator.store import pace
from orchestrator.store.engine import Connection, Database, DatabaseAway, StatementError

LOOKAHEAD_US: Final = 20_000
"""A slot this near is drawn and waited for; a later one would keep a more urgent call waiting."""
SWAPS_MAX: Final = 8
"""Tries against other daemons; with four daemons nobody was seen to need more than four."""
BACKWARD_DEFAULT: Final = timedelta(seconds=1)
"""How far "too many" moves the slots back where the vendor does not say."""
STEP_NOTICED: Final = timedelta(microseconds=JITTER_US)
"""A clock that is set ahead by less shortens a window by no more than the way to the vendor may."""
REST_NS: Final = (WINDOW_US + LEAD_MAX_US + LOOKAHEAD_US) * 1000
"""After a clock was set ahead, what left just now is long ago by it. After this it truly is."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a limit counts: one vendor action of one account."""

    account: str
    name: str

    @property
    def key(self) -> tuple[str, str]:
        """Return the key of its row."""
        return self.account, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The right to make one call, between two times on this machine's clock (`boot_ns`)."""

    action: Action
    slot: Slot
    drawn_ns: int
    """When the database was asked for the time that the slot counts from."""
    opens_ns: int
    closes_ns: int


class _Counter:
    """Where calls queue that are on their way already, and want a slot of one action."""

    def __init__(self) -> None:
        self.turn = anyio.Lock()
        self.waiting = 0
        self.spare: list[Ticket] = []


class Limiter:
    """Draws tickets.

    Args:
        database: Where all daemons share the buckets.
        limits: Calls per second for each action; 0 or absent: no limit.
    """

    def __init__(self, database: Database, limits: Mapping[Action, int]) -> None:
        self._database = database
        self._limits = limits
        self._closed_until_ns: dict[tuple[Action, bool], int] = {}
        """For all of an action's slots (false), and for those outside the kept half (true)."""
        self._missed: defaultdict[Action, list[Slot]] = defaultdict(list)
        """Slots in which no call left, to be given back with the next draw."""
        self._counters: defaultdict[tuple[Action, bool], _Counter] = defaultdict(_Counter)
        self._lead = Lead()
        self._last: _Drawn | None = None
        self._rests_until_ns = 0

    def renew(self, limits: Mapping[Action, int]) -> None:
        """Take the limits of a configuration that was read again."""
        self._limits = limits

    def is_limited(self, action: Action) -> bool:
        """Return whether calls of this action need tickets."""
        return self._limits.get(action, 0) > 0

    def opens_ns(self, action: Action, *, keep_half: bool) -> int:
        """Return before when (`boot_ns`) drawing is known to be in vain."""
        whole_ns = max(self._rests_until_ns, self._closed_until_ns.get((action, False), 0))
        if not keep_half:
            return whole_ns
        return max(whole_ns, self._closed_until_ns.get((action, True), 0))

    def note_arrival(self, ticket: Ticket) -> None:
        """Take note that a call stands at its slot now: the next are drawn for a way as long."""
        self._lead = self._lead.after((boot_ns() - ticket.drawn_ns) // 1000)

    async def draw(self, action: Action, count: int, *, keep_half: bool) -> list[Ticket]:
        """Return up to `count` tickets that open now or very soon. See `draw_all`."""
        return (await self.draw_all({action: count}, keep_half=keep_half))[action]

    async def draw_all(
        self, wishes: Mapping[Action, int], *, keep_half: bool
    ) -> dict[Action, list[Ticket]]:
        """Return up to so many tickets of each action that open now or very soon.

        `keep_half`: leave half of each limit to those who may not wait (stops, unknown outcomes).
        """
        drawn: dict[Action, list[Ticket]] = {action: [] for action in wishes}
        open_now = {
            action: count
            for action, count in sorted(wishes.items(), key=lambda wish: wish[0].key)
            if count > 0 and boot_ns() >= self.opens_ns(action, keep_half=keep_half)
        }
        for _ in range(SWAPS_MAX):
            if not open_now:
                break
            orders = [self._order(*wish, keep_half=keep_half) for wish in open_now.items()]
            for action, found in await self._database.write(_draw_all, orders, durable=False):
                drawn[action] = self._tickets(action, found, keep_half=keep_half)
                del open_now[action]
        return drawn

    async def draw_one(
        self, action: Action, *, keep_half: bool, missed: Ticket | None = None
    ) -> Ticket | None:
        """Return a ticket for a call that is on its way already; `missed` is one that it had.

        Who asks while others are being served is served with the next: many calls that missed
        their slots, because the machine stood still, must not be a transaction each.
        """
        if missed is not None:
            self.release(missed)
        counter = self._counters[action, keep_half]
        counter.waiting += 1
        try:
            async with counter.turn:
                counter.spare = [t for t in counter.spare if t.closes_ns > boot_ns()]
                if not counter.spare:
                    counter.spare = await self.draw(action, counter.waiting, keep_half=keep_half)
                return counter.spare.pop(0) if counter.spare else None
        finally:
            counter.waiting -= 1

    def _order(self, action: Action, count: int, *, keep_half: bool) -> "_Order":
        limit = self._limits.get(action, 0)
        kept = limit // 2 if keep_half else 0
        missed = tuple(self._missed.pop(action, ()))
        lead = self._lead.us
        return _Order(action=action, limit=limit, count=count, kept=kept, missed=missed, lead=lead)

    def _tickets(self, action: Action, drawn: "_Drawn", *, keep_half: bool) -> list[Ticket]:
        self._watch_clock(drawn)
        if drawn.after_ns < self._rests_until_ns:
            self._missed[action].extend(drawn.slots)
            return []
        if not drawn.slots:
            closed_ns = drawn.closed_us * 1000
            self._closed_until_ns[action, keep_half] = drawn.after_ns + closed_ns
        return [
            Ticket(
                action=action,
                slot=slot,
                drawn_ns=drawn.before_ns,
                # Late, never early: the database's clock has surely reached the slot …
                opens_ns=drawn.after_ns + (slot - drawn.now) * 1000,
                # … and surely not passed the grace.
                closes_ns=drawn.before_ns + (slot + GRACE_US - drawn.now) * 1000,
            )
            for slot in drawn.slots
        ]

    def _watch_clock(self, drawn: "_Drawn") -> None:
        """Rest if the database's clock was set ahead since the last draw."""
        last, self._last = self._last, drawn
        if last is not None and drawn.is_set_ahead(last):
            log.warning("pace_rests", message="the database's clock was set ahead")
            self._rests_until_ns = drawn.after_ns + REST_NS

    def release(self, ticket: Ticket) -> None:
        """Give a ticket that no call used back with the next draw of its action: without a wait."""
        self._missed[ticket.action].append(ticket.slot)
        self._reopen(ticket.action)

    async def give_back(self, tickets: Iterable[Ticket]) -> None:
        """Return tickets that no call used."""
        by_action: dict[Action, list[Slot]] = {}
        for ticket in tickets:
            by_action.setdefault(ticket.action, []).append(ticket.slot)
        for action, slots in by_action.items():
            self._reopen(action)
            await self._change(action, partial(_give_back, tuple(slots)))

    def _reopen(self, action: Action) -> None:
        """Draw again before the time that was known: a slot is given back."""
        for kept in (False, True):
            self._closed_until_ns.pop((action, kept), None)

    async def throttle(self, action: Action, after: timedelta | None) -> None:
        """Move all slots of the action back: the vendor said "too many".

        Where that fails, the vendor will say it again: it is told, and raises nothing.
        """
        if not self.is_limited(action):
            return
        wait_us = (after or BACKWARD_DEFAULT) // timedelta(microseconds=1)
        try:
            await self._change(action, partial(_throttle, wait_us))
        except (DatabaseAway, StatementError) as error:
            log.warning("throttle_failed", action=action.name, error=str(error))

    async def _change(self, action: Action, change: "_Change") -> None:
        """Swap in a changed bucket; if others are always quicker, theirs is as good."""
        limit = self._limits.get(action, 0)
        for _ in range(SWAPS_MAX):
            if await self._database.write(_swap, action, limit, change, durable=False):
                return


_Change = Callable[[Bucket, Slot], Bucket]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """What a draw came to. The clock said `now` at some time from `before_ns` to `after_ns`."""

    now: Slot
    before_ns: int
    after_ns: int
    slots: tuple[Slot, ...]
    closed_us: int
    """How long from `now` on the same draw would come to nothing."""

    def is_set_ahead(self, last: "_Drawn") -> bool:
        """Return whether the clock was surely set ahead since an earlier draw."""
        went = timedelta(microseconds=self.now - last.now)
        passed = timedelta(microseconds=(self.after_ns - last.before_ns) // 1000)
        return set_by(went, passed, STEP_NOTICED) > timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """How many slots of which action are asked for."""

    action: Action
    limit: int
    count: int
    kept: int
    missed: tuple[Slot, ...]
    lead: int
    """Microseconds from now to the first slot that can be used."""


def _draw_all(connection: Connection, orders: Iterable[_Order]) -> list[tuple[Action, _Drawn]]:
    """Draw slots in one transaction; leave out whose bucket another daemon drew from just now."""
    drawn = [(order.action, _draw(connection, order)) for order in orders]
    return [(action, found) for action, found in drawn if found is not None]


def _draw(connection: Connection, order: _Order) -> _Drawn | None:
    account, name = order.action.key
    before_ns = boot_ns()
    bucket, version, now = pace.read(connection, account, name, order.limit)
    after_ns = boot_ns()
    since = now + order.lead
    had = bucket.as_of(now).give_back(order.missed)
    left, slots = had.draw(since, order.count, until=since + LOOKAHEAD_US, kept=order.kept)
    drawn = _Drawn(
        now=now,
        before_ns=before_ns,
        after_ns=after_ns,
        slots=slots,
        closed_us=left.next_slot(since, order.kept) - since,
    )
    if left == bucket:
        return drawn
    return drawn if pace.swap(connection, account, name, version, left) else None


def _swap(connection: Connection, action: Action, limit: int, change: _Change) -> bool:
    bucket, version, now = pace.read(connection, action.account, action.name, limit)
    return pace.swap(
        connection, action.account, action.name, version, change(bucket.as_of(now), now)
    )


def _give_back(slots: tuple[Slot, ...], bucket: Bucket, _: Slot) -> Bucket:
    return bucket.give_back(slots)


def _throttle(wait_us: int, bucket: Bucket, now: Slot) -> Bucket:
    return bucket.throttle(now + min(wait_us, AHEAD_MAX_US))
