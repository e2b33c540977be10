"""What an outcome may still add after it lost its fence: a handle, to the ledger, and no more.

The row has moved on: somebody else took the call over, and has perhaps looked, stopped and started
anew. So nothing else of a late outcome counts. But a handle may be the only way to stop an agent.
"""

from datetime import timedelta
from typing import Protocol

from orchestrator.core.action import Flight
from orchestrator.core.caps import Caps
from orchestrator.core.model import Agent, Verb
from orchestrator.core.replace import replace


class Fence(Protocol):
    """The part of a status that only the daemon with its call in flight knows."""

    @property
    def version(self) -> int:
        """Counts the announces."""
        ...

    @property
    def intent(self) -> Verb | None:
        """What the call in flight is for."""
        ...

    @property
    def intent_agent(self) -> str | None:
        """The ledger row it is about."""
        ...


def is_awaited(status: Fence, flight: Flight) -> bool:
    """Return whether a status still waits for this flight: the fence, beside the lease's owner.

    The version alone is not enough. A task that is deleted, forgotten and inserted again begins to
    count anew, and a daemon that was frozen meanwhile may hold the new row as well.
    """
    awaited = (status.version, status.intent, status.intent_agent)
    return awaited == (flight.version, flight.verb, flight.agent.id)


def learn(agent: Agent, handle: str, caps: Caps) -> Agent:
    """Return the ledger row with a handle that turned up late, to be asked about anew.

    A handle is added, never overwritten. A row that had ended is open again, unless the handle is
    a name of ours: that is nothing new, and stopping by it might hit a later agent of the name.
    """
    if agent.vendor_task_id is not None:
        return agent
    known = replace(agent, vendor_task_id=handle)
    if caps.names_handle:
        return known
    return replace(
        known,
        ended_at=None,
        evidence=None,
        hinted_at=None,
        retry_at=None,
        attempt=0,
    )


def another(agent: Agent, handle: str) -> Agent:
    """Return an open ledger row for a second handle under the name of `agent`.

    A vendor that evicts may have taken two starts of one name. The row is older than the other, so
    that it is the one to be stopped: what was sent last is the one that is left.
    """
    return replace(
        agent,
        id=f"{agent.id}.{handle}",
        vendor_task_id=handle,
        announced_at=agent.announced_at - timedelta(microseconds=1),
        hinted_at=None,
        kicked_at=None,
        is_hearsay=False,
        spent_at=None,
        told_at=None,
        retry_at=None,
        attempt=0,
        ended_at=None,
        evidence=None,
    )
