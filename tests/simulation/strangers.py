"""Others at the same vendors: agents that somebody else starts, and an operator with a bill."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.core.caps import Recovery
from tests.simulation.callbacks import TELLING
from tests.simulation.orphans import Found
from tests.simulation.vendors import CAPS, Instance, Vendor

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(slots=True, kw_only=True)
class Stranger:
    """Starts agents of its own on the account, now and then in a room of ours, and ends some."""

    account: str
    vendor: Vendor
    world: "World"
    started: int = 0

    def begin(self) -> None:
        self.world.at(self.world.now + self.world.lots_between(0, 120), self._start)

    def _start(self) -> None:
        if self.world.is_quiet:
            return
        world, self.started = self.world, self.started + 1
        theirs = world.lots.choice(("bot", "orcother" + "a" * 15)) + str(self.started)
        named = CAPS[self.vendor.recovery].names_handle
        instance = Instance(
            handle=theirs if named else f"h{self.vendor.made + 1}",
            task_id="somebody's",
            incarnation=0,
            agent_id=theirs,
            session=theirs,
            agent_user=theirs,
            room=world.lots.choice(("elsewhere", *(f"room{n}" for n in range(1, 9)))),
            user="somebody",
            spec=0,
            taken_at=world.now,
            joins_at=world.now + world.lots_between(0, 2),
            is_foreign=True,
        )
        world.tell(f"{instance.handle} is started by somebody else")
        self.vendor.take(instance)
        if world.lots.random() < 0.4:
            world.at(world.now + world.lots_between(5, 600), lambda: self._end(instance))
        self.begin()

    def _end(self, instance: Instance) -> None:
        if instance.ended_by is None:
            self.world.tell(f"{instance.handle} is ended by somebody else")
            self.vendor.end(instance, "theirs")


@dataclass(slots=True, kw_only=True)
class Operator:
    """Inserts handles that are to be stopped: of strangers, of our own, of nobody."""

    account: str
    vendor: Vendor
    world: "World"
    inserted: int = 0

    def begin(self) -> None:
        self.world.at(self.world.now + self.world.lots_between(20, 300), self._insert)

    def _insert(self) -> None:
        if self.world.is_quiet:
            return
        self.inserted += 1
        instances = [*self.vendor.live, *self.vendor.ended]
        one = self.world.lots.choice(instances) if instances else None
        handle = one.handle if one is not None else "h0"
        found = Found(
            id=f"operator.{self.account}.{self.inserted}",
            account=self.account,
            stop=True,
            phase="seen",
            handle=handle,
            room=one.room if one is not None else "room0",
            user=one.user if one is not None else "",
        )
        self.world.tell(f"operator: stop {handle}")
        self.world.checkers.condemned.add((self.account, handle))
        self.world.store.orphans[found.id] = found
        self.world.nudge()
        self.begin()


def settle_in(world: "World", account: str, vendor: Vendor) -> None:
    """Let them come to an account, or not. Nobody can be told apart at one who stops by user."""
    lots = world.lots
    comes, looks = lots.random() < 0.35, lots.random() < 0.25
    if vendor.recovery is Recovery.STOP_FIRST or vendor.recovery not in TELLING:
        return
    if comes:
        vendor.capacity += 100
        Stranger(account=account, vendor=vendor, world=world).begin()
    if looks:
        Operator(account=account, vendor=vendor, world=world).begin()
