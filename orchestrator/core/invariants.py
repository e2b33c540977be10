"""What must be true of every row, whatever happened to it. Tests and simulation assert it."""

from collections.abc import Iterator

from orchestrator.core.caps import Recovery
from orchestrator.core.model import (
    Account,
    EndReason,
    Phase,
    Row,
    Verb,
)


def broken(row: Row, account: Account) -> Iterator[str]:
    """Yield a sentence for each invariant that this row breaks."""
    status = row.status
    if status.retired > status.incarnation:
        yield "an incarnation is retired that was never asked for"
    if row.agents and status.phase in {Phase.STOPPED, Phase.FAILED}:
        yield "ended with an open ledger row"
    is_known = any(a.is_known for a in row.wanted) or row.is_reported
    if status.phase is Phase.RUNNING and not is_known:
        yield "running without a stop handle"
    if row.agents and status.due_at is None and status.stop_due_at is None:
        yield "an open ledger row that nobody will look at"
    if any(a.ended_at is not None for a in row.agents):
        yield "an ended ledger row among the open ones"
    if status.phase is Phase.FAILED and status.end_reason is not EndReason.START_FAILED:
        yield "failed without a failed start"
    if status.intent is Verb.START and row.unwanted:
        yield "starts while an earlier incarnation is not proven gone"
    unsettled = sum(not agent.is_known for agent in row.wanted)
    if unsettled > 1 and account.caps.recovery is not Recovery.EVICT:
        yield "two unsettled agents in one incarnation at a vendor that does not evict"
