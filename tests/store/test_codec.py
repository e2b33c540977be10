"""Rows to values and back: nothing is lost, and what makes no sense is refused with its column."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.model import (
    Agent,
    EndReason,
    Evidence,
    Phase,
    RestartPolicy,
    Status,
    Verb,
    WaitingFor,
    What,
    WorkClass,
)
from orchestrator.store import codec
from orchestrator.store.codec import UnreadableError
from orchestrator.store.schema import agent_status, vendor_agent

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)

STATUS = Status(
    task_id="t1",
    account="acc",
    room_id="room",
    user_id="human",
    agent_user_id="agent",
    vendor_task_id="h1",
    phase=Phase.STOPPING,
    phase_since=AT,
    generation=5,
    observed_generation=4,
    incarnation=3,
    retired=2,
    reason="E5",
    message="odd",
    waiting_for=WaitingFor.PROOF,
    end_reason=EndReason.KICKED,
    attempt=2,
    retry_at=AT,
    due_at=AT,
    stop_due_at=AT,
    parked_class=WorkClass.STOP,
    parked_verb=Verb.FIND,
    intent=Verb.STOP,
    intent_agent="name",
    intent_at=AT,
    intent_tries=2,
    last_request_id="r1",
    version=9,
    asked_at=AT,
    start_by_holds=False,
    started_at=AT,
    confirmed_at=AT,
    polled_at=AT,
    stopped_at=AT,
    ran_s=60,
)
BARE = Status(task_id="t1", account="acc", room_id="room", user_id="human", phase_since=AT)
AGENT = Agent(
    id="name",
    incarnation=3,
    try_=2,
    account="acc",
    site="{}",
    room_id="room",
    user_id="human",
    name="agent",
    session_name="session",
    stream_id="stream",
    vendor_task_id="h1",
    spec_generation=4,
    body_digest="ff",
    announced_at=AT,
    horizon_at=AT,
    hinted_at=AT,
    kicked_at=AT,
    retry_at=AT,
    attempt=1,
    ended_at=AT,
    evidence=Evidence.ABSENT,
)


@pytest.mark.parametrize("status", [STATUS, BARE])
def test_a_status_comes_back_as_it_went(status: Status) -> None:
    columns = codec.from_status(status)
    assert codec.to_status([columns[name] for name in codec.STATUS_COLUMNS]) == status


@pytest.mark.parametrize("agent", [AGENT, replace(AGENT, ended_at=None, evidence=None)])
def test_a_ledger_row_comes_back_as_it_went(agent: Agent) -> None:
    columns = codec.from_agent(agent)
    assert columns["try"] == agent.try_
    assert codec.to_agent([columns[name] for name in codec.AGENT_COLUMNS]) == agent


def test_every_field_has_a_column_of_its_name() -> None:
    assert set(codec.STATUS_COLUMNS) <= set(agent_status.c.keys())
    assert set(codec.AGENT_COLUMNS) <= set(vendor_agent.c.keys())
    assert len(codec.AGENT_COLUMNS) == len(fields(Agent))


TASK: dict[str, Any] = {
    "id": "t1",
    "account": "acc",
    "room_id": "room",
    "user_id": "human",
    "desired_state": "running",
    "start_at": AT,
    "start_by": None,
    "stop_at": None,
    "restart_policy": "always",
    "priority": 3,
    "created_at": AT,
    "heartbeat_at": AT,
    "heartbeat_timeout_s": 30,
    "owner": None,
    "owner_timeout_s": None,
    "owner_heartbeat_at": None,
    "upstream": "main",
    "talked_at": AT,
}


def read(**changes: Any) -> Any:
    return codec.to_task(tuple((TASK | changes).values()))


def test_the_columns_of_a_task_are_in_their_order() -> None:
    assert tuple(TASK)[: len(codec.TASK_COLUMNS)] == codec.TASK_COLUMNS


def test_a_task_is_read_with_its_durations() -> None:
    task = read(desired_state="stopped", owner="p1", owner_timeout_s=9, owner_heartbeat_at=AT)
    assert not task.running
    assert task.restart_policy is RestartPolicy.ALWAYS
    assert (task.heartbeat_timeout, task.owner_timeout) == (
        timedelta(seconds=30),
        timedelta(seconds=9),
    )
    assert not task.owner_missing


@pytest.mark.parametrize(
    ("owner", "timeout_s", "missing"), [(None, None, False), ("p1", None, True), ("p1", 9, False)]
)
def test_an_owner_without_a_row_is_missing(
    owner: str | None, timeout_s: int | None, *, missing: bool
) -> None:
    assert read(owner=owner, owner_timeout_s=timeout_s).owner_missing is missing


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("stop_at", "soon"),
        ("start_at", "2026-02-30 00:00:00"),
        ("created_at", 1735689600),
        ("heartbeat_timeout_s", "30"),
        ("heartbeat_timeout_s", 1.5),
        ("heartbeat_timeout_s", 2**62),
        ("owner_timeout_s", codec.LONGEST_S + 1),
        ("start_at", AT.replace(year=codec.LATEST_YEAR + 1)),
        ("heartbeat_at", AT.replace(year=9998)),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_column(column: str, value: Any) -> None:
    with pytest.raises(UnreadableError, match=f"^{column}: expected .* found "):
        read(**{column: value})


def test_what_is_read_can_always_be_added_up() -> None:
    task = read(start_at=AT.replace(year=codec.LATEST_YEAR), heartbeat_timeout_s=codec.LONGEST_S)
    assert task.start_at + task.heartbeat_timeout + timedelta(days=365) > AT


def test_a_far_deadline_is_no_mistake() -> None:
    never = AT.replace(year=9998)
    assert read(stop_at=never, start_by=never).stop_at == never


@pytest.mark.parametrize(("urgent", "actor"), [(1, None), (True, "app")])
def test_a_change_is_read_from_either_database(urgent: Any, actor: str | None) -> None:
    change = codec.to_change((7, AT, "t1", "stop", urgent, actor))
    assert (change.seq, change.what, change.urgent) == (7, What.STOP, True)
    assert change.actor == (actor or "")
