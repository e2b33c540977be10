"""Outcomes as a table: verb x outcome x before or after the horizon x kind of vendor."""

from dataclasses import replace

import pytest

from orchestrator.core.caps import Recovery
from orchestrator.core.evolve import evolve
from orchestrator.core.model import (
    Agent,
    EndReason,
    Evidence,
    RestartPolicy,
    Row,
    Step,
    Verb,
    WaitingFor,
)
from orchestrator.core.outcome import (
    Denied,
    Done,
    Expired,
    Gone,
    Indefinite,
    NotSent,
    Outcome,
    Refused,
    Throttled,
)
from tests.core.builders import (
    NOW,
    S,
    account,
    in_flight,
    known,
    row,
    settled,
    task,
    unknown,
)

V, T, Z, U = Recovery.SAME_NAME, Recovery.FIND, Recovery.EVICT, Recovery.STOP_FIRST
HORIZON = NOW + 115 * S
NO_EFFECT = [Throttled(), Throttled(capacity=True), NotSent(), Denied(), Expired(), Refused()]
TROUBLE: list[Outcome] = [Indefinite(code="500", message="oops"), Throttled(), NotSent(), Denied()]


def settle(
    given: Row, verb: Verb, outcome: Outcome, of: Recovery, target: Agent | None = None
) -> Step:
    """Announce and settle one call, now."""
    announced, flight = in_flight(given, verb, target, NOW, account(of))
    return evolve(announced, flight, settled(outcome), account(of))


# --- start


def test_a_start_that_was_taken_runs() -> None:
    step = settle(row(attempt=3, reason="old"), Verb.START, Done(handle="h9"), T)
    (taken,) = step.row.agents
    assert (taken.vendor_task_id, taken.horizon_at) == ("h9", NOW + S + 10 * S)
    status = step.row.status
    assert (status.vendor_task_id, status.started_at) == ("h9", NOW + S)
    assert (status.intent, status.attempt, status.reason) == (None, 0, None)


def test_where_the_vendor_gives_no_handle_the_name_is_it() -> None:
    step = settle(row(), Verb.START, Done(), U)
    assert step.row.agents[0].vendor_task_id == step.row.agents[0].session_name


@pytest.mark.parametrize("outcome", NO_EFFECT)
def test_a_first_send_without_effect_leaves_nothing(outcome: Outcome) -> None:
    step = settle(row(), Verb.START, outcome, T)
    left = (*step.row.agents, *step.ended)
    assert [each.horizon_at for each in left] == [None]


@pytest.mark.parametrize("outcome", NO_EFFECT)
def test_a_resend_without_effect_says_nothing_of_the_first(outcome: Outcome) -> None:
    earlier = unknown(horizon_at=NOW + 60 * S)
    step = settle(row(earlier), Verb.START, outcome, V, earlier)
    (left,) = step.row.agents
    assert left.horizon_at == NOW + 60 * S


def test_a_refused_start_fails_and_says_why() -> None:
    step = settle(row(), Verb.START, Refused(code="Invalid", message="bad key"), T)
    status = step.row.status
    assert (status.retired, status.end_reason) == (1, EndReason.START_FAILED)
    assert (status.reason, status.message) == ("Invalid", "bad key")
    assert [each.evidence for each in step.ended] == [Evidence.NEVER_STARTED]


@pytest.mark.parametrize(
    ("outcome", "attempt", "waiting_for"),
    [
        (Throttled(after=7 * S), 0, None),
        (Throttled(), 0, None),
        (Throttled(capacity=True), 1, WaitingFor.CAPACITY),
        (NotSent(), 1, None),
        (Indefinite(), 1, None),
        (Gone(), 1, None),
    ],
)
def test_whose_pace_changes(outcome: Outcome, attempt: int, waiting_for: WaitingFor | None) -> None:
    status = settle(row(), Verb.START, outcome, T).row.status
    assert (status.attempt, status.waiting_for) == (attempt, waiting_for)
    assert status.retry_at is not None
    assert status.retry_at > NOW


