"""Statements about the ledger: one row for each name announced or handle seen.

A row is written in the announce, before the send, and closed by evidence alone. A handle is added,
never overwritten.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    update,
)

from orchestrator.core.model import Agent, Status, Task
from orchestrator.store import status_id
from orchestrator.store.codec import AGENT_COLUMNS, from_agent, to_agent
from orchestrator.store.engine import one_of
from orchestrator.store.schema import vendor_agent

_AGENT = tuple(vendor_agent.c[name] for name in AGENT_COLUMNS)

_READ_AGENTS = (
    select(vendor_agent.c.task_id, *_AGENT)
    .where(one_of(vendor_agent.c.task_id, "ids"), vendor_agent.c.ended_at.is_(None))
    .order_by(vendor_agent.c.announced_at, vendor_agent.c.id)
)
_READ_ORPHANS = (
    select(status_id.of_orphan_column(vendor_agent.c.orphan_id), *_AGENT)
    .where(one_of(vendor_agent.c.orphan_id, "ids"), vendor_agent.c.ended_at.is_(None))
    .order_by(vendor_agent.c.announced_at, vendor_agent.c.id)
)

_LAST = (
    select(vendor_agent.c.task_id, func.max(vendor_agent.c.incarnation))
    .where(one_of(vendor_agent.c.task_id, "ids"))
    .group_by(vendor_agent.c.task_id)
)
_TAKEN = select(vendor_agent.c.name, vendor_agent.c.room_id).where(
    vendor_agent.c.account == bindparam("account"),
    vendor_agent.c.name == bindparam("name"),
    vendor_agent.c.ended_at.is_(None),
    vendor_agent.c.task_id.is_distinct_from(bindparam("task_id")),
)
_PAIR_TAKEN = (
    select(vendor_agent.c.id)
    .where(
        vendor_agent.c.account == bindparam("account"),
        vendor_agent.c.room_id == bindparam("room_id"),
        vendor_agent.c.user_id == bindparam("user_id"),
        vendor_agent.c.ended_at.is_(None),
        vendor_agent.c.task_id.is_distinct_from(bindparam("task_id")),
    )
    .limit(1)
)


_AGENT_CHANGES: dict[str, BindParameter[Any]] = {
    name: bindparam(f"b_{name}")
    for name in (
        "try", "announced_at", "horizon_at", "spec_generation", "body_digest", "fixed_digest",
        "hinted_at", "kicked_at", "seen_at", "is_hearsay", "spent_at", "told_at", "retry_at",
        "attempt", "ended_at", "evidence",
    )
}  # fmt: skip
_WRITE_AGENT = (
    update(vendor_agent)
    .where(vendor_agent.c.id == bindparam("b_id"))
    .values(
        **_AGENT_CHANGES,
        # A handle is added, never overwritten.
        vendor_task_id=case(
            (vendor_agent.c.vendor_task_id.is_(None), bindparam("b_vendor_task_id")),
            else_=vendor_agent.c.vendor_task_id,
        ),
    )
)
_LOCK_ONE = select(*_AGENT).where(vendor_agent.c.id == bindparam("id")).with_for_update()


def read_agents(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[Agent, ...]]:
    """Return the open ledger rows of these tasks and orphans, oldest first."""
    orphans = status_id.to_orphans(ids)
    found = list(connection.execute(_READ_AGENTS, {"ids": ids}))
    found += connection.execute(_READ_ORPHANS, {"ids": orphans}) if orphans else ()
    agents: dict[str, tuple[Agent, ...]] = {}
    for row in found:
        agents[row[0]] = (*agents.get(row[0], ()), to_agent(row[1:]))
    return agents


def last_incarnations(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Return the highest incarnation that the ledger knows of each of these tasks."""
    if not ids:
        return {}
    return {row[0]: row[1] for row in connection.execute(_LAST, {"ids": ids})}


def rooms_of_agent_user(connection: Connection, task: Task, name: str) -> list[str]:
    """Return the rooms where another task's open ledger row has this agent user id."""
    values = {"account": task.account, "name": name, "task_id": task.id}
    return [row[1] for row in connection.execute(_TAKEN, values)]


def is_pair_taken(connection: Connection, task: Task) -> bool:
    """Return whether another task has an open ledger row for this room and user."""
    values = {
        "account": task.account,
        "room_id": task.room_id,
        "user_id": task.user_id,
        "task_id": task.id,
    }
    return connection.execute(_PAIR_TAKEN, values).first() is not None


def add_agents(connection: Connection, agents: Iterable[tuple[str, Agent]]) -> None:
    """Write new ledger rows, each with the id of its status."""
    rows = [{**_owner(id_), **from_agent(agent)} for id_, agent in agents]
    if rows:
        connection.execute(insert(vendor_agent), rows)


def _owner(id_: str) -> dict[str, str | None]:
    orphan_id = status_id.to_orphan(id_)
    return {"task_id": id_ if orphan_id is None else None, "orphan_id": orphan_id}


def write_agents(connection: Connection, agents: Iterable[Agent]) -> None:
    """Write what may change of ledger rows. A handle that is there stays."""
    rows = [{f"b_{k}": v for k, v in from_agent(agent).items()} for agent in agents]
    if rows:
        connection.execute(_WRITE_AGENT, rows)


_REMOVE = delete(vendor_agent).where(one_of(vendor_agent.c.id, "ids"))


def remove(connection: Connection, ids: Sequence[str]) -> None:
    """Delete ledger rows of orphans about which nothing was ever sent."""
    connection.execute(_REMOVE, {"ids": ids})


def lock_one(connection: Connection, id_: str) -> Agent | None:
    """Lock a ledger row, open or ended, and return it.

    Its status may be another daemon's, so what is read must be what is there when it is written:
    a horizon never moves back.
    """
    row = connection.execute(_LOCK_ONE, {"id": id_}).first()
    return to_agent(row) if row is not None else None


_OF_TASKS = select(
    vendor_agent.c.task_id,
    vendor_agent.c.account,
    vendor_agent.c.room_id,
    vendor_agent.c.user_id,
    vendor_agent.c.incarnation,
    vendor_agent.c.announced_at,
).where(one_of(vendor_agent.c.task_id, "ids"), vendor_agent.c.ended_at.is_(None))


def lost_statuses(connection: Connection, ids: Sequence[str]) -> list[Status]:
    """Return statuses for tasks that have open ledger rows and no status: all of it must end."""
    if not ids:
        return []
    newest: dict[str, Status] = {}
    for task_id, account, room_id, user_id, incarnation, at in connection.execute(
        _OF_TASKS.order_by(vendor_agent.c.incarnation), {"ids": ids}
    ):
        newest[task_id] = Status(
            task_id=task_id,
            account=account,
            room_id=room_id,
            user_id=user_id,
            phase_since=at,
            incarnation=incarnation,
            retired=incarnation,
        )
    return list(newest.values())
