"""A world of rows, daemons and vendors, driven by discrete events in simulated time.

One seed is one history: every lot is drawn from it. Faults and users' edits come during the
workload; then the world is left alone, and must come to rest as its rows say.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random

from orchestrator.core.bucket import JITTER_US
from orchestrator.core.caps import Recovery
from orchestrator.core.model import Account, EndReason, Verb
from orchestrator.core.outcome import (
    Denied,
    Indefinite,
    Outcome,
    Refused,
    Throttled,
)
from tests.simulation import daemon as shell
from tests.simulation import strangers
from tests.simulation.callbacks import TELLING, Forger, Poster
from tests.simulation.checkers import Broken, Checkers
from tests.simulation.daemon import Daemon
from tests.simulation.disasters import ClockSetter, Restore
from tests.simulation.store import LIMIT, Store
from tests.simulation.talkers import Talker
from tests.simulation.users import User
from tests.simulation.vendors import CAPS, Instance, Request, Vendor

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
WORKLOAD = timedelta(seconds=240)
QUIET = timedelta(seconds=2400)
"""More than the longest signature, a freeze beyond it, and what retries need."""
RESET_MARGIN_S = 9.0
"""How long after a reset bytes of it may still arrive: less than `reset_margin`."""
SKEW_MAX_S = 14.0
"""How far a vendor's clock may be off: less than `clock_margin`."""

Event = Callable[[], None]