@pytest.mark.parametrize(
    ("outcome", "horizon"),
    [
        (Indefinite(), HORIZON),
        (Indefinite(reset_at=NOW + 10 * S), NOW + 30 * S),
        (Indefinite(reset_at=NOW + 200 * S), HORIZON),  # the signature ends it before
        (Gone(), HORIZON),
    ],
)
def test_the_horizon_of_a_start_that_nobody_answered(outcome: Outcome, horizon: object) -> None:
    assert settle(row(), Verb.START, outcome, T).row.agents[0].horizon_at == horizon


# --- stop


@pytest.mark.parametrize(
    ("of", "target", "outcome", "evidence"),
    [
        (T, known(), Done(), Evidence.STOPPED),
        (T, known(), Gone(), Evidence.ABSENT),
        (T, known(horizon_at=NOW + S), Done(), Evidence.STOPPED),  # by a handle it is proof
        (T, known(horizon_at=NOW + S), Gone(), None),
        (V, known(horizon_at=NOW + S), Done(), None),  # by a name it is not
        (V, known(horizon_at=NOW + S), Gone(), None),
        (V, known(), Done(), Evidence.STOPPED),
        (U, known(), Gone(), Evidence.ABSENT),
        (U, unknown(horizon_at=NOW), Done(), Evidence.STOPPED),
    ],
)
def test_what_the_answer_to_a_stop_proves(
    of: Recovery, target: Agent, outcome: Outcome, evidence: Evidence | None
) -> None:
    step = settle(row(target, retired=1), Verb.STOP, outcome, of, target)
    assert [each.evidence for each in step.ended] == ([evidence] if evidence else [])
    assert [each.hinted_at for each in step.row.agents] == ([] if evidence else [NOW])


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.FIND, Verb.KICK, Verb.POLL])
@pytest.mark.parametrize("outcome", TROUBLE)
def test_a_call_that_failed_is_tried_again_and_says_why(verb: Verb, outcome: Outcome) -> None:
    step = settle(row(known(), retired=1), verb, outcome, T, known())
    (left,) = step.row.agents
    assert left.attempt == 1
    assert left.retry_at is not None
    assert step.row.status.reason == (outcome.code or type(outcome).__name__)


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.FIND, Verb.KICK])
def test_trouble_that_has_passed_is_not_shown(verb: Verb) -> None:
    step = settle(row(known(), retired=1, reason="500"), verb, Gone(), T, known())
    assert step.row.status.reason is None


@pytest.mark.parametrize("outcome", [Gone(), Indefinite(code="500")])
def test_why_a_start_failed_stays(outcome: Outcome) -> None:
    given = row(unknown(), retired=1, end_reason=EndReason.START_FAILED, reason="Invalid")
    assert settle(given, Verb.FIND, outcome, T, unknown()).row.status.reason == "Invalid"


@pytest.mark.parametrize(
    ("outcome", "horizon"),
    [
        (Indefinite(), HORIZON),
        (Indefinite(reset_at=NOW + 10 * S), NOW + 30 * S),
        (NotSent(), NOW - 100 * S),
    ],
)
def test_a_stop_by_room_and_user_that_may_come_late_has_a_horizon(
    outcome: Outcome, horizon: object
) -> None:
    step = settle(row(known(), retired=1), Verb.STOP, outcome, U, known())
    assert step.row.agents[0].horizon_at == horizon


# --- find and kick


def test_a_handle_that_was_found_is_adopted() -> None:
    found = settle(row(unknown(hinted_at=NOW)), Verb.FIND, Done(handle="h9"), T, unknown())
    (adopted,) = found.row.agents
    assert (adopted.vendor_task_id, adopted.hinted_at) == ("h9", None)
    assert found.row.status.started_at == NOW


def test_a_late_handle_of_a_retired_agent_leaves_the_reason_alone() -> None:
    given = row(unknown(), retired=1, end_reason=EndReason.START_FAILED, reason="Invalid")
    assert settle(given, Verb.FIND, Done(handle="h9"), T, unknown()).row.status.reason == "Invalid"


@pytest.mark.parametrize(
    ("target", "outcome", "ended", "kicked"),
    [
        (unknown(kicked_at=NOW), Done(), [], False),  # seen: to be kicked again
        (unknown(kicked_at=NOW), Gone(), [], True),
        (unknown(horizon_at=NOW), Gone(), [Evidence.ABSENT], False),
    ],
)
def test_what_a_look_proves(
    target: Agent, outcome: Outcome, ended: list[Evidence], *, kicked: bool
) -> None:
    step = settle(row(target, retired=1), Verb.FIND, outcome, Z, target)
    assert [each.evidence for each in step.ended] == ended
    assert any(each.kicked_at for each in step.row.agents) is kicked


