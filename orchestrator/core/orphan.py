"""Whose an agent is that no task stands for, and what becomes of it.

Rule 1: ours means our prefix and this database's mark. Nothing else is stopped unless a person or
the configuration says so.
Rule 2: a vendor may tell of an agent before it has answered its start. While a start is open in
that room, what nobody knows may be its agent, and is left alone.
Rule 3: what only tells of an end never makes an orphan.
Rule 4: who asks our LLM gateway names one ledger row, by our own clock: nothing to wait for.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.core import horizon, names
from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import Account, Agent, Phase, Row, Status
from orchestrator.core.replace import replace


class Verdict(StrEnum):
    """What is to be done about a fact that fits no open row of the ledger."""

    WAIT = "wait"  # it may belong to a start that is still on its way
    SKIP = "skip"  # it is about the past
    OURS = "ours"  # an agent that this database started, and no task wants
    FOREIGN = "foreign"  # an agent that somebody else started


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """How an owner's agents are told apart from others."""

    prefix: str
    mark: str
    """This database's own (see `names`)."""

    def has(self, name: str | None) -> bool:
        """Return whether a name at a vendor is one of ours."""
        return name is not None and names.is_ours(name, self.prefix, self.mark)

    def may_have(self, name: str) -> bool:
        """Return whether a name is of this owner's systems: of this database, or of another."""
        return names.is_of_owner(name, self.prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A fact that fits no open row of the ledger, and what is known around it."""

    fact: Fact
    age: timedelta
    """Since it was received."""
    ended_at: datetime | None
    """When the agent it speaks of ended, if the ledger knows one that has."""
    is_start_open: bool
    """Whether a start of the account is open in that room."""
    is_elsewhere: bool = False
    """Whether an open agent of another account of this database bears the name: two accounts may
    be one application at the vendor, which knows one address for callbacks, and one room."""


def parked(account: Account, call_timeout: timedelta) -> timedelta:
    """Return how long a fact waits that may belong to a start whose answer is on its way."""
    return account.settle_in + call_timeout


def judge(sighting: Sighting, owner: Owner, account: Account, call_timeout: timedelta) -> Verdict:
    """Return what is to be done about a sighting. Total."""
    fact = sighting.fact
    is_parked = sighting.age < parked(account, call_timeout)
    if fact.event is Event.ENDED:
        return Verdict.WAIT if is_parked else Verdict.SKIP
    ended_at = sighting.ended_at
    margin = timedelta(0) if fact.is_asking else account.clock_margin
    if ended_at is not None and fact.event_at <= ended_at + margin:
        return Verdict.SKIP
    if sighting.is_elsewhere or (fact.vendor_task_id is None and fact.name is None):
        return Verdict.SKIP
    is_named = fact.is_asking and fact.name is not None
    if is_parked and sighting.is_start_open and not is_named:
        return Verdict.WAIT
    return Verdict.OURS if owner.has(fact.name) else Verdict.FOREIGN


def is_to_be_asked(fact: Fact, verdict: Verdict) -> bool:
    """Return whether the vendor must be asked whose an agent is before it may be stopped.

    Where a callback has no name in it, a stranger's agent looks like one of ours.
    """
    return verdict is Verdict.FOREIGN and fact.name is None


def describe(fact: Fact, account: Account, site: str, id_: str, *, ours: bool, stop: bool) -> Agent:
    """Return the ledger row of an orphan that a fact speaks of.

    What we name is named the same at first: the agent's user id, and the handle where it is ours.
    """
    named = account.caps.names_handle
    handle = fact.vendor_task_id or (fact.name if named else None)
    is_user = ours or not named or fact.event is Event.SEEN
    agent = Agent(
        id=id_,
        incarnation=1,
        try_=1,
        account=account.name,
        site=site,
        room_id=fact.room_id or "",
        user_id=fact.user_id or "",
        name=(fact.name or "") if is_user else "",
        session_name="",
        stream_id="",
        vendor_task_id=handle,
        is_hearsay=not fact.is_signed and not named and fact.name is not None,
        told_at=None if fact.event is Event.SEEN else fact.event_at,
        announced_at=fact.event_at,
    )
    if stop:
        return fence(agent, account, fact.event_at)
    return replace(agent, horizon_at=_known_after(account, fact.event_at))


def _known_after(account: Account, seen_at: datetime) -> datetime:
    """Return from when the vendor's word about an agent counts that nobody asks to go.

    It is watched, so all there is to be learnt is that it ended. A vendor may not know at first
    what it has just started; where only a callback can tell of the end, any later one does.
    """
    if account.caps.poll_proves_absence:
        return seen_at + account.settle_in
    return seen_at - account.clock_margin


def fence(agent: Agent, account: Account, seen_at: datetime) -> Agent:
    """Return an orphan's ledger row with a horizon.

    Whoever started it may have sent its start as late as it was seen.
    """
    return replace(agent, horizon_at=horizon.after_announce(account, seen_at))


def refence(row: Row, account: Account) -> Row:
    """Return the row of a report that is to be stopped after all with the horizon of one found so.

    It was watched, so the vendor's word counted soon. Whoever started it may have sent its start
    again by when it was decided upon.
    """
    retired_at = row.status.retired_at
    if row.orphan is None or not row.orphan.stop or retired_at is None:
        return row
    for agent in row.agents:
        fenced_at = fence(agent, account, retired_at).horizon_at
        horizon_at = horizon.latest(agent.horizon_at, fenced_at)
        if horizon_at != agent.horizon_at:
            row = row.replace_agent(replace(agent, horizon_at=horizon_at))
    return row


def attend(agent: Agent, status_id: str, now: datetime, *, stop: bool) -> Status:
    """Return the status that stands for an orphan: due at once, to be stopped or looked at."""
    return Status(
        task_id=status_id,
        account=agent.account,
        room_id=agent.room_id,
        user_id=agent.user_id,
        phase=Phase.STOPPING if stop else Phase.RUNNING,
        phase_since=now,
        incarnation=1,
        retired=1 if stop else 0,
        # Long ago: who it is may be all that a look tells.
        polled_at=now - timedelta(days=365),
        due_at=None if stop else now,
        stop_due_at=now if stop else None,
    )
