"""Rows of an account that this daemon does not have: handed over, failed, or kept waiting."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.core.model import Agent, Phase, Row, Status, Step, Task, WaitingFor
from orchestrator.daemon.stranger import LOOK_AGAIN, account_name, address, estrange

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATUS = Status(
    task_id="t1", account="gone", room_id="r", user_id="u", phase_since=NOW, incarnation=1
)
TASK = Task(id="t1", account="gone", room_id="r", user_id="u", running=True, created_at=NOW)
AGENT = Agent(
    id="name",
    incarnation=1,
    try_=1,
    account="gone",
    site="{}",
    room_id="r",
    user_id="u",
    name="name",
    session_name="name",
    stream_id="name",
    vendor_task_id="h",
    announced_at=NOW,
)


def stranger(status: Status = STATUS, **changes: Any) -> Row:
    row = Row(status=status, task=TASK, agents=())
    return estrange(Step(row=replace(row, **changes)), "gone", NOW).row


def test_where_nothing_can_run_the_row_fails() -> None:
    status = stranger().status
    assert (status.phase, status.reason) == (Phase.FAILED, "UnknownAccount")
    assert (status.due_at, status.stop_due_at) == (None, None)


def test_a_row_that_has_ended_stays_as_it_ended() -> None:
    status = stranger(replace(STATUS, retired=1, phase=Phase.STOPPED)).status
    assert (status.phase, status.reason) == (Phase.STOPPED, None)


def test_where_something_can_run_the_row_waits_and_is_looked_at_again() -> None:
    row = stranger(agents=(AGENT,))
    assert row.agents == (AGENT,)
    assert row.status.waiting_for is WaitingFor.ACCOUNT
    assert row.status.due_at == NOW + LOOK_AGAIN


def test_a_row_with_a_new_account_is_handed_over_unjudged() -> None:
    status = stranger(replace(STATUS, account="former")).status
    assert (status.account, status.phase, status.reason) == ("gone", Phase.PENDING, None)
    assert status.due_at == NOW


def test_what_must_end_comes_before_what_shall_run() -> None:
    task = replace(TASK, account="next")
    row = Row(status=replace(STATUS, retired=1), task=task, agents=(AGENT,))
    assert account_name(row) == "gone"
    assert account_name(replace(row, agents=())) == "next"
    assert account_name(replace(row, agents=(), task=None)) == "gone"
    assert address(replace(row, agents=())).status.account == "next"
    assert address(row) is row
