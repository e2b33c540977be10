"""Statements about orphans that are only reported, and what makes one be stopped after all.

Rule: nothing here stops an agent of which nobody knows yet whose it is.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, Text, bindparam, case, exists, insert, or_, select, update

from orchestrator.core.fact import Fact
from orchestrator.core.model import Row, What
from orchestrator.store import status_id
from orchestrator.store.engine import lock_rows, one_of
from orchestrator.store.orphans import dismiss, has_task
from orchestrator.store.schema import orphan_task, task_change, vendor_agent

_SEE_AGAIN = (
    update(orphan_task)
    .where(
        orphan_task.c.account == bindparam("b_account"),
        orphan_task.c.vendor_task_id == bindparam("b_handle"),
        orphan_task.c.phase == "ignored",
        # With its room an agent may be stopped that could not be without.
        or_(orphan_task.c.room_id.is_not(None), bindparam("b_room_id", type_=Text()).is_(None)),
    )
    .values(
        last_seen_at=case(
            (orphan_task.c.last_seen_at < bindparam("b_seen_at"), bindparam("b_seen_at")),
            else_=orphan_task.c.last_seen_at,
        )
    )
)


def see_again(connection: Connection, account: str, fact: Fact, seen_at: datetime) -> bool:
    """Write that an agent about which nothing is done was seen; return whether there is one."""
    values = {
        "b_account": account,
        "b_handle": fact.vendor_task_id or fact.name,
        "b_room_id": fact.room_id,
        "b_seen_at": seen_at,
    }
    return connection.execute(_SEE_AGAIN, values).rowcount > 0


_OPEN_TASK = select(vendor_agent.c.task_id).where(
    vendor_agent.c.id == bindparam("name"),
    vendor_agent.c.task_id.is_not(None),
    vendor_agent.c.ended_at.is_(None),
)


def dismiss_known(connection: Connection, row: Row, name: str) -> bool:
    """Look after an orphan no more that is known to the vendor under an open name of a task's.

    It is the agent of a start whose answer was lost. Returns whether it is. The caller has locked
    its status.
    """
    task_id = connection.execute(_OPEN_TASK, {"name": name}).scalar()
    if task_id is None:
        return False
    dismiss(connection, row, has_task(task_id))
    return True


_OURS = (
    update(orphan_task)
    .where(orphan_task.c.id == bindparam("b_id"), orphan_task.c.action == "report")
    .values(ours=True, action="stop", phase="stopping")
)


def claim_as_ours(connection: Connection, id_: str, actor: str) -> None:
    """Let an orphan that was only watched be stopped: the vendor knows it under a name of ours."""
    if connection.execute(_OURS, {"b_id": status_id.to_orphan(id_)}).rowcount:
        _tell_stop(connection, [id_], actor)


_REPORTED = (
    select(orphan_task.c.id)
    .where(
        orphan_task.c.phase == "seen",
        orphan_task.c.action == "report",
        one_of(orphan_task.c.account, "accounts"),
        exists().where(
            vendor_agent.c.orphan_id == orphan_task.c.id,
            vendor_agent.c.ended_at.is_(None),
            or_(
                vendor_agent.c.name != "",
                vendor_agent.c.seen_at.is_not(None),
                one_of(vendor_agent.c.account, "named"),
            ),
        ),
    )
    .limit(bindparam("most"))
)
_STOP_REPORTED = (
    update(orphan_task)
    .where(one_of(orphan_task.c.id, "ids"))
    .values(action="stop", phase="stopping")
)


def is_any_reported(connection: Connection, accounts: Sequence[str], named: Sequence[str]) -> bool:
    """Return whether `stop_reported` would find an orphan. Locks nothing."""
    values = {"accounts": accounts, "named": named, "most": 1}
    return connection.execute(_REPORTED, values).first() is not None


def stop_reported(
    connection: Connection, accounts: Sequence[str], named: Sequence[str], actor: str, most: int
) -> int:
    """Let orphans of these accounts be stopped that were only reported; return how many.

    Only those of which it is known that they are not ours: by a name, or because the vendor was
    asked. Accounts in `named` have handles that are names.
    """
    values = {"accounts": accounts, "named": named, "most": most}
    chosen = lock_rows(_REPORTED, of=orphan_task)
    ids = list(connection.execute(chosen, values).scalars())
    if ids:
        connection.execute(_STOP_REPORTED, {"ids": ids})
        _tell_stop(connection, [status_id.of_orphan(id_) for id_ in ids], actor)
    return len(ids)


def _tell_stop(connection: Connection, status_ids: Sequence[str], actor: str) -> None:
    told = [
        {"task_id": id_, "what": What.STOP.value, "urgent": True, "actor": actor}
        for id_ in status_ids
    ]
    connection.execute(insert(task_change), told)
