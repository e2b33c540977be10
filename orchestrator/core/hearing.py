"""What a vendor tells by itself does to a row.

Rule 1: a handle is added, never overwritten. One that fits no ledger row gets a row of its own.
Rule 2: an end that is told ends the incarnation; it closes the ledger row only if it is signed and
no send of the name can follow it. Else a stop is sent, and its answer is the evidence.
Rule 3: nothing here starts anything, and nothing told makes up for a stop that must be sent.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import assert_never

from orchestrator.core.ending import bill, close_on_evidence, end_by_itself
from orchestrator.core.fact import CLOCK_NOISE, Event, Fact, bears, find, in_order
from orchestrator.core.incarnation import adopt, ask_anew
from orchestrator.core.late import another
from orchestrator.core.model import Account, Agent, EndReason, Evidence, Row, Step
from orchestrator.core.replace import replace


def hear(row: Row, facts: Iterable[Fact], account: Account, now: datetime) -> Step:
    """Apply facts about a row without a call in flight, in the order in which they happened."""
    ended: list[Agent] = []
    for fact in in_order(facts):
        step = _hear_one(row, fact, account, now)
        row, ended = step.row, [*ended, *step.ended]
    return Step(row=row, ended=tuple(ended))


def _hear_one(row: Row, fact: Fact, account: Account, now: datetime) -> Step:
    row, agent = _attribute(row, fact, account)
    if agent is None or _is_outlived(agent, fact, account):
        return Step(row=row)
    # Who asks does not tell of its end, so it is polled as before. An orphan was heard of.
    if row.orphan is not None or not fact.is_asking:
        agent = replace(agent, told_at=now)
        row = row.replace_agent(agent)
    match fact.event:
        case Event.STARTED | Event.ALIVE:
            return Step(row=_confirm(row, agent, fact, now))
        case Event.FAULT:
            return Step(row=_say(_confirm(row, agent, fact, now), agent, fact))
        case Event.ENDED:
            return _end(row, agent, fact, account, now)
        case Event.SEEN:
            return Step(row=row)
        case _:
            assert_never(fact.event)


def _is_outlived(agent: Agent, fact: Fact, account: Account) -> bool:
    """Return whether a later send of the same name has made what is told a thing of the past."""
    return account.caps.names_handle and fact.event_at < agent.announced_at - CLOCK_NOISE


# --- whose it is ---


def _attribute(row: Row, fact: Fact, account: Account) -> tuple[Row, Agent | None]:
    """Return the agent that a fact speaks of, with the handle that the fact tells."""
    agent = find(row.agents, fact)
    if agent is None:
        return _add(row, fact, account)
    if agent.is_known or fact.event is Event.SEEN or _is_outlived(agent, fact, account):
        return row, agent
    handle = agent.session_name if account.caps.names_handle else fact.vendor_task_id
    if handle is None:
        return row, agent
    agent = replace(agent, is_hearsay=not fact.is_signed and not account.caps.names_handle)
    if _is_newest(row, agent):
        row = adopt(row, agent, handle, since=fact.event_at)
    else:
        row = row.replace_agent(ask_anew(replace(agent, vendor_task_id=handle)))
    return row, next(one for one in row.agents if one.id == agent.id)


def _add(row: Row, fact: Fact, account: Account) -> tuple[Row, Agent | None]:
    """Give a living agent whose handle fits no ledger row one of its own, before all others."""
    named = [agent for agent in row.agents if bears(agent, fact)]
    handle = fact.vendor_task_id
    lives = fact.event in {Event.STARTED, Event.ALIVE, Event.FAULT}
    if not named or handle is None or account.caps.names_handle or not lives:
        return row, None
    agent = another(named[0], handle)
    return replace(row, agents=(agent, *row.agents)), agent


def _is_newest(row: Row, agent: Agent) -> bool:
    """Return whether it is the agent that the present incarnation stands or falls with."""
    return bool(row.wanted) and row.wanted[-1].id == agent.id


# --- what it means ---


def _confirm(row: Row, agent: Agent, fact: Fact, now: datetime) -> Row:
    """It lived at that time: what was answered before that it is gone is not true."""
    if agent.hinted_at is not None and agent.hinted_at < fact.event_at:
        row = row.replace_agent(ask_anew(agent))
    if not _is_newest(row, agent) or not agent.is_known:
        return row
    confirmed_at = row.status.confirmed_at or min(fact.event_at, now)
    return replace(row, status=replace(row.status, confirmed_at=confirmed_at))


def _say(row: Row, agent: Agent, fact: Fact) -> Row:
    """Write down that it runs, and cannot hear or speak."""
    if not _is_newest(row, agent):
        return row
    return replace(row, status=replace(row.status, reason=fact.code, message=fact.message))


def _end(row: Row, agent: Agent, fact: Fact, account: Account, now: datetime) -> Step:
    end_reason = fact.end_reason or EndReason.VENDOR_GONE
    if fact.is_signed and _is_final(agent, fact, account):
        return close_on_evidence(row, agent, Evidence.TOLD, now, account, end_reason)
    if row.is_reported:
        return Step(row=row.replace_agent(replace(agent, hinted_at=now)))
    if not _is_newest(row, agent):
        return Step(row=row)
    twins = [twin for twin in row.wanted[:-1] if twin.name == agent.name]
    if twins and end_reason is EndReason.KICKED:
        return Step(row=_give_way(row, agent, twins, fact))
    return end_by_itself(row, agent, end_reason, now, account)


def _give_way(row: Row, agent: Agent, twins: Sequence[Agent], fact: Fact) -> Row:
    """It was evicted by a start of its own name that came late: that one takes its place.

    It becomes the earlier of the two, and so the one that is asked to end.
    """
    earlier = replace(agent, announced_at=twins[0].announced_at - timedelta(microseconds=1))
    row = replace(row, agents=(*row.unwanted, earlier, *twins))
    newest = twins[-1]
    if newest.vendor_task_id is None:
        return row
    row = bill(row, earlier, fact.event_at)
    return adopt(row, newest, newest.vendor_task_id, since=fact.event_at)


def _is_final(agent: Agent, fact: Fact, account: Account) -> bool:
    """Return whether no send of the name can start again what ended then.

    A handle that the vendor draws stands for one start. A name of ours may be started again by a
    send that is still on its way, and the vendor's clock may be ahead of ours.
    """
    if not account.caps.names_handle:
        return True
    return agent.is_past_horizon(fact.event_at - account.clock_margin)
