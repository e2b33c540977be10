"""What must hold: each promise as a check of its own, knowing nothing of how the world is driven.

A check that fails raises `Broken`. All of them look at the vendors' world and at what the store has
committed, never at what a daemon believes.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.core import invariants, transitions
from orchestrator.core.action import Flight
from orchestrator.core.bucket import WINDOW_US
from orchestrator.core.caps import Recovery
from orchestrator.core.ending import RESTARTS_MAX
from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import (
    Account,
    Agent,
    EndReason,
    Phase,
    Row,
    Step,
    Task,
    Verb,
    WaitingFor,
    WorkClass,
)
from tests.simulation.vendors import CAPS, Instance, Request, Vendor

if TYPE_CHECKING:
    from tests.simulation.orphans import Found
    from tests.simulation.store import Store

ENDINGS = {Verb.STOP, Verb.KICK, Verb.FIND}
LIVES = {Event.STARTED, Event.ALIVE, Event.FAULT}
ASKED = {"stop", "kick"}
"""Ends that somebody of ours asked for."""
BIRTHS_MAX = RESTARTS_MAX + 4
"""How often an agent of one row may be born while nobody wants anything new of it."""
CLOCK_NOISE = timedelta(seconds=1)
"""How exactly the vendors' clocks are known."""
HELD_ONLY_FOR_STARTS = {WaitingFor.PAUSED, WaitingFor.DENIED, WaitingFor.CIRCUIT_OPEN}


class Broken(AssertionError):  # noqa: N818 - it is the promise that is broken
    """A promise was broken. `check` names the checker."""

    def __init__(self, check: str, sentence: str) -> None:
        super().__init__(f"{check}: {sentence}")
        self.check = check


