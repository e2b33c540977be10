"""Users who talk to agents, whose vendors then ask our LLM gateway for words.

The request bears the token of one ledger row, so its name is certain; its time is the database's.
What the daemon need not write down about it is not written here either.
"""

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from orchestrator.core.asking import Asker, facts_of
from orchestrator.core.turn import Caller, is_news
from tests.simulation.callbacks import deliver
from tests.simulation.vendors import CAPS, Instance, Vendor

if TYPE_CHECKING:
    from tests.simulation.store import Store
    from tests.simulation.world import World


@dataclass(slots=True, kw_only=True)
class Talker:
    """The users of one account's agents."""

    account: str
    vendor: Vendor
    world: "World"
    lots: Random
    """Its own, so that the world is the same with and without it."""

    def begin(self) -> None:
        pause = timedelta(seconds=self.lots.uniform(1, 40))
        self.world.at(self.world.now + pause, self._speak)

    def _speak(self) -> None:
        if self.world.is_quiet:
            return
        live = [one for one in self.vendor.live if one.has_joined(self.world.now)]
        ours = [one for one in live if not one.is_foreign]
        if ours:
            self._ask(self.lots.choice(ours))
        self.begin()

    def _ask(self, instance: Instance) -> None:
        """Let the vendor ask for words; it may tell its own handle of the agent, or not."""
        caps, store = CAPS[self.vendor.recovery], self.world.store
        caller = _find(store, instance.session)
        tells = self.lots.random() < 0.8 and not caps.names_handle
        handle = instance.handle if tells else None
        if not is_news(caller, handle):
            return
        asker = Asker(
            agent_id=instance.session,
            room_id=instance.room,
            user_id=instance.user,
            handle=None if _has_another(store, handle, instance.session) else handle,
            caller=caller,
            at=self.world.clock,
        )
        for fact in facts_of(asker, caps):
            deliver(self.world, self.account, fact)


def _has_another(store: "Store", handle: str | None, agent_id: str) -> bool:
    return handle is not None and any(
        agent.vendor_task_id == handle and agent.id != agent_id and agent.ended_at is None
        for agent in store.ledger.values()
    )


def _find(store: "Store", agent_id: str) -> Caller | None:
    """Return what the database knows of who asks."""
    agent = store.ledger.get(agent_id)
    if agent is None:
        return None
    owner = store.owners.get(agent_id, "")
    row, task = store.rows.get(owner), store.tasks.get(owner)
    return Caller(
        vendor_task_id=agent.vendor_task_id,
        ended_at=agent.ended_at,
        incarnation=agent.incarnation,
        retired=None if row is None else row.status.retired,
        is_wanted=task is not None and task.running,
        is_confirmed=row is not None and row.status.confirmed_at is not None,
    )
