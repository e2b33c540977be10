"""Statements of the sweeper: nets under the triggers.

Every statement looks at a bounded number of rows, by an index, and leaves out what others hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    Column,
    Connection,
    and_,
    bindparam,
    insert,
    or_,
    select,
    update,
)

from orchestrator.core.model import What
from orchestrator.core.orphan import attend
from orchestrator.store import ledger, rows, status_id
from orchestrator.store.engine import lock_rows, one_of
from orchestrator.store.engine import now as database_now
from orchestrator.store.schema import (
    agent_status,
    agent_task,
    orphan_task,
    task_change,
    vendor_agent,
)

STEP = 1_000
"""Rows that one step looks at."""


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
