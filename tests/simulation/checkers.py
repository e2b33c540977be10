"""What must hold: each promise as a check of its own, knowing nothing of how the world is driven.

A check that fails raises `Broken`. All of them look at the vendors' world and at what the store has
committed, never at what a daemon believes.
"""

from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.core import invariants, transitions
from orchestrator.core.action import Flight
from orchestrator.core.model import (
    Account,
    Agent,
    EndReason,
    Phase,
    Recovery,
    Row,
    Task,
    Verb,
    WaitingFor,
    WorkClass,
)
from tests.simulation.vendors import CAPS, Instance, Request, Vendor

ENDINGS = {Verb.STOP, Verb.KICK, Verb.FIND}
HELD_ONLY_FOR_STARTS = {WaitingFor.PAUSED, WaitingFor.DENIED, WaitingFor.CIRCUIT_OPEN}


class Broken(AssertionError):  # noqa: N818 - it is the promise that is broken
    """A promise was broken. `check` names the checker."""

    def __init__(self, check: str, sentence: str) -> None:
        super().__init__(f"{check}: {sentence}")
        self.check = check


@dataclass(slots=True)
class Checkers:
    """All checks of one world, with the little that they must remember."""

    doomed: set[str] = field(default_factory=set)
    """Ledger rows that a committed stop, delete or replacement must end."""
    handles: dict[str, str] = field(default_factory=dict)
    """Ledger row: the handle that a daemon has settled for it."""
    reasons: set[tuple[str, EndReason]] = field(default_factory=set)
    """Tasks, and the reasons to end by themselves that each was ever given."""
    asked: set[tuple[str, bool]] = field(default_factory=set)
    """Ledger rows, and whether their handle was known, that were asked to go since they must."""
    arrivals: dict[tuple[str, str], deque[datetime]] = field(
        default_factory=lambda: defaultdict(deque)
    )

    # --- at every instant

    def started(self, vendor: Vendor, instance: Instance, ledger: dict[str, Agent]) -> None:
        """P1 and P2, at the instant at which an agent begins to live."""
        for other in vendor.live:
            if other is instance or other.task_id != instance.task_id:
                continue
            same = (other.agent_user, other.incarnation)
            evicts = vendor.recovery is Recovery.EVICT
            if not (evicts and same == (instance.agent_user, instance.incarnation)):
                raise Broken("P1", f"{instance.task_id} has {other.handle} and {instance.handle}")
        agent = ledger.get(instance.agent_id)
        if agent is None or agent.ended_at is not None:
            raise Broken("P2", f"{instance.handle} lives, and its ledger row is not open")

    def closed(self, agent: Agent, vendor: Vendor) -> None:
        """P2, at the instant at which a ledger row ends."""
        for instance in vendor.live:
            if instance.agent_id == agent.id:
                raise Broken("P2", f"{agent.id} ended ({agent.evidence}), {instance.handle} lives")

    def hit(self, request: Request, ended: list[Instance]) -> None:
        """P7: a stop or kick ends only what its ledger row stands for."""
        for instance in ended:
            if instance.ended_by == "evicted":
                continue
            mine = (request.task_id, request.agent.incarnation)
            if (instance.task_id, instance.incarnation) != mine:
                raise Broken("P7", f"{request.verb} of {request.agent.id} hit {instance.agent_id}")

    def arrived(self, account: str, action: str, limit: int, now: datetime) -> None:
        """P6: no window of one second holds more than the limit."""
        seen = self.arrivals[account, action]
        seen.append(now)
        while seen[0] <= now - timedelta(seconds=1):
            seen.popleft()
        if len(seen) > limit:
            raise Broken("P6", f"{len(seen)} {action} within one second, limit {limit}")

    def leaves(self, lease_until: datetime, now: datetime, needs: timedelta) -> None:
        """A call leaves with its whole deadline inside its lease."""
        if lease_until - now < needs:
            raise Broken("lease", f"sent with {lease_until - now} of its lease left")

    def announced(self, flight: Flight, row: Row) -> None:
        """Remember who was asked to go, and whether by its handle."""
        agent = flight.agent
        if agent.incarnation <= row.status.retired and flight.verb in ENDINGS:
            self.asked.add((agent.id, agent.is_known or flight.verb is Verb.STOP))

    # --- after every commit

    def committed(
        self, before: Row | None, after: Row, account: Account, *, is_told_more: bool
    ) -> None:
        """The invariants, the transitions, and P3: what must end never rests.

        `is_told_more`: there are changes in the inbox, so that the row will be looked at at once.
        """
        for sentence in invariants.broken(after, account):
            raise Broken("invariant", f"{after.status.task_id}: {sentence}")
        status = after.status
        was = before.status.phase if before else status.phase
        if not transitions.is_allowed(was, status.phase):
            raise Broken("transition", f"{status.task_id}: {was} to {status.phase}")
        if not after.unwanted:
            return
        parked = status.parked_class is WorkClass.STOP
        if status.stop_due_at is None and not parked:
            raise Broken("P3", f"{status.task_id} must stop, and is not due for it")
        if status.waiting_for is WaitingFor.PROOF and not is_told_more:
            self._asked_all(after, account)
        if status.waiting_for in HELD_ONLY_FOR_STARTS:
            raise Broken("P4", f"{status.task_id} must stop, and waits for {status.waiting_for}")

    def _asked_all(self, row: Row, account: Account) -> None:
        """P3: proof is waited for only after asking to go, by the handle if there is one."""
        for agent in row.unwanted:
            by_handle = agent.is_known or account.caps.names_handle
            if (agent.id, by_handle) not in self.asked:
                raise Broken("P3", f"{agent.id} must go, and was never asked to")

    def settled(self, agent_id: str, handle: str | None, ledger: dict[str, Agent]) -> None:
        """P2: every handle that a daemon has read is in the ledger, and stays there."""
        if handle is not None:
            self.handles[agent_id] = handle
        for known, expected in self.handles.items():
            if ledger[known].vendor_task_id != expected:
                raise Broken("P2", f"{known} has lost its handle {expected}")

    def claimed(self, work_class: WorkClass, stops_left: int, *, must_stop: bool) -> None:
        """P4: a pass claims no start while a row that must stop is due."""
        if work_class is WorkClass.START and stops_left and not must_stop:
            raise Broken("P4", "a start was claimed before a stop that was due")

    # --- at the end, after a quiet time

    def converged(self, vendor: Vendor, row: Row | None, task: Task | None, task_id: str) -> None:
        """P3 and P8: the vendor's world equals the row."""
        live = [i for i in vendor.live if i.task_id == task_id]
        for instance in live:
            if instance.agent_id in self.doomed:
                raise Broken("P3", f"{instance.handle} lives, which a committed stop must end")
        if task is None:
            if row is not None or live:
                raise Broken("P8", f"{task_id} is deleted, and not forgotten")
        elif row is None:
            raise Broken("P8", f"{task_id} has no status")
        elif row.status.retires:
            self._ended(row, task, live, vendor)
        else:
            self._runs(row, task, live, vendor)

    def _ended(self, row: Row, task: Task, live: list[Instance], vendor: Vendor) -> None:
        status = row.status
        if live or row.agents or status.phase not in {Phase.STOPPED, Phase.FAILED}:
            raise Broken("P8", f"{task.id} is retired, shows {status.phase}, {len(live)} live")
        if task.running and not self.has_reason(row, task, vendor):
            raise Broken("P8", f"{task.id} wants to run, and ended: {status.end_reason}")

    def _runs(self, row: Row, task: Task, live: list[Instance], vendor: Vendor) -> None:
        status = row.status
        can_tell = CAPS[vendor.recovery].poll_proves_absence or status.confirmed_at is not None
        if not can_tell and not live and status.phase is Phase.RUNNING:
            return  # It died before anybody could have seen it: only a callback would tell.
        if not task.running or status.phase is not Phase.RUNNING or len(live) != 1:
            raise Broken("P8", f"{task.id} shows {status.phase}, {len(live)} live")
        (instance,) = live
        expected = (task.room_id, task.spec["v"], status.incarnation)
        if (instance.room, instance.spec, instance.incarnation) != expected:
            raise Broken("P8", f"{task.id} runs otherwise than its row says")

    def has_reason(self, row: Row, task: Task, vendor: Vendor) -> bool:
        """Whether a row that wants to run had a reason to end."""
        end_reason = row.status.end_reason
        if end_reason is EndReason.VENDOR_GONE:
            return any(i.task_id == task.id for i in vendor.ended)
        return (task.id, end_reason) in self.reasons

    def wrote(self, task: Task) -> None:
        """Remember what may end a task by itself."""
        given = {
            EndReason.DEADLINE: task.stop_at,
            EndReason.HEARTBEAT_LOST: task.heartbeat_timeout,
            EndReason.START_FAILED: task.start_by,
        }
        self.reasons |= {(task.id, reason) for reason, why in given.items() if why is not None}
