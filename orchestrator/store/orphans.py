"""Statements about orphans: agents that run at a vendor and have no task.

An orphan is a row of `orphan_task` for people, a ledger row without a task, and a status whose id
begins with `~`, so that what looks after tasks looks after it as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from orchestrator.core.model import Agent, Orphan, Row, Status, What
from orchestrator.store import ledger, rows, status_id
from orchestrator.store.engine import lock_rows, none_of, one_of
from orchestrator.store.schema import orphan_task, task_change, vendor_agent


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An orphan as it was written down."""

    id: str
    account: str
    room_id: str
    user_id: str
    agent_user_id: str
    vendor_task_id: str | None
    source: str
    ours: bool
    stop: bool
    first_seen_at: datetime


_COLUMNS = (
    orphan_task.c.id,
    orphan_task.c.account,
    func.coalesce(orphan_task.c.room_id, ""),
    func.coalesce(orphan_task.c.user_id, ""),
    func.coalesce(orphan_task.c.agent_user_id, ""),
    orphan_task.c.vendor_task_id,
    orphan_task.c.source,
    orphan_task.c.ours,
    orphan_task.c.first_seen_at,
)
_is_unseen = and_(orphan_task.c.phase == "seen", orphan_task.c.action == "stop")
_UNSEEN = (
    select(orphan_task.c.id)
    .where(_is_unseen, one_of(orphan_task.c.account, "accounts"))
    .order_by(orphan_task.c.first_seen_at)
    .limit(bindparam("most"))
)
_LOCK_UNSEEN: Select[Any] = lock_rows(
    select(*_COLUMNS).where(_is_unseen, orphan_task.c.id == bindparam("id")), of=orphan_task
)


def unseen(connection: Connection, accounts: Sequence[str], most: int) -> list[str]:
    """Return the orphans of these accounts that are to be stopped and that nobody has taken up."""
    found = connection.execute(_UNSEEN, {"accounts": list(accounts), "most": most})
    return list(found.scalars())


def lock_unseen(connection: Connection, id_: str) -> Found | None:
    """Lock an orphan that nobody has taken up, and return it; null if somebody has, or is."""
    row = connection.execute(_LOCK_UNSEEN, {"id": id_}).first()
    if row is None:
        return None
    return Found(
        id=row[0],
        account=row[1],
        room_id=row[2],
        user_id=row[3],
        agent_user_id=row[4],
        vendor_task_id=row[5] or None,
        source=row[6],
        ours=bool(row[7]),
        stop=True,
        first_seen_at=row[8],
    )


