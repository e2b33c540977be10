"""How much there is to do, for one line of text: it costs the same whatever the tables hold.

Rule 1: every count stops at its bound. Who wants all of it asks the views.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, case, func, literal, or_, select

from orchestrator.core.model import Phase, WaitingFor
from orchestrator.store import status_id
from orchestrator.store.schema import agent_status

RUNNING_MAX: Final = 10_000
WORK_MAX: Final = 1_000

_RUNNING: Final = select(func.count()).select_from(
    select(literal(1))
    .where(agent_status.c.phase == Phase.RUNNING, agent_status.c.due_at.is_not(None))
    .limit(RUNNING_MAX)
    .subquery()
)
_is_orphan = ~status_id.is_task_column(agent_status.c.task_id)
_waits_for_its_time = func.coalesce(agent_status.c.waiting_for, "") == WaitingFor.START_AT
_work = (
    select(
        agent_status.c.phase,
        _is_orphan.label("is_orphan"),
        _waits_for_its_time.label("waits_for_its_time"),
    )
    .where(agent_status.c.phase != Phase.RUNNING, agent_status.c.due_at.is_not(None))
    .limit(WORK_MAX)
    .subquery()
)
_WORK: Final = select(
    func.count(),
    *(
        func.coalesce(func.sum(case((condition, 1), else_=0)), 0)
        for condition in (
            _work.c.phase == Phase.STARTING,
            _work.c.phase == Phase.STOPPING,
            ~or_(_work.c.is_orphan, _work.c.waits_for_its_time),
            _work.c.is_orphan,
        )
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """Rows of `agent_status`, each count up to its bound."""

    running: int
    starting: int
    stopping: int
    unconverged: int
    """Tasks that are not as desired and not waiting for their time."""
    orphans: int
    """Agents without a task that are being stopped."""
    is_partial: bool
    """There is more to do than was counted."""


def read_headline(connection: Connection) -> Headline:
    """Return how much runs, and how much there is to do."""
    running = connection.execute(_RUNNING).scalar_one()
    total, starting, stopping, unconverged, orphans = connection.execute(_WORK).one()
    return Headline(
        running=running,
        starting=starting,
        stopping=stopping,
        unconverged=unconverged,
        orphans=orphans,
        is_partial=running == RUNNING_MAX or total == WORK_MAX,
    )
