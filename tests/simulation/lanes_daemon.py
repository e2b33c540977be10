"""One daemon at its lanes: claim, announce, send, settle; it can die or freeze between any two."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.core import lane as lanes
from orchestrator.core import lane_decide, lane_evolve
from orchestrator.core.lane import CommandFlight, Rest, Settle
from orchestrator.core.outcome import Indefinite, NotSent, Outcome, Settled
from tests.simulation.lanes_checkers import CALL_TIMEOUT, Key
from tests.simulation.lanes_vendor import LaneRequest
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.lanes import LaneWorld  # noqa: F401 - named in a string, as the base

LEASE = timedelta(seconds=3)


@dataclass(slots=True, kw_only=True)
class LaneErrand:
    """A call as the daemon that makes it remembers it: what a crash forgets."""

    key: Key
    flight: CommandFlight
    lease_until: datetime
    request: LaneRequest
    asked_at: datetime
    is_answered: bool = False


@dataclass(slots=True, kw_only=True)
class LaneDaemon(Process["LaneWorld"]):
    """The steps that a daemon takes at its lanes."""

    passes: int = 0

    def wake(self, delay: timedelta) -> None:
        """Look at the database after `delay`; an earlier plan to look is dropped."""
        self.passes += 1
        self.after(delay, partial(self._look, self.passes))

    def _look(self, number: int) -> None:
        if number != self.passes:
            return
        store = self.world.store
        for key in store.due(self.world.now):
            self._claim(key)
        next_due = store.next_due()
        if next_due is not None:
            self.wake(max(next_due - self.world.now, timedelta(milliseconds=1)))

    # --- claim

    def _claim(self, key: Key) -> None:
        """Settle what can be, then announce one command, all in one transaction."""
        world, store = self.world, self.world.store
        view = store.read(key, world.now)
        action = lane_decide.decide_lane(view)
        while isinstance(action, Settle):
            for command in action.commands:
                world.tell(f"{self.name}: {command.id} is {command.state} ({command.reason})")
            view = view.after(action)
            store.write(action.lane, action.commands)
            action = lane_decide.decide_lane(view)
        if isinstance(action, Rest):
            store.write(action.lane, ())
            store.due_at[key] = action.until
            return
        announced, flight = lane_evolve.announce_lane(view, action)
        world.checkers.announced(view, flight)
        store.lease(key, self.name, world.now + LEASE)
        store.write(announced, (flight.command,))
        world.tell(f"{self.name} announces {flight.command.id} as {flight.sequence}")
        incarnation = flight.agent.incarnation
        errand = LaneErrand(
            key=key,
            flight=flight,
            lease_until=world.now + LEASE,
            request=LaneRequest(command=flight.outgoing, incarnation=incarnation),
            asked_at=world.now,
        )
        self._go_on(errand, self._check)

    def _go_on(self, errand: LaneErrand, step: Callable[[LaneErrand], None]) -> None:
        self.world.strike(self)
        self.after(self.world.lots_between(0.0005, 0.005), lambda: step(errand))

    # --- call

    def _check(self, errand: LaneErrand) -> None:
        if errand.lease_until - self.world.now < CALL_TIMEOUT:
            self._settle_with(errand, NotSent(code="TooLate"))
            return
        errand.asked_at = self.world.now
        self._send(errand)

    def _send(self, errand: LaneErrand) -> None:
        life = self.lives
        self.world.checkers.left(errand.key, errand.flight.command, self.world.now)

        def reply(outcome: Outcome) -> None:
            if self.is_up and self.lives == life:
                self.after(timedelta(), lambda: self._hear(errand, outcome))

        self.after(CALL_TIMEOUT, lambda: self._give_up(errand))
        self.world.carry(errand.request, self, reply)
        self.world.strike(self)

    def _hear(self, errand: LaneErrand, outcome: Outcome) -> None:
        if errand.is_answered:
            return
        errand.is_answered = True
        if errand.lease_until > self.world.now:
            self.world.checkers.landed(errand.key, self.world.now)
        self._settle_with(errand, outcome)

    def _give_up(self, errand: LaneErrand) -> None:
        """Reset the connection: what has not left by now may still arrive for a while."""
        if errand.is_answered:
            return
        self.world.reset(errand.request)
        self._hear(errand, Indefinite(code="Timeout"))

    # --- settle

    def _settle_with(self, errand: LaneErrand, outcome: Outcome) -> None:
        at = self.world.now
        settled = Settled(outcome=outcome, asked_at=errand.asked_at, answered_at=at)
        self._go_on(errand, lambda errand: self._settle(errand, settled))

    def _settle(self, errand: LaneErrand, settled: Settled) -> None:
        """Write the outcome, if nobody has taken the lane over."""
        world, store = self.world, self.world.store
        name = type(settled.outcome).__name__
        lane = store.lanes[errand.key]
        if not store.holds(errand.key, self.name) or not lanes.is_awaited(lane, errand.flight):
            world.tell(f"{self.name} lost {errand.flight.command.id}, and drops {name}")
            return
        world.checkers.heard(errand.flight.command, settled.outcome)
        step = lane_evolve.evolve_lane(lane, errand.flight, settled, world.account)
        told = f"{name} {settled.outcome.code}"
        world.tell(f"{self.name}: {step.command.id} is {step.command.state} after {told}")
        store.release(errand.key)
        store.write(step.lane, (step.command,))
        store.due_at[errand.key] = world.now
        if step.command.done_at is not None:
            world.checkers.committed(step.lane, (), step.command)
        self.wake(world.lots_between(0.0005, 0.005))
