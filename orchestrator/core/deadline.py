"""When time alone ends an incarnation: deadlines, silence, a start that came too late."""

from datetime import datetime

from orchestrator.core.incarnation import fail, retire
from orchestrator.core.model import Account, EndReason, Row, Step, Task

Deadline = tuple[datetime, EndReason]


def lapse(row: Row, account: Account, now: datetime) -> Step:
    """End the present incarnation if its time has run out."""
    if row.status.retires or row.task is None:
        return Step(row=row)
    ends = ends_at(row, account)
    if ends is not None and ends[0] <= now:
        return retire(row, ends[1], now)
    start_by = must_start_by(row, account)
    if start_by is not None and start_by <= now:
        return fail(row, "StartDeadlineMissed", f"not started by {start_by.isoformat()}", now)
    return Step(row=row)


def next_lapse(row: Row, account: Account) -> datetime | None:
    """Return when `lapse` will next have something to do, if nothing else happens."""
    if row.status.retires or row.task is None:
        return None
    ends = ends_at(row, account)
    times = (ends[0] if ends else None, must_start_by(row, account))
    return min((t for t in times if t is not None), default=None)


def ends_at(row: Row, account: Account) -> Deadline | None:
    """Return the earliest deadline of a row that wants to run: `stop_at`, heartbeats, duration."""
    task = row.task
    if task is None:
        return None
    deadlines = [
        *_stop_at(task),
        *_heartbeat(task, account),
        *_owner(task, account),
        *_duration(row, account),
        *_idle(row, task, account),
    ]
    return min(deadlines, default=None, key=lambda deadline: deadline[0])


def must_start_by(row: Row, account: Account) -> datetime | None:
    """Return by when the vendor must have taken the start; null once it has."""
    task, status = row.task, row.status
    if task is None or any(agent.is_known for agent in row.wanted):
        return None
    asked_at = status.asked_at or task.created_at
    latest = max(asked_at, task.start_at or asked_at) + account.start_within
    if task.start_by is not None and status.start_by_holds:
        return min(latest, task.start_by)
    return latest


def _stop_at(task: Task) -> list[Deadline]:
    return [(task.stop_at, EndReason.DEADLINE)] if task.stop_at else []


def _heartbeat(task: Task, account: Account) -> list[Deadline]:
    if task.heartbeat_timeout is None:
        return []
    since = _alive_since(task, account, task.heartbeat_at)
    return [(since + task.heartbeat_timeout, EndReason.HEARTBEAT_LOST)]


def _owner(task: Task, account: Account) -> list[Deadline]:
    if task.owner_missing:
        return [(task.created_at, EndReason.HEARTBEAT_LOST)]
    if task.owner_timeout is None:
        return []
    since = _alive_since(task, account, task.owner_heartbeat_at)
    return [(since + task.owner_timeout, EndReason.HEARTBEAT_LOST)]


def _alive_since(task: Task, account: Account, heartbeat_at: datetime | None) -> datetime:
    """Return from when silence counts: nobody must speak before a start or during our own gap."""
    given = (heartbeat_at, task.start_at, account.amnesty_at)
    return max([task.created_at, *(t for t in given if t is not None)])


def _duration(row: Row, account: Account) -> list[Deadline]:
    if account.max_duration is None or not row.wanted:
        return []
    since = min(agent.announced_at for agent in row.wanted)
    return [(since + account.max_duration, EndReason.DEADLINE)]


def _idle(row: Row, task: Task, account: Account) -> list[Deadline]:
    """Return when an agent has run for too long to which nobody talks.

    Only the gateway hears that somebody does, so an agent that does not ask it is never idle. What
    was asked during our own gap nobody has heard.
    """
    running = [agent for agent in row.wanted if agent.is_known]
    if account.idle_timeout is None or task.upstream is None or not running:
        return []
    given = (row.status.started_at, task.talked_at, account.amnesty_at)
    since = max([running[-1].announced_at, *(t for t in given if t is not None)])
    return [(since + account.idle_timeout, EndReason.IDLE)]