@pytest.mark.parametrize("outcome", [Done(), Gone()])
def test_a_kick_is_no_evidence(outcome: Outcome) -> None:
    step = settle(row(unknown(), retired=1), Verb.KICK, outcome, Z, unknown())
    assert step.ended == ()
    assert step.row.agents[0].kicked_at == NOW + S


# --- poll


def test_who_is_seen_is_confirmed_and_calm() -> None:
    step = settle(row(known(attempt=2), reason="500"), Verb.POLL, Done(), T, known())
    status = step.row.status
    assert (status.confirmed_at, status.reason, status.polled_at) == (NOW + S, None, NOW)
    assert step.row.agents[0].attempt == 0


@pytest.mark.parametrize(
    ("earlier", "later", "evicted"),
    [
        (unknown(horizon_at=NOW), known(id="a2"), True),
        (unknown(), known(id="a2"), False),  # it may still come
        (known(), known(id="a2", vendor_task_id="h2"), False),  # it can be asked itself
        (unknown(horizon_at=NOW), known(id="a2", horizon_at=HORIZON), False),
    ],
)
def test_who_is_seen_has_evicted_what_cannot_come_any_more(
    earlier: Agent, later: Agent, *, evicted: bool
) -> None:
    step = settle(row(earlier, later), Verb.POLL, Done(), Z, later)
    assert [each.evidence for each in step.ended] == [Evidence.EVICTED] * evicted


@pytest.mark.parametrize(
    ("policy", "started", "incarnation"),
    [
        (RestartPolicy.NEVER, NOW - 300 * S, 1),
        (RestartPolicy.ON_FAILURE, NOW - 300 * S, 1),
        (RestartPolicy.ALWAYS, NOW - 300 * S, 2),
    ],
)
def test_an_end_that_nobody_asked_for(
    policy: RestartPolicy, started: object, incarnation: int
) -> None:
    given = row(known(), task=task(restart_policy=policy), started_at=started, vendor_task_id="h1")
    step = settle(given, Verb.POLL, Gone(), T, known())
    status = step.row.status
    assert [each.evidence for each in step.ended] == [Evidence.ABSENT]
    assert (status.incarnation, status.end_reason) == (incarnation, EndReason.VENDOR_GONE)
    assert status.ran_s == 301
    assert status.started_at is None


def test_an_agent_that_dies_at_birth_is_not_born_in_a_loop() -> None:
    young = known(announced_at=NOW - 10 * S)
    given = row(young, task=task(restart_policy=RestartPolicy.ALWAYS))
    status = settle(given, Verb.POLL, Gone(), T, young).row.status
    assert status.retry_at == young.announced_at + account(T).retry_cap


def test_a_poll_before_the_horizon_is_a_hint() -> None:
    young = known(horizon_at=NOW + S)
    step = settle(row(young), Verb.POLL, Gone(), T, young)
    assert step.row.agents[0].hinted_at == NOW
    assert step.row.status.end_reason is None


@pytest.mark.parametrize(("seen", "retired"), [(None, 0), (NOW - S, 1)])
def test_absence_in_a_room_makes_a_stop_at_most(seen: object, retired: int) -> None:
    agent = known(seen_at=seen)
    step = settle(row(agent, confirmed_at=NOW), Verb.POLL, Gone(), V, agent)
    assert step.ended == ()
    assert step.row.status.retired == retired


def test_a_room_that_shows_nothing_of_a_deleted_task() -> None:
    agent = known(seen_at=NOW)
    given = row(agent, task=None)
    assert settle(given, Verb.POLL, Gone(), V, agent).row.status.retired == 1


def test_a_gone_agent_that_had_a_later_one_ends_no_incarnation() -> None:
    step = settle(row(known(), unknown(id="a2")), Verb.STOP, Done(), Z, known())
    assert step.row.status.end_reason is None
    assert [each.id for each in step.row.agents] == ["a2"]


# --- update

