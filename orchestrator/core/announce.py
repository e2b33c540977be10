"""What is written before a call leaves: intent before effect.

After an announce the row says what may be happening at the vendor, as pessimistically as it can
be: the ledger has the name, and the horizon as late as this send can make it. Whoever reads the
row after a crash knows all there is to know.
"""

from dataclasses import dataclass
from datetime import datetime

from orchestrator.core import horizon, names
from orchestrator.core.action import Call, Flight
from orchestrator.core.model import Account, Agent, Row, Status, Task, Verb
from orchestrator.core.replace import replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a new ledger row needs and purity forbids us to fetch."""

    name: str
    """Drawn for this row alone (see `names`)."""
    site: str
    agent_user_id: str | None = None
    """The agent's user id, if the spec gives one."""


def new_agent(row: Row, task: Task, draw: Draw, now: datetime) -> Agent:
    """Return the ledger row of the next try of the present incarnation.

    The agent's user id stays over the tries of an incarnation, because two vendors evict an
    earlier agent under the same id; session and stream names are new each time.
    """
    earlier = row.wanted[-1] if row.wanted else None
    try_ = earlier.try_ + 1 if earlier else 1
    kept = earlier.name if earlier else None
    return Agent(
        id=draw.name,
        incarnation=row.status.incarnation,
        try_=try_,
        account=task.account,
        site=draw.site,
        room_id=task.room_id,
        user_id=task.user_id,
        name=draw.agent_user_id or kept or draw.name,
        session_name=draw.name,
        stream_id=names.stream_id(draw.name, try_),
        announced_at=now,
    )


def announce(
    row: Row, call: Call, agent: Agent, account: Account, now: datetime
) -> tuple[Row, Flight]:
    """Return the row with the call in flight, and the flight.

    `agent` is the call's, or the new one of a start. The caller adds the lease.
    """
    before = agent.horizon_at
    announced = agent
    if call.verb is Verb.START:
        announced = replace(
            agent,
            announced_at=now,
            horizon_at=horizon.latest(before, horizon.after_announce(account, now)),
            spec_generation=row.status.generation,
        )
    elif call.verb is Verb.UPDATE:
        announced = replace(agent, spec_generation=row.status.generation)
    elif call.verb is Verb.STOP and account.caps.one_per_user:
        # A stop by room and user that arrives late would hit the next agent of the pair.
        late = horizon.after_announce(account, now)
        announced = replace(agent, horizon_at=horizon.latest(before, late))
    status = row.status
    status = replace(
        status,
        intent=call.verb,
        intent_agent=announced.id,
        intent_at=now,
        intent_tries=failures(status, call) + 1,
        waiting_for=None,
        parked_class=None,
        parked_verb=None,
        version=status.version + 1,
        account=announced.account,
        room_id=announced.room_id,
        user_id=announced.user_id,
        agent_user_id=announced.name,
        end_reason=None if call.verb is Verb.START else status.end_reason,
    )
    flight = Flight(
        task_id=status.task_id,
        verb=call.verb,
        agent=announced,
        horizon_before=before,
        announced_at=now,
        version=status.version,
        work_class=call.work_class,
    )
    return replace(row, status=status).replace_agent(announced), flight


def failures(status: Status, call: Call) -> int:
    """Return how often in a row this call has failed, as its task or its agent counts it."""
    if call.verb is Verb.START or call.agent is None:
        return status.attempt
    return call.agent.attempt


def abandon(row: Row) -> Row:
    """Return the row after its call's daemon was lost: the outcome is unknown, and stays so.

    The ledger already holds the worst case, so there is nothing to add but that nobody answers.
    """
    if row.status.intent is None:
        return row
    return replace(row, status=replace(row.status, intent=None, intent_agent=None))
