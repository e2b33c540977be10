"""Decisions about lanes as tables: what is settled unsent, what waits and why, what leaves next."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.command import Command, CommandState, Kind
from orchestrator.core.lane import (
    Lane,
    LaneView,
    Numbering,
    Pause,
    Reason,
    Refusal,
    Rest,
    Settle,
    Situation,
    Standing,
    broken,
    is_awaited,
    situation_of,
)
from orchestrator.core.lane_decide import (
    CLOSING_TRIES,
    HIGHEST,
    LOOK,
    NET,
    YIELDING_TRIES,
    decide_lane,
    settle_forgotten,
)
from orchestrator.core.lane_evolve import announce_lane
from orchestrator.core.model import Row
from tests.core.builders import NOW, S, known, row, unknown
from tests.core.lane_builders import (
    ACCOUNT,
    COMING,
    ENDED,
    GAP,
    NOT_READY,
    RUNNING,
    START,
    STOP,
    TTL,
    command,
    in_flight,
    lane,
    others,
    sends,
    settles,
    view,
)

MS = int(NOW.timestamp() * 1000)
AT_5 = lane(incarnation=1, last_sequence=5, numbering=Numbering.GIVEN)
OPEN_AT_5 = replace(AT_5, listening=True)
LATE = NOW + TTL


def rests(given: LaneView) -> Rest:
    action = decide_lane(given)
    assert isinstance(action, Rest), action
    return action


# --- order


def test_an_empty_lane_rests_until_something_comes() -> None:
    assert rests(view(of=lane(gap_since=NOW))) == Rest(lane=lane())


def test_commands_leave_by_sequence_and_not_as_they_came() -> None:
    given = view(command(STOP, 2, position=1), command(START, 1, position=2))
    assert sends(given).sequence == 1


def test_commands_without_numbers_leave_as_they_came_under_the_time_or_the_next_number() -> None:
    given = view(command(START, position=1), command(STOP, position=2))
    assert (sends(given).command.id, sends(given).sequence) == ("c1", MS)
    ahead = replace(given, lane=lane(last_sequence=MS + 9, numbering=Numbering.DRAWN))
    assert sends(ahead).sequence == MS + 10


@pytest.mark.parametrize("kind", Kind)
def test_presses_are_in_the_lane_of_their_user_and_all_others_in_one(kind: Kind) -> None:
    assert command(kind).lane_user == ("u1" if kind in {START, STOP} else "")


def test_the_other_kinds_leave_as_they_came_without_numbers() -> None:
    given = view(command(Kind.PROMPT, position=2), command(Kind.SAY, position=1), of=others())
    assert (sends(given).command.kind, sends(given).sequence) == (Kind.SAY, None)


def test_nothing_overtakes_the_command_in_flight() -> None:
    busy, sent = in_flight(START, 5)
    given = view(command(STOP, 6), sent, of=busy)
    send = sends(given)
    assert (send.command.id, send.sequence, send.is_resend) == ("c5", 5, True)


def test_a_command_in_flight_that_is_not_there_any_more_holds_nobody_up() -> None:
    assert sends(view(command(START, 6), of=replace(AT_5, command_id="pruned"))).sequence == 6


# --- gaps


def test_the_first_command_of_a_lane_has_no_gap() -> None:
    assert sends(view(command(STOP, 57))).skipped is None


def test_a_gap_is_waited_for_then_passed_and_told() -> None:
    given = view(command(STOP, 8), of=AT_5)
    rest = rests(given)
    assert (rest.why, rest.until, rest.lane.gap_since) == (Pause.GAP, NOW + GAP, NOW)
    half = replace(given, lane=rest.lane, now=NOW + GAP / 2)
    assert rests(half) == rest
    send = sends(replace(half, now=NOW + GAP))
    assert (send.sequence, send.skipped) == (8, (6, 7))


def test_what_fills_a_gap_leaves_first_and_ends_the_wait() -> None:
    waiting = replace(AT_5, gap_since=NOW)
    given = view(command(STOP, 8), command(START, 6, position=9), of=waiting, now=NOW + GAP / 2)
    announced, flight = announce_lane(given, sends(given))
    assert (flight.sequence, announced.gap_since) == (6, None)


def test_a_number_that_was_settled_unsent_leaves_no_gap() -> None:
    given = view(command(START, 6, expires_at=NOW), command(START, 7), of=AT_5)
    action = decide_lane(given)
    assert isinstance(action, Settle)
    assert sends(given.after(action)).sequence == 7


@pytest.mark.parametrize("number", [1, 4, 5])
def test_what_comes_after_its_time_is_superseded_and_never_sent(number: int) -> None:
    late = command(STOP, number)
    assert settles(view(late, of=OPEN_AT_5)) == {late.id: ("superseded", "Superseded")}


def test_a_press_that_comes_after_its_release_expired_is_superseded_too() -> None:
    given = view(command(STOP, 7, expires_at=NOW), of=AT_5)
    action = decide_lane(given)
    assert isinstance(action, Settle)
    press = command(START, 6)
    assert settles(view(press, of=action.lane)) == {"c6": ("superseded", "Superseded")}


def test_a_release_that_comes_after_a_later_one_was_refused_closes_what_is_open() -> None:
    refusals = {"c7": Refusal(reason=Reason.INVALID_PAYLOAD)}
    action = decide_lane(view(command(STOP, 7), of=OPEN_AT_5, refusals=refusals))
    assert isinstance(action, Settle)
    assert action.lane.passed_sequence == 7
    assert sends(view(command(STOP, 6), of=action.lane)).sequence == 6
    assert settles(view(command(START, 6), of=action.lane)) == {"c6": ("superseded", "Superseded")}


@pytest.mark.parametrize("of", [lane(), AT_5])
def test_a_press_that_is_settled_unsent_bars_nothing_below_it(of: Lane) -> None:
    first = of.floor or 0
    action = decide_lane(view(command(START, first + 3, expires_at=NOW), of=of))
    assert isinstance(action, Settle)
    late = view(command(START, first + 1), command(STOP, first + 2), of=action.lane)
    assert sends(late).sequence == first + 1


def test_presses_and_releases_that_are_settled_one_after_the_other_leave_no_gap() -> None:
    old = [command(kind, n, expires_at=NOW) for n, kind in ((6, START), (7, STOP), (8, START))]
    given = view(*old, command(STOP, 9), of=AT_5)
    action = decide_lane(given)
    assert isinstance(action, Settle)
    assert action.lane.passed_sequence == 8
    assert sends(given.after(action)).sequence == 9


def test_numbers_mean_nothing_to_the_other_kinds() -> None:
    old = command(Kind.SAY, 5, position=1, expires_at=NOW)
    given = view(old, command(Kind.SAY, 3, position=2), of=others())
    action = decide_lane(given)
    assert isinstance(action, Settle)
    assert action.lane.passed_sequence is None
    assert (sends(given.after(action)).command.id, sends(given.after(action)).sequence) == (
        "c2",
        None,
    )


# --- numbers that the wire has left behind

BEHIND = replace(AT_5, last_sequence=MS + 50, given_sequence=5)


def test_the_applications_numbers_go_on_where_the_wire_is_past_them() -> None:
    given = view(command(START, 6), command(STOP, 7), of=BEHIND)
    send = sends(given)
    assert (send.command.id, send.sequence) == ("c6", MS + 51)
    announced, flight = announce_lane(given, send)
    assert (announced.last_sequence, announced.given_sequence) == (MS + 51, 6)
    assert (flight.sequence, flight.command.sequence) == (MS + 51, 6)


def test_a_number_above_the_wires_leaves_as_it_is_again() -> None:
    given = view(command(START, MS + 60), of=replace(BEHIND, passed_sequence=MS + 59))
    announced, flight = announce_lane(given, sends(given))
    assert (flight.sequence, announced.given_sequence) == (MS + 60, None)


def test_a_gap_is_one_of_the_applications_numbers_whatever_the_wire_says() -> None:
    rest = rests(view(command(STOP, 8), of=BEHIND))
    assert (rest.why, rest.lane.gap_since) == (Pause.GAP, NOW)
    given = view(command(STOP, 8), of=rest.lane, now=NOW + GAP)
    assert sends(given).skipped == (6, 7)


@pytest.mark.parametrize("kind", [START, STOP])
def test_too_late_is_what_is_below_the_applications_newest_number(kind: Kind) -> None:
    of = replace(BEHIND, listening=True)
    assert settles(view(command(kind, 5), of=of)) == {"c5": ("superseded", "Superseded")}


# --- numbers


@pytest.mark.parametrize("kind", [START, STOP])
@pytest.mark.parametrize("number", [0, -1, HIGHEST + 1])
def test_a_number_out_of_range_fails_and_the_lane_goes_on(number: int, kind: Kind) -> None:
    given = view(command(kind, number, position=1), command(START, 1, position=2))
    action = decide_lane(given)
    assert settles(given) == {"c1": ("failed", "InvalidSequence")}
    assert isinstance(action, Settle)
    assert sends(given.after(action)).sequence == 1


@pytest.mark.parametrize("first", [3, None])
def test_the_first_command_inserted_says_who_numbers_a_new_lane(first: int | None) -> None:
    other = None if first else 3
    given = view(command(START, first, position=1), command(STOP, other, position=2))
    assert settles(given) == {"c2": ("failed", "MixedSequence")}


@pytest.mark.parametrize(("numbering", "number"), [(Numbering.GIVEN, None), (Numbering.DRAWN, 9)])
def test_who_numbered_a_lane_numbers_it_for_life(numbering: Numbering, number: int | None) -> None:
    of = lane(numbering=numbering, last_sequence=5)
    assert settles(view(command(START, number), of=of)).popitem()[1][1] == "MixedSequence"


# --- too late


@pytest.mark.parametrize("kind", Kind)
def test_an_expired_command_is_not_sent(kind: Kind) -> None:
    old = command(kind, 6 if kind.listens else None, expires_at=NOW)
    given = view(old, of=AT_5 if kind.listens else others())
    assert settles(given) == {old.id: ("expired", "Expired")}


def test_an_expired_command_says_what_its_trouble_was() -> None:
    old = command(START, 6, expires_at=NOW, reason=NOW_NOT, message="not publishing")
    action = decide_lane(view(old, of=AT_5))
    assert isinstance(action, Settle)
    assert (action.commands[0].reason, action.commands[0].message) == (NOW_NOT, "not publishing")


NOW_NOT = "410001046"


def test_a_stop_whose_start_was_sent_or_may_have_been_is_always_sent() -> None:
    assert sends(view(command(STOP, 6, expires_at=NOW - 60 * S), of=OPEN_AT_5)).sequence == 6


def test_a_stop_is_not_too_late_while_its_press_may_still_be_sent() -> None:
    given = view(command(START, 6), command(STOP, 7, expires_at=NOW), of=AT_5)
    assert sends(given).sequence == 6


def test_a_start_that_was_sent_is_not_sent_again_once_it_is_too_late_and_its_stop_is() -> None:
    busy, sent = in_flight(START, 5, expires_at=NOW)
    given = view(sent, command(STOP, 6, expires_at=NOW), of=busy)
    assert settles(given) == {"c5": ("failed", "OutcomeUnknown")}
    action = decide_lane(given)
    assert isinstance(action, Settle)
    assert sends(given.after(action)).sequence == 6


@pytest.mark.parametrize(
    ("is_fresh", "tries", "yields"),
    [
        (True, YIELDING_TRIES, True),
        (True, YIELDING_TRIES - 1, False),
        (False, YIELDING_TRIES, False),
    ],
)
def test_a_late_stop_of_unknown_outcome_makes_way_for_a_press_that_is_fresh(
    is_fresh: bool, tries: int, yields: bool
) -> None:
    busy, sent = in_flight(STOP, 5, expires_at=NOW)
    press = command(START, 6, expires_at=LATE if is_fresh else NOW)
    given = view(sent, press, of=replace(busy, listening=True, attempt=tries))
    action = decide_lane(given)
    assert isinstance(action, Settle) is yields
    if isinstance(action, Settle):
        assert settles(given) == {"c5": ("failed", "OutcomeUnknown")}
        assert action.lane.listening


@pytest.mark.parametrize(
    ("waiting", "tries", "yields"),
    [
        (command(START, 6), YIELDING_TRIES, True),
        (command(START, 6), YIELDING_TRIES - 1, False),
        (command(START, 6, expires_at=NOW), YIELDING_TRIES, False),
        (command(STOP, 6, expires_at=NOW), YIELDING_TRIES, True),
    ],
)
def test_a_fresh_stop_that_nobody_confirms_holds_no_press_and_no_release(
    waiting: Command, tries: int, yields: bool
) -> None:
    """As of one with nothing to close, where the vendor takes an equal number for a new one."""
    busy, sent = in_flight(STOP, 5)
    given = view(sent, waiting, of=replace(busy, attempt=tries))
    assert isinstance(decide_lane(given), Settle) is yields
    if yields:
        assert settles(given) == {"c5": ("failed", "OutcomeUnknown")}


def test_a_start_of_unknown_outcome_makes_way_for_nothing() -> None:
    busy, sent = in_flight(START, 5)
    given = view(sent, command(STOP, 6), of=replace(busy, attempt=CLOSING_TRIES))
    assert sends(given).sequence == 5


@pytest.mark.parametrize(
    ("is_sent", "verdict"),
    [(False, ("expired", NOT_READY)), (True, ("failed", "OutcomeUnknown"))],
)
def test_a_late_stop_for_a_user_who_is_away_is_over(is_sent: bool, verdict: Any) -> None:
    """The vendor has answered; the microphone counts as open, so that the next release is sent."""
    busy, sent = in_flight(STOP, 5, expires_at=NOW, reason=NOT_READY)
    if not is_sent:
        sent = replace(sent, sent_at=None, state=CommandState.QUEUED)
    given = view(sent, of=replace(busy, listening=True))
    assert settles(given) == {"c5": verdict}
    action = decide_lane(given)
    assert isinstance(action, Settle)
    assert action.lane.listening
    assert sends(replace(given, now=NOW - S)).sequence == 5


@pytest.mark.parametrize(("is_sent", "ends"), [(True, True), (False, False)])
def test_a_late_stop_is_given_up_after_many_tries_if_one_of_them_may_have_been_heard(
    is_sent: bool, ends: bool
) -> None:
    busy, sent = in_flight(STOP, 5, expires_at=NOW)
    tried = replace(busy, listening=True, attempt=CLOSING_TRIES)
    if not is_sent:
        sent = replace(sent, sent_at=None, state=CommandState.QUEUED)
    action = decide_lane(view(sent, of=tried))
    assert isinstance(action, Settle) is ends
    assert not isinstance(action, Settle) or action.lane.listening


# --- what no vendor takes


def test_a_refused_command_of_the_other_kinds_fails_at_once_wherever_it_stands() -> None:
    given = view(
        command(Kind.SAY, position=1),
        command(Kind.FUNCTION_RESULT, position=2),
        of=others(),
        situation=COMING,
        refusals={"c2": Refusal(reason=Reason.UNSUPPORTED, message="no call for it")},
    )
    assert settles(given) == {"c2": ("failed", "Unsupported")}


def test_a_refused_listening_command_fails_in_its_turn() -> None:
    refusals = {"c6": Refusal(reason=Reason.INVALID_PAYLOAD)}
    first = view(command(STOP, 6), command(START, 7), of=AT_5, refusals=refusals)
    assert settles(first) == {"c6": ("failed", "InvalidPayload")}
    second = view(command(START, 5), command(STOP, 6), refusals=refusals)
    assert sends(second).sequence == 5


def test_what_may_have_been_sent_is_not_refused_any_more() -> None:
    busy, sent = in_flight(START, 5)
    refusals = {"c5": Refusal(reason=Reason.INVALID_PAYLOAD)}
    assert sends(view(sent, of=busy, refusals=refusals)).is_resend


# --- taken back


def test_a_command_that_is_taken_back_is_not_sent_and_bars_none_below_it() -> None:
    given = view(command(START, 6), command(STOP, 7), of=AT_5, cancelled=frozenset({"c7"}))
    assert settles(given) == {"c7": ("superseded", "Cancelled")}
    action = decide_lane(given)
    assert isinstance(action, Settle)
    assert sends(given.after(action)).sequence == 6


def test_what_was_sent_cannot_be_taken_back() -> None:
    busy, sent = in_flight(START, 5)
    assert sends(view(sent, of=busy, cancelled=frozenset({"c5"}))).is_resend


# --- the task


def test_a_command_waits_for_an_agent_that_is_coming_and_looks_if_it_is_there() -> None:
    rest = rests(view(command(START, 1), situation=COMING))
    assert (rest.why, rest.until) == (Pause.AGENT, NOW + LOOK)


def test_a_command_that_waits_is_settled_at_its_time_and_not_at_the_next_look() -> None:
    brief = command(START, 1, expires_at=NOW + LOOK / 2)
    assert rests(view(brief, situation=COMING)).until == brief.expires_at


def test_a_command_to_a_task_that_ended_fails() -> None:
    later = command(Kind.SAY, created_at=NOW + S)
    given = view(later, of=others(), situation=ENDED, now=NOW + S)
    assert settles(given) == {later.id: ("failed", "TaskEnded")}


@pytest.mark.parametrize("standing", [Standing.COMING, Standing.ENDED])
def test_the_end_of_an_incarnation_expires_what_is_queued_and_later_ones_wait(
    standing: Standing,
) -> None:
    then = replace(ENDED, standing=standing)
    before, later = command(START, 6), command(START, 7, created_at=NOW + S)
    given = view(before, later, of=AT_5, situation=then, now=NOW + S)
    expected = {"c6": ("expired", "AgentEnded")}
    if standing is Standing.ENDED:
        expected["c7"] = ("failed", "TaskEnded")
    assert settles(given) == expected


@pytest.mark.parametrize("kind", [START, STOP])
def test_the_end_of_an_incarnation_ends_what_was_on_its_way(kind: Kind) -> None:
    busy, sent = in_flight(kind, 5)
    given = view(sent, of=busy, situation=replace(ENDED, standing=Standing.COMING))
    assert settles(given) == {"c5": ("failed", "OutcomeUnknown")}


def test_the_microphone_of_an_agent_that_ended_is_closed() -> None:
    agent = known(incarnation=2)
    again = Situation(standing=Standing.RUNNING, agent=agent, retired=1, ended_at=NOW - S)
    given = view(command(STOP, 6, expires_at=NOW), of=OPEN_AT_5, situation=again)
    assert settles(given) == {"c6": ("expired", "Expired")}
    announced, flight = announce_lane(
        given, sends(view(command(STOP, 6), of=OPEN_AT_5, situation=again))
    )
    assert (announced.incarnation, flight.listening_before) == (2, False)


def test_numbers_rise_over_incarnations() -> None:
    again = Situation(standing=Standing.RUNNING, agent=known(incarnation=2), retired=1)
    first = command(START, 1)
    assert settles(view(first, of=AT_5, situation=again)) == {"c1": ("superseded", "Superseded")}


@pytest.mark.parametrize(
    ("given", "is_told_more", "standing"),
    [
        (row(incarnation=1), False, Standing.COMING),
        (row(unknown()), False, Standing.COMING),
        (row(known()), False, Standing.RUNNING),
        (row(known(), retired=1), False, Standing.ENDED),
        (row(known(), incarnation=2, retired=1), False, Standing.COMING),
        (row(incarnation=0), False, Standing.ENDED),
        (row(incarnation=0), True, Standing.COMING),
        (row(known(), task=None), True, Standing.ENDED),
    ],
)
def test_how_a_task_stands(given: Row, is_told_more: bool, standing: Standing) -> None:
    situation = situation_of(given, NOW, is_told_more=is_told_more)
    assert situation.standing is standing
    assert (situation.agent is not None) is (standing is Standing.RUNNING)
    assert (situation.retired, situation.ended_at) == (given.status.retired, NOW)


@pytest.mark.parametrize(
    ("given", "ended_at"),
    [
        (row(known(), incarnation=2, retired=1, asked_at=NOW - 3 * S), NOW - 3 * S),
        (row(known(), incarnation=2, retired=1, asked_at=NOW + S), NOW),
        (row(known(), incarnation=2, retired=1, asked_at=None), NOW),
        (row(known(), incarnation=1, retired=1, asked_at=NOW - 3 * S), NOW),
    ],
)
def test_what_came_after_the_wish_for_the_next_incarnation_is_for_that_one(
    given: Row, ended_at: Any
) -> None:
    """However late the daemon heard of it, or found the end."""
    situation = situation_of(given, NOW, is_told_more=False)
    assert situation.ended_at == ended_at


# --- waits


def test_the_next_try_waits_for_its_time() -> None:
    busy, sent = in_flight(START, 5)
    rest = rests(view(sent, of=replace(busy, retry_at=NOW + S)))
    assert (rest.why, rest.until) == (Pause.RETRY, NOW + S)


def test_nothing_leaves_a_frozen_account() -> None:
    frozen = replace(ACCOUNT, frozen=True)
    rest = rests(view(command(STOP, 6), of=OPEN_AT_5, account=frozen))
    assert (rest.why, rest.until) == (Pause.FROZEN, NOW + LOOK)


def test_a_try_that_is_far_off_is_looked_at_before() -> None:
    busy, sent = in_flight(STOP, 6, expires_at=NOW)
    waits = replace(busy, listening=True, retry_at=NOW + 2 * NET)
    assert rests(view(sent, of=waits)).until == NOW + NET


def test_a_lane_of_which_more_is_to_be_seen_is_looked_at_again_at_once() -> None:
    assert rests(view(is_cut=True)).until == NOW
    waits = view(command(START, 1), situation=COMING, is_cut=True)
    assert rests(waits).until == NOW + LOOK


# --- once


@pytest.mark.parametrize("kind", [k for k in Kind if not k.listens])
def test_after_a_lost_daemon_only_what_may_be_repeated_is_sent_again(kind: Kind) -> None:
    sent = command(kind, state=CommandState.SENDING, sent_at=NOW - S)
    given = view(sent, of=others(incarnation=1, command_id=sent.id))
    if kind in {Kind.INTERRUPT, Kind.UPDATE}:
        assert sends(given).is_resend
    else:
        assert settles(given) == {sent.id: ("failed", "OutcomeUnknown")}


# --- the fence, and the invariants


@pytest.mark.parametrize("changes", [{"version": 9}, {"command_id": "another"}])
def test_only_the_flight_that_a_lane_waits_for_is_heard(changes: dict[str, Any]) -> None:
    given = view(command(START, 1))
    announced, flight = announce_lane(given, sends(given))
    assert is_awaited(announced, flight)
    assert not is_awaited(replace(announced, **changes), flight)


QUEUED, SENDING = command(START, 5), in_flight(START, 5)[1]


@pytest.mark.parametrize(
    ("of", "held", "sentences"),
    [
        (in_flight(START, 5)[0], SENDING, 0),
        (lane(), QUEUED, 0),
        (lane(), SENDING, 1),
        (lane(), replace(QUEUED, sent_at=NOW), 1),
        (lane(command_id="c5"), QUEUED, 1),
        (lane(), replace(QUEUED, state=CommandState.DONE), 1),
    ],
)
def test_every_broken_invariant_has_a_sentence(of: Lane, held: Command, sentences: int) -> None:
    assert len(list(broken(of, (held,)))) == sentences


def test_a_running_situation_has_its_agent() -> None:
    assert RUNNING.agent is not None


# --- a task that is forgotten


def test_a_forgotten_lane_is_settled_unsent_and_says_what_nobody_knows() -> None:
    busy, sent = in_flight(START, 5)
    ended = settle_forgotten(busy, [sent, command(STOP, 6)], NOW)
    assert (ended.lane.command_id, ended.lane.listening) == (None, False)
    assert ended.lane.last_sequence == 5
    assert [(c.state, c.reason, c.done_at) for c in ended.commands] == [
        (CommandState.FAILED, Reason.OUTCOME_UNKNOWN, NOW),
        (CommandState.FAILED, Reason.TASK_ENDED, NOW),
    ]
