"""What a row shows, and when it will be looked at again: derived, in this one place, from the row.

`phase`, `waiting_for`, the parking and both due times follow from what `decide` says of the row as
it stands, so they can never disagree with what the daemon will do.
"""

from datetime import datetime, timedelta
from typing import assert_never

from orchestrator.core.action import Action, Call, Forget, Wait
from orchestrator.core.caps import Recovery
from orchestrator.core.deadline import ends_at, next_lapse
from orchestrator.core.decide import decide
from orchestrator.core.model import (
    Account,
    EndReason,
    Phase,
    Row,
    Status,
    Verb,
    WaitingFor,
    WorkClass,
)
from orchestrator.core.replace import replace

NET = timedelta(hours=1)
"""A row with an open ledger row is looked at at least this often, whatever else fails."""


def arrange(row: Row, account: Account, now: datetime) -> Row:
    """Return the row with everything derived brought up to date, and no call in flight."""
    return _settle(row, decide(row, account, now), account, now)


def park(row: Row, call: Call, waiting_for: WaitingFor, account: Account, now: datetime) -> Row:
    """Return the row waiting in its queue for something that is not time."""
    return _settle(row, Wait(waiting_for=waiting_for, parked=call), account, now)


def lease(row: Row, until: datetime, account: Account, now: datetime) -> Row:
    """Return a row with a call in flight: it is due when the lease of its daemon ends."""
    status = replace(show(row, account, now).status, due_at=until, stop_due_at=None)
    if row.unwanted:
        status = replace(status, stop_due_at=until)
    return replace(row, status=status)


def _settle(row: Row, action: Action, account: Account, now: datetime) -> Row:
    row = show(row, account, now)
    status = replace(
        row.status,
        waiting_for=_made_necessary(row, action),
        parked_class=None,
        parked_verb=None,
        observed_generation=row.status.generation,
    )
    match action:
        case Call(work_class=WorkClass.STOP):
            status = replace(status, stop_due_at=now, due_at=None)
        case Call() | Forget():
            status = replace(status, due_at=now, stop_due_at=_stop_due(row, account))
        case Wait():
            status = _wait(replace(row, status=status), action, account, now)
        case _:
            assert_never(action)
    return replace(row, status=status)


def _made_necessary(row: Row, action: Action) -> WaitingFor | None:
    """Return what makes a call necessary that would not be made without it: room at the vendor.

    The claim decides again, and must see what this decision saw.
    """
    at_capacity = row.status.waiting_for is WaitingFor.CAPACITY
    return WaitingFor.CAPACITY if at_capacity and isinstance(action, Call) else None


def _wait(row: Row, wait: Wait, account: Account, now: datetime) -> Status:
    """Write down a wait. One for the end of something goes where stops are looked for first."""
    status = replace(row.status, waiting_for=wait.waiting_for)
    if wait.parked is not None:
        status = replace(status, parked_class=wait.parked.work_class, parked_verb=wait.parked.verb)
    if row.unwanted:
        due_at, stop_due_at = None, wait.until
    else:
        due_at = _earliest(wait.until, next_lapse(row, account))
        stop_due_at = _stop_due(row, account)
    if row.agents and due_at is None and stop_due_at is None:
        due_at = now + NET
    return replace(status, due_at=due_at, stop_due_at=stop_due_at)


def _stop_due(row: Row, account: Account) -> datetime | None:
    """Return when an agent that may live must be stopped, as far as is known today."""
    if row.status.retires or not row.agents:
        return None
    deadline = ends_at(row, account)
    return deadline[0] if deadline else None


def _earliest(*times: datetime | None) -> datetime | None:
    return min((t for t in times if t is not None), default=None)


# --- phase ---


def show(row: Row, account: Account, now: datetime) -> Row:
    """Return the row with its phase as its ledger and its wishes make it."""
    status = row.status
    phase = phase_of(row, account)
    if phase is status.phase:
        return row
    status = replace(status, phase=phase, phase_since=now)
    if phase in {Phase.STOPPED, Phase.FAILED}:
        status = replace(status, stopped_at=now, confirmed_at=None)
    return replace(row, status=status)


def phase_of(row: Row, account: Account) -> Phase:
    """Return the phase: what ends shows before what begins."""
    status = row.status
    if row.unwanted:
        return _ending_phase(row, account)
    if status.retires:
        failed = status.end_reason is EndReason.START_FAILED
        return Phase.FAILED if failed else Phase.STOPPED
    if any(agent.is_known or row.is_reported for agent in row.wanted):
        return Phase.RUNNING
    if status.intent is Verb.START or any(not agent.is_idle for agent in row.wanted):
        return Phase.STARTING
    return Phase.PENDING


def _ending_phase(row: Row, account: Account) -> Phase:
    """Tell an orderly end from one that can only be waited out: no handle, and none to be had."""
    if account.caps.recovery is not Recovery.EVICT:
        return Phase.STOPPING
    lost = any(not agent.goes_by_handle and agent.hinted_at is not None for agent in row.unwanted)
    return Phase.QUARANTINED if lost else Phase.STOPPING