_ANY = (
    select(vendor_agent.c.task_id, vendor_agent.c.orphan_id, orphan_task.c.action)
    .select_from(vendor_agent.outerjoin(orphan_task, orphan_task.c.id == vendor_agent.c.orphan_id))
    .where(vendor_agent.c.ended_at.is_(None))
)
_OTHERS = _ANY.where(vendor_agent.c.account == bindparam("account"))
_OF_NAME = _ANY.where(vendor_agent.c.id == bindparam("handle"))
"""A name is drawn once in this database, whichever account announced it. Where handles are names,
it is the handle of an agent whose start nobody has answered yet."""
_OF_HANDLE = _OTHERS.where(vendor_agent.c.vendor_task_id == bindparam("handle"))
_OF_USER = _OTHERS.where(
    vendor_agent.c.name == bindparam("name"), vendor_agent.c.room_id == bindparam("room_id")
)
_OF_PAIR = _OTHERS.where(
    vendor_agent.c.room_id == bindparam("room_id"), vendor_agent.c.user_id == bindparam("user_id")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A row of the ledger that an orphan is the same agent as."""

    task_id: str | None
    orphan_id: str | None
    stop: bool
    """It is an orphan that is to be stopped."""


def same_agent(connection: Connection, found: Found, *, one_per_user: bool) -> list[Other]:
    """Return the open rows of the ledger that are the same agent, by its handle or its user id.

    `one_per_user`: a stop goes by room and user, whatever else is given, so these decide as well.
    """
    asked: list[tuple[Select[Any], dict[str, str]]] = []
    if found.vendor_task_id is not None:
        asked += [(chosen, {"handle": found.vendor_task_id}) for chosen in (_OF_HANDLE, _OF_NAME)]
    elif found.agent_user_id:
        asked.append((_OF_USER, {"name": found.agent_user_id, "room_id": found.room_id}))
    if one_per_user and found.user_id:
        asked.append((_OF_PAIR, {"room_id": found.room_id, "user_id": found.user_id}))
    return [
        Other(task_id=row[0], orphan_id=row[1], stop=row[2] == "stop")
        for chosen, values in asked
        for row in connection.execute(chosen, {"account": found.account, **values})
    ]


def insert_found(connection: Connection, found: Found) -> None:
    """Write down an orphan that a daemon has found."""
    connection.execute(
        insert(orphan_task).values(
            id=found.id,
            account=found.account,
            room_id=found.room_id or None,
            user_id=found.user_id or None,
            agent_user_id=found.agent_user_id or None,
            vendor_task_id=found.vendor_task_id,
            source=found.source,
            ours=found.ours,
            action="stop" if found.stop else "report",
            phase="stopping" if found.stop else "seen",
            first_seen_at=found.first_seen_at,
            last_seen_at=found.first_seen_at,
        )
    )


_TAKE_UP = (
    update(orphan_task)
    .where(orphan_task.c.id == bindparam("b_id"))
    .values(phase="stopping", reason=None)
)


def take_up(connection: Connection, found: Found, agent: Agent, status: Status) -> None:
    """Let an orphan be looked after: its ledger row, its status, and what people see of it."""
    ledger.add_agents(connection, [(status.task_id, agent)])
    rows.make_statuses(connection, [status])
    if found.stop:
        connection.execute(_TAKE_UP, {"b_id": found.id})
    event = {
        "orphan_id": found.id,
        "account": found.account,
        "event": "orphan",
        "action": found.source,
        "outcome": "stop" if found.stop else "report",
        "code": found.vendor_task_id or found.agent_user_id or None,
    }
    rows.write_events(connection, [event])


_REFUSE = (
    update(orphan_task)
    .where(orphan_task.c.id == bindparam("b_id"))
    .values(phase=bindparam("b_phase"), reason=bindparam("b_reason"))
)
_DROP_CHANGES = delete(task_change).where(task_change.c.task_id == bindparam("id"))


def ignore(connection: Connection, id_: str, reason: str) -> None:
    """Say why nothing is done about an orphan, and never look at it again."""
    connection.execute(_REFUSE, {"b_id": id_, "b_phase": "ignored", "b_reason": reason})
    connection.execute(_DROP_CHANGES, {"id": status_id.of_orphan(id_)})


def has_task(task_id: str) -> str:
    """Return the reason of an orphan that is none."""
    return f"HasTask: it is the agent of task {task_id}; stop that"


def dismiss(connection: Connection, row: Row, reason: str) -> None:
    """Undo `take_up`, and say why nothing is done."""
    ledger.remove(connection, [agent.id for agent in row.agents])
    rows.forget(connection, [row.status.task_id])
    if row.orphan is not None:
        ignore(connection, row.orphan.id, reason)


_is_strange = and_(
    _is_unseen, orphan_task.c.reason.is_(None), none_of(orphan_task.c.account, "accounts")
)
_STRANGE = select(orphan_task.c.id).where(_is_strange).limit(1)
_DELAY = (
    update(orphan_task)
    .where(_is_strange)
    .values(reason="UnknownAccount: it is not under [accounts] of any running daemon")
)


def is_any_strange(connection: Connection, accounts: Sequence[str]) -> bool:
    """Return whether `delay_strange` would find an orphan. Locks nothing."""
    return connection.execute(_STRANGE, {"accounts": list(accounts)}).first() is not None


def delay_strange(connection: Connection, accounts: Sequence[str]) -> None:
    """Say of orphans of other accounts than these that nobody can stop them."""
    connection.execute(_DELAY, {"accounts": list(accounts)})


# --- while it is looked after ---

_READ = select(orphan_task.c.id, orphan_task.c.action).where(one_of(orphan_task.c.id, "ids"))


def read(connection: Connection, ids: Sequence[str]) -> dict[str, Orphan]:
    """Return the orphans of these statuses, by the status's id."""
    bare = status_id.to_orphans(ids)
    if not bare:
        return {}
    found = connection.execute(_READ, {"ids": bare})
    return {
        status_id.of_orphan(id_): Orphan(id=id_, stop=action == "stop") for id_, action in found
    }


_WRITE = (
    update(orphan_task)
    .where(orphan_task.c.id == bindparam("b_id"))
    .values(
        vendor_task_id=func.coalesce(orphan_task.c.vendor_task_id, bindparam("b_handle")),
        reason=bindparam("b_reason"),
        request_id=func.coalesce(bindparam("b_request_id"), orphan_task.c.request_id),
        last_seen_at=case(
            (orphan_task.c.last_seen_at < bindparam("b_seen_at"), bindparam("b_seen_at")),
            else_=orphan_task.c.last_seen_at,
        ),
    )
)


def write(connection: Connection, held: Iterable[Row]) -> None:
    """Write what people see of orphans that are looked after."""
    values = [_values(row) for row in held]
    if values:
        connection.execute(_WRITE, values)


def _values(row: Row) -> dict[str, Any]:
    heard = [at for a in row.agents for at in (a.told_at, a.seen_at) if at is not None]
    handles = [a.vendor_task_id for a in row.agents if a.vendor_task_id is not None]
    return {
        "b_id": status_id.to_orphan(row.status.task_id),
        "b_handle": handles[-1] if handles else None,
        "b_reason": row.status.reason,
        "b_request_id": row.status.last_request_id,
        "b_seen_at": max(heard, default=None),
    }


_CLOSE = (
    update(orphan_task)
    .where(one_of(orphan_task.c.id, "ids"))
    .values(phase="stopped", stopped_at=bindparam("b_now"), reason=None)
)


_stopped, _report = orphan_task.alias("stopped"), orphan_task.alias("report")
_CLOSE_REPORTS = insert(task_change).from_select(
    ["task_id", "what"],
    select(status_id.of_orphan_column(_report.c.id), literal(What.ASSUME_GONE.value))
    .select_from(
        _stopped.join(
            _report,
            and_(
                _report.c.account == _stopped.c.account,
                or_(
                    _report.c.vendor_task_id == _stopped.c.vendor_task_id,
                    and_(
                        _report.c.vendor_task_id.is_(None),
                        _report.c.room_id == _stopped.c.room_id,
                        _report.c.agent_user_id == _stopped.c.agent_user_id,
                    ),
                ),
            ),
        )
    )
    .where(one_of(_stopped.c.id, "ids"), _report.c.phase == "seen", _report.c.action == "report"),
)
"""An agent that was reported, and then inserted by a person to be stopped, is gone as both."""


def close(connection: Connection, ids: Iterable[str], now: datetime) -> None:
    """Write that nothing of these orphans runs any more, by evidence. `ids`: of their statuses."""
    bare = status_id.to_orphans(ids)
    if bare:
        connection.execute(_CLOSE, {"ids": bare, "b_now": now})
        connection.execute(_CLOSE_REPORTS, {"ids": bare})
