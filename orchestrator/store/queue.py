"""Statements that find work: rows with changes, rows whose time has come, rows that wait in queues.

They read and lock nothing; what they find is a hint for the claim, which looks again under a lock.
The cost is the number of rows found, never the number of rows.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)

from orchestrator.core.model import Phase, Verb, WorkClass
from orchestrator.store.schema import account_control, agent_status, task_change

_NOW = bindparam("now", type_=agent_status.c.due_at.type)
_LIMIT: BindParameter[int] = bindparam("most")

is_free = or_(agent_status.c.lease_until.is_(None), agent_status.c.lease_until <= _NOW)
"""No daemon owns the row, or the one that did has been silent for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row that a pass may act on, and a guess at the call that it will want."""

    task_id: str
    account: str | None
    """Null: its status was forgotten and has to be made again."""
    verb: Verb


_RANK_STOP, _RANK_CHANGE, _RANK_DUE = 0, 1, 2


def _guess(rank: int) -> Any:
    """Return the call that a row of this rank most likely wants: its slot is drawn beforehand."""
    if rank == _RANK_STOP:
        return literal(Verb.STOP.value)
    return case(
        (agent_status.c.phase == Phase.RUNNING.value, literal(Verb.POLL.value)),
        (
            agent_status.c.phase.in_([Phase.STOPPING.value, Phase.QUARANTINED.value]),
            literal(Verb.FIND.value),
        ),
        else_=literal(Verb.START.value),
    )


def _peek_changes(rank: int, *, urgent: bool) -> Select[Any]:
    joined = task_change.outerjoin(agent_status, agent_status.c.task_id == task_change.c.task_id)
    chosen = (
        select(literal(rank), task_change.c.task_id, agent_status.c.account, _guess(rank))
        .select_from(joined)
        .where(is_free, task_change.c.task_id.not_like("~%"))
        .order_by(task_change.c.seq)
        .limit(_LIMIT)
    )
    if urgent:
        chosen = chosen.where(task_change.c.urgent)
    return select(chosen.subquery())


def _peek_due(rank: int, column: Any) -> Select[Any]:
    chosen = (
        select(literal(rank), agent_status.c.task_id, agent_status.c.account, _guess(rank))
        .where(column <= _NOW)
        .order_by(column)
        .limit(_LIMIT)
    )
    return select(chosen.subquery())


_PEEK = union_all(
    _peek_changes(_RANK_STOP, urgent=True),
    _peek_due(_RANK_STOP, agent_status.c.stop_due_at),
    _peek_changes(_RANK_CHANGE, urgent=False),
    _peek_due(_RANK_DUE, agent_status.c.due_at),
)


def peek(connection: Connection, now: datetime, most: int) -> list[Candidate]:
    """Return rows with changes or due times that have come, stops first, at most `most` a kind."""
    found: dict[str, Candidate] = {}
    rows = connection.execute(_PEEK, {"now": now, "most": most}).all()
    for _, task_id, account, verb in sorted(rows, key=lambda row: row[0]):
        if task_id not in found:
            found[task_id] = Candidate(task_id=task_id, account=account, verb=Verb(verb))
    return list(found.values())


_PARKED = (
    select(agent_status.c.task_id)
    .where(
        agent_status.c.account == bindparam("account"),
        agent_status.c.parked_class == bindparam("work_class"),
        agent_status.c.parked_verb == bindparam("verb"),
        is_free,
    )
    .order_by(agent_status.c.priority.desc(), agent_status.c.parked_at)
    .limit(_LIMIT)
)


@dataclass(frozen=True, slots=True)
class Queue:
    """Where rows of one account wait for one kind of call."""

    account: str
    work_class: WorkClass
    verb: Verb


def peek_parked(connection: Connection, queue: Queue, now: datetime, most: int) -> list[str]:
    """Return the first tasks of a queue: highest priority, then longest parked."""
    values = {
        "account": queue.account,
        "work_class": queue.work_class.value,
        "verb": queue.verb.value,
        "now": now,
        "most": most,
    }
    return list(connection.execute(_PARKED, values).scalars())


_KINDS = (
    (WorkClass.STOP, Verb.STOP),
    (WorkClass.STOP, Verb.FIND),
    (WorkClass.STOP, Verb.KICK),
    (WorkClass.START, Verb.START),
    (WorkClass.OBSERVE, Verb.POLL),
)
_kinds = union_all(
    *(
        select(literal(c.value).label("work_class"), literal(v.value).label("verb"))
        for c, v in _KINDS
    )
).subquery()
_QUEUES = (
    select(account_control.c.account, _kinds.c.work_class, _kinds.c.verb)
    .select_from(account_control.join(_kinds, true()))
    .where(
        select(agent_status.c.task_id)
        .where(
            agent_status.c.account == account_control.c.account,
            agent_status.c.parked_class == _kinds.c.work_class,
            agent_status.c.parked_verb == _kinds.c.verb,
        )
        .exists()
    )
)
_NEXT_DUE = select(
    select(func.min(agent_status.c.due_at))
    .where(agent_status.c.due_at.is_not(None))
    .scalar_subquery(),
    select(func.min(agent_status.c.stop_due_at))
    .where(agent_status.c.stop_due_at.is_not(None))
    .scalar_subquery(),
)


def find_queues(connection: Connection) -> set[Queue]:
    """Return the queues of configured accounts in which anything waits."""
    return {Queue(a, WorkClass(c), Verb(v)) for a, c, v in connection.execute(_QUEUES)}


def next_due(connection: Connection) -> datetime | None:
    """Return when time alone will next ask for a look at any row."""
    times = connection.execute(_NEXT_DUE).one()
    return min((t for t in times if t is not None), default=None)
