"""Statements that find lanes with work: new commands, lanes whose time has come, parked lanes.

They read and lock nothing; what they find is a hint for the claim, which looks again under a lock.
A command is looked at once. From then on its lane has a time, or is parked until a slot is free.

Rule: a kind of lane never hides another. So each kind has its own limit, one lane's backlog counts
as one, and what cannot be called about now is left out here and not by the reader.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)

from orchestrator.core.command import OTHERS, Kind
from orchestrator.core.model import What
from orchestrator.store.columns import clock
from orchestrator.store.engine import Connection, none_of
from orchestrator.store.schema import agent_command, agent_status, lane, task_change

NEW_MAX = 1_000
"""New commands that one look walks past, and that one claim marks as seen of one lane."""

_NOW = select(clock()).scalar_subquery()
"""Asked once for each statement, so that it is a value that an index can be searched for."""
_LIMIT: BindParameter[int] = bindparam("most")
_LISTENING: Any = tuple(literal_column(f"'{kind}'") for kind in Kind if kind.listens)

_is_free = or_(lane.c.lease_until.is_(None), lane.c.lease_until <= _NOW)
"""No daemon owns the lane, or the one that did has been silent for too long."""

lane_user: ColumnElement[str] = case(
    (agent_command.c.kind.in_(_LISTENING), agent_command.c.user_id), else_=literal(OTHERS)
)
"""Whose lane a command is in: `Command.lane_user`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCandidate:
    """A lane that a pass may act on, and the command that it will most likely send."""

    task_id: str
    user_id: str
    account: str | None
    """Null: the task has no status (any more)."""
    kind: Kind | None
    """Null: the lane is due, whatever for."""
    is_there: bool
    """Whether the lane has a row."""
    is_taken_back: bool
    """Whether the application takes a command of it back."""

    @property
    def key(self) -> tuple[str, str]:
        """Return whose lane it is: task and user."""
        return self.task_id, self.user_id

    @property
    def listens(self) -> bool:
        """Whether it is a user's lane, and not the one for the other kinds."""
        return self.user_id != OTHERS


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneScope:
    """How many lanes a look may find, and of whom not."""

    most: int
    """Of each kind."""
    elsewhere: Collection[str] = ()
    """Accounts that only other live daemons have."""
    closed: Collection[tuple[str, Kind]] = ()
    """What no call can be made of now: parked lanes that wait for it are left out."""


_is_ours = or_(agent_status.c.account.is_(None), none_of(agent_status.c.account, "elsewhere"))
_with_status = agent_status.c.task_id == lane.c.task_id
_of_command = and_(lane.c.task_id == agent_command.c.task_id, lane.c.user_id == lane_user)

_newest = (
    select(
        agent_command.c.task_id,
        lane_user.label("user_id"),
        agent_command.c.kind,
        agent_command.c.position,
    )
    .where(agent_command.c.seen_at.is_(None))
    .order_by(agent_command.c.position)
    .limit(NEW_MAX)
    .subquery()
)
_new: Select[Any] = (
    select(
        _newest.c.task_id,
        _newest.c.user_id,
        agent_status.c.account,
        func.min(_newest.c.kind),
        lane.c.task_id.is_not(None),
        literal(value=False),
    )
    .select_from(
        _newest.outerjoin(
            lane, and_(lane.c.task_id == _newest.c.task_id, lane.c.user_id == _newest.c.user_id)
        ).outerjoin(agent_status, agent_status.c.task_id == _newest.c.task_id)
    )
    .where(_is_ours)
    .group_by(
        _newest.c.task_id, _newest.c.user_id, agent_status.c.account, lane.c.task_id.is_not(None)
    )
    .order_by(func.min(_newest.c.position))
    .limit(_LIMIT)
)
_of_lane = lane.outerjoin(agent_status, _with_status)
_parked: Select[Any] = (
    select(
        lane.c.task_id,
        lane.c.user_id,
        agent_status.c.account,
        lane.c.parked_kind,
        literal(value=True),
        literal(value=False),
    )
    .select_from(_of_lane)
    .where(
        lane.c.parked_kind.is_not(None),
        _is_free,
        _is_ours,
        or_(
            agent_status.c.account.is_(None),
            none_of(agent_status.c.account + "/" + lane.c.parked_kind, "closed"),
        ),
    )
    .order_by(lane.c.due_at)
    .limit(_LIMIT)
)
_due: Select[Any] = (
    select(
        lane.c.task_id,
        lane.c.user_id,
        agent_status.c.account,
        literal(None),
        literal(value=True),
        literal(value=False),
    )
    .select_from(_of_lane)
    .where(lane.c.due_at <= _NOW, lane.c.parked_kind.is_(None), _is_free, _is_ours)
    .order_by(lane.c.due_at)
    .limit(_LIMIT)
)
_taken_back: Select[Any] = (
    select(
        agent_command.c.task_id,
        lane_user,
        agent_status.c.account,
        literal(None),
        lane.c.task_id.is_not(None),
        literal(value=True),
    )
    .select_from(
        task_change.join(agent_command, agent_command.c.id == task_change.c.task_id)
        .outerjoin(lane, _of_command)
        .outerjoin(agent_status, agent_status.c.task_id == agent_command.c.task_id)
    )
    .where(task_change.c.what == What.CANCEL_COMMAND.value, _is_free, _is_ours)
    .limit(_LIMIT)
)
_PEEK = union_all(*(select(one.subquery()) for one in (_parked, _new, _due, _taken_back)))
_NEXT_DUE = select(
    clock(),
    select(func.min(lane.c.due_at))
    .where(lane.c.due_at > _NOW, lane.c.parked_kind.is_(None))
    .scalar_subquery(),
)


def peek(connection: Connection, scope: LaneScope) -> list[LaneCandidate]:
    """Return lanes that a claim may act on: those that wait for a slot first, then new commands."""
    values = {
        "most": scope.most,
        "elsewhere": list(scope.elsewhere),
        "closed": [f"{account}/{kind}" for account, kind in scope.closed],
    }
    found: dict[tuple[str, str], LaneCandidate] = {}
    for task_id, user_id, account, kind, *facts in connection.execute(_PEEK, values):
        is_there, is_taken_back = map(bool, facts)
        one = LaneCandidate(
            task_id=task_id,
            user_id=user_id,
            account=account,
            kind=Kind(kind) if kind is not None else None,
            is_there=is_there,
            is_taken_back=is_taken_back,
        )
        before = found.setdefault(one.key, one)
        if is_taken_back:
            found[one.key] = replace(before, is_taken_back=True)
    return list(found.values())


def until_next(connection: Connection) -> timedelta | None:
    """Return how long it is until time alone asks for a look at a lane; null: it does not."""
    now, due = connection.execute(_NEXT_DUE).one()
    return None if due is None else due - now
