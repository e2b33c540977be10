"""Outcomes of commands as a table: kind x first send or re-send x who numbers x outcome."""

from dataclasses import replace

import pytest

from orchestrator.core.command import CommandState, Kind
from orchestrator.core.lane import LaneView, Numbering, Send, Settle
from orchestrator.core.lane_decide import decide_lane
from orchestrator.core.lane_evolve import NOT_READY_PAUSE
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
from tests.core.builders import NOW, S
from tests.core.lane_builders import (
    ACCOUNT,
    NOT_READY,
    STALE,
    START,
    STOP,
    after,
    command,
    in_flight,
    lane,
    others,
    sends,
    try_once,
    view,
)

ANSWERED = NOW + S
GIVEN = lane(incarnation=1, last_sequence=5, numbering=Numbering.GIVEN)
PRESS, RELEASE = view(command(START, 6), of=GIVEN), view(command(STOP, 6), of=GIVEN)
WITHOUT_EFFECT: list[Outcome] = [
    Throttled(), Throttled(capacity=True), NotSent(), Denied(), Expired(), Gone(),
]  # fmt: skip
LOST = Indefinite(code="Timeout", message="no answer", request_id="r1")


def resend(kind: Kind) -> LaneView:
    busy, sent = in_flight(kind, 5)
    return view(sent, of=busy)


# --- it had its effect


@pytest.mark.parametrize(("given", "is_open"), [(PRESS, True), (RELEASE, False)])
def test_done_is_done_and_the_lane_is_free(given: LaneView, is_open: bool) -> None:
    step = try_once(given, Done(result={"Round": 7}, request_id="r1"))
    told = step.command
    assert (told.state, told.reason, told.done_at) == (CommandState.DONE, None, ANSWERED)
    assert (told.result, told.request_id, told.sent_at) == ({"Round": 7}, "r1", NOW)
    assert (step.lane.command_id, step.lane.last_sequence) == (None, 6)
    assert step.lane.listening is is_open


@pytest.mark.parametrize("kind", [START, STOP])
def test_stale_to_a_resend_proves_that_the_first_was_taken(kind: Kind) -> None:
    step = try_once(resend(kind), Refused(code=STALE))
    assert (step.command.state, step.command.reason) == (CommandState.DONE, None)
    assert step.lane.listening is (kind is START)


# --- stale on a first send


def test_a_given_start_that_is_stale_fails_and_opened_nothing() -> None:
    step = try_once(PRESS, Refused(code=STALE))
    assert (step.command.state, step.command.reason) == (CommandState.FAILED, "StaleSequence")
    assert (step.lane.listening, step.lane.command_id) == (False, None)


def test_a_given_stop_that_is_stale_is_sent_once_more_under_a_jumped_number() -> None:
    step = try_once(RELEASE, Refused(code=STALE))
    assert (step.command.state, step.command.sequence) == (CommandState.QUEUED, 6)
    again = after(RELEASE, step)
    send = sends(again)
    assert (send.sequence, send.is_resend) == (int(again.now.timestamp() * 1000), False)
    last = try_once(again, Refused(code=STALE))
    assert (last.command.state, last.command.reason) == (CommandState.FAILED, "StaleSequence")


def test_a_jumped_stop_of_unknown_outcome_keeps_its_jumped_number() -> None:
    jumped = after(RELEASE, try_once(RELEASE, Refused(code=STALE)))
    number = sends(jumped).sequence
    unknown = after(jumped, try_once(jumped, LOST))
    assert (sends(unknown).sequence, sends(unknown).is_resend) == (number, True)
    assert try_once(unknown, Refused(code=STALE)).command.state is CommandState.DONE


@pytest.mark.parametrize("kind", [START, STOP])
def test_a_lane_that_we_number_jumps_ahead_and_sends_again(kind: Kind) -> None:
    given = view(command(kind))
    again = after(given, try_once(given, Refused(code=STALE)))
    first, second = sends(given).sequence, sends(again).sequence
    assert first is not None
    assert second is not None
    assert second > first
    assert try_once(again, Done()).command.state is CommandState.DONE
    assert try_once(again, Refused(code=STALE)).command.reason == "StaleSequence"


