"""Which tasks a person is shown first, found without a look at those that rest.

Rule 1: what may be in trouble is found along an index each; only of that is anything sorted. What
rests fills up the page, the newest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    func,
    or_,
    select,
    text,
    union,
)

from orchestrator.core.model import Phase, WaitingFor
from orchestrator.store.schema import agent_status, agent_task, task_change

_status: Final = agent_status.c
_AT_WORK: Final = (Phase.PENDING, Phase.STARTING, Phase.STOPPING, Phase.QUARANTINED)
# As the indexes have them: a parameter would not let SQLite use them.
_of_task = text("agent_status.task_id NOT LIKE '~%'")
_has_no_reason = text("(agent_status.reason IS NULL)")

_TROUBLE_FIRST: Final = (
    case(
        (_status.phase == Phase.STOPPED, 4),
        (_status.reason.is_not(None), 0),
        (_status.waiting_for.is_not(None), 1),
        (_status.phase != Phase.RUNNING, 2),
        else_=3,
    ),
    _status.phase_since.desc(),
    _status.task_id,
)
"""What ended well is of the least interest, and what has a reason of the most."""

_IN_TROUBLE: Final = or_(
    _status.reason.is_not(None),
    _status.phase == Phase.QUARANTINED,
    _status.waiting_for != WaitingFor.START_AT,
    and_(
        func.coalesce(agent_task.c.desired_state, "deleted") != "running",
        _status.phase.not_in((Phase.STOPPED, Phase.FAILED)),
    ),
)
"""What is in trouble, waits, or is to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which tasks there is room for."""

    most: int
    """How many."""
    account: str | None
    """Only of this account; null: of all."""
    trouble: bool
    """Only what is in trouble, waits, or is to end."""


def find(connection: Connection, at: datetime, page: Page) -> Sequence[str]:
    """Return the ids of the tasks that are shown, trouble first. `at`: the database's clock."""
    ours = [] if page.account is None else [_status.account == page.account]
    worth = [_IN_TROUBLE] if page.trouble else []
    foremost = (
        select(_status.task_id)
        .outerjoin_from(agent_status, agent_task, agent_task.c.id == _status.task_id)
        .where(_of_task, *ours, *worth, _status.task_id.in_(_candidates(at, page.most, ours)))
        .order_by(*_TROUBLE_FIRST)
        .limit(page.most)
    )
    return connection.execute(foremost).scalars().all()


def _candidates(at: datetime, most: int, ours: Sequence[ColumnElement[bool]]) -> Select[tuple[str]]:
    """Return what may be in trouble, and the newest of what rests."""
    # Those that have a reason come before all others here, whatever their phase.
    newest = (
        select(_status.task_id)
        .where(_of_task, *ours)
        .order_by(_has_no_reason, _status.phase_since.desc())
        .limit(most)
        .subquery()
    )
    found = union(
        select(_status.task_id).where(_of_task, _status.phase.in_(_AT_WORK)),
        select(_status.task_id).where(_status.parked_class.is_not(None)),
        select(_status.task_id).where(_status.stop_due_at <= at),
        select(task_change.c.task_id),
        select(newest.c.task_id),
    ).subquery()
    return select(found.c.task_id)
