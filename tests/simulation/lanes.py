"""A world of lanes: one task, its users, two daemons and a vendor that enforces Sequence.

One seed is one history, driven by discrete events in simulated time: lost, late and repeated
requests, lost replies, throttling, crashes and freezes at every step. Then the world is left alone.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from random import Random

from orchestrator.core.caps import Recovery
from orchestrator.core.command import Command, Kind
from orchestrator.core.lane import Situation, Standing
from orchestrator.core.model import Account
from orchestrator.core.outcome import Denied, Indefinite, NotSent, Outcome, Refused, Throttled
from tests.simulation.lanes_checkers import LaneCheckers
from tests.simulation.lanes_daemon import LaneDaemon
from tests.simulation.lanes_store import GAP, LaneStore
from tests.simulation.lanes_users import TASK, Caller, Lifecycle, Presser
from tests.simulation.lanes_vendor import NOT_READY, STALE, LaneRequest, LaneVendor
from tests.simulation.vendors import CAPS
from tests.simulation.world import BEGIN

WORKLOAD = timedelta(seconds=60)
QUIET = timedelta(seconds=400)
TTL = timedelta(seconds=5)
Event = Callable[[], object]


@dataclass(slots=True, kw_only=True)
class LaneWorld:
    """Everything of one seed."""

    lots: Random
    account: Account
    store: LaneStore
    vendor: LaneVendor
    checkers: LaneCheckers
    daemons: list[LaneDaemon] = field(default_factory=list)
    trouble: float = 1.0
    """How often what can go wrong does: 0 for a world without faults."""
    lost_users: frozenset[str] = frozenset()
    """Users whose requests are all lost, for as long as the workload lasts."""
    now: datetime = BEGIN
    history: list[str] | None = None
    began: list[datetime] = field(default_factory=list)
    """When each agent began to run."""
    down_until: datetime = BEGIN
    steps: int = 0
    _events: list[tuple[datetime, int, Event]] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)
    _positions: "count[int]" = field(default_factory=lambda: count(1))

    # --- time and chance

    @property
    def is_quiet(self) -> bool:
        return self.now >= BEGIN + WORKLOAD

    def at(self, when: datetime, event: Event) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def run(self) -> None:
        """Let everything happen, then judge. Raises Broken."""
        end = BEGIN + WORKLOAD + QUIET
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            self.steps += 1
            event()
        self.checkers.rested(self.store, self.vendor)

    def chance(self, probability: float) -> bool:
        """Draw a lot that never wins in the quiet time."""
        return not self.is_quiet and self.lots.random() < probability * self.trouble

    def lots_between(self, low_s: float, high_s: float) -> timedelta:
        return timedelta(seconds=self.lots.uniform(low_s, high_s))

    def tell(self, sentence: str) -> None:
        if self.history is not None:
            self.history.append(f"{(self.now - BEGIN).total_seconds():10.3f}  {sentence}")

    # --- what the application does

    def make(self, kind: Kind, user_id: str, sequence: int | None) -> Command:
        position = next(self._positions)
        return Command(
            id=f"c{position}",
            position=position,
            task_id=TASK,
            kind=kind,
            user_id=user_id,
            sequence=sequence,
            created_at=self.now,
            expires_at=self.now + TTL,
        )

    def insert(self, command: Command) -> None:
        # A row is as old as its insert, however early it was thought of.
        fresh = replace(command, created_at=self.now, expires_at=self.now + TTL)
        self.tell(f"{fresh.user_id} inserts {fresh.id}: {fresh.kind} {fresh.sequence}")
        self.store.insert(fresh)
        self._wake()

    def refuse(self, command: Command) -> None:
        self.tell(f"{command.user_id} inserts {command.id}, which no vendor takes")
        self.store.refuse(command)
        self._wake()

    def cancel(self, command: Command) -> None:
        self.tell(f"{command.user_id} takes {command.id} back")
        self.store.cancel(command, self.now)
        self._wake()

    def move(self, situation: Situation) -> None:
        self.tell(f"the task is {situation.standing}, retired {situation.retired}")
        if situation.standing is Standing.RUNNING:
            self.began.append(self.now)
        self.store.move(situation, self.now)
        self._wake()

    def _wake(self) -> None:
        for daemon in self.daemons:
            daemon.wake(self.lots_between(0, 0.002))

    # --- what befalls a process

    def strike(self, daemon: LaneDaemon) -> None:
        """Perhaps kill or freeze a daemon, right here in what it does."""
        if self.chance(0.012):
            self._crash(daemon)
        elif self.chance(0.015):
            daemon.frozen_until = self.now + self.lots_between(0.1, self.lots.choice((1, 4, 20)))
            self.tell(f"{daemon.name} is frozen until {daemon.frozen_until - BEGIN}")

    def _crash(self, daemon: LaneDaemon) -> None:
        self.tell(f"{daemon.name} is killed")
        daemon.die()
        self.at(self.now + self.lots_between(0.1, 6), lambda: self._restart(daemon))

    def _restart(self, daemon: LaneDaemon) -> None:
        daemon.is_up = True
        daemon.wake(timedelta())

    # --- what befalls a request

    def carry(
        self, request: LaneRequest, sender: LaneDaemon, reply: Callable[[Outcome], None]
    ) -> None:
        """Carry a request to the vendor: soon, late or never."""
        if self.chance(0.05) or (request.command.user_id in self.lost_users and not self.is_quiet):
            self.tell(f"{request.command.id} is lost on its way")
            return
        delay = self.lots_between(0.001, 0.1)
        if self.chance(0.05):
            delay = self.lots_between(0.2, self.lots.choice((3, 20, 90)))
            if self.chance(0.4):
                self._crash(sender)  # What the kernel still holds of a killed process is late.
            self.tell(f"{request.command.id} will be late: {delay}")
        self.at(self.now + delay, lambda: self._arrive(request, reply))

    def reset(self, request: LaneRequest) -> None:
        """Reset a connection: what is on its way arrives within a while, or never."""
        after = self.lots_between(0, self.lots.choice((1, 90)))
        self.at(self.now + after, lambda: setattr(request, "lost_in_reset", True))

    def _arrive(self, request: LaneRequest, reply: Callable[[Outcome], None]) -> None:
        if request.lost_in_reset:
            return
        outcome = self._fault(request) or self._effect(request)
        told = f"{type(outcome).__name__} {outcome.code}"
        self.tell(f"the vendor answers {request.command.id}: {told}")
        if self.chance(0.06):
            self.tell("the reply is lost")
            return
        self.at(self.now + self.lots_between(0.005, 0.1), lambda: reply(outcome))

    def _fault(self, request: LaneRequest) -> Outcome | None:
        """A vendor's own trouble: an answer without an effect, or one that hides it."""
        if self.chance(0.006):
            self.down_until = self.now + self.lots_between(1, 12)
        if self.down_until > self.now:
            return NotSent(code="ConnectionRefused")
        if self.chance(0.02):
            return Indefinite(code="500")
        if self.chance(0.03):
            self._effect(request)
            return Indefinite(code="502")
        if self.chance(0.03):
            return Throttled(code="TooMany", after=timedelta(seconds=1))
        if self.chance(0.03):
            return NotSent(code="ConnectionRefused")
        if self.chance(0.01):
            return Denied(code="Arrears")
        if request.command.kind is not Kind.STOP_LISTENING and self.chance(0.01):
            return Refused(code="Refused")
        return None

    def _effect(self, request: LaneRequest) -> Outcome:
        effects = len(self.vendor.effects)
        outcome = self.vendor.answer(request, self.now)
        if len(self.vendor.effects) > effects:
            self.checkers.took(self.vendor)
        return outcome