@dataclass(slots=True, kw_only=True)
class World:
    """Everything of one seed."""

    seed: int
    lots: Random
    store: Store
    checkers: Checkers
    daemons: list[Daemon] = field(default_factory=list)
    users: list[User] = field(default_factory=list)
    now: datetime = BEGIN
    shift: timedelta = timedelta()
    """How far the database's clock has been set away from the true time."""
    history: list[str] | None = None
    steps: int = 0
    _events: list[tuple[datetime, int, Event]] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    # --- time and chance

    @property
    def is_quiet(self) -> bool:
        return self.now >= BEGIN + WORKLOAD

    @property
    def clock(self) -> datetime:
        """The database's time, by which all daemons and users go."""
        return self.now + self.shift

    def at(self, when: datetime, event: Event) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def run(self) -> None:
        """Let everything happen, then judge. Raises Broken."""
        end = BEGIN + WORKLOAD + QUIET
        self.at(BEGIN + WORKLOAD, self._calm_down)
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            self.steps += 1
            event()
        for user in self.users:
            self.checkers.converged(self.store, user.vendor, user.task_id)
        self.checkers.nothing_leaks(self.store)

    def _calm_down(self) -> None:
        for vendor in self.store.vendors.values():
            vendor.blindness = 0.0
        self.checkers.calmed()

    def nudge(self) -> None:
        """Let every daemon look, at its rows and for orphans."""
        for daemon in self.daemons:
            daemon.wake(self.lots_between(0.001, 0.02))
            daemon.watch()

    def chance(self, probability: float) -> bool:
        """Draw a lot that never wins in the quiet time."""
        return not self.is_quiet and self.lots.random() < probability

    def lots_between(self, low_s: float, high_s: float) -> timedelta:
        return timedelta(seconds=self.lots.uniform(low_s, high_s))

    def microseconds(self, when: datetime) -> int:
        return (when - BEGIN) // timedelta(microseconds=1)

    def tell(self, sentence: str) -> None:
        if self.history is not None:
            self.history.append(f"{(self.now - BEGIN).total_seconds():10.3f}  {sentence}")

    def draw_name(self, task_id: str) -> str:
        return shell.draw_name(self, task_id)

    # --- what befalls a process

    def strike(self, daemon: Daemon) -> None:
        """Perhaps kill or freeze a daemon, right here in what it does."""
        if self.chance(0.012):
            self._crash(daemon)
        elif self.chance(0.02):
            window = 90 * 1.3
            until = self.now + self.lots_between(
                0.1, self.lots.choice((5, 20, window, window, 400))
            )
            daemon.frozen_until = until
            self.tell(f"{daemon.name} is frozen for {(until - self.now).total_seconds():.1f} s")

    def _crash(self, daemon: Daemon) -> None:
        self.tell(f"{daemon.name} is killed")
        daemon.die()
        self.at(self.now + self.lots_between(0.1, 30), lambda: self.restart(daemon))

    def restart(self, daemon: Daemon) -> None:
        """Let a daemon that died begin another life, unless it has."""
        if not daemon.is_up:
            daemon.is_up = True
            daemon.begin()

    # --- what befalls a request

    def carry(
        self,
        request: Request,
        sender: Daemon,
        reply: Callable[[Outcome], None],
        *,
        is_on_time: bool,
    ) -> None:
        """Carry a request to its vendor: soon, late or never."""
        if self.chance(0.04):
            self.tell(f"{request.verb} of {request.agent.id} is lost on its way")
            return
        delay = self.lots_between(0, JITTER_US / 1e6)
        if self.chance(0.06):
            delay = self._lateness(request)
            is_on_time = False
            if self.chance(0.4):
                self._crash(sender)  # What the kernel still holds of a killed process is late.
            self.tell(f"{request.verb} of {request.agent.id} will be late: {delay}")
        counts = is_on_time
        self.at(self.now + delay, lambda: self._arrive(request, reply, counts=counts))

    def _lateness(self, request: Request) -> timedelta:
        """Draw how late a request is: any time of its signature's life, often the last moment."""
        skew = self.store.vendors[request.agent.account].skew
        last = (request.good_until + skew - self.now).total_seconds()
        lot = self.lots.random()
        if lot < 0.3:  # Around the time at which the sender gives up.
            return self.lots_between(8, 19)
        if lot < 0.6:
            return self.lots_between(max(0.0, last - 2), max(0.0, last))
        return self.lots_between(0.2, max(1.0, last * 1.2))

    def reset(self, request: Request) -> None:
        """Reset a connection: what is on its way arrives within the margin, or never."""
        after = self.lots_between(0, RESET_MARGIN_S)
        self.at(self.now + after, lambda: setattr(request, "lost_in_reset", True))

    def _arrive(self, request: Request, reply: Callable[[Outcome], None], *, counts: bool) -> None:
        if request.lost_in_reset:
            return
        account = request.agent.account
        if counts:
            self.checkers.arrived(account, request.verb, LIMIT, self.now)
        outcome = self._fault(request) or self._effect(request)
        self.tell(
            f"{account} answers {request.verb} of {request.agent.id}: {type(outcome).__name__}"
        )
        if self.chance(0.05):
            self.tell("the reply is lost")
            return
        self.at(self.now + self.lots_between(0.005, 0.2), lambda: reply(outcome))

    def _fault(self, request: Request) -> Outcome | None:
        """A vendor's own trouble: an answer without an effect, or one that hides it."""
        vendor = self.store.vendors[request.agent.account]
        if self.chance(0.003):
            vendor.down_until = self.now + self.lots_between(5, 60)
        if vendor.down_until > self.now or self.chance(0.03):
            return Indefinite(code="500")
        if self.chance(0.03):
            self._effect(request)
            return Indefinite(code="502")
        if self.chance(0.03):
            return Throttled(code="TooMany", after=timedelta(seconds=2))
        if self.chance(0.01):
            return Denied(code="Arrears")
        if request.verb is Verb.START and self.chance(0.005):
            self.checkers.reasons.add((request.task_id, EndReason.START_FAILED))
            return Refused(code="Refused")
        return None

    def _effect(self, request: Request) -> Outcome:
        vendor = self.store.vendors[request.agent.account]
        vendor.pass_time(self.now)
        made, ended = vendor.made, len(vendor.ended)
        outcome = vendor.answer(request, self.now)
        if request.verb is not Verb.START:
            self.checkers.hit(request, vendor.ended[ended:], self.store.ledger)
        if vendor.made > made:
            self._born(vendor, vendor.live[-1])
            if any(not self.checkers.is_excused(one) for one in vendor.ended[ended:]):
                raise Broken("P1", f"{request.task_id} had another agent to interrupt")
        return outcome

    def _born(self, vendor: Vendor, instance: Instance) -> None:
        self.checkers.started(vendor, instance, self.store.ledger)
        if vendor.is_deadly:
            after = instance.joins_at - self.now + self.lots_between(0, 20)
            self.at(self.now + after, lambda: self._die(vendor, instance))

    def _die(self, vendor: Vendor, instance: Instance) -> None:
        if instance.ended_by is None:
            self.tell(f"{instance.handle} dies at the vendor")
            vendor.end(instance, "died")