DUE = row(known(attempt=2), update_due=True, reason="500", message="oops", polled_at=None)

UPDATED = [
    # outcome, is it still due, retired afterwards, reason
    (Done(), False, 0, None),
    (Refused(code="NoSuchVoice"), False, 1, None),
    (Gone(), False, 1, None),
    (Indefinite(code="500"), True, 0, "500"),
    (Throttled(code="Slow"), True, 0, "Slow"),
    (NotSent(code="Refused"), True, 0, "Refused"),
    (Denied(code="Key"), True, 0, "Key"),
]


@pytest.mark.parametrize(("outcome", "due", "retired", "reason"), UPDATED)
def test_an_update_is_taken_or_another_agent_must_be(
    outcome: Outcome, due: bool, retired: int, reason: str | None
) -> None:
    status = settle(DUE, Verb.UPDATE, outcome, T, DUE.agents[0]).row.status
    assert (status.update_due, status.retired, status.reason) == (due, retired, reason)


def test_a_refused_update_is_followed_by_a_start_with_the_new_spec() -> None:
    step = settle(DUE, Verb.UPDATE, Refused(code="NoSuchVoice"), T, DUE.agents[0])
    status = step.row.status
    assert (status.incarnation, status.end_reason) == (2, EndReason.SUPERSEDED)
    assert [each.vendor_task_id for each in step.row.unwanted] == ["h1"]


def test_an_update_that_was_taken_calms_its_agent() -> None:
    step = settle(DUE, Verb.UPDATE, Done(), T, DUE.agents[0])
    assert [(each.attempt, each.retry_at) for each in step.row.agents] == [(0, None)]


def test_an_announced_update_says_which_spec_it_carries_and_moves_no_horizon() -> None:
    given = row(known(), update_due=True, generation=7)
    announced, flight = in_flight(given, Verb.UPDATE, given.agents[0], NOW, account(T))
    (sent,) = announced.agents
    assert (sent.spec_generation, sent.horizon_at) == (7, given.agents[0].horizon_at)
    assert (announced.status.intent, flight.horizon_before) == (Verb.UPDATE, sent.horizon_at)


# --- what no outcome may touch


@pytest.mark.parametrize("outcome", [Done(handle="h1"), Gone(), *NO_EFFECT, Indefinite()])
@pytest.mark.parametrize("verb", Verb)
def test_no_outcome_touches_what_the_task_wants_or_the_version(
    verb: Verb, outcome: Outcome
) -> None:
    announced, flight = in_flight(row(known()), verb, known(), NOW, account(T))
    step = evolve(announced, flight, settled(outcome), account(T))
    assert step.row.task is announced.task
    assert step.row.status.version == announced.status.version
    assert step.row.status.generation == announced.status.generation
    assert step.row.status.intent is None


def test_a_handle_that_turned_up_during_a_call_is_kept() -> None:
    announced, flight = in_flight(row(unknown(), retired=1), Verb.FIND, unknown(), NOW, account(T))
    learnt = announced.replace_agent(replace(announced.agents[0], vendor_task_id="h7"))
    step = evolve(learnt, flight, settled(Gone()), account(T))
    assert step.row.agents[0].vendor_task_id == "h7"


def test_an_outcome_for_an_agent_that_another_took_over_adds_it_back() -> None:
    _, flight = in_flight(row(unknown()), Verb.FIND, unknown(), NOW, account(T))
    step = evolve(row(unknown(id="a2")), flight, settled(Done(handle="h1")), account(T))
    assert {each.id for each in step.row.agents} == {"a1", "a2"}


def test_a_request_id_is_kept_until_the_next() -> None:
    given = row(known(), retired=1, last_request_id="old")
    assert settle(given, Verb.STOP, Gone(), T, known()).row.status.last_request_id == "old"
    told = settle(given, Verb.STOP, Gone(request_id="new"), T, known())
    assert told.row.status.last_request_id == "new"


def test_seconds_are_billed_to_the_agent_that_ran() -> None:
    other = known(id="a2", vendor_task_id="h2")
    given = row(other, retired=1, started_at=NOW - 9 * S, vendor_task_id="h1")
    assert settle(given, Verb.STOP, Done(), T, other).row.status.ran_s == 0