@pytest.mark.parametrize("last", [Done(), LOST, Refused(code=STALE), Refused(code="no")])
def test_after_a_jump_the_applications_next_numbers_are_sent(last: Outcome) -> None:
    """The release in flight was 6: whatever became of it, 7 is next, under a higher number."""
    given = after(RELEASE, try_once(RELEASE, Refused(code=STALE)))
    step = try_once(given, last)
    assert (step.lane.newest_given, step.lane.given_sequence) == (6, 6)
    if step.command.done_at is None:
        return
    then = after(given, step)
    send = sends(replace(then, commands=(command(START, 7),)))
    assert (send.command.sequence, send.skipped) == (7, None)
    assert (send.sequence or 0) > (step.lane.last_sequence or 0)


def test_stale_means_nothing_of_a_command_without_a_number() -> None:
    given = view(command(Kind.SAY), of=others())
    step = try_once(given, Refused(code=STALE))
    assert (step.command.state, step.command.reason) == (CommandState.FAILED, STALE)


# --- not ready


@pytest.mark.parametrize("outcome", [Refused(code=NOT_READY), NotSent(code=NOT_READY)])
def test_a_press_of_a_user_who_is_not_publishing_is_tried_again_soon(outcome: Outcome) -> None:
    step = try_once(PRESS, outcome)
    assert (step.command.state, step.command.sent_at) == (CommandState.QUEUED, None)
    assert (step.command.reason, step.lane.listening) == (NOT_READY, False)
    assert (step.lane.retry_at, step.lane.attempt) == (ANSWERED + NOT_READY_PAUSE, 0)
    again = after(PRESS, step)
    assert (sends(again).sequence, sends(again).is_resend) == (6, False)


def test_a_press_whose_user_never_publishes_expires_with_the_vendors_word() -> None:
    given = after(PRESS, try_once(PRESS, Refused(code=NOT_READY)))
    action = decide_lane(replace(given, now=NOW + 5 * S))
    assert isinstance(action, Settle)
    (told,) = action.commands
    assert (told.state, told.reason) == (CommandState.EXPIRED, NOT_READY)


def test_a_number_refused_as_not_ready_may_be_used_up_so_we_draw_the_next() -> None:
    given = view(command(START))
    step = try_once(given, Refused(code=NOT_READY))
    again = after(given, step)
    assert (sends(again).sequence or 0) > (step.lane.last_sequence or 0)


@pytest.mark.parametrize("numbering", Numbering)
def test_not_ready_to_a_resend_says_nothing_of_the_first_send(numbering: Numbering) -> None:
    given = resend(START)
    given = replace(given, lane=replace(given.lane, numbering=numbering))
    step = try_once(given, Refused(code=NOT_READY))
    assert (step.command.state, step.lane.listening) == (CommandState.SENDING, True)
    again = after(given, step)
    assert (sends(again).sequence, sends(again).is_resend) == (5, True)


@pytest.mark.parametrize("given", [PRESS, RELEASE])
def test_stale_after_not_ready_is_our_own_number_that_the_vendor_counted(given: LaneView) -> None:
    """It proves nothing: not that the lane is behind, and not that the command was taken."""
    refused = after(given, try_once(given, Refused(code=NOT_READY)))
    assert sends(refused).sequence == 6
    stale = try_once(refused, Refused(code=STALE))
    assert (stale.command.state, stale.lane.jumped) == (CommandState.QUEUED, False)
    again = after(refused, stale)
    assert (sends(again).sequence or 0) > 6
    assert try_once(again, Done()).command.state is CommandState.DONE
    # Of the new number the vendor may say so too: the one after that is drawn at once.
    away = after(again, try_once(again, Refused(code=NOT_READY)))
    assert (sends(away).sequence or 0) > (sends(again).sequence or 0)


