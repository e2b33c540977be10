"""Decisions as a table: recovery x wanted or not x what is known of the agent x time."""

from typing import Any

import pytest

from orchestrator.core.action import Action, Call, Forget, Wait
from orchestrator.core.caps import Recovery
from orchestrator.core.decide import decide
from orchestrator.core.model import (
    Account,
    Agent,
    Row,
    Verb,
    WaitingFor,
)
from tests.core.builders import NOW, S, account, agent, known, poll_at, row, task, unknown

ENDS: dict[str, Any] = {"retired": 1}
PAST: dict[str, Any] = {"horizon_at": NOW - S}
HINT: dict[str, Any] = {"hinted_at": NOW - S}
LATER = NOW + 115 * S


def told(action: Action) -> tuple[Any, ...]:
    """What an action is, less what the table does not speak of."""
    match action:
        case Call():
            return (action.verb, action.agent.id if action.agent else None)
        case Wait():
            return (action.waiting_for, action.until)
        case Forget():
            return ("forget",)


V, T, Z, U = Recovery.SAME_NAME, Recovery.FIND, Recovery.EVICT, Recovery.STOP_FIRST
STOP, FIND, KICK, START = Verb.STOP, Verb.FIND, Verb.KICK, Verb.START

UNWANTED = [
    # of, agent, expected
    (V, unknown(), (STOP, "a1")),
    (V, unknown(**HINT), (WaitingFor.PROOF, LATER)),
    (V, unknown(**HINT | PAST), (STOP, "a1")),
    (U, unknown(), (STOP, "a1")),
    (T, known(), (STOP, "a1")),
    (T, known(retry_at=NOW + S), (WaitingFor.RETRY, NOW + S)),
    (T, unknown(), (FIND, "a1")),
    (T, unknown(**HINT), (KICK, "a1")),
    (T, unknown(**HINT, kicked_at=NOW), (WaitingFor.PROOF, LATER)),
    (Z, unknown(), (FIND, "a1")),
    (Z, unknown(**HINT), (KICK, "a1")),
    (Z, unknown(**HINT | PAST, kicked_at=NOW), (FIND, "a1")),
]


@pytest.mark.parametrize(("recovery", "target", "expected"), UNWANTED)
def test_what_must_end_is_asked_to_end(
    recovery: Recovery, target: Agent, expected: tuple[Any, ...]
) -> None:
    assert told(decide(row(target, **ENDS), account(recovery), NOW)) == expected


WANTED = [
    (V, (), (START, None)),
    (V, (agent(),), (START, "a1")),
    (V, (unknown(),), (START, "a1")),
    (T, (unknown(),), (FIND, "a1")),
    (T, (unknown(**HINT),), (WaitingFor.PROOF, LATER)),
    (T, (unknown(**HINT | PAST),), (FIND, "a1")),
    (T, (unknown(retry_at=NOW + S),), (WaitingFor.RETRY, NOW + S)),
    (Z, (unknown(),), (START, None)),
    (U, (unknown(),), (WaitingFor.PROOF, LATER)),
    (U, (unknown(**PAST),), (STOP, "a1")),
    (V, (known(),), (None, poll_at())),
    (V, (known(announced_at=NOW - 60 * S),), (Verb.POLL, "a1")),
    (V, (known(retry_at=NOW + 90 * S),), (None, NOW + 90 * S)),
    (Z, (known(), known(id="a2")), (STOP, "a1")),
    (Z, (known(), unknown(id="a2")), (STOP, "a1")),
    # A known one is looked at when those that it evicted cannot come any more.
    (Z, (unknown(horizon_at=NOW + 30 * S), known(id="a2")), (None, NOW + 30 * S)),
    (Z, (unknown(**PAST), known(id="a2")), (None, poll_at("a2"))),
    (T, (known(horizon_at=NOW + 5 * S, hinted_at=NOW),), (None, NOW + 5 * S)),
]


@pytest.mark.parametrize(("recovery", "agents", "expected"), WANTED)
def test_what_should_run_is_brought_to_run(
    recovery: Recovery, agents: tuple[Agent, ...], expected: tuple[Any, ...]
) -> None:
    assert told(decide(row(*agents), account(recovery), NOW)) == expected


UPDATES = [
    # agents of a row whose update is due, expected
    ((known(),), (Verb.UPDATE, "a1")),
    ((known(retry_at=NOW),), (Verb.UPDATE, "a1")),
    ((known(retry_at=NOW + S),), (WaitingFor.RETRY, NOW + S)),
    # It is brought to the spec before it is looked at.
    ((known(announced_at=NOW - 60 * S),), (Verb.UPDATE, "a1")),
    # One whose start is unknown gets the new spec with the start that settles it.
    ((unknown(),), (START, "a1")),
    ((), (START, None)),
]


