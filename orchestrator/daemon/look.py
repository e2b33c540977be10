"""One look at the store: what may need work, what is in the way, and when to look again.

Read-only, one hop. What it finds is a hint: the claim looks again under a lock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.store import accounts, daemons, queue
from orchestrator.store.accounts import Standing
from orchestrator.store.engine import Connection
from orchestrator.store.engine import now as database_now
from orchestrator.store.queue import Candidate, Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a look is to include."""

    daemon_id: str
    most: int
    """Rows of each kind."""
    queues: Sequence[Queue]
    """Those known to hold rows, less those that are known to be closed."""
    survey: bool
    """Whether to look for queues that are not known yet, and for other daemons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look found."""

    now: datetime
    candidates: Sequence[Candidate]
    parked: Mapping[Queue, Sequence[str]]
    standings: Mapping[str, Standing]
    next_due: datetime | None
    """When time alone will ask for a look; null also while there are candidates: now."""
    queues: frozenset[Queue] | None
    """All queues that hold rows; null if that was not asked."""
    elsewhere: frozenset[str] | None
    """The accounts of other live daemons; null if that was not asked."""


def look(connection: Connection, glance: Glance) -> Seen:
    """Look."""
    now = database_now(connection)
    candidates = queue.peek(connection, now, glance.most)
    elsewhere = None
    if glance.survey:
        elsewhere = frozenset(daemons.accounts_of_others(connection, glance.daemon_id, now))
    return Seen(
        now=now,
        candidates=candidates,
        parked={one: queue.peek_parked(connection, one, now, glance.most) for one in glance.queues},
        standings=accounts.read_standings(connection),
        next_due=None if candidates else queue.next_due(connection),
        queues=frozenset(queue.find_queues(connection)) if glance.survey else None,
        elsewhere=elsewhere,
    )
