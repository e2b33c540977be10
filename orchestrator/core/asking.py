"""What a request at the LLM gateway proves about the agent that asks, as facts for its row.

Rule 1: who asks is certain, for its token is that of one ledger row. The vendor's handle that it
tells is not: it is believed no further than a callback's that nobody has signed. Where the vendor
can be asked whose a handle is, it is, and nothing is said of it here.
"""

from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.fact import ASKED, Event, Fact
from orchestrator.core.turn import Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """An agent that asks."""

    agent_id: str
    """The ledger row whose token it has."""
    room_id: str
    user_id: str
    handle: str | None
    """The vendor's, as the request tells it; null: it tells none."""
    caller: Caller | None
    """What the ledger knows of it; null: nothing."""
    at: datetime

    @property
    def second(self) -> str:
        """Return what is told once: this agent, in this second."""
        return f"{self.agent_id}:{self.at:%Y-%m-%dT%H:%M:%S}"

    def known(self, caps: Caps) -> str | None:
        """Return the handle that is known without the request."""
        if caps.names_handle:
            return self.agent_id
        return None if self.caller is None else self.caller.vendor_task_id


def facts_of(asker: Asker, caps: Caps) -> tuple[Fact, ...]:
    """Return what is to be written about an agent that asks."""
    known, told = asker.known(caps), asker.handle
    if told in (None, known):
        return (_fact(asker, asker.agent_id, known),)
    if caps.recovery is Recovery.FIND:
        return _fact(asker, None, told), _fact(asker, asker.agent_id, known)
    return (_fact(asker, asker.agent_id, told),)


def _fact(asker: Asker, name: str | None, handle: str | None) -> Fact:
    return Fact(
        key=f"asked:{asker.second}:{'name' if name else 'handle'}",
        event=Event.ALIVE,
        event_at=asker.at,
        vendor_task_id=handle,
        name=name,
        room_id=asker.room_id,
        user_id=asker.user_id,
        code=ASKED,
        message="it asked the LLM gateway for words",
    )
