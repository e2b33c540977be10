"""Statements that find work: rows with changes, rows whose time has come, rows that wait in queues.

They read and lock nothing; what they find is a hint for the claim, which looks again under a lock.
The cost is the number of rows found (and of those whose account is left out), never the number of
rows.

Rule: a kind of row never hides another, nor an account that nobody can work on one that somebody
can. So each kind has its own limit, and accounts are left out here and not by the reader.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
    union_all,
)

from orchestrator.core.model import Phase, Verb, What, WorkClass
from orchestrator.store.engine import none_of
from orchestrator.store.schema import account_control, agent_status, task_change
from orchestrator.store.status_id import is_task_column

_NOW = bindparam("now", type_=agent_status.c.due_at.type)
_LIMIT: BindParameter[int] = bindparam("most")
_POLL_LIMIT: BindParameter[int] = bindparam("most_polls")

LEASE_MAX = timedelta(minutes=5)
"""`leases.ttl_s` is no longer. What ends later was written by a clock that was set back since."""
_LEASE_LAST = bindparam("lease_last", type_=agent_status.c.due_at.type)

is_free = or_(
    agent_status.c.lease_until.is_(None),
    agent_status.c.lease_until <= _NOW,
    agent_status.c.lease_until > _LEASE_LAST,
)
"""No daemon owns the row, or the one that did has been silent for too long. See `free_at`."""


def free_at(now: datetime) -> dict[str, datetime]:
    """Return the values of `is_free`."""
    return {"now": now, "lease_last": now + LEASE_MAX}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row that a pass may act on, and a guess at the call that it will want."""

    task_id: str
    account: str | None
    """Null: its status was forgotten and has to be made again."""
    verb: Verb


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much a look may find, and of whom."""

    most: int
    """Rows of each kind."""
    most_polls: int
    """Rows that are due to be polled."""
    without: Mapping[WorkClass, Collection[str]]
    """Accounts whose rows are left out if they most likely want a call of this class."""


_RANK_STOP, _RANK_OPEN, _RANK_CHANGE, _RANK_DUE, _RANK_POLL = range(5)
# Literals, not parameters: so both planners see that the indexes on `due_at` serve.
_IS_RUNNING = agent_status.c.phase == literal_column("'running'")
_IS_NOT_RUNNING = agent_status.c.phase != literal_column("'running'")
_IS_STARTING = agent_status.c.phase == literal_column("'starting'")
_IS_ENDING = agent_status.c.phase.in_([Phase.STOPPING.value, Phase.QUARANTINED.value])

_may_stop = none_of(agent_status.c.account, "without_stop")
_may_start = none_of(agent_status.c.account, "without_start")
_may_observe = none_of(agent_status.c.account, "without_observe")


def _guess() -> Any:
    """Return the call that a row most likely wants: its slot is drawn beforehand."""
    return case(
        (_IS_ENDING, literal(Verb.FIND.value)),
        # What changes while it runs is stopped, or left as it is.
        (_IS_RUNNING, literal(Verb.STOP.value)),
        else_=literal(Verb.START.value),
    )


_ABOUT_TASKS = task_change.c.what != What.CANCEL_COMMAND.value
"""The word that takes a command back stands under the command's id: lanes look for it."""


_IS_LOOKED_AFTER = or_(is_task_column(task_change.c.task_id), agent_status.c.account.is_not(None))
"""An orphan has no status before somebody has taken it up (see `daemon.orphans`)."""


def _peek_changes(rank: int, guess: Any, *where: ColumnElement[bool]) -> Select[Any]:
    joined = task_change.outerjoin(agent_status, agent_status.c.task_id == task_change.c.task_id)
    chosen = (
        select(literal(rank), task_change.c.task_id, agent_status.c.account, guess)
        .select_from(joined)
        .where(is_free, _IS_LOOKED_AFTER, _ABOUT_TASKS, *where)
        .order_by(task_change.c.seq)
        .limit(_LIMIT)
    )
    return select(chosen.subquery())


def _peek_due(
    rank: Any, guess: Any, column: Any, limit: BindParameter[int], *where: ColumnElement[bool]
) -> Select[Any]:
    chosen = (
        select(rank, agent_status.c.task_id, agent_status.c.account, guess)
        .where(column <= _NOW, *where)
        .order_by(column)
        .limit(limit)
    )
    return select(chosen.subquery())


_is_live = or_(_IS_RUNNING, _IS_ENDING)
_is_forgotten = agent_status.c.account.is_(None)
_PEEK = union_all(
    _peek_changes(
        _RANK_STOP,
        literal(Verb.STOP.value),
        task_change.c.urgent,
        or_(_is_forgotten, _may_stop),
    ),
    _peek_due(
        literal(_RANK_STOP),
        literal(Verb.STOP.value),
        agent_status.c.stop_due_at,
        _LIMIT,
        _may_stop,
    ),
    _peek_changes(
        _RANK_CHANGE,
        _guess(),
        or_(_is_forgotten, and_(_is_live, _may_stop), and_(not_(_is_live), _may_start)),
    ),
    _peek_due(
        # Of a start nobody knows what became of it: its daemon died, or its reply was lost.
        case((_IS_STARTING, literal(_RANK_OPEN)), else_=literal(_RANK_DUE)),
        _guess(),
        agent_status.c.due_at,
        _LIMIT,
        _IS_NOT_RUNNING,
        _may_start,
    ),
    _peek_due(
        literal(_RANK_POLL),
        literal(Verb.POLL.value),
        agent_status.c.due_at,
        _POLL_LIMIT,
        _IS_RUNNING,
        _may_observe,
    ),
)


def peek(connection: Connection, now: datetime, scope: Scope) -> list[Candidate]:
    """Return rows with changes or due times that have come: stops first, polls last.

    What is open goes before what is new: a start of which nobody knows may bill already.
    """
    found: dict[str, Candidate] = {}
    values = {
        **free_at(now),
        "most": scope.most,
        "most_polls": scope.most_polls,
        "without_stop": list(scope.without.get(WorkClass.STOP, ())),
        "without_start": list(scope.without.get(WorkClass.START, ())),
        "without_observe": list(scope.without.get(WorkClass.OBSERVE, ())),
    }
    rows = connection.execute(_PEEK, values).all()
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
        **free_at(now),
        "most": most,
    }
    return list(connection.execute(_PARKED, values).scalars())


_KINDS = (
    (WorkClass.STOP, Verb.STOP),
    (WorkClass.STOP, Verb.FIND),
    (WorkClass.STOP, Verb.KICK),
    (WorkClass.START, Verb.START),
    (WorkClass.START, Verb.UPDATE),
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


def _next(column: Any, *where: ColumnElement[bool]) -> ScalarSelect[Any]:
    return select(func.min(column)).where(column > _NOW, *where).scalar_subquery()


_NEXT_DUE = select(
    _next(agent_status.c.due_at, _IS_NOT_RUNNING),
    _next(agent_status.c.due_at, _IS_RUNNING),
    _next(agent_status.c.stop_due_at),
)


def find_queues(connection: Connection) -> set[Queue]:
    """Return the queues of configured accounts in which anything waits."""
    return {Queue(a, WorkClass(c), Verb(v)) for a, c, v in connection.execute(_QUEUES)}


def next_due(connection: Connection, now: datetime) -> datetime | None:
    """Return when, after `now`, time alone will first ask for a look at any row."""
    times = connection.execute(_NEXT_DUE, {"now": now}).one()
    return min((t for t in times if t is not None), default=None)
