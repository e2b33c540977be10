"""Statements about tasks and their statuses: lock, read, write.

Rule 1: every function takes a connection inside a transaction that its caller owns.
Rule 2: the daemon never locks a row that an application writes, and waits for no row lock.
Rule 3: lock first, read after. One statement locks the status rows, later ones read what belongs
to them: a joined statement could pair a new status with an old task, and lose a stop.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    bindparam,
    case,
    delete,
    insert,
    select,
    update,
)

from orchestrator.core.model import Change, Status, Verb, What
from orchestrator.store import ledger
from orchestrator.store.codec import (
    STATUS_COLUMNS,
    TASK_COLUMNS,
    from_status,
    to_change,
)
from orchestrator.store.engine import dialect_of, lock_rows, one_of, upsert
from orchestrator.store.queue import free_at, is_free
from orchestrator.store.schema import (
    agent_event,
    agent_status,
    agent_task,
    llm_task,
    task_change,
    task_owner,
)

_STATUS = tuple(agent_status.c[name] for name in STATUS_COLUMNS)
_TASK = tuple(agent_task.c[name] for name in TASK_COLUMNS)

_IDS, _WITH_SPEC, _SEQS = "ids", "with_spec", "seqs"

# --- lock, then read ---

_LOCK = lock_rows(
    select(*_STATUS)
    .where(one_of(agent_status.c.task_id, _IDS), is_free)
    .order_by(agent_status.c.task_id),
    of=agent_status,
)
_READ = select(*_STATUS).where(one_of(agent_status.c.task_id, _IDS))
_READ_TASKS = (
    select(
        *_TASK,
        task_owner.c.heartbeat_timeout_s,
        task_owner.c.heartbeat_at,
        llm_task.c.upstream,
        llm_task.c.talked_at,
        case((one_of(agent_task.c.id, _WITH_SPEC), agent_task.c.spec)),
    )
    .select_from(
        agent_task.outerjoin(task_owner, task_owner.c.name == agent_task.c.owner).outerjoin(
            llm_task, llm_task.c.task_id == agent_task.c.id
        )
    )
    .where(one_of(agent_task.c.id, _IDS))
)
_READ_CHANGES = (
    select(
        task_change.c.seq,
        task_change.c.at,
        task_change.c.task_id,
        task_change.c.what,
        task_change.c.urgent,
        task_change.c.actor,
    )
    .where(
        one_of(task_change.c.task_id, _IDS),
        # There a command is meant, whose id may be a task's.
        task_change.c.what != What.CANCEL_COMMAND.value,
    )
    .order_by(task_change.c.seq)
)


def lock(connection: Connection, ids: Sequence[str], now: datetime) -> list[Sequence[Any]]:
    """Lock the status rows that nobody owns or holds; return them for `codec.to_status`."""
    return list(connection.execute(_LOCK, {_IDS: ids, **free_at(now)}))


def read_statuses(connection: Connection, ids: Sequence[str]) -> list[Sequence[Any]]:
    """Return status rows for `codec.to_status`, locked by others or not, and lock none."""
    return list(connection.execute(_READ, {_IDS: ids}))


def read_tasks(
    connection: Connection, ids: Sequence[str], with_spec: Sequence[str]
) -> dict[str, tuple[Sequence[Any], Any]]:
    """Return, by id, task rows for `codec.to_task`, and the specs of those in `with_spec`.

    The others' are null, which no spec is.
    """
    rows = connection.execute(_READ_TASKS, {_IDS: ids, _WITH_SPEC: with_spec})
    return {row[0]: (row[:-1], row[-1]) for row in rows}


def read_changes(connection: Connection, ids: Sequence[str]) -> dict[str, list[Change]]:
    """Return all changes of these tasks, in the order of their commits, as far as it is known."""
    changes: dict[str, list[Change]] = {}
    for row in connection.execute(_READ_CHANGES, {_IDS: ids}):
        change = to_change(row)
        changes.setdefault(change.task_id, []).append(change)
    return changes


# --- write ---

_OWN: dict[str, BindParameter[Any]] = {
    name: bindparam(f"b_{name}") for name in STATUS_COLUMNS if name != "task_id"
}
_WRITE_STATUS = (
    update(agent_status)
    .where(agent_status.c.task_id == bindparam("b_task_id"))
    .values(
        **_OWN,
        lease_owner=bindparam("b_lease_owner"),
        lease_until=bindparam("b_lease_until"),
        parked_at=bindparam("b_parked_at"),
        priority=bindparam("b_priority"),
        updated_at=bindparam("b_updated_at"),
    )
)
_FORGET = delete(agent_status).where(one_of(agent_status.c.task_id, _IDS))
_TAKE_CHANGES = delete(task_change).where(one_of(task_change.c.seq, _SEQS))
_LEASES = (
    select(
        agent_status.c.task_id,
        agent_status.c.lease_owner,
        agent_status.c.version,
        agent_status.c.intent,
        agent_status.c.intent_agent,
    )
    .where(one_of(agent_status.c.task_id, _IDS))
    .order_by(agent_status.c.task_id)
)
_LOCK_LEASES: Select[Any] = lock_rows(_LEASES, of=agent_status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A status to be written, with what only the daemon's side of it knows."""

    status: Status
    lease_owner: str | None
    lease_until: datetime | None
    priority: int
    now: datetime


