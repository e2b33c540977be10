"""The database as plain Python: tasks and their triggers, statuses, ledger, inbox, leases, buckets.

It holds what the tables hold, and every method is one transaction.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchestrator.core import announce, wishes
from orchestrator.core.breaker import Breaker
from orchestrator.core.bucket import Bucket
from orchestrator.core.model import (
    Account,
    Agent,
    Change,
    Row,
    Status,
    Step,
    Task,
    Verb,
    What,
    WorkClass,
)
from tests.simulation.checkers import Checkers
from tests.simulation.vendors import Vendor

LIMIT = 3
"""Calls per second for each account and action: few enough to be waited for."""
URGENT = {What.STOP, What.DELETE}
ENDS = {What.STOP, What.DELETE, What.RESTART, What.INSERT}


@dataclass(slots=True, kw_only=True)
class Store:
    """One database, shared by all daemons."""

    accounts: dict[str, Account]
    vendors: dict[str, Vendor]
    checkers: Checkers
    tasks: dict[str, Task] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    """Statuses with their open ledger rows; the task beside it is read at each claim."""
    ledger: dict[str, Agent] = field(default_factory=dict)
    """Every ledger row, open or ended."""
    inbox: dict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))
    leases: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    slots: dict[str, datetime] = field(default_factory=dict)
    """Parked rows: when there is a slot for them."""
    buckets: dict[tuple[str, Verb], Bucket] = field(
        default_factory=lambda: defaultdict(lambda: Bucket(limit=LIMIT))
    )
    breakers: dict[str, Breaker] = field(default_factory=lambda: defaultdict(Breaker))
    seq: int = 0

    # --- the application's side

    def write_task(self, task_id: str, task: Task | None, what: What | None, now: datetime) -> None:
        """Insert, update or delete a task; the trigger writes the change and a first status."""
        if task is None:
            self.tasks.pop(task_id)
        else:
            self.tasks[task_id] = task
            self.checkers.wrote(task)
            self._first_status(task, now)
        if what is not None:
            self.note(task_id, what, now)

    def note(self, task_id: str, what: What, now: datetime) -> None:
        """Write a change into the inbox."""
        if what in ENDS and task_id in self.rows:
            self.checkers.doomed |= {a.id for a in self.rows[task_id].agents}
        self.seq += 1
        urgent = what in URGENT
        change = Change(seq=self.seq, at=now, task_id=task_id, what=what, urgent=urgent)
        self.inbox[task_id].append(change)

    def _first_status(self, task: Task, now: datetime) -> None:
        if task.id not in self.rows:
            status = Status(
                task_id=task.id,
                account=task.account,
                room_id=task.room_id,
                user_id=task.user_id,
                phase_since=now,
            )
            self.rows[task.id] = Row(status=status, task=task)

    # --- the daemons' side

    def is_leased(self, task_id: str, now: datetime) -> bool:
        lease = self.leases.get(task_id)
        return lease is not None and lease[1] > now

    def due(self, now: datetime) -> list[tuple[bool, str]]:
        """Return the rows to claim, those that must stop first, each with whether it must."""
        found = []
        for task_id, row in self.rows.items():
            if self.is_leased(task_id, now):
                continue
            status, changes = row.status, self.inbox.get(task_id)
            stops = status.stop_due_at is not None and status.stop_due_at <= now
            stops = stops or any(change.urgent for change in changes or ())
            slot = self.slots.get(task_id)
            yields = slot is not None and slot <= now
            stops = stops or (yields and status.parked_class is WorkClass.STOP)
            late = status.due_at is not None and status.due_at <= now
            if stops or changes or yields or late:
                found.append((not stops, task_id))
        return [(not later, task_id) for later, task_id in sorted(found)]

    def next_due(self, now: datetime) -> datetime | None:
        """Return when the next row is due; null if none is."""
        times: list[datetime] = []
        for task_id, row in self.rows.items():
            lease = self.leases.get(task_id)
            if lease is not None and lease[1] > now:
                times.append(lease[1])
                continue
            if self.inbox.get(task_id):
                return now
            known = (row.status.due_at, row.status.stop_due_at, self.slots.get(task_id))
            times += [t for t in known if t is not None]
        return min(times, default=None)

    def read(self, task_id: str, now: datetime) -> Step:
        """Take a row's changes and return it with them absorbed; a call of a lost daemon is too."""
        self.slots.pop(task_id, None)
        row = announce.abandon(replace(self.rows[task_id], task=self.tasks.get(task_id)))
        return wishes.absorb(row, self.inbox.pop(task_id, []), now)

    def commit(self, row: Row, ended: tuple[Agent, ...]) -> None:
        """Write a row with its ledger, and let the checkers look."""
        task_id = row.status.task_id
        before = self.rows.get(task_id)
        self.rows[task_id] = row
        for agent in row.agents:
            self.ledger[agent.id] = agent
        for agent in ended:
            self.ledger[agent.id] = agent
            self.checkers.closed(agent, self.vendors[agent.account])
        account, told = self.accounts[row.status.account], bool(self.inbox.get(task_id))
        self.checkers.committed(before, row, account, is_told_more=told)

    def forget(self, row: Row, ended: tuple[Agent, ...]) -> None:
        """Delete the status of a task that is deleted and gone."""
        self.commit(row, ended)
        del self.rows[row.status.task_id]

    def learn(self, agent: Agent, now: datetime, task_id: str) -> None:
        """Write a ledger row that a late outcome has added to, and make its task due."""
        self.ledger[agent.id] = agent
        row = self.rows.get(task_id)
        if row is None:
            return
        if agent.ended_at is None:
            self.rows[task_id] = row.replace_agent(agent)
        self.note(task_id, What.LEDGER, now)
