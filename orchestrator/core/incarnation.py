"""How an incarnation ends and the next one begins.

An incarnation is one life of a task's agent. It ends for good: once retired, nothing revives it,
and every agent announced for it must be proven gone. The next begins under a new number and new
names, and its agent starts only after that proof. `Status.incarnation` is the newest asked for,
`Status.retired` the newest that must not live; the row is wanted while the first is ahead.
"""

from collections.abc import Iterable
from datetime import datetime

from orchestrator.core.model import Agent, EndReason, Evidence, Row, Step
from orchestrator.core.replace import replace


def retire(row: Row, end_reason: EndReason, at: datetime, reason: str = "", said: str = "") -> Step:
    """End the present incarnation, and close at once what was never sent.

    The first reason stays: an incarnation that ends already ends for what ended it. What runs is
    to be stopped without delay, so waits of its former life are forgotten.
    """
    status = row.status
    if status.retires:
        return Step(row=row)
    status = replace(
        status,
        retired=status.incarnation,
        retired_at=at,
        update_due=False,
        end_reason=end_reason,
        reason=reason or None,
        message=said or None,
        waiting_for=None,
        attempt=0,
        retry_at=None,
    )
    agents = tuple(ask_anew(agent) for agent in row.agents)
    return close_idle(replace(row, status=status, agents=agents), at)


def ask_anew(agent: Agent) -> Agent:
    """Return the ledger row without its waits: neither a retry nor a hint holds its end back.

    A hint was the answer to a question that another need had asked, perhaps long ago.
    """
    return replace(agent, hinted_at=None, kicked_at=None, retry_at=None, attempt=0)


def close_idle(row: Row, at: datetime) -> Step:
    """Close the ledger rows of which nothing can exist at the vendor, and nothing is to come.

    Those are the unwanted, and a new try that never left while the one before it turned out to run.
    """
    idle = [agent for agent in row.unwanted if agent.is_idle]
    if not row.is_reported:
        idle += [agent for agent in row.wanted if agent not in tries(row)]
    return close_all(row, idle, Evidence.NEVER_STARTED, at)


def tries(row: Row) -> tuple[Agent, ...]:
    """Return the wanted agents that count: a try that never left has evicted nobody who runs."""
    runs = any(agent.is_known for agent in row.wanted)
    return tuple(agent for agent in row.wanted if not (runs and agent.is_idle))


def close_all(row: Row, agents: Iterable[Agent], evidence: Evidence, at: datetime) -> Step:
    """Close these ledger rows of a row, all on the same evidence."""
    ended: list[Agent] = []
    for agent in agents:
        step = row.close(agent, evidence, at)
        row, ended = step.row, [*ended, *step.ended]
    return Step(row=row, ended=tuple(ended))


def begin(row: Row, at: datetime, *, start_by_holds: bool) -> Row:
    """Ask for the next incarnation. The present one must have been retired.

    `start_by_holds`: whether the task's `start_by` is a deadline for this one, too.
    """
    status = row.status
    return replace(
        row,
        status=replace(
            status,
            incarnation=status.incarnation + 1,
            asked_at=at,
            start_by_holds=start_by_holds,
            end_reason=None if status.end_reason is EndReason.START_FAILED else status.end_reason,
            reason=None,
            message=None,
            attempt=0,
            retry_at=None,
            restarts=0,
        ),
    )


def fail(row: Row, reason: str, said: str, at: datetime) -> Step:
    """End an incarnation that could not be started, and say why."""
    return retire(row, EndReason.START_FAILED, at, reason, said)


def supersede(
    row: Row, end_reason: EndReason, at: datetime, *, asked_at: datetime, start_by_holds: bool
) -> Step:
    """End what runs for this reason, and ask for the next incarnation as of `asked_at`."""
    step = retire(row, end_reason, at)
    return replace(step, row=begin(step.row, asked_at, start_by_holds=start_by_holds))


def adopt(row: Row, agent: Agent, handle: str, *, since: datetime) -> Row:
    """Write down the handle of an agent that the vendor says it has, running since then."""
    agent = replace(
        agent, vendor_task_id=handle, retry_at=None, attempt=0, hinted_at=None, kicked_at=None
    )
    status = replace(
        row.status,
        vendor_task_id=handle,
        started_at=max(since, agent.announced_at),
        confirmed_at=None,
        polled_at=None,
        stopped_at=None,
        attempt=0,
        retry_at=None,
        waiting_for=None,
    )
    if agent.incarnation > status.retired:
        status = replace(status, reason=None, message=None)
    return replace(row, status=status).replace_agent(agent)