def write_statuses(connection: Connection, held: Iterable[Held]) -> None:
    """Write statuses whose rows this transaction has locked."""
    rows = [_status_values(one) for one in held]
    if rows:
        connection.execute(_WRITE_STATUS, rows)


def _status_values(held: Held) -> dict[str, Any]:
    values = {f"b_{name}": value for name, value in from_status(held.status).items()}
    values["b_lease_owner"] = held.lease_owner
    values["b_lease_until"] = held.lease_until
    values["b_parked_at"] = held.now if held.status.parked_class else None
    values["b_priority"] = held.priority
    values["b_updated_at"] = held.now
    return values


def make_statuses(connection: Connection, statuses: Iterable[Status]) -> None:
    """Make status rows for tasks that have none, if nobody was quicker."""
    rows = [from_status(status) for status in statuses]
    if rows:
        make = upsert(agent_status, dialect_of(connection)).on_conflict_do_nothing()
        connection.execute(make, rows)


def restore(connection: Connection, ids: Sequence[str], now: datetime) -> None:
    """Make statuses for tasks that have changes and none, and drop the changes of tasks long gone.

    A task that was inserted again in the moment in which its old status was forgotten has none. Nor
    has one that lost it while an agent of it may run, deleted or not: that must end.
    """
    if not ids:
        return
    # Changes first, as for every row: that of a task inserted in between is not dropped.
    changes = read_changes(connection, ids)
    tasks = read_tasks(connection, ids, with_spec=())
    fresh = [
        Status(task_id=id_, account=row[1], room_id=row[2], user_id=row[3], phase_since=now)
        for id_, (row, _) in tasks.items()
    ]
    lost = ledger.lost_statuses(connection, [id_ for id_ in ids if id_ not in tasks])
    make_statuses(connection, [*fresh, *lost])
    needed = {status.task_id for status in (*fresh, *lost)}
    stale = [change for id_, some in changes.items() if id_ not in needed for change in some]
    take_changes(connection, stale)


def forget(connection: Connection, ids: Sequence[str]) -> None:
    """Delete the statuses of deleted tasks whose agents are all proven gone."""
    if ids:
        connection.execute(_FORGET, {_IDS: ids})


def take_changes(connection: Connection, changes: Iterable[Change]) -> None:
    """Delete changes that have been absorbed."""
    seqs = [change.seq for change in changes]
    if seqs:
        connection.execute(_TAKE_CHANGES, {_SEQS: seqs})


def tell(connection: Connection, task_id: str, what: What, actor: str) -> None:
    """Write a change of our own, so that the row is looked at again whoever holds it."""
    values = {"task_id": task_id, "what": what.value, "urgent": False, "actor": actor}
    connection.execute(insert(task_change), values)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who works on a row, and on what: the fence of its call in flight."""

    owner: str | None
    version: int
    intent: Verb | None
    intent_agent: str | None


def lock_leases(connection: Connection, ids: Sequence[str]) -> dict[str, Lease]:
    """Lock these statuses as far as nobody else does, and return who works on each."""
    rows = connection.execute(_LOCK_LEASES, {_IDS: ids})
    return {
        task_id: Lease(owner, version, Verb(intent) if intent else None, agent)
        for task_id, owner, version, intent, agent in rows
    }


def existing(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Return which of these tasks have a status at all, locked by others or not."""
    return {row[0] for row in connection.execute(_LEASES, {_IDS: ids})}


def write_events(connection: Connection, events: Sequence[Mapping[str, Any]]) -> None:
    """Append events. Every mapping has the same keys."""
    if events:
        connection.execute(insert(agent_event), list(events))