@pytest.mark.parametrize("kind", [START, STOP])
def test_stale_after_not_ready_to_a_resend_leaves_open_what_became_of_the_first(kind: Kind) -> None:
    given = resend(kind)
    refused = after(given, try_once(given, Refused(code=NOT_READY)))
    step = try_once(refused, Refused(code=STALE))
    assert (step.command.state, step.command.reason) == (CommandState.FAILED, "OutcomeUnknown")
    assert step.lane.listening is (kind is START)


# --- no effect


@pytest.mark.parametrize("outcome", WITHOUT_EFFECT)
def test_what_had_no_effect_takes_back_its_announce_and_is_tried_again(outcome: Outcome) -> None:
    step = try_once(PRESS, outcome)
    told, of = step.command, step.lane
    assert (told.state, told.sent_at, told.done_at) == (CommandState.QUEUED, None, None)
    assert (of.listening, of.command_id, of.last_sequence) == (False, "c6", 6)
    assert of.attempt == (0 if isinstance(outcome, Throttled) else 1)
    assert of.retry_at is not None
    assert of.retry_at > ANSWERED
    assert step.is_gone is isinstance(outcome, Gone)
    assert sends(after(PRESS, step)).sequence == 6


@pytest.mark.parametrize("outcome", [*WITHOUT_EFFECT, Refused(code="no")])
def test_what_had_no_effect_says_nothing_of_an_earlier_send(outcome: Outcome) -> None:
    step = try_once(resend(START), outcome)
    assert step.lane.listening
    if step.command.done_at is None:
        assert (step.command.state, step.command.sent_at) == (CommandState.SENDING, NOW - S)


def test_throttled_waits_as_long_as_the_vendor_says() -> None:
    assert try_once(PRESS, Throttled(after=3 * S)).lane.retry_at == ANSWERED + 3 * S


@pytest.mark.parametrize(("code", "reason"), [("410000003", "410000003"), ("", "Refused")])
def test_refused_fails_and_the_lane_goes_on(code: str, reason: str) -> None:
    given = view(command(START, 6), command(STOP, 7), of=GIVEN)
    step = try_once(given, Refused(code=code, message="no"))
    told = step.command
    assert (told.state, told.reason, told.message) == (CommandState.FAILED, reason, "no")
    assert sends(after(given, step)).sequence == 7


# --- nobody knows


@pytest.mark.parametrize("kind", [START, STOP])
def test_an_unknown_press_is_sent_again_under_its_number(kind: Kind) -> None:
    given = view(command(kind, 6), of=replace(GIVEN, listening=kind is STOP))
    step = try_once(given, LOST)
    told = step.command
    assert (told.state, told.sent_at, told.reason) == (CommandState.SENDING, NOW, "Timeout")
    assert (told.request_id, step.lane.listening, step.lane.attempt) == ("r1", True, 1)
    again = after(given, step)
    assert (sends(again).sequence, sends(again).is_resend) == (6, True)


@pytest.mark.parametrize("kind", [k for k in Kind if not k.listens])
def test_what_may_not_be_repeated_is_left_unsaid(kind: Kind) -> None:
    given = view(command(kind), of=others())
    step = try_once(given, LOST)
    if kind.repeatable:
        assert isinstance(decide_lane(after(given, step)), Send)
        assert try_once(after(given, step), Done()).command.state is CommandState.DONE
    else:
        told = step.command
        assert (told.state, told.reason) == (CommandState.FAILED, "OutcomeUnknown")
        assert (told.message, step.lane.command_id) == ("Timeout no answer", None)


def test_silence_is_told_in_words() -> None:
    given = view(command(Kind.SAY), of=others())
    assert try_once(given, Indefinite()).command.message == "no answer"


def test_tries_come_further_apart_up_to_the_cap() -> None:
    given = view(command(STOP, 6, expires_at=NOW + 9999 * S), of=replace(GIVEN, listening=True))
    waits = []
    for _ in range(12):
        step = try_once(given, LOST)
        assert step.lane.retry_at is not None
        waits.append(step.lane.retry_at - (given.now + S))
        given = after(given, step)
    assert waits[0] < waits[3] < waits[6] <= ACCOUNT.retry_cap
    assert max(waits) <= ACCOUNT.retry_cap
