"""What befalls the database as a whole: it goes back to a copy of itself, or its clock is set."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.simulation.facts import Facts
from tests.simulation.store import Store

if TYPE_CHECKING:
    from tests.simulation.world import World

LOST_MAX_S = 60.0
"""How old the copy is at most."""
TABLES = ("tasks", "rows", "ledger", "owners", "leases", "slots", "orphans")
"""Without the slots of the last second: a restore takes longer than those count."""
REMEMBERED = ("doomed", "handles", "asked")
"""What the checkers know of commits: those that were lost were never made."""


@dataclass(slots=True, kw_only=True)
class Restore:
    """Takes a copy, and after a while goes back to it. The vendors' world does not go back."""

    world: "World"

    def begin(self) -> None:
        world = self.world
        taken_at = world.now + world.lots_between(10, 160)
        lost = world.lots_between(0.1, world.lots.choice((3, 20, LOST_MAX_S)))
        world.at(taken_at, lambda: self._copy(lost))

    def _copy(self, lost: timedelta) -> None:
        world = self.world
        copy = Copy(
            taken_at=world.clock,
            tables={name: dict(getattr(world.store, name)) for name in TABLES},
            inbox={id_: list(changes) for id_, changes in world.store.inbox.items()},
            facts=world.store.facts.copy(),
            remembered={name: getattr(world.checkers, name).copy() for name in REMEMBERED},
        )
        world.tell("a copy of the database is taken")
        world.at(world.now + lost, lambda: self._restore(copy))

    def _restore(self, copy: "Copy") -> None:
        world, store = self.world, self.world.store
        world.tell("the database is restored from the copy")
        for daemon in world.daemons:
            daemon.die()
            back_at = world.now + world.lots_between(2, 20)
            world.at(back_at, lambda daemon=daemon: world.restart(daemon))  # type: ignore[misc]
        known: dict[str, Any] = copy.tables["ledger"]
        lost = {
            id_
            for id_, agent in store.ledger.items()
            if id_ not in known or agent.announced_at >= copy.taken_at
        }
        copy.put_back(store)
        for name, value in copy.remembered.items():
            setattr(world.checkers, name, value)
        world.checkers.restored(lost, world.now)


@dataclass(slots=True, kw_only=True)
class Copy:
    """The database as it was."""

    taken_at: datetime
    tables: dict[str, dict[Any, Any]]
    inbox: dict[str, list[Any]]
    facts: Facts
    remembered: dict[str, Any]

    def put_back(self, store: Store) -> None:
        """Let the store be as it was."""
        for name, rows in self.tables.items():
            table: dict[Any, Any] = getattr(store, name)
            table.clear()
            table.update(rows)
        store.inbox.clear()
        store.inbox.update(self.inbox)
        store.facts = self.facts


@dataclass(slots=True, kw_only=True)
class ClockSetter:
    """Sets the clock of the database, for all daemons at once."""

    world: "World"
    forward: bool

    def begin(self) -> None:
        self.world.at(self.world.now + self.world.lots_between(10, 235), self._set)

    def _set(self) -> None:
        world = self.world
        step = world.lots_between(1, world.lots.choice((20, 120, 600)))
        if self.forward:
            world.checkers.hurried(world.store, world.clock, world.now)
        world.shift += step if self.forward else -step
        world.tell(f"the database's clock is set by {step if self.forward else -step}")
        world.nudge()
