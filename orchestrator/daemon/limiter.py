"""The rate limit of all daemons together: slots drawn from the database before anything is claimed.

Arithmetic is in `core.bucket`, the row in `store.pace`. This file draws by compare-and-swap, turns
a slot into a time on this machine's clock, and gives back what no call used.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from orchestrator.clock import boot_ns
from orchestrator.core.bucket import GRACE_US, Bucket, Slot
from orchestrator.store import pace
from orchestrator.store.engine import Connection, Database, DatabaseAway, StatementError

LOOKAHEAD_US: Final = 20_000
"""A slot this near is drawn and waited for; a later one would keep a more urgent call waiting."""
SWAPS_MAX: Final = 8
"""Tries against other daemons; with four daemons nobody was seen to need more than four."""
BACKWARD_DEFAULT: Final = timedelta(seconds=1)
"""How far "too many" moves the slots back where the vendor does not say."""


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a limit counts: one vendor action of one account."""

    account: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The right to make one call, between two times on this machine's clock (`boot_ns`)."""

    action: Action
    slot: Slot
    opens_ns: int
    closes_ns: int


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

    def renew(self, limits: Mapping[Action, int]) -> None:
        """Take the limits of a configuration that was read again."""
        self._limits = limits

    def is_limited(self, action: Action) -> bool:
        """Return whether calls of this action need tickets."""
        return self._limits.get(action, 0) > 0

    def opens_ns(self, action: Action, *, keep_half: bool) -> int:
        """Return before when (`boot_ns`) drawing is known to be in vain."""
        whole_ns = self._closed_until_ns.get((action, False), 0)
        if not keep_half:
            return whole_ns
        return max(whole_ns, self._closed_until_ns.get((action, True), 0))

    async def draw(self, action: Action, count: int, *, keep_half: bool) -> list[Ticket]:
        """Return up to `count` tickets that open now or very soon.

        `keep_half`: leave half of the limit to those who may not wait (stops, unknown outcomes).
        """
        limit = self._limits.get(action, 0)
        if count <= 0 or boot_ns() < self.opens_ns(action, keep_half=keep_half):
            return []
        kept = limit // 2 if keep_half else 0
        for _ in range(SWAPS_MAX):
            before_ns = boot_ns()
            drawn = await self._database.write(_draw, action, limit, count, kept, durable=False)
            if drawn is not None:
                return self._tickets(action, drawn, before_ns, keep_half=keep_half)
        return []

    def _tickets(
        self, action: Action, drawn: "_Drawn", before_ns: int, *, keep_half: bool
    ) -> list[Ticket]:
        after_ns = boot_ns()
        if not drawn.slots:
            closed_ns = (drawn.next_slot - drawn.now) * 1000
            self._closed_until_ns[action, keep_half] = after_ns + closed_ns
        return [
            Ticket(
                action=action,
                slot=slot,
                # Late, never early: the database's clock has surely reached the slot …
                opens_ns=after_ns + (slot - drawn.now) * 1000,
                # … and surely not passed the grace.
                closes_ns=before_ns + (slot + GRACE_US - drawn.now) * 1000,
            )
            for slot in drawn.slots
        ]

    async def give_back(self, tickets: Iterable[Ticket]) -> None:
        """Return tickets that no call used."""
        by_action: dict[Action, list[Slot]] = {}
        for ticket in tickets:
            by_action.setdefault(ticket.action, []).append(ticket.slot)
        for action, slots in by_action.items():
            for kept in (False, True):
                self._closed_until_ns.pop((action, kept), None)
            await self._change(action, partial(_give_back, tuple(slots)))

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
    now: Slot
    slots: tuple[Slot, ...]
    next_slot: Slot


def _draw(
    connection: Connection, action: Action, limit: int, count: int, kept: int
) -> _Drawn | None:
    """Draw slots in one transaction; null if another daemon drew in the same moment."""
    bucket, version, now = pace.read(connection, action.account, action.name, limit)
    left, slots = bucket.draw(now, count, until=now + LOOKAHEAD_US, kept=kept)
    next_slot = left.next_slot(now, kept)
    drawn = _Drawn(now=now, slots=slots, next_slot=next_slot)
    if not slots:
        return drawn
    swapped = pace.swap(connection, action.account, action.name, version, left)
    return drawn if swapped else None


def _swap(connection: Connection, action: Action, limit: int, change: _Change) -> bool:
    bucket, version, now = pace.read(connection, action.account, action.name, limit)
    return pace.swap(connection, action.account, action.name, version, change(bucket, now))


def _give_back(slots: tuple[Slot, ...], bucket: Bucket, _: Slot) -> Bucket:
    return bucket.give_back(slots)


def _throttle(wait_us: int, bucket: Bucket, now: Slot) -> Bucket:
    return bucket.throttle(now + wait_us)
