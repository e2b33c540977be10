"""Settle commands: outcomes become commands and lanes, many in one transaction.

The fence is the lane's: version, command in flight, owner. An outcome that lost it is dropped,
because whoever took the lane over knows that it is unknown, and acts on that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.core.lane import Lane, LaneStep, is_awaited
from orchestrator.core.lane_evolve import evolve_lane
from orchestrator.core.model import Agent, Phase, Row, Status, What
from orchestrator.daemon.errand import Answer
from orchestrator.daemon.lane_claim import CommandOrder
from orchestrator.store import lanes, rows
from orchestrator.store.draft import Draft
from orchestrator.store.engine import Connection
from orchestrator.store.engine import now as database_now
from orchestrator.store.lanes import HeldLane

if TYPE_CHECKING:
    from orchestrator.core.command import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSettlement:
    """A command and what it came to."""

    order: CommandOrder
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSettling:
    """Who settles."""

    daemon_id: str
    daemon_name: str


def settle_lanes(
    connection: Connection, settling: LaneSettling, batch: Sequence[CommandSettlement]
) -> list[CommandSettlement]:
    """Settle what can be settled now; return what others have locked, to be settled later."""
    now = database_now(connection)
    ids = sorted({one.order.flight.command.task_id for one in batch})
    locked = {held.key: held for held in lanes.lock(connection, ids)}
    work = _Settle(connection, settling, now)
    later: list[CommandSettlement] = []
    for one in batch:
        lane = one.order.lane
        found = locked.get((lane.task_id, lane.user_id))
        if found is None:
            later.append(one)
        elif _holds(found, settling, one):
            work.settle(one, found.lane)
    work.write()
    return later


def _holds(found: HeldLane, settling: LaneSettling, one: CommandSettlement) -> bool:
    if found.lease_owner != settling.daemon_id:
        return False
    return is_awaited(found.lane, one.order.flight)


class _Settle:
    """One settlement: all that it will write."""

    def __init__(self, connection: Connection, settling: LaneSettling, now: datetime) -> None:
        self.connection = connection
        self.settling = settling
        self.now = now
        self.draft = Draft(now=now)
        self.held: list[HeldLane] = []
        self.commands: list[Command] = []

    def settle(self, one: CommandSettlement, lane: Lane) -> None:
        """Take one outcome into its lane, which this transaction has locked."""
        order, settled = one.order, one.answer.settled
        step = evolve_lane(lane, order.flight, settled, order.account)
        self.commands.append(step.command)
        self.held.append(HeldLane(lane=step.lane, due_at=self._due(step)))
        if step.is_gone:
            rows.tell(self.connection, lane.task_id, What.LEDGER, self.settling.daemon_name)
        self._tell(one, step)

    def _due(self, step: LaneStep) -> datetime | None:
        """Return when the lane is to be looked at: when its command may be tried again, or now."""
        if step.lane.command_id is not None:
            return step.lane.retry_at or self.now
        return self.now if lanes.has_others(self.connection, step.command) else None

    def _tell(self, one: CommandSettlement, step: LaneStep) -> None:
        outcome, agent = one.answer.settled.outcome, one.order.flight.agent
        self.draft.tell(
            "command",
            Row(status=_status_of(step.lane.task_id, agent, self.now), task=None),
            actor=self.settling.daemon_name,
            command_id=step.command.id,
            action=one.answer.action or step.command.kind.value,
            outcome=type(outcome).__name__,
            code=outcome.code or None,
            message=outcome.message or None,
            request_id=outcome.request_id or None,
            latency_ms=one.answer.latency_ms,
        )

    def write(self) -> None:
        """Write everything."""
        lanes.write_commands(self.connection, self.commands, self.now)
        lanes.write_lanes(self.connection, self.held)
        self.draft.write(self.connection)


def _status_of(task_id: str, agent: Agent, now: datetime) -> Status:
    return Status(
        task_id=task_id,
        account=agent.account,
        room_id=agent.room_id,
        user_id=agent.user_id,
        phase=Phase.RUNNING,
        phase_since=now,
        incarnation=agent.incarnation,
    )