def build(seed: int, recoveries: tuple[Recovery, ...], *, records: bool = False) -> World:
    """Return the world of a seed, with one row at a vendor of each kind given."""
    lots = Random(seed)
    accounts = {kind: Account(name=kind.value, caps=CAPS[kind]) for kind in set(recoveries)}
    vendors = {kind: _vendor(kind, recoveries.count(kind), lots) for kind in sorted(accounts)}
    checkers = Checkers(stops_foreign=lots.random() < 0.4)
    store = Store(
        accounts={kind.value: account for kind, account in accounts.items()},
        vendors={kind.value: vendor for kind, vendor in vendors.items()},
        checkers=checkers,
        stops_foreign=checkers.stops_foreign,
    )
    history: list[str] | None = [] if records else None
    world = World(seed=seed, lots=lots, store=store, checkers=checkers, history=history)
    world.daemons = [Daemon(name=name, world=world) for name in ("D1", "D2")]
    world.users = [
        User(
            task_id=f"task{n}",
            account=kind.value,
            vendor=vendors[kind],
            world=world,
            patience=lots.choice((1, 1, 8)),
        )
        for n, kind in enumerate(recoveries)
    ]
    for user in world.users:
        user.begin()
    for daemon in world.daemons:
        daemon.wake(world.lots_between(0, 1))
    for kind, vendor in vendors.items():
        _surround(world, kind, vendor)
    _threaten(world)
    return world


def _surround(world: World, kind: Recovery, vendor: Vendor) -> None:
    """Let a vendor post, and others be there, or not."""
    lots, account = world.lots, kind.value
    error = lots.choice((vendor.skew, timedelta(seconds=lots.uniform(-1, 1))))
    poster = Poster(account=account, vendor=vendor, world=world, error=error)
    if lots.random() < 0.8 and kind in TELLING:
        vendor.tell = poster.happened
    if lots.random() < 0.4 and kind is Recovery.EVICT:
        Forger(account=account, vendor=vendor, world=world).begin()
    strangers.settle_in(world, account, vendor)
    own_lots = Random(f"{world.seed} {account} talks")
    if own_lots.random() < 0.5:
        Talker(account=account, vendor=vendor, world=world, lots=own_lots).begin()


def _threaten(world: World) -> None:
    """Let something happen to the database as a whole, or nothing."""
    lot = world.lots.random()
    if lot < 0.2:
        for vendor in world.store.vendors.values():
            vendor.capacity += 100
        Restore(world=world).begin()
    elif lot < 0.4:
        ClockSetter(world=world, forward=lot < 0.3).begin()


def _vendor(kind: Recovery, rows: int, lots: Random) -> Vendor:
    return Vendor(
        recovery=kind,
        lots=lots,
        capacity=rows,
        skew=timedelta(seconds=SKEW_MAX_S * lots.choice((-1, 0, 1, lots.uniform(-1, 1)))),
        takes_over=lots.random() < 0.5,
        shows_agents=lots.random() < 0.7,
        believes_backdated=lots.random() < 0.85,
        down_until=BEGIN,
        is_deadly=lots.random() < 0.08,
    )