def build(
    seed: int,
    *,
    trouble: float = 1.0,
    lost_users: frozenset[str] = frozenset(),
    records: bool = False,
) -> LaneWorld:
    """Return the world of a seed: four users with buttons, and one who talks."""
    lots = Random(seed)
    caps = replace(
        CAPS[Recovery.EVICT],
        stale_codes=frozenset({STALE}),
        not_ready_codes=frozenset({NOT_READY}),
    )
    account = Account(name="zego", caps=caps, retry_cap=timedelta(seconds=10))
    checkers = LaneCheckers(gap_timeout=GAP)
    vendor = LaneVendor(
        lots=lots,
        takes_equal=lots.random() < 0.5,
        counts_refused=lots.random() < 0.5,
        is_ahead=trouble > 0 and lots.random() < 0.2,
    )
    world = LaneWorld(
        lots=lots,
        account=account,
        store=LaneStore(account=account, checkers=checkers),
        vendor=vendor,
        checkers=checkers,
        trouble=trouble,
        lost_users=lost_users,
        history=[] if records else None,
    )
    world.daemons = [LaneDaemon(name=name, world=world) for name in ("D1", "D2")]
    pressers = [
        Presser(user_id=f"u{n}", numbers=n % 2 == 0, is_tidy=n > 2, world=world)
        for n in range(1, 5)
    ]
    users = tuple(presser.user_id for presser in pressers)
    Lifecycle(world=world, users=users).begin()
    Caller(world=world).begin()
    for presser in pressers:
        presser.begin()
    return world
