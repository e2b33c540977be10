"""The application at its worst: presses out of order, numbered or not, missing, repeated, wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestrator.core.command import Command, Kind
from orchestrator.core.lane import Situation, Standing
from orchestrator.core.model import Agent

if TYPE_CHECKING:
    from tests.simulation.lanes import LaneWorld

REST = [kind for kind in Kind if not kind.listens]
TASK = "t1"


@dataclass(slots=True, kw_only=True)
class Presser:
    """One user with a button. `numbers` says whether the application numbers its presses."""

    user_id: str
    numbers: bool
    is_tidy: bool
    """Inserts each press before its release, and leaves nothing out."""
    world: "LaneWorld"
    number: int = 0

    def begin(self) -> None:
        self._later(self.world.lots_between(0, 3), self._press)

    def _later(self, delay: timedelta, step: Callable[[], None]) -> None:
        self.world.at(self.world.now + delay, step)

    def _press(self) -> None:
        """Press, speak, release, and again after a while; the last press has its release."""
        if self.world.is_quiet:
            return
        lots, world = self.world.lots, self.world
        start, stop = self._next(Kind.START_LISTENING), self._next(Kind.STOP_LISTENING)
        held = world.lots_between(0.05, lots.choice((0.2, 1, 4, 9)))
        early = timedelta() if self.is_tidy else world.lots_between(0, lots.choice((0, 0, 0.5, 8)))
        if self.is_tidy or lots.random() < 0.92:
            self._later(early, lambda: world.insert(self._made(*start)))
        straggles = not self.is_tidy and lots.random() < 0.06
        late = held + world.lots_between(0, 9) if straggles else held
        self._later(late, lambda: world.insert(self._made(*stop)))
        if not self.is_tidy:
            self._err()
        pause = world.lots_between(0, lots.choice((0.1, 1, 6)))
        self._later(max(held, early) + pause, self._press)

    def _next(self, kind: Kind) -> tuple[Kind, int | None]:
        if not self.numbers:
            return kind, None
        self.number += 1 if self.is_tidy or self.world.lots.random() < 0.93 else 2
        return kind, self.number

    def _made(self, kind: Kind, number: int | None) -> Command:
        return self.world.make(kind, self.user_id, number)

    def _err(self) -> None:
        """Sometimes write what is no press at all."""
        lots, world = self.world.lots, self.world
        lot = lots.random()
        if lot < 0.04:  # The other way of numbering, but for the very first.
            other = self.number + 1 if not self.numbers else None
            if (TASK, self.user_id) in world.store.lanes:
                world.insert(self._made(Kind.START_LISTENING, other))
        elif lot < 0.07 and self.numbers:
            world.insert(self._made(Kind.START_LISTENING, lots.choice((-1, 0, 1))))
        elif lot < 0.10:
            start = self._made(*self._next(Kind.START_LISTENING))
            world.insert(start)
            self._later(world.lots_between(0, 1), lambda: world.cancel(start))
        elif lot < 0.13:
            kind = lots.choice((Kind.START_LISTENING, Kind.STOP_LISTENING))
            world.refuse(self._made(*self._next(kind)))
        elif lot < 0.2:
            self._vanish(world.vendor.muted)
        elif lot < 0.27:
            self._vanish(world.vendor.away)

    def _vanish(self, whom: set[str]) -> None:
        """Be silent, or away, for a while."""
        whom.add(self.user_id)
        self._later(self.world.lots_between(0.1, 8), lambda: whom.discard(self.user_id))


@dataclass(slots=True, kw_only=True)
class Caller:
    """Whoever talks through the agent: says, prompts, interrupts."""

    world: "LaneWorld"

    def begin(self) -> None:
        self._call()

    def _call(self) -> None:
        world = self.world
        if world.is_quiet:
            return
        command = world.make(world.lots.choice(REST), "u0", None)
        if world.lots.random() < 0.05:
            world.refuse(command)
        else:
            world.insert(command)
        world.at(world.now + world.lots_between(0, world.lots.choice((0.1, 2, 8))), self._call)


@dataclass(slots=True, kw_only=True)
class Lifecycle:
    """The task: its agent comes, runs, ends, comes again; in the quiet time it runs."""

    world: "LaneWorld"
    users: tuple[str, ...]
    incarnation: int = 0

    def begin(self) -> None:
        world = self.world
        self.incarnation += 1
        situation = world.store.situation
        retired, ended_at = situation.retired, situation.ended_at
        world.move(Situation(standing=Standing.COMING, retired=retired, ended_at=ended_at))
        world.at(world.now + world.lots_between(0, 3), self._run)

    def _run(self) -> None:
        world, was = self.world, self.world.store.situation
        world.vendor.begin(self.incarnation, self.users)
        world.move(
            Situation(
                standing=Standing.RUNNING,
                agent=_agent(self.incarnation, world),
                retired=was.retired,
                ended_at=was.ended_at,
            )
        )
        if not world.is_quiet:
            world.at(world.now + world.lots_between(4, 40), self._end)

    def _end(self) -> None:
        world, incarnation = self.world, self.incarnation
        if world.is_quiet:
            return
        world.move(Situation(standing=Standing.ENDED, retired=incarnation, ended_at=world.now))
        # The vendor ends it a little earlier than we know, or a little later.
        gone = world.now + world.lots_between(0, 3)
        world.at(gone, lambda: world.vendor.instances.pop(incarnation, None))
        world.at(gone + world.lots_between(0, world.lots.choice((0, 4))), self.begin)


def _agent(incarnation: int, world: "LaneWorld") -> Agent:
    return Agent(
        id=f"a{incarnation}",
        incarnation=incarnation,
        try_=1,
        account=world.account.name,
        site="here",
        room_id="r1",
        user_id="u1",
        name=f"a{incarnation}",
        session_name=f"a{incarnation}",
        stream_id=f"a{incarnation}_s1",
        vendor_task_id=f"h{incarnation}",
        announced_at=world.now,
    )
