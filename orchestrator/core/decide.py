"""What to do next about one row: the ladder that everything else serves.

Rule 1: `decide` is total and pure. Deciding twice changes nothing.
Rule 2: what must end comes before what may begin, and no agent of a new incarnation starts before
every agent of the earlier ones is proven gone.
Rule 3: a row has one call in flight, so a decision is one call or a wait.
"""

from datetime import datetime, timedelta
from typing import Final, assert_never

from orchestrator.core import backoff
from orchestrator.core.action import Action, Call, Forget, Wait
from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.incarnation import tries
from orchestrator.core.model import (
    Account,
    Agent,
    Row,
    Verb,
    WaitingFor,
    WorkClass,
)

TOLD_POLLS: Final = 10
"""How many times more seldom an agent is polled of which callbacks tell."""


def decide(row: Row, account: Account, now: datetime) -> Action:
    """Return the next step for a row whose changes are absorbed and whose deadlines are applied."""
    action = _next(row, account, now)
    return _gate(action, account, now) if isinstance(action, Call) else action


def _next(row: Row, account: Account, now: datetime) -> Action:
    if row.unwanted:
        return _end(row.unwanted, account.caps, now)
    if row.is_reported:
        return _attend(row, account, now)
    if not row.status.retires:
        return _keep(row, account, now)
    if row.task is None:
        return Forget()
    return Wait()


def _gate(call: Call, account: Account, now: datetime) -> Action:
    """Hold back a call that the account does not allow at present. Only `frozen` holds stops."""
    if account.frozen:
        return Wait(waiting_for=WaitingFor.FROZEN, parked=call)
    if call.verb is not Verb.START:
        return call
    if account.paused:
        return Wait(waiting_for=WaitingFor.PAUSED, parked=call)
    if account.denied_until is not None and account.denied_until > now:
        return Wait(until=account.denied_until, waiting_for=WaitingFor.DENIED, parked=call)
    if account.circuit_open_until is not None and account.circuit_open_until > now:
        until = account.circuit_open_until
        return Wait(until=until, waiting_for=WaitingFor.CIRCUIT_OPEN, parked=call)
    if not account.has_room and (call.agent is None or call.agent.is_idle):
        return Wait(waiting_for=WaitingFor.CAPACITY, parked=call)
    return call


# --- what must end ---


def _end(agents: tuple[Agent, ...], caps: Caps, now: datetime) -> Call | Wait:
    """Bring one of several agents nearer to its end: the first that can be asked something now."""
    steps = [_end_one(agent, caps, now) for agent in agents]
    for step in steps:
        if isinstance(step, Call):
            return step
    waits = [step for step in steps if isinstance(step, Wait)]
    return min(waits, key=lambda wait: wait.until or now)


def _end_one(agent: Agent, caps: Caps, now: datetime) -> Call | Wait:
    if agent.retry_at is not None and agent.retry_at > now:
        return Wait(until=agent.retry_at, waiting_for=WaitingFor.RETRY)
    if agent.goes_by_handle or caps.names_handle:
        return _ask(agent, Verb.STOP, now)
    # The stop handle is unknown. Looking may find it; removing the agent's user id from the room
    # ends what looking cannot; and only a look after the horizon proves that nothing is left.
    if agent.hinted_at is not None and agent.kicked_at is None:
        return Call(verb=Verb.KICK, agent=agent, work_class=WorkClass.STOP)
    return _ask(agent, Verb.FIND, now)


def _ask(agent: Agent, verb: Verb, now: datetime) -> Call | Wait:
    """Ask at once, and, where the answer was only a hint, again at the horizon."""
    if agent.hinted_at is None or agent.is_past_horizon(now):
        return Call(verb=verb, agent=agent, work_class=WorkClass.STOP)
    return Wait(until=agent.horizon_at, waiting_for=WaitingFor.PROOF)


# --- what should run ---


def _keep(row: Row, account: Account, now: datetime) -> Call | Wait:
    agents, caps = tries(row), account.caps
    for earlier in agents[:-1]:
        # Two handles in one incarnation: which of the two the vendor evicted is unknown. Stop the
        # earlier; a poll of the later tells whether it is the one that is left.
        if earlier.goes_by_handle:
            return _end_one(earlier, caps, now)
    newest = agents[-1] if agents else None
    if newest is None or newest.is_idle:
        return _start(row, newest, caps, now)
    if newest.is_known and row.status.update_due:
        return _update(newest, now)
    if newest.is_known:
        return _watch(row, newest, account, now)
    return _settle(row, newest, caps, now)


