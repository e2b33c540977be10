"""What an outcome makes of a row: one function for each kind of call, a `match` over the taxonomy.

Rule 1: only evidence closes a ledger row (see `model.Evidence`).
Rule 2: an outcome without effect takes back what its own announce added, and nothing of what an
earlier send left unknown.
Rule 3: nothing here knows why the call was made; `decide` will look at the row as it now is.
"""

from datetime import datetime
from typing import assert_never

from orchestrator.core import backoff, horizon
from orchestrator.core.action import Flight
from orchestrator.core.ending import close_on_evidence, end_by_itself
from orchestrator.core.incarnation import adopt, ask_anew, close_idle, fail, supersede
from orchestrator.core.model import (
    Account,
    Agent,
    EndReason,
    Evidence,
    Row,
    Step,
    Verb,
    WaitingFor,
)
from orchestrator.core.outcome import (
    Denied,
    Done,
    Expired,
    Gone,
    Indefinite,
    NotSent,
    Outcome,
    Refused,
    Settled,
    Throttled,
)
from orchestrator.core.replace import replace


def evolve(row: Row, flight: Flight, settled: Settled, account: Account) -> Step:
    """Return the row after the call of `flight` came to `settled`."""
    outcome = settled.outcome
    status = replace(
        row.status,
        intent=None,
        intent_agent=None,
        last_request_id=outcome.request_id or row.status.last_request_id,
    )
    flight, row = _catch_up(row, flight), replace(row, status=status)
    if flight.verb is not Verb.START and isinstance(outcome, Done | Gone):
        row = _say(row, None, None)
    step = _dispatch(row, flight, settled, account)
    swept = close_idle(step.row, settled.answered_at)
    return Step(row=swept.row, ended=(*step.ended, *swept.ended))


def _catch_up(row: Row, flight: Flight) -> Flight:
    """Return the flight with what its ledger row has learnt meanwhile: a handle is never lost."""
    for agent in row.agents:
        if agent.id == flight.agent.id and flight.agent.vendor_task_id is None:
            known = replace(flight.agent, vendor_task_id=agent.vendor_task_id)
            return replace(flight, agent=known)
    return flight


def _dispatch(row: Row, flight: Flight, settled: Settled, account: Account) -> Step:
    match flight.verb:
        case Verb.START:
            return _started(row, flight, settled, account)
        case Verb.STOP:
            return _stopped(row, flight, settled, account)
        case Verb.FIND:
            return _found(row, flight.agent, settled, account)
        case Verb.KICK:
            return _kicked(row, flight.agent, settled, account)
        case Verb.POLL:
            return _polled(row, flight.agent, settled, account)
        case Verb.UPDATE:
            return _updated(row, flight.agent, settled, account)
        case _:
            assert_never(flight.verb)


# --- start ---


def _started(row: Row, flight: Flight, settled: Settled, account: Account) -> Step:
    outcome, at = settled.outcome, settled.answered_at
    before = replace(flight.agent, horizon_at=flight.horizon_before)
    match outcome:
        case Done():
            taken = horizon.latest(flight.horizon_before, horizon.after_reply(account, at))
            agent = replace(flight.agent, horizon_at=taken)
            return Step(row=adopt(row, agent, outcome.handle or agent.session_name, since=at))
        case Refused():
            # What an earlier send of this name did is as unknown as before.
            said = outcome.message or outcome.code
            return fail(row.replace_agent(before), outcome.code, said, at)
        case Throttled(capacity=True):
            row = _retry_start(row.replace_agent(before), settled, account)
            status = replace(row.status, waiting_for=WaitingFor.CAPACITY)
            return Step(row=_trouble(replace(row, status=status), settled))
        case Throttled():
            after = at + (outcome.after or account.retry_base)
            row = row.replace_agent(before)
            return Step(row=replace(row, status=replace(row.status, retry_at=after)))
        case NotSent() | Denied() | Expired():
            row = _retry_start(row.replace_agent(before), settled, account)
            return Step(row=_trouble(row, settled))
        case Indefinite():
            agent = replace(flight.agent, horizon_at=_unread(flight, outcome, account))
            row = _retry_start(row.replace_agent(agent), settled, account)
            return Step(row=_trouble(row, settled))
        case Gone():
            # No vendor says of a start that its target is absent: an answer we do not understand.
            return Step(row=_trouble(_retry_start(row, settled, account), settled))
        case _:
            assert_never(outcome)


