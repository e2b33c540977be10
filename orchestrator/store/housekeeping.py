"""Statements of the sweeper and the janitor: nets under the triggers, and what is forgotten.

Every statement looks at a bounded number of rows, by an index, and leaves out what others hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from orchestrator.core.model import Phase, What
from orchestrator.core.orphan import attend
from orchestrator.store import ledger, rows, status_id
from orchestrator.store.engine import lock_rows, one_of
from orchestrator.store.engine import now as database_now
from orchestrator.store.schema import (
    agent_command,
    agent_event,
    agent_status,
    agent_task,
    call_minute,
    orphan_task,
    task_change,
    vendor_agent,
    vendor_fact,
)

STEP = 1_000
"""Rows that one step looks at."""

_ENDED = (Phase.STOPPED.value, Phase.FAILED.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """One step of a walk: where it came to, and what it mended."""

    last: str | None
    """The key to go on after; null: the walk is at its end."""
    mended: int


_STATUSES = select(agent_status.c.task_id).where(one_of(agent_status.c.task_id, "ids"))
_STOPPING = orphan_task.c.phase == "stopping"
_ATTENDED = select(orphan_task.c.id, _STOPPING).where(
    one_of(orphan_task.c.id, "ids"),
    or_(_STOPPING, and_(orphan_task.c.phase == "seen", orphan_task.c.action == "report")),
)
_LOCK_STOPPING = lock_rows(
    select(orphan_task.c.id).where(one_of(orphan_task.c.id, "ids"), _STOPPING), of=orphan_task
)
_TAKE_UP_ANEW = update(orphan_task).where(one_of(orphan_task.c.id, "ids")).values(phase="seen")


def sweep_tasks(connection: Connection, after: str, actor: str) -> Swept:
    """Find tasks without a status, whose insert no trigger saw, and let them be looked at."""
    ids = _keys(connection, agent_task.c.id, after)
    known = set(connection.execute(_STATUSES, {"ids": ids}).scalars())
    lost = [id_ for id_ in ids if id_ not in known]
    rows.restore(connection, lost, database_now(connection))
    _tell(connection, lost, What.INSERT, actor)
    return _swept(ids, lost)


def sweep_statuses(connection: Connection, after: str, actor: str) -> Swept:
    """Find statuses whose task is gone and that nobody has told of it."""
    ids = _keys(connection, agent_status.c.task_id, after)
    there = set(
        connection.execute(
            select(agent_task.c.id).where(one_of(agent_task.c.id, "ids")), {"ids": ids}
        ).scalars()
    )
    told = set(
        connection.execute(
            select(task_change.c.task_id).where(one_of(task_change.c.task_id, "ids")),
            {"ids": ids},
        ).scalars()
    )
    lost = [id_ for id_ in status_id.to_tasks(ids) if id_ not in there and id_ not in told]
    _tell(connection, lost, What.DELETE, actor)
    return _swept(ids, lost)


_TIMED = select(agent_status.c.task_id).where(
    one_of(agent_status.c.task_id, "ids"),
    or_(agent_status.c.due_at.is_not(None), agent_status.c.stop_due_at.is_not(None)),
)
_OPEN = (
    select(vendor_agent.c.task_id)
    .where(vendor_agent.c.ended_at.is_(None), vendor_agent.c.task_id > bindparam("after"))
    .order_by(vendor_agent.c.task_id)
    .limit(STEP)
)


def sweep_ledger(connection: Connection, after: str, actor: str) -> Swept:
    """Find open ledger rows whose task's status is not there, or has no time to be looked at."""
    found = list(connection.execute(_OPEN, {"after": after}).scalars())
    ids = sorted(set(found))
    timed = set(connection.execute(_TIMED, {"ids": ids}).scalars())
    lost = [id_ for id_ in ids if id_ not in timed]
    rows.make_statuses(connection, ledger.lost_statuses(connection, lost))
    _tell(connection, lost, What.LEDGER, actor)
    return _swept(found, lost)