def _start(row: Row, idle: Agent | None, caps: Caps, now: datetime) -> Call | Wait:
    """Start an agent where none of this incarnation can exist, or only ones it would evict."""
    status, start_at = row.status, row.task.start_at if row.task else None
    if start_at is not None and start_at > now:
        return Wait(until=start_at, waiting_for=WaitingFor.START_AT)
    if status.waiting_for is WaitingFor.CAPACITY and caps.recovery is Recovery.EVICT:
        # The slot that the vendor misses may be held by our own lost one: make it go first.
        for lost in row.wanted:
            if not lost.is_idle and lost.kicked_at is None:
                return Call(verb=Verb.KICK, agent=lost, work_class=WorkClass.STOP)
    if status.retry_at is not None and status.retry_at > now:
        return Wait(until=status.retry_at, waiting_for=_trouble(row))
    return Call(verb=Verb.START, agent=idle, work_class=WorkClass.START)


def _trouble(row: Row) -> WaitingFor:
    """Return what a delayed start waits for: room at the vendor, or just the next try."""
    at_capacity = row.status.waiting_for is WaitingFor.CAPACITY
    return WaitingFor.CAPACITY if at_capacity else WaitingFor.RETRY


def _settle(row: Row, agent: Agent, caps: Caps, now: datetime) -> Call | Wait:
    """Settle a start of which nobody knows whether it had an effect, and which is still wanted."""
    match caps.recovery:
        case Recovery.SAME_NAME:
            return _start(row, agent, caps, now)
        case Recovery.EVICT:
            return _start(row, None, caps, now)
        case Recovery.FIND:
            if agent.retry_at is not None and agent.retry_at > now:
                return Wait(until=agent.retry_at, waiting_for=WaitingFor.RETRY)
            return _ask(agent, Verb.FIND, now)
        case Recovery.STOP_FIRST:
            if not agent.is_past_horizon(now):
                return Wait(until=agent.horizon_at, waiting_for=WaitingFor.PROOF)
            return _end_one(agent, caps, now)
        case _:
            assert_never(caps.recovery)


def _attend(row: Row, account: Account, now: datetime) -> Action:
    """Watch an agent that is none of our tasks', as long as it lives.

    One of which only the name is known is looked for in its room.
    """
    if not row.agents:
        return Forget()
    known = [agent for agent in row.agents if agent.is_known]
    placed = [agent for agent in row.agents if agent.name and agent.room_id]
    watched = known or placed
    return _watch(row, watched[-1], account, now) if watched else Wait()


def _update(agent: Agent, now: datetime) -> Call | Wait:
    """Bring a running agent to a spec that asks for no other agent."""
    if agent.retry_at is not None and agent.retry_at > now:
        return Wait(until=agent.retry_at, waiting_for=WaitingFor.RETRY)
    return Call(verb=Verb.UPDATE, agent=agent, work_class=WorkClass.START)


def _watch(row: Row, agent: Agent, account: Account, now: datetime) -> Call | Wait:
    """Look after an agent that runs, and let it prove that those it evicted are gone."""
    due = _poll_due(row, agent, account)
    if agent.retry_at is not None and agent.retry_at > now:
        return Wait(until=max(agent.retry_at, due))
    if due > now:
        return Wait(until=due)
    verb = Verb.POLL if agent.is_known else Verb.FIND
    return Call(verb=verb, agent=agent, work_class=WorkClass.OBSERVE)


def _poll_period(row: Row, agent: Agent, account: Account) -> timedelta:
    """Return how often to look: seldom where the vendor tells by itself (it may forget to).

    What is in trouble is looked at as often as all others: nobody tells that it is well again.
    So is what the last look has missed.
    """
    is_missed = row.is_reported and agent.hinted_at is not None
    is_calm = agent.told_at is not None and row.status.reason is None and not is_missed
    return account.poll * TOLD_POLLS if is_calm else account.poll


def _poll_due(row: Row, agent: Agent, account: Account) -> datetime:
    since = row.status.polled_at or row.status.started_at or agent.announced_at
    due = since + backoff.spread(_poll_period(row, agent, account), agent.id)
    for earlier in row.wanted[:-1]:
        if earlier.horizon_at is not None and since < earlier.horizon_at:
            due = min(due, max(earlier.horizon_at, agent.horizon_at or earlier.horizon_at))
    hinted_at, horizon_at = agent.hinted_at, agent.horizon_at
    # A hint is asked about again at the horizon; one that came after the last look, at once.
    if hinted_at is not None and horizon_at is not None and since < max(hinted_at, horizon_at):
        due = min(due, max(horizon_at, since))
    return due