@pytest.mark.parametrize(("agents", "expected"), UPDATES)
def test_a_running_agent_is_brought_to_a_new_spec(
    agents: tuple[Agent, ...], expected: tuple[Any, ...]
) -> None:
    assert told(decide(row(*agents, update_due=True), account(V), NOW)) == expected


DELAYED = [
    (row(task=task(start_at=NOW + S)), (WaitingFor.START_AT, NOW + S)),
    (row(retry_at=NOW + S), (WaitingFor.RETRY, NOW + S)),
    (row(retry_at=NOW + S, waiting_for=WaitingFor.CAPACITY), (WaitingFor.CAPACITY, NOW + S)),
    (row(retry_at=NOW), (START, None)),
    (row(task=task(start_at=NOW)), (START, None)),
    (row(task=None), (START, None)),
    (row(unknown(), waiting_for=WaitingFor.CAPACITY), (KICK, "a1")),
    (row(unknown(kicked_at=NOW), waiting_for=WaitingFor.CAPACITY), (START, None)),
    (row(agent(), waiting_for=WaitingFor.CAPACITY), (START, "a1")),
]


@pytest.mark.parametrize(("given", "expected"), DELAYED)
def test_a_start_has_its_time(given: Row, expected: tuple[Any, ...]) -> None:
    assert told(decide(given, account(Z), NOW)) == expected


GATES = [
    # account, a start under a new name, a re-send of an unknown start, a stop
    ({"frozen": True}, WaitingFor.FROZEN, WaitingFor.FROZEN, WaitingFor.FROZEN),
    ({"paused": True}, WaitingFor.PAUSED, WaitingFor.PAUSED, STOP),
    ({"denied_until": NOW + S}, WaitingFor.DENIED, WaitingFor.DENIED, STOP),
    ({"denied_until": NOW}, START, START, STOP),
    ({"circuit_open_until": NOW + S}, WaitingFor.CIRCUIT_OPEN, WaitingFor.CIRCUIT_OPEN, STOP),
    ({"circuit_open_until": NOW}, START, START, STOP),
    ({"has_room": False}, WaitingFor.CAPACITY, START, STOP),
]


@pytest.mark.parametrize(("state", "new", "again", "stop"), GATES)
def test_only_a_freeze_holds_a_stop(state: dict[str, Any], new: Any, again: Any, stop: Any) -> None:
    of: Account = account(V, **state)
    assert told(decide(row(), of, NOW))[0] == new
    assert told(decide(row(unknown()), of, NOW))[0] == again
    assert told(decide(row(known(), **ENDS), of, NOW))[0] == stop


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"frozen": True}, WaitingFor.FROZEN),
        ({"paused": True}, Verb.UPDATE),
        ({"circuit_open_until": NOW + S}, Verb.UPDATE),
    ],
)
def test_an_update_starts_nothing_so_only_a_freeze_holds_it(
    state: dict[str, Any], expected: Any
) -> None:
    given = row(known(), update_due=True)
    assert told(decide(given, account(V, **state), NOW))[0] == expected


def test_a_held_call_says_which_it_is() -> None:
    action = decide(row(), account(V, paused=True), NOW)
    assert isinstance(action, Wait)
    assert action.parked is not None
    assert action.parked.verb is START


def test_of_several_that_must_end_the_first_that_can_be_asked_is() -> None:
    waits = unknown(**HINT)
    given = row(waits, known(id="a2", incarnation=1), **ENDS)
    assert told(decide(given, account(V), NOW)) == (STOP, "a2")


def test_where_all_wait_the_earliest_time_counts() -> None:
    sooner = NOW + 10 * S
    given = row(unknown(**HINT), unknown(id="a2", horizon_at=sooner, **HINT), **ENDS)
    assert told(decide(given, account(V), NOW)) == (WaitingFor.PROOF, sooner)


def test_no_new_incarnation_before_the_old_one_is_gone() -> None:
    given = row(unknown(**HINT), incarnation=2, retired=1)
    assert told(decide(given, account(V), NOW)) == (WaitingFor.PROOF, LATER)


def test_an_end_without_agents_rests_and_a_deleted_one_is_forgotten() -> None:
    assert told(decide(row(**ENDS), account(V), NOW)) == (None, None)
    assert told(decide(row(task=None, **ENDS), account(V), NOW)) == ("forget",)
