"""Statements about lanes and their commands: find, lock, read, write.

A lane is (task, user); the kinds that do not listen share the lane whose user is ''. The lane is
locked and leased, never the command. Locked are all lanes of a task at once: there are few.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
    update,
)

from orchestrator.core.command import Command, CommandState, Kind
from orchestrator.core.lane import OTHERS, Lane, Numbering
from orchestrator.core.model import What
from orchestrator.store.engine import Connection, dialect_of, lock_rows, one_of, upsert
from orchestrator.store.schema import agent_command, agent_status, lane, task_change

COMMANDS_MAX = 64
"""Commands of one lane that one claim sees; those beyond wait their turn."""

_NOW = bindparam("now", type_=lane.c.due_at.type)
_LIMIT: BindParameter[int] = bindparam("most")
_LISTENING = (Kind.START_LISTENING.value, Kind.STOP_LISTENING.value)
_LIVE: Any = tuple(
    literal_column(f"'{state}'") for state in (CommandState.QUEUED, CommandState.SENDING)
)
"""In words, not as parameters: only so does SQLite know that its partial index will do."""

_is_free = or_(lane.c.lease_until.is_(None), lane.c.lease_until <= _NOW)
_lane_user: ColumnElement[str] = case(
    (agent_command.c.kind.in_(_LISTENING), agent_command.c.user_id), else_=literal(OTHERS)
)
"""Whose lane a command is in."""


# --- what may need work ---


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCandidate:
    """A lane that a pass may act on, and the command that it will most likely send."""

    task_id: str
    user_id: str
    account: str | None
    """Null: the task has no status (any more)."""
    kind: Kind | None
    """Null: the lane is due, whatever for."""


_with_lane = and_(lane.c.task_id == agent_command.c.task_id, lane.c.user_id == _lane_user)
_columns = (agent_command.c.task_id, _lane_user, agent_status.c.account, agent_command.c.kind)


def _unblocked(listens: ColumnElement[bool]) -> ColumnElement[bool]:
    """Leave out the lanes of others' accounts, and those whose calls have no slot at present."""
    waits = or_(
        and_(listens, one_of(agent_status.c.account, "no_listening")),
        and_(~listens, one_of(agent_status.c.account, "no_others")),
    )
    is_ours = one_of(agent_status.c.account, "known")
    return or_(agent_status.c.account.is_(None), and_(is_ours, ~waits))


