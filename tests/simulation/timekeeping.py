"""How a daemon notices that the database's clock was set, and what it puts off then.

Rule: a daemon knows only what it has seen in this life. A step that none of them was there to see
is noticed by nobody.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.core import steps

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """A look at which the store was known to have recorded all steps before it."""

    clock: datetime
    now: datetime
    recorded: timedelta


def keep(world: "World", agreed: Agreed | None) -> Agreed:
    """Compare the database's clock with the last look; return what is agreed on from now on."""
    store = world.store
    here = Agreed(clock=world.clock, now=world.now, recorded=store.clock_set)
    if agreed is None:
        return here
    went, passed = here.clock - agreed.clock, here.now - agreed.now
    if went - passed > 2 * steps.NOTICED:
        world.checkers.noticed(store)
    step = steps.set_by(went, passed, steps.NOTICED)
    left = step - (store.clock_set - agreed.recorded)
    if not step or abs(left) <= steps.NOTICED:
        return here
    store.clock_set += left
    if left > timedelta(0):
        world.tell(f"what was to come is put off by {left}")
        store.put_off(here.clock, left)
    return Agreed(clock=here.clock, now=here.now, recorded=store.clock_set)
