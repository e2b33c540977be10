"""What a row shows, when it is due, what is announced, and what must never be true of it."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from orchestrator.core import late, transitions
from orchestrator.core.announce import Draw, abandon, new_agent
from orchestrator.core.arrange import NET, arrange, lease, park, phase_of
from orchestrator.core.caps import Recovery
from orchestrator.core.invariants import broken
from orchestrator.core.model import (
    Agent,
    EndReason,
    Evidence,
    Phase,
    Row,
    Verb,
    WaitingFor,
    WorkClass,
)
from tests.core.builders import (
    NOW,
    S,
    account,
    agent,
    call,
    in_flight,
    known,
    poll_at,
    row,
    status,
    task,
    unknown,
)

V, T, Z, U = Recovery.SAME_NAME, Recovery.FIND, Recovery.EVICT, Recovery.STOP_FIRST
FAILED: dict[str, Any] = {"retired": 1, "end_reason": EndReason.START_FAILED}

PHASES = [
    (V, row(), Phase.PENDING),
    (V, row(agent()), Phase.PENDING),
    (V, row(agent(), intent=Verb.START), Phase.STARTING),
    (V, row(unknown()), Phase.STARTING),
    (V, row(known()), Phase.RUNNING),
    (V, row(unknown(), retired=1), Phase.STOPPING),
    (V, row(known(), incarnation=2, retired=1), Phase.STOPPING),
    (V, row(unknown(hinted_at=NOW), retired=1), Phase.STOPPING),
    (Z, row(unknown(), retired=1), Phase.STOPPING),
    (Z, row(known(hinted_at=NOW), retired=1), Phase.STOPPING),
    (Z, row(unknown(hinted_at=NOW), retired=1), Phase.QUARANTINED),
    (V, row(retired=1, end_reason=EndReason.IDLE), Phase.STOPPED),
    (V, row(**FAILED), Phase.FAILED),
    (V, row(known(), **FAILED), Phase.STOPPING),
]


@pytest.mark.parametrize(("of", "given", "phase"), PHASES)
def test_the_phase_follows_from_the_ledger(of: Recovery, given: Row, phase: Phase) -> None:
    assert phase_of(given, account(of)) is phase
    arranged = arrange(given, account(of), NOW + S).status
    assert arranged.phase is phase
    assert arranged.phase_since == (NOW if phase is Phase.PENDING else NOW + S)


def test_an_end_has_its_time_and_no_confirmation() -> None:
    ended = arrange(row(retired=1, confirmed_at=NOW), account(), NOW + S).status
    assert (ended.stopped_at, ended.confirmed_at) == (NOW + S, None)


HOUR = account().start_within
DUE: list[tuple[Row, dict[str, Any], datetime | None, datetime | None, WaitingFor | None]] = [
    # row, account, due_at, stop_due_at, waiting_for
    (row(), {}, NOW, None, None),
    (row(retry_at=NOW + S), {}, NOW + S, None, WaitingFor.RETRY),
    (row(known(), retired=1), {}, None, NOW, None),
    (row(unknown(hinted_at=NOW), retired=1), {}, None, NOW + 115 * S, WaitingFor.PROOF),
    (row(known()), {}, poll_at(), None, None),
    (
        row(known(), task=task(stop_at=NOW + 90 * S)),
        {},
        poll_at(),
        NOW + 90 * S,
        None,
    ),
    (row(), {"paused": True}, NOW + HOUR, None, WaitingFor.PAUSED),
    (row(known(), retired=1), {"frozen": True}, NOW + NET, None, WaitingFor.FROZEN),
    (row(retired=1), {}, None, None, None),
    (row(task=None, retired=1), {}, NOW, None, None),
]


@pytest.mark.parametrize(("given", "of", "due_at", "stop_due_at", "waiting_for"), DUE)
def test_when_a_row_is_looked_at_again(
    given: Row,
    of: dict[str, Any],
    due_at: datetime | None,
    stop_due_at: datetime | None,
    waiting_for: WaitingFor | None,
) -> None:
    arranged = arrange(given, account(**of), NOW).status
    assert (arranged.due_at, arranged.stop_due_at) == (due_at, stop_due_at)
    assert arranged.waiting_for is waiting_for


def test_a_parked_row_says_for_what_and_in_which_queue() -> None:
    given = row(known(), retired=1)
    parked = park(given, call(Verb.STOP, known()), WaitingFor.RATE_LIMIT, account(), NOW).status
    assert (parked.parked_class, parked.parked_verb) == (WorkClass.STOP, Verb.STOP)
    assert parked.waiting_for is WaitingFor.RATE_LIMIT
    assert arrange(replace(given, status=parked), account(), NOW).status.parked_class is None


@pytest.mark.parametrize(("retired", "stop_due_at"), [(0, None), (1, NOW + 15 * S)])
def test_a_leased_row_is_due_when_the_lease_ends(retired: int, stop_due_at: object) -> None:
    leased = lease(row(known(), retired=retired), NOW + 15 * S, account(), NOW).status
    assert (leased.due_at, leased.stop_due_at) == (NOW + 15 * S, stop_due_at)


# --- announce

DRAW = Draw(name="n1", site="here")


def test_an_announce_says_the_worst_that_may_be() -> None:
    announced, flight = in_flight(
        row(generation=7, end_reason=EndReason.IDLE), Verb.START, None, NOW, account()
    )
    (written,) = announced.agents
    assert (written.horizon_at, written.spec_generation) == (NOW + 115 * S, 7)
    assert (announced.status.intent, announced.status.intent_agent) == (Verb.START, written.id)
    assert (announced.status.version, flight.version, flight.horizon_before) == (1, 1, None)
    assert announced.status.end_reason is None


def test_a_resend_never_moves_the_horizon_back() -> None:
    far = unknown(horizon_at=NOW + 900 * S)
    announced, flight = in_flight(row(far), Verb.START, far, NOW, account())
    assert announced.agents[0].horizon_at == flight.horizon_before == NOW + 900 * S


@pytest.mark.parametrize(("of", "moved"), [(U, True), (V, False), (T, False), (Z, False)])
def test_only_a_stop_that_could_hit_the_next_agent_moves_the_horizon(
    of: Recovery, *, moved: bool
) -> None:
    announced, flight = in_flight(row(known(), retired=1), Verb.STOP, known(), NOW, account(of))
    assert (announced.agents[0].horizon_at != flight.horizon_before) is moved


@pytest.mark.parametrize(
    ("verb", "attempt", "agent", "tries"),
    [
        (Verb.START, 0, None, 1),
        (Verb.START, 3, None, 4),
        (Verb.START, 3, unknown(attempt=7), 4),  # a start's failures are its task's
        (Verb.STOP, 3, known(), 1),
        (Verb.STOP, 3, known(attempt=7), 8),  # all others' are their agent's
        (Verb.POLL, 0, known(attempt=1), 2),
    ],
)
def test_tries_of_the_same_call_are_counted(
    verb: Verb, attempt: int, agent: Agent | None, tries: int
) -> None:
    before = row(*([agent] if agent else []), attempt=attempt)
    announced, _ = in_flight(before, verb, agent, NOW, account())
    assert announced.status.intent_tries == tries


@pytest.mark.parametrize(
    ("earlier", "given", "name", "try_"),
    [
        ((), None, "n1", 1),
        ((), "bot", "bot", 1),
        ((unknown(),), None, "a1", 2),  # the vendor evicts by the agent's user id
        ((unknown(),), "bot", "bot", 2),
        ((unknown(incarnation=0),), None, "n1", 1),
    ],
)
def test_what_is_new_in_a_new_try(
    earlier: tuple[Agent, ...], given: str | None, name: str, try_: int
) -> None:
    draw = replace(DRAW, agent_user_id=given)
    new = new_agent(row(*earlier), task(room_id="r2"), draw, NOW)
    assert (new.name, new.try_, new.session_name) == (name, try_, "n1")
    assert (new.room_id, new.stream_id, new.incarnation) == ("r2", f"n1_s{try_}", 1)


def test_a_lost_call_leaves_the_ledger_as_it_is() -> None:
    announced, _ = in_flight(row(), Verb.START, None, NOW, account())
    left = abandon(announced)
    assert left.agents == announced.agents
    assert left.status.intent is None
    assert abandon(left) is left


# --- late outcomes


@pytest.mark.parametrize(("of", "is_open"), [(T, True), (Z, True), (V, False), (U, False)])
def test_a_late_handle_opens_what_only_it_can_stop(of: Recovery, *, is_open: bool) -> None:
    ended = unknown(ended_at=NOW, evidence=Evidence.ABSENT, hinted_at=NOW)
    learnt = late.learn(ended, "h1", account(of).caps)
    assert learnt.vendor_task_id == "h1"
    assert (learnt.ended_at is None) is is_open
    assert (learnt.hinted_at is None) is is_open


def test_a_handle_is_never_overwritten() -> None:
    assert late.learn(known(), "h2", account(T).caps) == known()


# --- invariants and transitions

WRONG = [
    (T, row(retired=2), "an incarnation is retired that was never asked for"),
    (T, row(known(), phase=Phase.STOPPED, due_at=NOW), "ended with an open ledger row"),
    (T, row(unknown(), phase=Phase.RUNNING, due_at=NOW), "running without a stop handle"),
    (T, row(known()), "an open ledger row that nobody will look at"),
    (T, row(known(ended_at=NOW), due_at=NOW), "an ended ledger row among the open ones"),
    (T, row(retired=1, phase=Phase.FAILED), "failed without a failed start"),
    (
        T,
        row(known(), retired=1, intent=Verb.START, due_at=NOW),
        "starts while an earlier incarnation is not proven gone",
    ),
    (
        T,
        row(unknown(), unknown(id="a2"), due_at=NOW),
        "two unsettled agents in one incarnation at a vendor that does not evict",
    ),
]


@pytest.mark.parametrize(("of", "given", "sentence"), WRONG)
def test_what_must_never_be_true_is_seen(of: Recovery, given: Row, sentence: str) -> None:
    assert list(broken(given, account(of))) == [sentence]


@pytest.mark.parametrize(("of", "given", "phase"), PHASES)
def test_what_is_arranged_breaks_nothing(of: Recovery, given: Row, phase: Phase) -> None:
    assert list(broken(arrange(given, account(of), NOW), account(of))) == []
    assert transitions.is_allowed(phase, phase)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Phase.PENDING, Phase.QUARANTINED),
        (Phase.RUNNING, Phase.FAILED),
        (Phase.RUNNING, Phase.QUARANTINED),
        (Phase.STOPPED, Phase.RUNNING),
        (Phase.FAILED, Phase.RUNNING),
        (Phase.FAILED, Phase.QUARANTINED),
    ],
)
def test_there_are_ways_that_no_row_goes(before: Phase, after: Phase) -> None:
    assert not transitions.is_allowed(before, after)


def test_the_fence_is_the_call_that_is_awaited() -> None:
    announced, flight = in_flight(row(), Verb.START, None, NOW, account())
    assert late.is_awaited(announced.status, flight)
    assert not late.is_awaited(abandon(announced).status, flight)
    assert not late.is_awaited(status(version=1), flight)