_joined = agent_command.outerjoin(lane, _with_lane).outerjoin(
    agent_status, agent_status.c.task_id == agent_command.c.task_id
)
_unseen: Select[Any] = (
    select(*_columns)
    .select_from(_joined)
    .where(
        agent_command.c.seen_at.is_(None),
        _is_free,
        _unblocked(agent_command.c.kind.in_(_LISTENING)),
    )
    .order_by(agent_command.c.position)
    .limit(_LIMIT)
)
_cancelled: Select[Any] = (
    select(*_columns)
    .select_from(
        task_change.join(agent_command, agent_command.c.id == task_change.c.task_id)
        .outerjoin(lane, _with_lane)
        .outerjoin(agent_status, agent_status.c.task_id == agent_command.c.task_id)
    )
    .where(task_change.c.what == What.CANCEL_COMMAND.value, _is_free)
    .limit(_LIMIT)
)
_due: Select[Any] = (
    select(lane.c.task_id, lane.c.user_id, agent_status.c.account, literal(None))
    .select_from(lane.outerjoin(agent_status, agent_status.c.task_id == lane.c.task_id))
    .where(lane.c.due_at <= _NOW, _is_free, _unblocked(lane.c.user_id != OTHERS))
    .order_by(lane.c.due_at)
    .limit(_LIMIT)
)
_PEEK = union_all(*(select(one.subquery()) for one in (_unseen, _due, _cancelled)))
_NEXT_DUE = select(func.min(lane.c.due_at)).where(lane.c.due_at.is_not(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """The daemon's accounts, and those of them whose commands have no slot at present."""

    known: Sequence[str]
    listening: Sequence[str] = ()
    others: Sequence[str] = ()


def peek(connection: Connection, now: datetime, most: int, blocked: Blocked) -> list[LaneCandidate]:
    """Return lanes with new commands, or whose time has come, at most `most` of each kind."""
    values = {
        "now": now,
        "most": most,
        "known": list(blocked.known),
        "no_listening": list(blocked.listening),
        "no_others": list(blocked.others),
    }
    found: dict[tuple[str, str], LaneCandidate] = {}
    for task_id, user_id, account, kind in connection.execute(_PEEK, values):
        found.setdefault(
            (task_id, user_id),
            LaneCandidate(
                task_id=task_id,
                user_id=user_id,
                account=account,
                kind=Kind(kind) if kind is not None else None,
            ),
        )
    return list(found.values())


def next_due(connection: Connection) -> datetime | None:
    """Return when time alone will next ask for a look at any lane."""
    due: datetime | None = connection.execute(_NEXT_DUE).scalar()
    return due


# --- lock, then read ---

_LANE_FIELDS = tuple(f.name for f in fields(Lane))
_LANE = tuple(lane.c[name] for name in _LANE_FIELDS)
_NUMBERING_AT = _LANE_FIELDS.index("numbering")
_LOCK: Select[Any] = lock_rows(
    select(*_LANE, lane.c.lease_owner)
    .where(one_of(lane.c.task_id, "ids"), _is_free)
    .order_by(lane.c.task_id, lane.c.user_id),
    of=lane,
)
_LOCK_HELD: Select[Any] = lock_rows(
    select(*_LANE, lane.c.lease_owner)
    .where(one_of(lane.c.task_id, "ids"))
    .order_by(lane.c.task_id, lane.c.user_id),
    of=lane,
)
_COMMAND_COLUMNS = (
    "id", "position", "task_id", "kind", "user_id", "sequence", "payload", "created_at",
    "expires_at", "state", "reason", "message", "request_id", "result", "sent_at", "done_at",
)  # fmt: skip
_rank = func.row_number().over(
    partition_by=(agent_command.c.task_id, _lane_user),
    order_by=(
        agent_command.c.state.desc(),  # what is being sent comes first
        func.coalesce(agent_command.c.sequence, 0),
        agent_command.c.position,
    ),
)
_ranked = (
    select(*(agent_command.c[name] for name in _COMMAND_COLUMNS), _rank.label("rank"))
    .where(one_of(agent_command.c.task_id, "ids"), agent_command.c.state.in_(_LIVE))
    .subquery()
)
_READ_COMMANDS = select(*(_ranked.c[name] for name in _COMMAND_COLUMNS)).where(
    _ranked.c.rank <= COMMANDS_MAX
)
_CANCELS = select(task_change.c.seq, task_change.c.task_id).where(
    task_change.c.what == What.CANCEL_COMMAND.value, one_of(task_change.c.task_id, "ids")
)
_IDLE_CANCELS = (
    select(task_change.c.seq)
    .select_from(
        task_change.outerjoin(
            agent_command,
            and_(agent_command.c.id == task_change.c.task_id, agent_command.c.state.in_(_LIVE)),
        )
    )
    .where(task_change.c.what == What.CANCEL_COMMAND.value, agent_command.c.id.is_(None))
    .limit(COMMANDS_MAX)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedLane:
    """A lane that this transaction has locked, and who owns it."""

    lane: Lane
    lease_owner: str | None


def ensure(connection: Connection, keys: Iterable[tuple[str, str]]) -> None:
    """Make the rows of lanes that have none, if nobody was quicker."""
    rows = [{"task_id": task_id, "user_id": user_id} for task_id, user_id in sorted(keys)]
    if rows:
        connection.execute(upsert(lane, dialect_of(connection)).on_conflict_do_nothing(), rows)


def lock_free(connection: Connection, ids: Sequence[str], now: datetime) -> list[LockedLane]:
    """Lock the lanes of these tasks that nobody owns or holds, and return them."""
    rows = connection.execute(_LOCK, {"ids": list(ids), "now": now})
    return [_to_locked(row) for row in rows]


def lock_held(connection: Connection, ids: Sequence[str]) -> list[LockedLane]:
    """Lock the lanes of these tasks, whoever owns them, that nobody holds; return them."""
    return [_to_locked(row) for row in connection.execute(_LOCK_HELD, {"ids": list(ids)})]


def _to_locked(row: Sequence[Any]) -> LockedLane:
    values = list(row[:-1])
    if values[_NUMBERING_AT] is not None:
        values[_NUMBERING_AT] = Numbering(values[_NUMBERING_AT])
    return LockedLane(
        lane=Lane(**dict(zip(_LANE_FIELDS, values, strict=True))), lease_owner=row[-1]
    )


def read_commands(connection: Connection, ids: Sequence[str], ttl: Any) -> list[Command]:
    """Return the first queued and sending commands of each lane of these tasks.

    `ttl`: how long a command lives that does not say so itself.
    """
    commands = []
    for row in connection.execute(_READ_COMMANDS, {"ids": list(ids)}):
        values = dict(zip(_COMMAND_COLUMNS, row, strict=True))
        values["kind"] = Kind(values["kind"])
        values["state"] = CommandState(values["state"])
        values["expires_at"] = values["expires_at"] or values["created_at"] + ttl
        commands.append(Command(**values))
    return commands


def take_cancels(connection: Connection, ids: Sequence[str]) -> frozenset[str]:
    """Return which of these commands the application takes back, and delete its words.

    Words about commands that are settled, or never were, are deleted as well.
    """
    found = connection.execute(_CANCELS, {"ids": list(ids)}).all() if ids else []
    idle = connection.execute(_IDLE_CANCELS).scalars().all()
    gone = [*(seq for seq, _ in found), *idle]
    if gone:
        connection.execute(
            delete(task_change).where(task_change.c.seq == bindparam("b_seq")),
            [{"b_seq": seq} for seq in gone],
        )
    return frozenset(id_ for _, id_ in found)


# --- write ---

_OWN: dict[str, BindParameter[Any]] = {
    name: bindparam(f"b_{name}") for name in _LANE_FIELDS if name not in {"task_id", "user_id"}
}
_WRITE_LANE = (
    update(lane)
    .where(lane.c.task_id == bindparam("b_task_id"), lane.c.user_id == bindparam("b_user_id"))
    .values(
        **_OWN,
        due_at=bindparam("b_due_at"),
        lease_owner=bindparam("b_lease_owner"),
        lease_until=bindparam("b_lease_until"),
    )
)
_COMMAND_CHANGES = (
    "sequence", "expires_at", "state", "reason", "message", "request_id", "result", "sent_at",
    "done_at",
)  # fmt: skip
_WRITE_COMMAND = (
    update(agent_command)
    .where(agent_command.c.id == bindparam("b_id"))
    .values(
        **{name: bindparam(f"b_{name}") for name in _COMMAND_CHANGES},
        seen_at=func.coalesce(agent_command.c.seen_at, bindparam("b_seen_at")),
    )
)
_SEE = (
    update(agent_command)
    .where(one_of(agent_command.c.id, "ids"), agent_command.c.seen_at.is_(None))
    .values(seen_at=_NOW)
)
_TOUCH = (
    update(lane)
    .where(one_of(lane.c.task_id, "ids"), lane.c.due_at.is_not(None))
    .values(due_at=_NOW)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLane:
    """A lane to be written, with what only the daemon's side of it knows."""

    lane: Lane
    due_at: datetime | None
    lease_owner: str | None = None
    lease_until: datetime | None = None


def write_lanes(connection: Connection, held: Iterable[HeldLane]) -> None:
    """Write lanes that this transaction has locked."""
    rows = [
        {
            **{f"b_{name}": getattr(one.lane, name) for name in _LANE_FIELDS},
            "b_due_at": one.due_at,
            "b_lease_owner": one.lease_owner,
            "b_lease_until": one.lease_until,
        }
        for one in held
    ]
    if rows:
        connection.execute(_WRITE_LANE, rows)


def write_commands(connection: Connection, commands: Iterable[Command], now: datetime) -> None:
    """Write what the daemon may change of commands whose lanes are locked."""
    rows = [
        {
            "b_id": one.id,
            "b_seen_at": now,
            **{f"b_{name}": getattr(one, name) for name in _COMMAND_CHANGES},
        }
        for one in commands
    ]
    if rows:
        connection.execute(_WRITE_COMMAND, rows)


def see(connection: Connection, ids: Sequence[str], now: datetime) -> None:
    """Write down that these commands were looked at, though nothing came of it yet."""
    if ids:
        connection.execute(_SEE, {"ids": list(ids), "now": now})


def touch(connection: Connection, ids: Sequence[str], now: datetime) -> None:
    """Let the lanes of these tasks that wait be looked at now: their agent's standing changed."""
    if ids:
        connection.execute(_TOUCH, {"ids": list(ids), "now": now})