def _unread(flight: Flight, outcome: Indefinite, account: Account) -> datetime | None:
    """Return the horizon of a send that prolonged it, and whose reply nobody read."""
    if outcome.reset_at is None:
        return flight.agent.horizon_at
    reset = horizon.after_reset(account, outcome.reset_at)
    announced = horizon.after_announce(account, flight.announced_at)
    return horizon.latest(flight.horizon_before, min(reset, announced))


def _retry_start(row: Row, settled: Settled, account: Account) -> Row:
    status = row.status
    wait = backoff.delay(account.retry_base, account.retry_cap, status.attempt, status.task_id)
    retry_at = settled.answered_at + wait
    return replace(row, status=replace(status, attempt=status.attempt + 1, retry_at=retry_at))


# --- stop, find, kick: the ways to an end ---


def _stopped(row: Row, flight: Flight, settled: Settled, account: Account) -> Step:
    outcome = settled.outcome
    agent = _after_stop(flight, outcome, account)
    past = agent.is_past_horizon(settled.asked_at)
    match outcome:
        case Done() if past or not account.caps.names_handle:
            return _end_handle(row, agent, Evidence.STOPPED, settled, account)
        case Gone() if past:
            return _end_handle(row, agent, Evidence.ABSENT, settled, account)
        case Done() | Gone():
            return Step(row=row.replace_agent(_hint(agent, settled)))
        case _:
            return Step(row=_retry_agent(row, agent, settled, account))


def _end_handle(
    row: Row, agent: Agent, evidence: Evidence, settled: Settled, account: Account
) -> Step:
    """Nothing of this handle runs. Whoever only heard of it must still look for the name."""
    at = settled.answered_at
    if not agent.is_hearsay or row.is_reported:
        return close_on_evidence(row, agent, evidence, at, account)
    row = row.replace_agent(replace(ask_anew(agent), spent_at=at))
    if row.wanted and row.wanted[-1].id == agent.id:
        return end_by_itself(row, agent, EndReason.VENDOR_GONE, at, account)
    return Step(row=row)


def _after_stop(flight: Flight, outcome: Outcome, account: Account) -> Agent:
    """Return the agent with its horizon: only a stop that nobody answered can still arrive."""
    if flight.agent.horizon_at == flight.horizon_before:
        return flight.agent
    if isinstance(outcome, Indefinite):
        return replace(flight.agent, horizon_at=_unread(flight, outcome, account))
    return replace(flight.agent, horizon_at=flight.horizon_before)


def _found(row: Row, agent: Agent, settled: Settled, account: Account) -> Step:
    match settled.outcome:
        case Done(handle=str() as handle) if handle:
            return Step(row=adopt(row, agent, handle, since=agent.announced_at))
        case Done() | Gone() if row.is_reported:
            # All that is wanted of it is whether it is there.
            return _polled(row, agent, settled, account)
        case Done():
            # It is there, and nobody tells its handle: it must be removed from the room, again.
            row = _retry_agent(
                row, replace(_hint(agent, settled), kicked_at=None), settled, account
            )
            return Step(row=row)
        case Gone() if agent.is_past_horizon(settled.asked_at):
            return close_on_evidence(row, agent, Evidence.ABSENT, settled.answered_at, account)
        case Gone():
            return Step(row=row.replace_agent(_hint(agent, settled)))
        case _:
            return Step(row=_retry_agent(row, agent, settled, account))


def _kicked(row: Row, agent: Agent, settled: Settled, account: Account) -> Step:
    match settled.outcome:
        case Done() | Gone():
            agent = replace(agent, kicked_at=settled.answered_at, retry_at=None)
            return Step(row=row.replace_agent(agent))
        case _:
            return Step(row=_retry_agent(row, agent, settled, account))


