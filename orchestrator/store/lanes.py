"""Statements about lanes and their commands: lock, read, write.

A lane is (task, user); the kinds that do not listen share the lane whose user is ''. The lane is
locked and leased, never the command. Locked are all lanes of a task at once: there are few.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    select,
    tuple_,
    update,
)

from orchestrator.core.command import Command, CommandState, Kind
from orchestrator.core.lane import Lane, Numbering
from orchestrator.core.model import What
from orchestrator.store.engine import Connection, dialect_of, lock_rows, one_of, upsert
from orchestrator.store.lane_queue import NEW_MAX, lane_user
from orchestrator.store.schema import agent_command, lane, task_change

COMMANDS_MAX = 64
"""Commands of one lane that one claim sees; those beyond wait their turn."""

_NOW = bindparam("now", type_=lane.c.due_at.type)
_LIVE: Any = tuple(
    literal_column(f"'{state}'") for state in (CommandState.QUEUED, CommandState.SENDING)
)
"""In words, not as parameters: only so does SQLite know that its partial index will do."""


# --- lock, then read ---

_LANE_FIELDS = tuple(f.name for f in fields(Lane))
_LANE = tuple(lane.c[name] for name in _LANE_FIELDS)
_NUMBERING_AT = _LANE_FIELDS.index("numbering")
_LOCK: Select[Any] = lock_rows(
    select(*_LANE, lane.c.due_at, lane.c.parked_kind, lane.c.lease_owner, lane.c.lease_until)
    .where(one_of(lane.c.task_id, "ids"))
    .order_by(lane.c.task_id, lane.c.user_id),
    of=lane,
)
_COMMAND_COLUMNS = (
    "id", "position", "task_id", "kind", "user_id", "sequence", "payload", "created_at",
    "expires_at", "state", "reason", "message", "request_id", "result", "sent_at", "done_at",
)  # fmt: skip
_rank = func.row_number().over(
    partition_by=(agent_command.c.task_id, lane_user),
    order_by=(
        # The one in flight comes first, whatever is inserted before it.
        case((agent_command.c.id == lane.c.command_id, 0), else_=1),
        func.coalesce(agent_command.c.sequence, 0),
        agent_command.c.position,
    ),
)
_ranked = (
    select(*(agent_command.c[name] for name in _COMMAND_COLUMNS), _rank.label("rank"))
    .select_from(
        agent_command.outerjoin(
            lane, and_(lane.c.task_id == agent_command.c.task_id, lane.c.user_id == lane_user)
        )
    )
    .where(one_of(agent_command.c.task_id, "ids"), agent_command.c.state.in_(_LIVE))
    .subquery()
)
_READ_COMMANDS = select(*(_ranked.c[name] for name in _COMMAND_COLUMNS)).where(
    _ranked.c.rank <= COMMANDS_MAX
)
_TAKEN_BACK = (
    select(task_change.c.seq, *(agent_command.c[name] for name in _COMMAND_COLUMNS))
    .select_from(task_change.join(agent_command, agent_command.c.id == task_change.c.task_id))
    .where(
        task_change.c.what == What.CANCEL_COMMAND.value,
        one_of(agent_command.c.task_id, "ids"),
        agent_command.c.state.in_(_LIVE),
    )
)
_IDLE_WORDS = (
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
_HAS_OTHERS = select(
    select(agent_command.c.id)
    .where(
        agent_command.c.task_id == bindparam("task_id"),
        agent_command.c.state.in_(_LIVE),
        lane_user == bindparam("user_id"),
        agent_command.c.id != bindparam("id"),
    )
    .exists()
)

_REMOVE = delete(lane).where(
    lane.c.task_id == bindparam("b_task_id"), lane.c.user_id == bindparam("b_user_id")
)
_idle: Select[Any] = lock_rows(
    select(lane.c.task_id, lane.c.user_id).where(
        one_of(lane.c.task_id, "ids"), lane.c.due_at.is_(None)
    ),
    of=lane,
)
_FORGET = delete(lane).where(tuple_(lane.c.task_id, lane.c.user_id).in_(_idle))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLane:
    """A row of `lane`: with what only the daemon's side of it knows."""

    lane: Lane
    due_at: datetime | None = None
    parked_kind: Kind | None = None
    """What it would send, had it a slot and a place; then `due_at` is since when it waits."""
    lease_owner: str | None = None
    lease_until: datetime | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Return whose lane it is: task and user."""
        return self.lane.task_id, self.lane.user_id

    def is_free(self, now: datetime) -> bool:
        """Return whether no daemon owns it."""
        return self.lease_until is None or self.lease_until <= now


def ensure(connection: Connection, keys: Iterable[tuple[str, str]]) -> None:
    """Make the rows of lanes that have none, if nobody was quicker."""
    rows = [{"task_id": task_id, "user_id": user_id} for task_id, user_id in sorted(keys)]
    if rows:
        connection.execute(upsert(lane, dialect_of(connection)).on_conflict_do_nothing(), rows)


def lock(connection: Connection, ids: Sequence[str]) -> list[HeldLane]:
    """Lock the lanes of these tasks, whoever owns them, that no transaction holds; return them."""
    return [_to_held(row) for row in connection.execute(_LOCK, {"ids": list(ids)})]


def _to_held(row: Sequence[Any]) -> HeldLane:
    values = list(row[: len(_LANE_FIELDS)])
    due_at, parked_kind, lease_owner, lease_until = row[len(_LANE_FIELDS) :]
    if values[_NUMBERING_AT] is not None:
        values[_NUMBERING_AT] = Numbering(values[_NUMBERING_AT])
    return HeldLane(
        lane=Lane(**dict(zip(_LANE_FIELDS, values, strict=True))),
        due_at=due_at,
        parked_kind=Kind(parked_kind) if parked_kind is not None else None,
        lease_owner=lease_owner,
        lease_until=lease_until,
    )


def read_commands(connection: Connection, ids: Sequence[str], ttl: timedelta) -> list[Command]:
    """Return the first queued and sending commands of each lane of these tasks.

    `ttl`: how long a command lives that does not say so itself.
    """
    rows = connection.execute(_READ_COMMANDS, {"ids": list(ids)})
    return [_to_command(row, ttl) for row in rows]


def read_taken_back(
    connection: Connection, ids: Sequence[str], ttl: timedelta
) -> list[tuple[int, Command]]:
    """Return the open commands of these tasks that the application takes back, and its words."""
    rows = connection.execute(_TAKEN_BACK, {"ids": list(ids)})
    return [(row[0], _to_command(row[1:], ttl)) for row in rows]


def _to_command(row: Sequence[Any], ttl: timedelta) -> Command:
    values = dict(zip(_COMMAND_COLUMNS, row, strict=True))
    values["kind"] = Kind(values["kind"])
    values["state"] = CommandState(values["state"])
    values["expires_at"] = values["expires_at"] or values["created_at"] + ttl
    return Command(**values)


def has_others(connection: Connection, one: Command) -> bool:
    """Return whether the lane of a command has others that are queued or sending."""
    key = {"task_id": one.task_id, "user_id": one.lane_user, "id": one.id}
    found: bool = connection.execute(_HAS_OTHERS, key).scalar_one()
    return found


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
        parked_kind=bindparam("b_parked_kind"),
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
_SEE_ALL = (
    update(agent_command)
    .where(
        agent_command.c.id.in_(
            select(agent_command.c.id)
            .where(
                agent_command.c.task_id == bindparam("b_task_id"),
                agent_command.c.state.in_(_LIVE),
                agent_command.c.seen_at.is_(None),
                lane_user == bindparam("b_user_id"),
            )
            .limit(NEW_MAX)
        )
    )
    .values(seen_at=bindparam("b_now", type_=agent_command.c.seen_at.type))
)
_turned: Select[Any] = lock_rows(
    select(lane.c.task_id, lane.c.user_id).where(
        one_of(lane.c.task_id, "ids"), lane.c.due_at.is_not(None)
    ),
    of=lane,
)
_TOUCH = (
    update(lane)
    .where(tuple_(lane.c.task_id, lane.c.user_id).in_(_turned), lane.c.lease_until.is_(None))
    .values(due_at=_NOW, parked_kind=None)
)


def write_lanes(connection: Connection, held: Iterable[HeldLane]) -> None:
    """Write lanes that this transaction has locked."""
    rows = [
        {
            **{f"b_{name}": getattr(one.lane, name) for name in _LANE_FIELDS},
            "b_due_at": one.due_at,
            "b_parked_kind": one.parked_kind,
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
    """Write down that these commands are known: their lane has a time, or is parked."""
    if ids:
        connection.execute(_SEE, {"ids": list(ids), "now": now})


def see_all(connection: Connection, keys: Iterable[tuple[str, str]], now: datetime) -> None:
    """Write the same of all that is new in these locked lanes, `NEW_MAX` commands of each."""
    rows = [{"b_task_id": task_id, "b_user_id": user_id, "b_now": now} for task_id, user_id in keys]
    if rows:
        connection.execute(_SEE_ALL, rows)


def take_words(connection: Connection, seqs: Sequence[int]) -> None:
    """Delete these words that took commands back, and some of those that speak of no open one."""
    gone = [*seqs, *connection.execute(_IDLE_WORDS).scalars()]
    if gone:
        connection.execute(
            delete(task_change).where(task_change.c.seq == bindparam("b_seq")),
            [{"b_seq": seq} for seq in gone],
        )


def touch(connection: Connection, ids: Sequence[str], now: datetime) -> None:
    """Let the lanes of these tasks that wait be looked at now: their agent's standing changed.

    One that somebody is working on is left out, and not waited for. It looks again by itself.
    """
    if ids:
        connection.execute(_TOUCH, {"ids": list(ids), "now": now})


def remove(connection: Connection, keys: Iterable[tuple[str, str]]) -> None:
    """Delete lanes that this transaction has locked, and that have no open command."""
    rows = [{"b_task_id": task_id, "b_user_id": user_id} for task_id, user_id in keys]
    if rows:
        connection.execute(_REMOVE, rows)


def forget(connection: Connection, ids: Sequence[str]) -> None:
    """Delete the idle lanes of tasks that are forgotten. The others go when they are claimed."""
    if ids:
        connection.execute(_FORGET, {"ids": list(ids)})
