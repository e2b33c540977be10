"""What a claim says of a row in `agent_event`, beside the calls: who wished what, and what it did.

What a call came to is told by the settle.
"""

from orchestrator.core.fact import Fact, in_order
from orchestrator.core.model import Step, What
from orchestrator.store.draft import Draft
from orchestrator.store.reading import Read


def tell(draft: Draft, one: Read, step: Step, daemon_name: str) -> None:
    """Say who wished what, what was heard, and what time or a mistake in the row did."""
    for change in one.changes:
        if change.what is not What.FACT:
            draft.tell("wish", step.row, actor=change.actor, action=change.what.value)
    for fact in in_order(one.facts):
        draft.tell(
            _source(fact),
            step.row,
            actor="vendor",
            action=fact.event.value,
            code=fact.code,
            message=fact.message,
        )
    before, status = one.row.status.phase, step.row.status
    if before is not status.phase:
        draft.tell(
            "phase",
            step.row,
            actor=daemon_name,
            code=status.reason,
            message=status.message or status.end_reason,
            phase_before=before.value,
        )


def _source(fact: Fact) -> str:
    """Return what an event that was heard is called."""
    return "gateway" if fact.is_asking else "callback"
