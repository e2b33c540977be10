"""How much there is to do, for one line of text: it costs the same whatever the tables hold.

Rule 1: every count stops at its bound, and walks along an index: `ix_agent_status_phase_account`,
`ix_vendor_agent_orphan_id`. Who wants all of it asks the views, or `figures`.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, case, func, literal, select, text

from orchestrator.core.model import Phase, WaitingFor
from orchestrator.store.schema import agent_status, vendor_agent

RUNNING_MAX: Final = 10_000
WORK_MAX: Final = 1_000

_AT_WORK: Final = (Phase.PENDING, Phase.STARTING, Phase.STOPPING, Phase.QUARANTINED)
# As the index has it: a parameter would not let SQLite use it.
_of_task = text("task_id NOT LIKE '~%'")
_RUNNING: Final = select(func.count()).select_from(
    select(literal(1))
    .select_from(agent_status)
    .where(_of_task, agent_status.c.phase == Phase.RUNNING)
    .limit(RUNNING_MAX)
    .subquery()
)
_ORPHANS: Final = select(func.count()).select_from(
    select(literal(1))
    .select_from(vendor_agent)
    .where(vendor_agent.c.ended_at.is_(None), vendor_agent.c.orphan_id.is_not(None))
    .limit(WORK_MAX)
    .subquery()
)
_work = (
    select(agent_status.c.phase, func.coalesce(agent_status.c.waiting_for, "").label("waiting_for"))
    .where(_of_task, agent_status.c.phase.in_(_AT_WORK))
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
            _work.c.waiting_for != WaitingFor.START_AT,
        )
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """Tasks by what becomes of them, and what runs without one; each count up to its bound."""

    running: int
    starting: int
    stopping: int
    unconverged: int
    """Not at rest, and not waiting for their time: what `convergence` counts, but for a wish that
    is not read yet and a deadline that has just passed. Both are over in a moment."""
    orphans: int
    """Agents that may run and have no task."""
    is_partial: bool
    """There is more than was counted."""


def read_headline(connection: Connection) -> Headline:
    """Return how much runs, and how much there is to do."""
    running = connection.execute(_RUNNING).scalar_one()
    orphans = connection.execute(_ORPHANS).scalar_one()
    total, starting, stopping, unconverged = connection.execute(_WORK).one()
    return Headline(
        running=running,
        starting=starting,
        stopping=stopping,
        unconverged=unconverged,
        orphans=orphans,
        is_partial=running == RUNNING_MAX or WORK_MAX in {total, orphans},
    )