def _hint(agent: Agent, settled: Settled) -> Agent:
    """The answer proves nothing yet: it was asked before the horizon."""
    return replace(agent, hinted_at=settled.asked_at, retry_at=None, attempt=0)


def _retry_agent(row: Row, agent: Agent, settled: Settled, account: Account) -> Row:
    wait = backoff.delay(account.retry_base, account.retry_cap, agent.attempt, agent.id)
    agent = replace(agent, attempt=agent.attempt + 1, retry_at=settled.answered_at + wait)
    return _trouble(row.replace_agent(agent), settled)


# --- poll ---


def _polled(row: Row, agent: Agent, settled: Settled, account: Account) -> Step:
    status = replace(row.status, polled_at=settled.asked_at)
    seen = replace(row, status=status)
    match settled.outcome:
        case Done():
            return _seen(seen, agent, settled)
        case Gone() if not account.caps.poll_proves_absence:
            return _missed(seen, agent, settled, account)
        case Gone() if agent.is_past_horizon(settled.asked_at):
            return _end_handle(seen, agent, Evidence.ABSENT, settled, account)
        case Gone():
            return Step(row=seen.replace_agent(_hint(agent, settled)))
        case _:
            return Step(row=_retry_agent(row, agent, settled, account))


def _seen(row: Row, agent: Agent, settled: Settled) -> Step:
    """It is alive. So whatever it would have evicted, and cannot come any more, is gone."""
    at = settled.answered_at
    status = replace(
        row.status, confirmed_at=row.status.confirmed_at or at, reason=None, message=None
    )
    row = replace(row, status=status)
    found = replace(agent, seen_at=at, hinted_at=None, retry_at=None, attempt=0)
    row = row.replace_agent(found)
    ended: tuple[Agent, ...] = ()
    if agent.is_past_horizon(settled.asked_at):
        for earlier in row.wanted[:-1]:
            if not earlier.goes_by_handle and earlier.is_past_horizon(settled.asked_at):
                step = row.close(earlier, Evidence.EVICTED, at)
                row, ended = step.row, (*ended, *step.ended)
    return Step(row=row, ended=ended)


def _missed(row: Row, agent: Agent, settled: Settled, account: Account) -> Step:
    """The room does not show it. That means something only if the room showed it before.

    Even then it is no evidence: the incarnation is retired, so a stop is sent, and its answer is.
    To whom nobody may send one, a second look in vain, or one after its end was told, is the end.
    """
    at = settled.answered_at
    if row.is_reported and agent.hinted_at is not None:
        return close_on_evidence(row, agent, Evidence.ABSENT, at, account)
    if agent.seen_at is None:
        return Step(row=row)
    if row.is_reported:
        return Step(row=row.replace_agent(_hint(agent, settled)))
    return end_by_itself(row, agent, EndReason.VENDOR_GONE, at, account)


def _updated(row: Row, agent: Agent, settled: Settled, account: Account) -> Step:
    """It took the new spec, or it cannot: then another agent must."""
    at = settled.answered_at
    match settled.outcome:
        case Done():
            status = replace(row.status, update_due=False, reason=None, message=None)
            agent = replace(agent, retry_at=None, attempt=0)
            return Step(row=replace(row, status=status).replace_agent(agent))
        case Refused():
            return supersede(row, EndReason.SUPERSEDED, at, asked_at=at, start_by_holds=False)
        case Gone():
            return _polled(row, agent, settled, account)
        case _:
            return Step(row=_retry_agent(row, agent, settled, account))


def _trouble(row: Row, settled: Settled) -> Row:
    """Write down the present trouble, the vendor's code first."""
    outcome = settled.outcome
    return _say(row, outcome.code or type(outcome).__name__, outcome.message or None)


def _say(row: Row, reason: str | None, message: str | None) -> Row:
    """Write down how things are now. Why a start failed stays, whatever its end still meets."""
    status = row.status
    if status.retires and status.end_reason is EndReason.START_FAILED:
        return row
    return replace(row, status=replace(status, reason=reason, message=message))