@dataclass(slots=True)
class Checkers:
    """All checks of one world, with the little that they must remember."""

    stops_foreign: bool = False
    doomed: set[str] = field(default_factory=set)
    """Ledger rows that a committed stop, delete or replacement must end."""
    handles: dict[str, str] = field(default_factory=dict)
    """Ledger row: the handle that was first written into it."""
    reasons: set[tuple[str, EndReason]] = field(default_factory=set)
    """Tasks, and the reasons to end by themselves that each was ever given."""
    asked: set[tuple[str, bool]] = field(default_factory=set)
    """Ledger rows, and whether their handle was known, that were asked to go since they must."""
    lost: set[str] = field(default_factory=set)
    """Ledger rows of agents that were started in what a restored database does not know."""
    early: set[str] = field(default_factory=set)
    """Ledger rows whose horizons a clock that is set ahead brings too early."""
    is_restored: bool = False
    restored_at: datetime | None = None
    """When a database was restored, which knows nothing of calls that were on their way."""
    must_go: set[tuple[str, str]] = field(default_factory=set)
    """Accounts and handles of agents without a row that were named to us, and are to be stopped."""
    condemned: set[tuple[str, str]] = field(default_factory=set)
    """Accounts and handles that an operator wants stopped."""
    births: Counter[str] | None = None
    """Tasks: how often an agent was born of each since the quiet time began; null before."""
    uncounted_until: datetime | None = None
    """What left before the clock was set ahead may arrive with what left after."""
    arrivals: dict[tuple[str, str], deque[datetime]] = field(
        default_factory=lambda: defaultdict(deque)
    )

    # --- at every instant

    def started(self, vendor: Vendor, instance: Instance, ledger: dict[str, Agent]) -> None:
        """P1 and P2, at the instant at which an agent begins to live."""
        self._count_birth(instance)
        if self.is_excused(instance):
            return
        for other in vendor.live:
            if other is instance or other.task_id != instance.task_id or self.is_excused(other):
                continue
            same = (other.agent_user, other.incarnation)
            evicts = vendor.recovery is Recovery.EVICT
            if not (evicts and same == (instance.agent_user, instance.incarnation)):
                raise Broken("P1", f"{instance.task_id} has {other.handle} and {instance.handle}")
        agent = ledger.get(instance.agent_id)
        if agent is None or agent.ended_at is not None:
            raise Broken("P2", f"{instance.handle} lives, and its ledger row is not open")

    def _count_birth(self, instance: Instance) -> None:
        """An agent that dies at its birth is not born again and again."""
        if self.births is None:
            return
        self.births[instance.task_id] += 1
        if self.births[instance.task_id] > BIRTHS_MAX:
            raise Broken("pace", f"{instance.task_id} is born again and again")

    def is_excused(self, instance: Instance) -> bool:
        """Whether an agent was started in what the database has lost: nobody can know of it."""
        return instance.agent_id in self.lost

    def closed(self, agent: Agent, vendor: Vendor) -> None:
        """P2, at the instant at which a ledger row ends."""
        for instance in vendor.live:
            named = agent.vendor_task_id == instance.handle or instance.agent_id == agent.id
            if named and not self.is_excused(instance):
                raise Broken("P2", f"{agent.id} ended ({agent.evidence}), {instance.handle} lives")

    def hit(self, request: Request, ended: list[Instance], ledger: Mapping[str, Agent]) -> None:
        """P7: a stop or kick ends only what its ledger row stands for."""
        for instance in ended:
            if instance.ended_by == "evicted":
                continue
            if request.task_id[0] == "~":
                self._hit_orphan(request, instance, ledger)
                continue
            mine = (request.task_id, request.agent.incarnation)
            is_forgotten = self.restored_at is not None and request.signed_at <= self.restored_at
            excused = instance.task_id == request.task_id and (
                is_forgotten or self.is_excused(instance)
            )
            if (instance.task_id, instance.incarnation) != mine and not excused:
                raise Broken("P7", f"{request.verb} of {request.agent.id} hit {instance.agent_id}")

    def _hit_orphan(
        self, request: Request, instance: Instance, ledger: Mapping[str, Agent]
    ) -> None:
        """P7: what has no task is stopped if it is ours, or if somebody said so."""
        if (request.agent.account, instance.handle) in self.condemned:
            return
        if instance.is_foreign:
            if not self.stops_foreign:
                raise Broken("P7", f"{instance.handle} is somebody else's, and was stopped")
            return
        agent = ledger.get(instance.agent_id)
        if agent is not None and agent.ended_at is None:
            raise Broken("P7", f"{instance.handle} is a task's, and was stopped as an orphan")

    def arrived(self, account: str, action: str, limit: int, now: datetime) -> None:
        """P6: no window of one second holds more than the limit."""
        if self.uncounted_until is not None and now < self.uncounted_until:
            return
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
        if row.is_reported and flight.verb not in {Verb.POLL, Verb.FIND}:
            raise Broken("P7", f"{agent.id} is only reported, and is sent a {flight.verb}")
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

    def settled(self, agent_id: str, handle: str | None, store: "Store") -> None:
        """P2: every handle that a daemon has read is in the ledger, under its name."""
        if handle is None or agent_id not in store.ledger:
            return
        known = {store.ledger[agent_id].vendor_task_id}
        known |= {a.vendor_task_id for id_, a in store.ledger.items() if _is_twin(id_, agent_id)}
        if handle not in known:
            raise Broken("P2", f"{handle} was read for {agent_id}, and is lost")

    def keeps_handle(self, agent: Agent) -> None:
        """P2: a handle is added, never overwritten."""
        if agent.vendor_task_id is not None:
            self.handles.setdefault(agent.id, agent.vendor_task_id)
        if self.handles.get(agent.id) != agent.vendor_task_id:
            raise Broken("P2", f"{agent.id} has lost its handle {self.handles[agent.id]}")

    # --- what vendors tell

    def told_end(self, task_id: str, reason: EndReason | None) -> None:
        """Remember why an agent of a task is said to have ended."""
        self.reasons.add((task_id, reason or EndReason.VENDOR_GONE))

    def heard(self, row: Row, heard: Step, facts: Sequence[Fact], account: Account) -> None:
        """P2: a handle that was told of is in the ledger. And an old end ends nothing new."""
        known = {agent.vendor_task_id for agent in (*heard.row.agents, *heard.ended)}
        by_name = account.caps.names_handle
        for fact in facts:
            handle = fact.vendor_task_id
            if fact.event in LIVES and not by_name and handle is not None and handle not in known:
                raise Broken("P2", f"{handle} was told of, and is lost")
        if heard.row.status.retired > row.status.retired and by_name:
            ends = [fact.event_at for fact in facts if fact.event is Event.ENDED]
            if all(at < row.wanted[-1].announced_at - CLOCK_NOISE for at in ends):
                raise Broken("told", f"{row.wanted[-1].id} was ended by the end of an earlier one")

    def restored(self, lost: set[str], now: datetime) -> None:
        """Remember what the database does not know any more."""
        self.lost |= lost
        self.is_restored = True
        self.restored_at = now

    def calmed(self) -> None:
        """Count from now on what nobody asks for any more."""
        self.births = Counter()

    def hurried(self, store: "Store", now: datetime, true_now: datetime) -> None:
        """Excuse what a clock that is set forward ends too soon: horizons, and the last second."""
        self.early = {
            id_
            for id_, agent in store.ledger.items()
            if agent.ended_at is None and not agent.is_past_horizon(now)
        }
        self.lost |= self.early
        self.uncounted_until = true_now + timedelta(microseconds=WINDOW_US)
        self.arrivals.clear()

    def noticed(self, store: "Store") -> None:
        """Excuse nothing any more that a daemon can put off: it saw the clock before and after."""
        self.lost -= {id_ for id_ in self.early if store.ledger[id_].ended_at is None}

    def named(self, store: "Store", account: str, fact: Fact) -> None:
        """Remember which agents without a row were named, if they are to be stopped."""
        if fact.event not in LIVES:
            return
        for instance in store.vendors[account].live:
            if instance.handle != fact.vendor_task_id:
                continue
            mine = instance.agent_id in self.lost and instance.agent_id not in store.ledger
            if mine or (instance.is_foreign and self.stops_foreign):
                self.must_go.add((account, instance.handle))

    def claimed(self, work_class: WorkClass, stops_left: int, *, must_stop: bool) -> None:
        """P4: a pass claims no start while a row that must stop is due."""
        if work_class is WorkClass.START and stops_left and not must_stop:
            raise Broken("P4", "a start was claimed before a stop that was due")

    # --- at the end, after a quiet time

    def converged(self, store: "Store", vendor: Vendor, task_id: str) -> None:
        """P3 and P8: the vendor's world equals the row."""
        row, task = store.rows.get(task_id), store.tasks.get(task_id)
        looked_after = {agent.id for agent in row.agents} if row is not None else set()
        live = [
            one
            for one in vendor.live
            if one.task_id == task_id and (one.agent_id in looked_after or not self.is_excused(one))
        ]
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
            is_told = any(store.facts.tells_end(agent) for agent in row.wanted)
            self._runs(row, task, live, vendor, is_told=is_told)

    def _ended(self, row: Row, task: Task, live: list[Instance], vendor: Vendor) -> None:
        status = row.status
        if live or row.agents or status.phase not in {Phase.STOPPED, Phase.FAILED}:
            raise Broken("P8", f"{task.id} is retired, shows {status.phase}, {len(live)} live")
        if task.running and not self.has_reason(row, task, vendor):
            raise Broken("P8", f"{task.id} wants to run, and ended: {status.end_reason}")

    def _runs(
        self, row: Row, task: Task, live: list[Instance], vendor: Vendor, *, is_told: bool
    ) -> None:
        """It runs as its row says, or it died where nobody sees it and of its end was not told."""
        status, can_see = row.status, CAPS[vendor.recovery].poll_proves_absence
        can_see = can_see or any(agent.seen_at is not None for agent in row.wanted)
        is_unseen = not can_see and not is_told and not live
        if is_unseen and status.phase is Phase.RUNNING:
            return
        if not task.running or status.phase is not Phase.RUNNING or len(live) != 1:
            raise Broken("P8", f"{task.id} shows {status.phase}, {len(live)} live")
        (instance,) = live
        expected = (task.room_id, task.spec["v"], status.incarnation)
        if (instance.room, instance.spec, instance.incarnation) != expected:
            raise Broken("P8", f"{task.id} runs otherwise than its row says")

    def has_reason(self, row: Row, task: Task, vendor: Vendor) -> bool:
        """Whether a row that wants to run had a reason to end."""
        end_reason = row.status.end_reason
        if (task.id, end_reason) in self.reasons:
            return True
        if end_reason is not EndReason.VENDOR_GONE:
            return False
        ended = (i for i in vendor.ended if i.task_id == task.id and i.ended_by not in ASKED)
        overlooked = vendor.shows_agents and not CAPS[vendor.recovery].poll_proves_absence
        return any(ended) or overlooked or self.is_restored

    def nothing_leaks(self, store: "Store") -> None:
        """P8: what was named and must go is gone, and no orphan is left that is not there."""
        for name, vendor in store.vendors.items():
            handles = {instance.handle for instance in vendor.live}
            left = [handle for account, handle in self.must_go if account == name]
            for handle in [*left, *(h for account, h in self.condemned if account == name)]:
                if handle in handles and not _is_tasks(store, name, handle):
                    raise Broken("P8", f"{handle} lives, was named, and must not")
        for found in store.orphans.values():
            self._looked_after(found, store)

    def _looked_after(self, found: "Found", store: "Store") -> None:
        """P8: no orphan is left that is to be stopped, nor one that can be seen to be gone."""
        if found.stop and found.phase not in {"stopped", "ignored"}:
            raise Broken("P8", f"orphan {found.id} ({found.handle}) is {found.phase} for ever")
        if found.phase != "seen" or not store.accounts[found.account].caps.poll_proves_absence:
            return
        live, place = store.vendors[found.account].live, (found.room, found.name)
        by_handle = found.handle is not None
        if by_handle and not any(one.handle == found.handle for one in live):
            raise Broken("P8", f"{found.handle} is reported, and has ended")
        if not by_handle and not any((one.room, one.agent_user) == place for one in live):
            raise Broken("P8", f"{found.name} is reported, and has ended")

    def wrote(self, task: Task) -> None:
        """Remember what may end a task by itself."""
        given = {
            EndReason.DEADLINE: task.stop_at,
            EndReason.HEARTBEAT_LOST: task.heartbeat_timeout,
            EndReason.START_FAILED: task.start_by,
        }
        self.reasons |= {(task.id, reason) for reason, why in given.items() if why is not None}


def _is_twin(id_: str, agent_id: str) -> bool:
    """Whether a ledger row is one for another handle under the same name."""
    return id_.startswith(f"{agent_id}.")


def _is_tasks(store: "Store", account: str, handle: str) -> bool:
    """Whether an agent is one that a task's row looks after."""
    return any(
        one.agent.vendor_task_id == handle and one.owner[0] != "~"
        for one in store.entries(account, is_open=True)
    )
