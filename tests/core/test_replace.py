"""A replaced value: what is changed, what is kept, and that the original stays as it was."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.core.action import Call, Flight
from orchestrator.core.breaker import Breaker
from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.model import (
    Account,
    Agent,
    Row,
    Status,
    Step,
    Verb,
    WorkClass,
)
from orchestrator.core.replace import replace

AT = datetime(2026, 1, 1, tzinfo=UTC)
STATUS = Status(task_id="t", account="a", room_id="r", user_id="u", phase_since=AT)
AGENT = Agent(
    id="n", incarnation=1, try_=1, account="a", site="s", room_id="r", user_id="u", name="n",
    session_name="n", stream_id="n", announced_at=AT,
)  # fmt: skip
ACCOUNT = Account(
    name="a",
    caps=Caps(
        recovery=Recovery.FIND,
        names_handle=False,
        poll_proves_absence=True,
        signature_window=AT - AT,
    ),
)
ROW = Row(status=STATUS, task=None, agents=(AGENT,))
CALL = Call(verb=Verb.STOP, agent=AGENT, work_class=WorkClass.STOP)
FLIGHT = Flight(
    task_id="t",
    verb=Verb.STOP,
    agent=AGENT,
    horizon_before=None,
    announced_at=AT,
    version=1,
    work_class=WorkClass.STOP,
)

CASES: list[tuple[Any, dict[str, Any]]] = [
    (STATUS, {}),
    (Breaker(failures=5), {"open_until": AT}),  # it has slots
    (STATUS, {"reason": "Refused", "attempt": 3}),
    (AGENT, {"horizon_at": AT}),
    (ACCOUNT, {"paused": True}),
    (ROW, {"agents": ()}),
    (Step(row=ROW), {"ended": (AGENT,)}),
    (CALL, {"agent": None}),
    (FLIGHT, {"version": 2}),
]


@pytest.mark.parametrize(("value", "changes"), CASES)
def test_it_is_what_dataclasses_make_of_it(value: Any, changes: dict[str, Any]) -> None:
    before = dataclasses.asdict(value)
    assert replace(value, **changes) == dataclasses.replace(value, **changes)
    assert dataclasses.asdict(value) == before


def test_the_copy_is_frozen_too() -> None:
    copy = replace(STATUS, attempt=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        copy.attempt = 2  # type: ignore[misc] # what the test is about


def test_an_unknown_field_is_refused_by_name() -> None:
    wrong: dict[str, Any] = {"reasons": "x", "attempt": 1}
    with pytest.raises(TypeError, match="Status has no field reasons"):
        replace(STATUS, **wrong)
