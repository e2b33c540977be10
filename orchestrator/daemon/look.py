"""One look at the store: what may need work, what is in the way, and when to look again.

Read-only, one hop. What it finds is a hint: the claim looks again under a lock.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.model import WorkClass
from orchestrator.store import accounts, daemons, queue
from orchestrator.store.accounts import Standing
from orchestrator.store.engine import Connection
from orchestrator.store.queue import Candidate, Queue, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a look is to include."""

    daemon_id: str
    names: Collection[str]
    """The accounts of this daemon."""
    most: int
    """Rows of each kind."""
    queues: Sequence[Queue]
    """Those known to hold rows, less those that are known to be closed."""
    elsewhere: frozenset[str]
    """The accounts that only other live daemons have, as far as they are known."""
    full: Mapping[WorkClass, frozenset[str]]
    """Accounts of which no call of the class can be made now."""
    failing: frozenset[str]
    """Rows that are left alone for a while."""
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
    elsewhere: frozenset[str]
    """The accounts that only other live daemons have."""


def look(connection: Connection, glance: Glance) -> Seen:
    """Look."""
    now, standings = accounts.read_present(connection)
    elsewhere = glance.elsewhere
    if glance.survey:
        others = daemons.accounts_of_others(connection, glance.daemon_id, now)
        elsewhere = frozenset(others - set(glance.names))
    candidates = [
        one
        for one in queue.peek(connection, now, _scope(glance, elsewhere))
        if one.task_id not in glance.failing
    ]
    return Seen(
        now=now,
        candidates=candidates,
        parked={one: _peek_parked(connection, one, now, glance) for one in glance.queues},
        standings=standings,
        next_due=None if candidates else queue.next_due(connection, now),
        queues=frozenset(queue.find_queues(connection)) if glance.survey else None,
        elsewhere=elsewhere,
    )


def _peek_parked(
    connection: Connection, one: Queue, now: datetime, glance: Glance
) -> Sequence[str]:
    ids = queue.peek_parked(connection, one, now, glance.most + len(glance.failing))
    return [id_ for id_ in ids if id_ not in glance.failing]


def _scope(glance: Glance, elsewhere: frozenset[str]) -> Scope:
    """Leave out the accounts of others, and full ones as far as that lets others through.

    Where all are full there is nobody to let through, and to leave out all rows that there are
    would mean to walk past each of them.
    """
    names = frozenset(glance.names)
    without = {
        each: elsewhere | (full if full < names else frozenset())
        for each, full in glance.full.items()
    }
    nobody_observes = names <= glance.full[WorkClass.OBSERVE]
    most = glance.most + len(glance.failing)
    return Scope(most=most, most_polls=0 if nobody_observes else most, without=without)
