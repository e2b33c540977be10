"""Statements about the tasks whose agents ask the LLM gateway, and about who asks.

A task is here from the announce of a start that names the gateway. When an agent of it last asked
is written apart from its status, so that no claim waits for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, case, delete, or_, select, update

from orchestrator.core.turn import Caller
from orchestrator.store.engine import DialectName, Upsert, dialect_of, lock_rows, one_of, upsert
from orchestrator.store.schema import agent_status, agent_task, llm_task, vendor_agent


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Which upstream the agent of a task was told to ask; null: none, any more."""

    task_id: str
    account: str
    upstream: str | None


def _note(dialect: DialectName) -> Upsert:
    add = upsert(llm_task, dialect)
    return add.on_conflict_do_update(
        index_elements=[llm_task.c.task_id],
        set_={"account": add.excluded.account, "upstream": add.excluded.upstream},
    )


_NOTE: Final[Mapping[DialectName, Upsert]] = {
    "sqlite": _note("sqlite"),
    "postgresql": _note("postgresql"),
}
_FORGET = delete(llm_task).where(one_of(llm_task.c.task_id, "ids"))


def note(connection: Connection, told: Iterable[Told]) -> None:
    """Write which upstreams agents are told to ask."""
    ordered = sorted(told, key=lambda one: one.task_id)
    rows = [
        {"task_id": one.task_id, "account": one.account, "upstream": one.upstream}
        for one in ordered
        if one.upstream is not None
    ]
    if rows:
        connection.execute(_NOTE[dialect_of(connection)], rows)
    forget(connection, [one.task_id for one in ordered if one.upstream is None])


def forget(connection: Connection, ids: Sequence[str]) -> None:
    """Delete what is known of these tasks."""
    if ids:
        connection.execute(_FORGET, {"ids": ids})


_THERE = select(llm_task.c.task_id).where(one_of(llm_task.c.task_id, "ids"))
_FREE = lock_rows(_THERE, of=llm_task)
_TALK = (
    update(llm_task)
    .where(
        llm_task.c.task_id == bindparam("b_id"),
        or_(llm_task.c.talked_at.is_(None), llm_task.c.talked_at < bindparam("b_at")),
    )
    .values(talked_at=bindparam("b_at"))
)


def note_talk(connection: Connection, talked: Mapping[str, datetime]) -> set[str]:
    """Write when agents last asked, by task; return those that others hold at present.

    Of a task that is not here any more there is nothing to write, now or later.
    """
    free = set(connection.execute(_FREE, {"ids": list(talked)}).scalars())
    rows = [{"b_id": id_, "b_at": talked[id_]} for id_ in sorted(free)]
    if rows:
        connection.execute(_TALK, rows)
    missed = [id_ for id_ in talked if id_ not in free]
    return set(connection.execute(_THERE, {"ids": missed}).scalars()) if missed else set()


_CALLERS = (
    select(
        vendor_agent.c.id,
        vendor_agent.c.vendor_task_id,
        vendor_agent.c.ended_at,
        vendor_agent.c.incarnation,
        agent_status.c.retired,
        case((agent_task.c.desired_state == "running", 1), else_=0),
        agent_status.c.confirmed_at.is_not(None),
    )
    .select_from(
        vendor_agent.outerjoin(
            agent_status, agent_status.c.task_id == vendor_agent.c.task_id
        ).outerjoin(agent_task, agent_task.c.id == vendor_agent.c.task_id)
    )
    .where(one_of(vendor_agent.c.id, "ids"))
)


def find_callers(connection: Connection, ids: Sequence[str]) -> dict[str, Caller]:
    """Return what is known of these ledger rows; of one that is not there, nothing."""
    return {row[0]: _caller(row) for row in connection.execute(_CALLERS, {"ids": ids})}


def _caller(row: Sequence[Any]) -> Caller:
    return Caller(
        vendor_task_id=row[1],
        ended_at=row[2],
        incarnation=row[3],
        retired=row[4],
        is_wanted=bool(row[5]),
        is_confirmed=bool(row[6]),
    )


_OTHER = (
    select(vendor_agent.c.id)
    .where(
        vendor_agent.c.account == bindparam("account"),
        vendor_agent.c.vendor_task_id == bindparam("handle"),
        vendor_agent.c.id != bindparam("agent_id"),
        vendor_agent.c.ended_at.is_(None),
    )
    .limit(1)
)


def has_other(connection: Connection, account: str, handle: str, agent_id: str) -> bool:
    """Return whether another open row of the ledger has a handle."""
    values = {"account": account, "handle": handle, "agent_id": agent_id}
    return connection.execute(_OTHER, values).first() is not None
