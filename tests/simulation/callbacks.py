"""What vendors post by themselves, and how it reaches a daemon: lost, doubled, late, in any order.

A vendor tells of its agents as they really are, by a clock of its own. Where a signature does not
cover the body, somebody else posts as well.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.core.caps import Recovery
from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import EndReason
from tests.simulation.checkers import ASKED
from tests.simulation.vendors import CAPS, Instance, Vendor

if TYPE_CHECKING:
    from tests.simulation.world import World

TELLING = {Recovery.SAME_NAME, Recovery.FIND, Recovery.EVICT}
"""Who posts anything that tells which agent it is about."""
SIGNED = {Recovery.SAME_NAME, Recovery.FIND}
"""Whose signature covers the body."""
RETRIES_S = 90.0
"""For how long a vendor posts again what nobody took."""
DEATHS = (EndReason.IDLE, EndReason.VENDOR_FAULT, EndReason.ROOM_CLOSED, EndReason.KICKED, None)


@dataclass(slots=True, kw_only=True)
class Poster:
    """Posts what happens at one account."""

    account: str
    vendor: Vendor
    world: "World"
    error: timedelta
    """By how much the times that it tells are behind the database's clock, corrected or not."""
    posted: int = 0

    def happened(self, instance: Instance, event: Event) -> None:
        """Hear from the vendor that an agent was taken, or has ended."""
        if event is Event.ENDED:
            self._post(instance, event, self._reason(instance))
        else:
            self.world.at(instance.joins_at, lambda: self._join(instance))

    def _reason(self, instance: Instance) -> EndReason | None:
        if instance.ended_by in {"kick", "evicted"}:
            return EndReason.KICKED
        return self.world.lots.choice(DEATHS) if instance.ended_by == "died" else None

    def _join(self, instance: Instance) -> None:
        if instance.ended_by is None:
            self._post(instance, Event.STARTED, None)
            self._talk(instance)

    def _talk(self, instance: Instance) -> None:
        """Tell now and then of something that only a living agent does."""
        if instance.ended_by is not None:
            return
        self._post(instance, Event.ALIVE, None)
        pause = self.world.lots_between(200, 400) if self.world.is_quiet else self._pause()
        self.world.at(self.world.now + pause, lambda: self._talk(instance))

    def _pause(self) -> timedelta:
        return self.world.lots_between(3, 60)

    def _post(self, instance: Instance, event: Event, reason: EndReason | None) -> None:
        self.posted += 1
        if event is Event.ENDED and instance.ended_by not in ASKED:
            self.world.checkers.told_end(instance.task_id, reason)
        event_at = self.world.clock - self.error
        fact = Fact(
            key=key_of(event, instance.handle, self.posted, event_at),
            event=event,
            event_at=event_at,
            position=self.posted if self.vendor.recovery is Recovery.EVICT else 0,
            vendor_task_id=instance.handle,
            name=name_of(self.vendor, instance),
            room_id=instance.room,
            end_reason=reason,
            is_signed=self.vendor.recovery in SIGNED,
        )
        world = self.world
        if world.chance(0.15):
            return
        for _ in range(2 if world.chance(0.15) else 1):
            late = 60 if world.chance(0.2) else 1
            world.at(world.now + world.lots_between(0.01, late), lambda: self._arrive(fact, 0.0))

    def _arrive(self, fact: Fact, waited_s: float) -> None:
        """Be taken by a daemon that hears, or come again, but not for ever."""
        if deliver(self.world, self.account, fact) or waited_s > RETRIES_S:
            return
        pause = self.world.lots_between(2, 30)
        waited_s += pause.total_seconds()
        self.world.at(self.world.now + pause, lambda: self._arrive(fact, waited_s))


@dataclass(slots=True, kw_only=True)
class Forger:
    """Repeats an old signature that covers no body: what it tells of our agents is not true."""

    account: str
    vendor: Vendor
    world: "World"
    posted: int = 0

    def begin(self) -> None:
        self._pause()

    def _pause(self) -> None:
        self.world.at(self.world.now + self.world.lots_between(1, 40), self._forge)

    def _forge(self) -> None:
        if self.world.is_quiet:
            return
        known = [one for one in (*self.vendor.live, *self.vendor.ended) if not one.is_foreign]
        if known:
            self._post(self.world.lots.choice(known[-6:]))
        self._pause()

    def _post(self, instance: Instance) -> None:
        world, self.posted = self.world, self.posted + 1
        event = world.lots.choice((Event.STARTED, Event.ENDED, Event.ENDED, Event.ALIVE))
        reason = world.lots.choice(DEATHS) if event is Event.ENDED else None
        handle = f"x{self.posted}" if world.lots.random() < 0.3 else instance.handle
        fact = Fact(
            key=f"forged:{self.posted}",
            event=event,
            event_at=world.clock - world.lots_between(-60, world.lots.choice((1, 300))),
            position=world.lots.choice((0, 1, 10**9)),
            vendor_task_id=handle,
            name=name_of(self.vendor, instance),
            room_id=instance.room,
            end_reason=reason,
        )
        world.tell(f"forged: {event} of {handle}")
        world.checkers.told_end(instance.task_id, reason)
        deliver(world, self.account, fact)


def key_of(event: Event, handle: str, number: int, event_at: datetime) -> str:
    """Return a vendor's key: signs of life of one agent have the same for a minute."""
    if event is Event.ALIVE:
        return f"alive:{handle}:{event_at:%d %H:%M}"
    return f"{handle}:{number}:{event}"


def name_of(vendor: Vendor, instance: Instance) -> str | None:
    """Return the name that a vendor tells: the handle if it is ours, the agent's user, or none."""
    if CAPS[vendor.recovery].names_handle:
        return instance.session
    return instance.agent_user if vendor.recovery is Recovery.EVICT else None


def deliver(world: "World", account: str, fact: Fact) -> bool:
    """Give a fact to a daemon that hears; return whether there was one."""
    if not any(daemon.hears for daemon in world.daemons):
        return False
    world.tell(f"{account} told: {fact.event} of {fact.vendor_task_id}")
    world.store.receive(account, fact, world.clock)
    world.checkers.named(world.store, account, fact)
    world.nudge()
    return True
