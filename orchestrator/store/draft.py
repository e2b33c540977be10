"""What a transaction will write at its end, collected while it decides, written in one fixed order.

Claim and settle fill it; neither writes a status or a ledger row in any other way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from orchestrator.core.model import Agent, Change, Phase, Row, Status, Task
from orchestrator.store import fact_reading, lanes, ledger, llm_tasks, orphans, rows, status_id

EVENT_KEYS = (
    "at", "task_id", "command_id", "orphan_id", "account", "incarnation", "actor", "event",
    "action", "outcome", "code", "message", "request_id", "latency_ms", "phase_before",
    "phase_after",
)  # fmt: skip

PRIORITY_MAX: Final = 2**31 - 1
"""The highest that the column holds."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """The writes of one transaction. Every row in it must be locked by that transaction."""

    now: datetime
    held: list[rows.Held] = field(default_factory=list)
    new_agents: list[tuple[str, Agent]] = field(default_factory=list)
    agents: dict[str, Agent] = field(default_factory=dict)
    taken: list[Change] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    """Facts that have been applied, by account and key."""
    orphans: list[Row] = field(default_factory=list)
    dismissed: list[tuple[Row, str]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    upstreams: list[llm_tasks.Told] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)
    """Tasks whose agent has begun or ceased to run: their lanes wait for that."""

    def hold(self, row: Row, lease_owner: str | None = None, until: datetime | None = None) -> None:
        """Write this row's status, with a lease or without."""
        self.held.append(
            rows.Held(
                status=row.status,
                lease_owner=lease_owner,
                lease_until=until,
                priority=_priority(row),
                now=self.now,
            )
        )
        if row.orphan is not None:
            self.orphans.append(row)

    def forget(self, row: Row) -> None:
        """Delete this row's status: nothing of it runs any more, and nobody asks for it."""
        self.forgotten.append(row.status.task_id)
        if row.orphan is not None:
            self.orphans.append(row)

    def dismiss(self, row: Row, reason: str) -> None:
        """Look after an orphan no more, although nobody knows whether it has ended."""
        self.dismissed.append((row, reason))

    def ledger(self, before: Sequence[Agent], row: Row, ended: Sequence[Agent] = ()) -> None:
        """Write the ledger rows of a row that are not as they were, and those that ended."""
        known = {agent.id: agent for agent in before}
        for agent in row.agents:
            if agent.id not in known:
                self.new_agents.append((row.status.task_id, agent))
            elif agent is not known[agent.id]:
                self.agents[agent.id] = agent
        for agent in ended:
            self.agents[agent.id] = agent

    def turn(self, before: Status, after: Status) -> None:
        """Let the lanes of a task be looked at, if its agent has begun or ceased to run."""
        if (before.phase is Phase.RUNNING) is not (after.phase is Phase.RUNNING):
            self.turned.append(after.task_id)

    def note_upstream(self, task: Task, upstream: str | None) -> None:
        """Write which upstream the agent of a task is told to ask, if that is news."""
        if upstream != task.upstream:
            told = llm_tasks.Told(task_id=task.id, account=task.account, upstream=upstream)
            self.upstreams.append(told)

    def tell(self, event: str, row: Row, **values: Any) -> None:
        """Append an event about a row. `values` are columns of `agent_event`."""
        status = row.status
        told: Mapping[str, Any] = {
            "at": self.now,
            **_about(status.task_id),
            "account": status.account,
            "incarnation": status.incarnation,
            "event": event,
            "phase_after": status.phase.value,
            **values,
        }
        self.events.append({key: told.get(key) for key in EVENT_KEYS})

    def write(self, connection: Connection) -> None:
        """Write everything. The ledger comes before the statuses that speak of it."""
        ledger.add_agents(connection, self.new_agents)
        ledger.write_agents(connection, self.agents.values())
        fact_reading.take(connection, self.told, self.now)
        rows.write_statuses(connection, self.held)
        rows.take_changes(connection, self.taken)
        rows.forget(connection, self.forgotten)
        lanes.forget(connection, self.forgotten)
        llm_tasks.note(connection, self.upstreams)
        llm_tasks.forget(connection, self.forgotten)
        orphans.write(connection, self.orphans)
        for row, reason in self.dismissed:
            orphans.dismiss(connection, row, reason)
        orphans.close(connection, self.forgotten, self.now)
        rows.write_events(connection, self.events)
        lanes.touch(connection, self.turned, self.now)


def _priority(row: Row) -> int:
    """Return the priority of a row in its queue: a start that is open goes before all others."""
    if row.is_open:
        return PRIORITY_MAX
    return row.task.priority if row.task else 0


def _about(id_: str) -> dict[str, str]:
    """Return the column of `agent_event` in which a status is named."""
    orphan_id = status_id.to_orphan(id_)
    return {"task_id": id_} if orphan_id is None else {"orphan_id": orphan_id}
