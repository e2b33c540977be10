"""The database as plain Python: tasks and their triggers, statuses, ledger, inbox, leases, buckets.

It holds what the tables hold, and every method is one transaction.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.core import announce, late, wishes
from orchestrator.core.breaker import Breaker
from orchestrator.core.bucket import Bucket
from orchestrator.core.fact import Fact
from orchestrator.core.model import (
    Account,
    Agent,
    Change,
    Orphan,
    Row,
    Status,
    Step,
    Task,
    Verb,
    What,
    WorkClass,
)
from tests.simulation.checkers import Checkers
from tests.simulation.facts import Entry, Facts, entries_of
from tests.simulation.orphans import Found
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
    owners: dict[str, str] = field(default_factory=dict)
    """Ledger row: the row that it belongs to."""
    facts: Facts = field(default_factory=Facts)
    orphans: dict[str, Found] = field(default_factory=dict)
    stops_foreign: bool = False
    clock_set: timedelta = timedelta()
    """By how much the clock was set in all, as far as a daemon has noticed."""
    inbox: dict[str, list[Change]] = field(default_factory=lambda: defaultdict(list))
    leases: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    slots: dict[str, datetime] = field(default_factory=dict)
    """Parked rows: when there is a slot for them."""
    buckets: dict[tuple[str, Verb], Bucket] = field(
        default_factory=lambda: defaultdict(lambda: Bucket(limit=LIMIT))
    )
    breakers: dict[str, Breaker] = field(default_factory=lambda: defaultdict(Breaker))
    seq: int = 0
    found: int = 0

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

    def read(self, task_id: str, now: datetime) -> tuple[Step, list[Fact]]:
        """Take a row's changes and return it with them absorbed, and what was told of it.

        A call of a lost daemon is absorbed, too.
        """
        self.slots.pop(task_id, None)
        changes, row = self.inbox.pop(task_id, []), self._count_on(self.rows[task_id])
        row = replace(row, task=self.tasks.get(task_id), orphan=self._orphan_of(task_id))
        told = any(change.what is What.FACT for change in changes)
        facts = self.facts.about(row.agents, self._past(row.status.account)) if told else []
        return wishes.absorb(announce.abandon(row), changes, now), facts

    def _past(self, account: str) -> set[str]:
        """Return the handles of agents that have ended."""
        ended = self.entries(account, is_open=False)
        return {one.agent.vendor_task_id for one in ended if one.agent.vendor_task_id is not None}

    def _count_on(self, row: Row) -> Row:
        """Let a status that was made anew count on from what the ledger remembers."""
        if row.status.incarnation:
            return row
        mine = [id_ for id_, owner in self.owners.items() if owner == row.status.task_id]
        last = max((self.ledger[id_].incarnation for id_ in mine), default=0)
        return replace(row, status=replace(row.status, incarnation=last, retired=last))

    def commit(self, row: Row, ended: tuple[Agent, ...]) -> None:
        """Write a row with its ledger, and let the checkers look."""
        task_id = row.status.task_id
        before = self.rows.get(task_id)
        self.rows[task_id] = row
        for agent in (*row.agents, *ended):
            self._write(agent, task_id)
        for agent in ended:
            self.checkers.closed(agent, self.vendors[agent.account])
        account, told = self.accounts[row.status.account], bool(self.inbox.get(task_id))
        self.checkers.committed(before, row, account, is_told_more=told)

    def _write(self, agent: Agent, task_id: str) -> None:
        self.ledger[agent.id] = agent
        self.owners[agent.id] = task_id
        self.checkers.keeps_handle(agent)

    def forget(self, row: Row, ended: tuple[Agent, ...], now: datetime) -> None:
        """Delete the status of a task that is deleted and gone, or of an orphan that is gone."""
        task_id = row.status.task_id
        self.commit(row, ended)
        del self.rows[task_id]
        if task_id[0] == "~":
            self._close(task_id[1:], now)

    def learn(self, agent_id: str, handle: str, task_id: str, now: datetime) -> None:
        """Write a handle that came too late for its row, and make the row due."""
        agent = self.ledger.get(agent_id)
        if agent is None:
            return  # a database that was restored knows nothing of the call
        caps = self.accounts[agent.account].caps
        if agent.vendor_task_id in {None, handle} or caps.names_handle:
            learnt = late.learn(agent, handle, caps)
        else:
            learnt = late.another(agent, handle)
            if learnt.id in self.ledger:
                return
        self._write(learnt, task_id)
        self._reopen(learnt, task_id, now)
        self.note(task_id, What.LEDGER, now)

    def _reopen(self, agent: Agent, task_id: str, now: datetime) -> None:
        """Let a row look after an agent of which it learns late: all it ever began must end."""
        if agent.ended_at is not None:
            return
        row = self.rows.get(task_id)
        if row is None:
            status = Status(
                task_id=task_id,
                account=agent.account,
                room_id=agent.room_id,
                user_id=agent.user_id,
                phase_since=now,
                incarnation=agent.incarnation,
                retired=agent.incarnation,
            )
            row = Row(status=status, task=None)
        agents = row.replace_agent(agent).agents
        in_order = tuple(sorted(agents, key=lambda one: (one.announced_at, one.id)))
        self.rows[task_id] = replace(row, agents=in_order)

    def put_off(self, now: datetime, step: timedelta) -> None:
        """Put off the horizons that were still to come when the clock was set ahead."""
        before = now - step
        for id_, agent in self.ledger.items():
            if agent.ended_at is not None or agent.horizon_at is None:
                continue
            if agent.horizon_at > before >= agent.announced_at:
                later = replace(agent, horizon_at=agent.horizon_at + step)
                self.ledger[id_] = later
                owner = self.owners[id_]
                if owner in self.rows:
                    self.rows[owner] = self.rows[owner].replace_agent(later)

    # --- what vendors tell

    def entries(self, account: str, *, is_open: bool) -> list[Entry]:
        """Return the ledger rows of an account with their owners."""
        return entries_of(self.ledger, self.owners, account, is_open=is_open)

    def receive(self, account: str, fact: Fact, now: datetime) -> None:
        """Keep a fact, and make the rows due that it may concern."""
        entries = self.entries(account, is_open=True)
        for owner in sorted(self.facts.receive(account, fact, entries, now)):
            self.note(owner, What.FACT, now)

    # --- orphans

    def next_orphan_id(self) -> str:
        self.found += 1
        return f"o{self.found}"

    def take_up(self, found: Found, agent: Agent, status: Status) -> None:
        """Let an orphan be looked after as a task is."""
        self.orphans[found.id] = found
        self._write(agent, status.task_id)
        self.rows[status.task_id] = Row(
            status=status, task=None, orphan=Orphan(id=found.id, stop=found.stop), agents=(agent,)
        )

    def dismiss(self, found: Found) -> None:
        """Look after an orphan no more that is a task's agent after all."""
        row = self.rows.pop(found.status_id)
        for agent in row.agents:
            del self.ledger[agent.id], self.owners[agent.id]
            self.checkers.handles.pop(agent.id, None)
        self.orphans[found.id] = replace(found, phase="ignored")

    def _orphan_of(self, status_id: str) -> Orphan | None:
        if status_id[0] != "~":
            return None
        found = self.orphans[status_id[1:]]
        return Orphan(id=found.id, stop=found.stop)

    def _close(self, id_: str, now: datetime) -> None:
        """Write that an orphan is gone, and so is what was only reported under its handle."""
        found = self.orphans[id_] = replace(self.orphans[id_], phase="stopped")
        for other in self.orphans.values():
            if other.is_same(found) and other.phase == "seen" and not other.stop:
                self.note(other.status_id, What.ASSUME_GONE, now)
