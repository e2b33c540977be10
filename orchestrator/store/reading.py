"""Reads everything that belongs to locked rows, one statement for each kind of thing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection

from orchestrator.core.fact import Fact, is_past
from orchestrator.core.model import Change, Row, Status, Task, What
from orchestrator.core.replace import replace
from orchestrator.store import codec, fact_reading, ledger, orphans, rows, status_id
from orchestrator.store.codec import UnreadableError

FACTS_MAX: Final = 64
"""Facts of one row that one claim applies. There are more where somebody floods us with them."""
UNREAD: Final = object()
"""Stands for a spec that was not read, because the row has an agent that needs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One locked row, and all that was written about it."""

    row: Row
    changes: Sequence[Change]
    spec: Any
    """As the application wrote it, secrets unresolved; or `UNREAD`."""
    facts: Sequence[Fact] = ()
    """What the vendor told of its agents and nobody has applied."""
    told: Sequence[tuple[str, str]] = ()
    """Their accounts and keys, by which they are taken."""
    unreadable: str = ""
    """Why the task's row makes no sense; empty if it does."""

    @property
    def turn(self) -> tuple[bool, bool, int, datetime]:
        """Its place in a batch whose slots and places may not be enough for all.

        What must end goes first, then starts that are open, then the highest priority, and of
        equals who asked first.
        """
        status, task = self.row.status, self.row.task
        ends = bool(self.row.unwanted) or any(change.urgent for change in self.changes)
        priority = task.priority if task else 0
        return not ends, not self.row.is_open, -priority, status.asked_at or status.phase_since

    @property
    def is_disowned(self) -> bool:
        """Whether it stands for an orphan whose row a person has deleted: nobody asks for it."""
        return status_id.to_orphan(self.row.status.task_id) is not None and self.row.orphan is None

    @property
    def is_watched(self) -> bool:
        """Whether somebody's silence would end it."""
        task = self.row.task
        if task is None:
            return False
        return (task.heartbeat_timeout or task.owner_timeout or task.upstream) is not None


def read(connection: Connection, locked: Sequence[Sequence[Any]], now: datetime) -> list[Read]:
    """Return what belongs to these statuses, which another statement has locked before."""
    if not locked:
        return []
    statuses = _statuses(connection, locked)
    ids = [status.task_id for status in statuses]
    agents = ledger.read_agents(connection, ids)
    # Changes before tasks: a change that is committed in between stays for the next pass. The other
    # way round it would be taken, and the task as it was before would have the last word.
    changes = rows.read_changes(connection, ids)
    starting = [id_ for id_ in ids if not any(a.is_known for a in agents.get(id_, ()))]
    changing = [status.task_id for status in statuses if status.update_due]
    changing += [id_ for id_, some in changes.items() if any(c.what is What.SPEC for c in some)]
    tasks = rows.read_tasks(connection, ids, with_spec=[*starting, *changing])
    facts = _facts(connection, changes)
    past = fact_reading.read_past(connection, chain.from_iterable(facts.values()))
    found_orphans = orphans.read(connection, ids)
    found = []
    for status in statuses:
        id_ = status.task_id
        written, spec = tasks.get(id_, (None, None))
        task, unreadable = _task(written, status, now)
        found.append(
            Read(
                row=Row(
                    status=status,
                    task=task,
                    orphan=found_orphans.get(id_),
                    agents=agents.get(id_, ()),
                ),
                changes=changes.get(id_, ()),
                spec=UNREAD if spec is None else spec,
                facts=[
                    fact
                    for account, fact in facts.get(id_, ())
                    if not is_past(fact, agents.get(id_, ()), past.get(account, ()))
                ],
                told=[(account, fact.key) for account, fact in facts.get(id_, ())],
                unreadable=unreadable,
            )
        )
    return found


def _facts(
    connection: Connection, changes: dict[str, list[Change]]
) -> dict[str, list[tuple[str, Fact]]]:
    """Return the facts of rows that were told of some. Of too many, the rest is told again."""
    told = [id_ for id_, some in changes.items() if any(c.what is What.FACT for c in some)]
    facts = fact_reading.read(connection, told) if told else {}
    for id_, some in facts.items():
        if len(some) > FACTS_MAX:
            oldest = sorted(some, key=lambda one: one[1].event_at)
            facts[id_] = oldest[:FACTS_MAX]
            changes[id_] = [one for one in changes[id_] if one.what is not What.FACT]
    return facts


def _statuses(connection: Connection, locked: Sequence[Sequence[Any]]) -> list[Status]:
    """Return statuses. One that was made anew counts on from what the ledger remembers."""
    statuses = [codec.to_status(row) for row in locked]
    fresh = [status.task_id for status in statuses if status.incarnation == 0]
    last = ledger.last_incarnations(connection, fresh)
    return [
        replace(status, incarnation=last[status.task_id], retired=last[status.task_id])
        if status.task_id in last
        else status
        for status in statuses
    ]


def _task(row: Sequence[Any] | None, status: Status, now: datetime) -> tuple[Task | None, str]:
    """Return the task; of one that cannot be read, what its status knows of it, and the reason."""
    if row is None:
        return None, ""
    try:
        return codec.to_task(row), ""
    except UnreadableError as error:
        task = Task(
            id=status.task_id,
            account=status.account,
            room_id=status.room_id,
            user_id=status.user_id,
            running=True,
            created_at=now,
        )
        return task, str(error)