def sweep_orphans(connection: Connection, after: str, actor: str) -> Swept:
    """Find orphans that should be looked after and have no status, and give them one.

    One that must end, and of which the ledger has nothing, is taken up anew (see `daemon.orphans`).
    """
    del actor  # nobody has to be told: the status is due at once
    ids = _keys(connection, orphan_task.c.id, after)
    named = {"ids": [status_id.of_orphan(id_) for id_ in ids]}
    there = set(connection.execute(_STATUSES, named).scalars())
    attended = connection.execute(_ATTENDED, {"ids": ids})
    lost = {id_: stop for id_, stop in attended if status_id.of_orphan(id_) not in there}
    agents = ledger.read_agents(connection, [status_id.of_orphan(id_) for id_ in lost])
    now = database_now(connection)
    statuses = [
        attend(agents[id_][-1], id_, now, stop=stop)
        for orphan_id, stop in lost.items()
        if (id_ := status_id.of_orphan(orphan_id)) in agents
    ]
    rows.make_statuses(connection, statuses)
    bare = [id_ for id_, stop in lost.items() if stop and status_id.of_orphan(id_) not in agents]
    anew = list(connection.execute(_LOCK_STOPPING, {"ids": bare}).scalars())
    connection.execute(_TAKE_UP_ANEW, {"ids": anew})
    return _swept(ids, [*agents, *anew])


def _keys(connection: Connection, key: "Column[str]", after: str) -> list[str]:
    chosen = select(key).where(key > after).order_by(key).limit(STEP)
    return list(connection.execute(chosen).scalars())


def _tell(connection: Connection, ids: Sequence[str], what: What, actor: str) -> None:
    if ids:
        told = [
            {"task_id": id_, "what": what.value, "urgent": False, "actor": actor} for id_ in ids
        ]
        connection.execute(insert(task_change), told)


def _swept(keys: Sequence[str], mended: Sequence[str]) -> Swept:
    return Swept(last=keys[-1] if len(keys) == STEP else None, mended=len(mended))


# --- what is forgotten ---


_IGNORED = orphan_task.c.phase == literal_column("'ignored'")
"""As its index has it: these have no end, and are forgotten once they are heard of no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizons:
    """Before when things are forgotten; null: never."""

    events: datetime
    commands: datetime
    ended: datetime | None


def prune(connection: Connection, before: Horizons) -> int:
    """Forget one step of everything that is old enough; return how many rows went."""
    gone = _prune(connection, agent_event, agent_event.c.at < before.events)
    gone += _prune(connection, call_minute, call_minute.c.minute < before.events)
    gone += _prune(connection, vendor_fact, vendor_fact.c.received_at < before.events)
    gone += _prune(connection, agent_command, agent_command.c.done_at < before.commands)
    if before.ended is None:
        return gone
    # The horizon of an ended ledger row is long past: nothing ends before its own.
    gone += _prune(connection, vendor_agent, vendor_agent.c.ended_at < before.ended)
    gone += _prune(connection, orphan_task, orphan_task.c.stopped_at < before.ended)
    gone += _prune(
        connection, orphan_task, and_(_IGNORED, orphan_task.c.last_seen_at < before.ended)
    )
    return gone + _prune_tasks(connection, before.ended)


def _prune(connection: Connection, table: Table, old: ColumnElement[bool]) -> int:
    key = tuple(table.primary_key.columns)
    chosen = select(*key).where(old).limit(STEP)
    return connection.execute(delete(table).where(tuple_(*key).in_(chosen))).rowcount


def _prune_tasks(connection: Connection, before: datetime) -> int:
    """Delete tasks that ended long ago. The change that this writes makes the claim forget them."""
    ended: Select[tuple[str]] = (
        select(agent_task.c.id)
        .join(agent_status, agent_status.c.task_id == agent_task.c.id)
        .where(agent_status.c.phase.in_(_ENDED), agent_status.c.stopped_at < before)
        .limit(STEP)
    )
    ids = list(connection.execute(lock_rows(ended, of=agent_task)).scalars())
    if not ids:
        return 0
    return connection.execute(
        delete(agent_task).where(one_of(agent_task.c.id, "ids")), {"ids": ids}
    ).rowcount
