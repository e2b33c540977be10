"""What a request proves: that its agent is alive, whatever the rows say.

It becomes a fact like those of callbacks (`store.facts`): a claim applies it to the row, and what
has no open row of the ledger becomes an orphan and is stopped again.
"""

from collections import OrderedDict
from datetime import datetime
from typing import Final

import structlog

from orchestrator.core.caps import Caps
from orchestrator.core.fact import ASKED, Event, Fact
from orchestrator.core.turn import Caller, is_news
from orchestrator.daemon.recorder import Recorder, Verdict
from orchestrator.providers.llm_form import Asked
from orchestrator.providers.ticket import Ticket
from orchestrator.store.facts import Told

KEPT_MAX: Final = 10_000

log = structlog.get_logger(__name__)


class Witness:
    """Writes down who asked, where that is news: at most once a second for each agent."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._told: OrderedDict[str, str] = OrderedDict()
        """The key of each agent's newest fact."""

    async def tell(
        self, ticket: Ticket, asked: Asked, caller: Caller | None, caps: Caps, now: datetime
    ) -> None:
        """Write that an agent asked, if anything can be learnt of it. Raises nothing."""
        if not is_news(caller):
            return
        fact = _describe(ticket, asked, caller, caps, now)
        if self._told.get(ticket.agent_id) == fact.key:
            return
        self._told[ticket.agent_id] = fact.key
        if len(self._told) > KEPT_MAX:
            self._told.popitem(last=False)
        verdict = await self._recorder.record(Told(account=ticket.account, facts=(fact,)))
        if verdict is not Verdict.KEPT:
            # It asks again; until then it is not remembered as told.
            self._told.pop(ticket.agent_id, None)
            log.warning("llm_caller_not_told", task_id=ticket.task_id, verdict=verdict.value)


def _describe(
    ticket: Ticket, asked: Asked, caller: Caller | None, caps: Caps, now: datetime
) -> Fact:
    known = caller.vendor_task_id if caller is not None else None
    named = ticket.agent_id if caps.names_handle else None
    return Fact(
        key=f"asked:{ticket.agent_id}:{now:%Y-%m-%dT%H:%M:%S}",
        event=Event.ALIVE,
        event_at=now,
        vendor_task_id=asked.handle or known or named,
        name=ticket.agent_id,
        room_id=ticket.room_id,
        user_id=ticket.user_id,
        code=ASKED,
        message="it asked the LLM gateway for words",
    )
