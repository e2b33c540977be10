"""How an agent that ends becomes its row's: evidence, the bill, and whether another begins.

Rule 1: an end that nobody asked for retires its incarnation. Whether that is evidence as well says
who learnt of it; where it is none, a stop is sent, and its answer is.
Rule 2: an agent that ends soon after its birth is not born again in a loop: the waits grow, and
after `RESTARTS_MAX` of them the row rests until somebody changes it.
"""

from datetime import datetime, timedelta
from typing import Final, assert_never

from orchestrator.core import backoff
from orchestrator.core.incarnation import begin, retire
from orchestrator.core.model import (
    Account,
    Agent,
    EndReason,
    Evidence,
    RestartPolicy,
    Row,
    Step,
)
from orchestrator.core.replace import replace

STEADY: Final = timedelta(minutes=10)
"""An agent that lived so long ended for another reason than those before it."""
RESTARTS_MAX: Final = 8
"""How many in a row may end sooner than that and begin anew."""


def close_on_evidence(
    row: Row,
    agent: Agent,
    evidence: Evidence,
    at: datetime,
    account: Account,
    end_reason: EndReason = EndReason.VENDOR_GONE,
) -> Step:
    """Close a ledger row; if it was the wanted agent's, its incarnation has ended by itself.

    `end_reason` is for that case; what was asked to end has its reason already.
    """
    was_wanted = agent.incarnation > row.status.retired
    step = bill(row, agent, at).close(agent, evidence, at)
    if not (was_wanted and agent.is_known) or _is_survived(agent, step.row):
        return step
    after = end_by_itself(step.row, agent, end_reason, at, account)
    return Step(row=after.row, ended=(*step.ended, *after.ended))


def end_by_itself(
    row: Row, agent: Agent, end_reason: EndReason, at: datetime, account: Account
) -> Step:
    """End an incarnation that nobody asked to end, and begin the next if the task says so.

    What is only watched is left as it is: to retire it would mean to stop it.
    """
    if row.is_reported:
        return Step(row=row)
    step = retire(row, end_reason, at)
    task = step.row.task
    if task is None or not _restarts(task.restart_policy, end_reason):
        return step
    lived = at - (row.status.started_at or agent.announced_at)
    restarts = 1 if lived >= STEADY else row.status.restarts + 1
    if restarts > RESTARTS_MAX:
        said = f"ended {restarts} times in a row within {STEADY}; change the row to try again"
        return replace(step, row=_say(step.row, "RestartedTooOften", said))
    renewed = begin(step.row, at, start_by_holds=False)
    wait = backoff.delay(account.retry_base, account.retry_cap, restarts - 1, row.status.task_id)
    # At most one start in `retry_cap`, however well the first of them went.
    retry_at = max(at + wait, agent.announced_at + account.retry_cap)
    status = replace(renewed.status, retry_at=retry_at, restarts=restarts)
    return replace(step, row=replace(renewed, status=status))


def _is_survived(agent: Agent, row: Row) -> bool:
    """Return whether its incarnation goes on without it.

    Another runs, or may: one that was still on its way when this one was announced has perhaps
    evicted it. Earlier ones of which nothing is known did not, and go with it.
    """
    return any(
        one.goes_by_handle or not one.is_past_horizon(agent.announced_at) for one in row.wanted
    )


def _say(row: Row, reason: str, message: str) -> Row:
    return replace(row, status=replace(row.status, reason=reason, message=message))


def bill(row: Row, agent: Agent, at: datetime) -> Row:
    """Add the seconds it ran at the vendor."""
    status = row.status
    if status.started_at is None or agent.vendor_task_id != status.vendor_task_id:
        return row
    ran = max(0, round((at - status.started_at).total_seconds()))
    return replace(row, status=replace(status, ran_s=status.ran_s + ran, started_at=None))


def _restarts(policy: RestartPolicy, end_reason: EndReason) -> bool:
    match policy:
        case RestartPolicy.NEVER:
            return False
        case RestartPolicy.ON_FAILURE:
            return end_reason is EndReason.VENDOR_FAULT
        case RestartPolicy.ALWAYS:
            return True
        case _:
            assert_never(policy)
