"""Rows to values and back: what the databases hold, as `core.model` knows it.

Rule 1: a column and a field have the same name (`try` is a word of Python's: its field is `try_`).
Rule 2: what cannot be read raises `UnreadableError` for its row alone; the batch goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from orchestrator.core.model import (
    Agent,
    Change,
    EndReason,
    Evidence,
    Phase,
    RestartPolicy,
    Status,
    Task,
    Verb,
    WaitingFor,
    What,
    WorkClass,
)

LATEST_YEAR = 9000
LONGEST_S = 100 * 365 * 86_400
"""Later and longer than anybody means, and small enough that their sum is still a `datetime`."""


class UnreadableError(Exception):
    """A row holds something that its column cannot mean. Names the column and what was found."""


STATUS_COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(Status))
"""In the order in which `to_status` wants them."""
AGENT_COLUMNS: tuple[str, ...] = tuple(f.name.rstrip("_") for f in fields(Agent))
"""In the order in which `to_agent` wants them."""
TASK_COLUMNS: tuple[str, ...] = (
    "id", "account", "room_id", "user_id", "desired_state", "start_at", "start_by", "stop_at",
    "restart_policy", "priority", "created_at", "heartbeat_at", "heartbeat_timeout_s", "owner",
)  # fmt: skip
"""In the order in which `to_task` wants them, followed by the owner's time-out and heartbeat, and
by the upstream that its agent asks and when it last did."""

_STATUS_WORDS: Mapping[str, type[StrEnum]] = {
    "phase": Phase,
    "waiting_for": WaitingFor,
    "end_reason": EndReason,
    "parked_class": WorkClass,
    "parked_verb": Verb,
    "intent": Verb,
}
_STATUS_WORD_AT = tuple((STATUS_COLUMNS.index(name), word) for name, word in _STATUS_WORDS.items())
_STATUS_FIELDS = tuple(f.name for f in fields(Status))
_AGENT_FIELDS = tuple(f.name for f in fields(Agent))
_EVIDENCE_AT = AGENT_COLUMNS.index("evidence")
_TIMES = ("_at", "_since")


def to_status(row: Sequence[Any]) -> Status:
    """Return the status of a row selected as `STATUS_COLUMNS`."""
    values = list(row)
    for position, word in _STATUS_WORD_AT:
        if values[position] is not None:
            values[position] = word(values[position])
    _check_times(STATUS_COLUMNS, values)
    return Status(**dict(zip(_STATUS_FIELDS, values, strict=True)))


def from_status(status: Status) -> dict[str, Any]:
    """Return the columns of a status."""
    return {name: getattr(status, name) for name in _STATUS_FIELDS}


def to_agent(row: Sequence[Any]) -> Agent:
    """Return the ledger row of a row selected as `AGENT_COLUMNS`."""
    values = list(row)
    if values[_EVIDENCE_AT] is not None:
        values[_EVIDENCE_AT] = Evidence(values[_EVIDENCE_AT])
    return Agent(**dict(zip(_AGENT_FIELDS, values, strict=True)))


def from_agent(agent: Agent) -> dict[str, Any]:
    """Return the columns of a ledger row."""
    return dict(zip(AGENT_COLUMNS, (getattr(agent, f) for f in _AGENT_FIELDS), strict=True))


def to_task(row: Sequence[Any]) -> Task:
    """Return the task of a row selected as `TASK_COLUMNS` and what follows them.

    Raises UnreadableError.
    """
    columns = (*TASK_COLUMNS, "owner_timeout_s", "owner_heartbeat_at", "upstream", "talked_at")
    _check_times(columns, row)
    v = dict(zip(columns, row, strict=True))
    _check_addable(v)
    has_owner = v["owner"] is not None
    return Task(
        id=v["id"],
        account=v["account"],
        room_id=v["room_id"],
        user_id=v["user_id"],
        running=v["desired_state"] == "running",
        start_at=v["start_at"],
        start_by=v["start_by"],
        stop_at=v["stop_at"],
        restart_policy=RestartPolicy(v["restart_policy"]),
        priority=v["priority"],
        created_at=v["created_at"],
        heartbeat_at=v["heartbeat_at"],
        heartbeat_timeout=_seconds("heartbeat_timeout_s", v["heartbeat_timeout_s"]),
        owner_heartbeat_at=v["owner_heartbeat_at"],
        owner_timeout=_seconds("owner_timeout_s", v["owner_timeout_s"]),
        owner_missing=has_owner and v["owner_timeout_s"] is None,
        upstream=v["upstream"],
        talked_at=v["talked_at"],
    )


def to_change(row: Sequence[Any]) -> Change:
    """Return the change of a row selected as seq, at, task_id, what, urgent, actor."""
    seq, at, task_id, what, urgent, actor = row
    return Change(
        seq=seq, at=at, task_id=task_id, what=What(what), urgent=bool(urgent), actor=actor or ""
    )


def _seconds(column: str, value: Any) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, int):
        raise UnreadableError(f"{column}: expected a whole number of seconds, found {value!r}")
    if value > LONGEST_S:
        raise UnreadableError(f"{column}: expected at most {LONGEST_S} seconds, found {value}")
    return timedelta(seconds=value)


def _check_addable(columns: Mapping[str, Any]) -> None:
    """Refuse times that durations are added to and that leave no room for it."""
    for name in ("start_at", "created_at", "heartbeat_at", "owner_heartbeat_at"):
        value = columns[name]
        if value is not None and value.year > LATEST_YEAR:
            raise UnreadableError(f"{name}: expected a year up to {LATEST_YEAR}, found {value}")


def _check_times(columns: Sequence[str], values: Sequence[Any]) -> None:
    for name, value in zip(columns, values, strict=True):
        if value is not None and name.endswith(_TIMES) and not isinstance(value, datetime):
            raise UnreadableError(f"{name}: expected a date and time, found {str(value)[:40]!r}")
