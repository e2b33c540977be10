"""Histories that broke earlier drafts, step by step. The name of a test is its history."""

from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

import pytest

from orchestrator.core import late, names
from orchestrator.core.action import Call, Wait
from orchestrator.core.announce import Draw, abandon, new_agent
from orchestrator.core.arrange import arrange, park
from orchestrator.core.bucket import GRACE_US, JITTER_US, SECOND_US, Bucket
from orchestrator.core.caps import Recovery
from orchestrator.core.deadline import lapse
from orchestrator.core.decide import decide
from orchestrator.core.evolve import evolve
from orchestrator.core.fact import Event, Fact, is_past
from orchestrator.core.incarnation import adopt
from orchestrator.core.model import (
    EndReason,
    Evidence,
    Phase,
    RestartPolicy,
    Row,
    Verb,
    WaitingFor,
    What,
    WorkClass,
)
from orchestrator.core.outcome import (
    Done,
    Gone,
    Indefinite,
    NotSent,
    Outcome,
    Refused,
    Throttled,
)
from orchestrator.core.wishes import absorb
from tests.core.builders import (
    NOW,
    S,
    account,
    call,
    change,
    in_flight,
    known,
    poll_at,
    row,
    settled,
    task,
    unknown,
)

V, T, Z, U = Recovery.SAME_NAME, Recovery.FIND, Recovery.EVICT, Recovery.STOP_FIRST


def go_on(given: Row, of: Recovery, outcome: Outcome, at: datetime) -> tuple[Verb, Row]:
    """Let the row make the call that is due, and settle it. Return which it was."""
    action = decide(given, account(of), at)
    assert isinstance(action, Call), action
    announced, flight = in_flight(given, action.verb, action.agent, at, account(of))
    told = settled(outcome, asked_at=at, after=timedelta())
    return action.verb, arrange(evolve(announced, flight, told, account(of)).row, account(of), at)


def lost_start(of: Recovery, at: datetime = NOW) -> Row:
    """A row whose daemon froze between its announce and its send."""
    return abandon(in_flight(row(), Verb.START, None, at, account(of))[0])


# --- evidence has a time


def test_a_frozen_daemon_sends_after_the_first_stop_found_nothing() -> None:
    given = absorb(lost_start(V), [change(What.STOP)], NOW + 20 * S).row
    verb, given = go_on(given, V, Gone(), NOW + 20 * S)
    assert (verb, given.status.phase) == (Verb.STOP, Phase.STOPPING)
    assert given.status.stop_due_at == NOW + 115 * S
    _, given = go_on(given, V, Done(), NOW + 115 * S)  # it had come meanwhile
    assert given.status.phase is Phase.STOPPED


@pytest.mark.parametrize("is_known_first", [True, False])
def test_a_new_try_that_never_left_evicts_nobody(*, is_known_first: bool) -> None:
    """The frozen daemon's start had its effect, and its handle comes: that one is the agent."""
    given = lost_start(Z)
    again = decide(given, account(Z), NOW + 8 * S)
    assert isinstance(again, Call)
    given, flight = in_flight(given, again.verb, again.agent, NOW + 8 * S, account(Z))
    not_sent = settled(NotSent(code="RateLimited"), asked_at=NOW + 8 * S, after=S)
    if is_known_first:
        given = adopt(given, given.agents[0], "h1", since=NOW)
        given = evolve(given, flight, not_sent, account(Z)).row
    else:
        given = evolve(given, flight, not_sent, account(Z)).row
        given = adopt(given, given.agents[0], "h1", since=NOW)
        given = absorb(given, [change(What.LEDGER)], NOW + 10 * S).row
    assert [agent.vendor_task_id for agent in given.agents] == ["h1"]
    verb, given = go_on(given, Z, Done(), NOW + 200 * S)
    assert (verb, given.status.phase) == (Verb.POLL, Phase.RUNNING)
    assert [agent.vendor_task_id for agent in given.agents] == ["h1"]


def test_a_good_start_and_a_quick_stop_that_the_vendor_does_not_know_yet() -> None:
    _, given = go_on(row(), T, Done(handle="h1"), NOW)
    given = absorb(given, [change(What.STOP)], NOW + S).row
    _, given = go_on(given, T, Gone(), NOW + S)
    assert given.status.phase is Phase.STOPPING
    assert given.status.stop_due_at == NOW + 10 * S


def test_absent_before_the_horizon_starts_no_second_session() -> None:
    verb, given = go_on(lost_start(T), T, Gone(), NOW + 20 * S)
    assert verb is Verb.FIND
    action = decide(given, account(T), NOW + 114 * S)
    assert isinstance(action, Wait)
    assert action.waiting_for is WaitingFor.PROOF
    verb, given = go_on(given, T, Gone(), NOW + 115 * S)
    verb, given = go_on(given, T, Done(handle="h2"), NOW + 116 * S)
    assert (verb, given.agents[0].name) == (Verb.START, "n1")


def test_a_room_that_does_not_show_the_agent_restarts_nothing() -> None:
    always = task(restart_policy=RestartPolicy.ALWAYS)
    given = row(known(seen_at=NOW - 60 * S), task=always, polled_at=NOW - 60 * S)
    verb, given = go_on(given, V, Gone(), NOW)
    assert (verb, len(given.unwanted)) == (Verb.POLL, 1)
    action = decide(given, account(V), NOW)
    assert isinstance(action, Call)
    assert action.verb is Verb.STOP


# --- the ledger


def test_a_late_first_create_evicts_the_second_and_is_not_forgotten() -> None:
    given = lost_start(Z)
    verb, given = go_on(given, Z, Done(handle="i2"), NOW + 20 * S)
    assert (verb, len(given.wanted)) == (Verb.START, 2)
    polled = replace(given, status=replace(given.status, polled_at=NOW - 60 * S))
    verb, given = go_on(polled, Z, Gone(), NOW + 40 * S)
    assert verb is Verb.POLL
    assert [agent.is_known for agent in given.wanted] == [False]
    assert given.status.phase is Phase.STARTING


def test_the_first_session_is_found_after_a_second_was_started() -> None:
    ended = unknown(ended_at=NOW, evidence=Evidence.ABSENT)
    learnt = late.learn(ended, "h1", account(T).caps)
    given = row(learnt, known(id="a2", vendor_task_id="h2"))
    action = decide(given, account(T), NOW)
    assert isinstance(action, Call)
    assert (action.verb, action.agent) == (Verb.STOP, learnt)


def test_a_failed_resend_erased_the_first_send() -> None:
    given = lost_start(V)
    verb, given = go_on(given, V, Refused(code="Invalid"), NOW + 20 * S)
    assert verb is Verb.START
    assert given.status.phase is Phase.STOPPING
    assert given.agents[0].horizon_at == NOW + 115 * S


# --- names


def test_an_incarnation_after_a_delete_counts_from_one_and_bears_another_name() -> None:
    lots = Random(1)
    drawn = {names.compose("orc", "abcde", lots.randbytes(16)) for _ in range(1000)}
    assert len(drawn) == 1000
    assert not any(names.is_ours(name, "orc", "other") for name in drawn)


# --- the row changes before anybody looks


def test_deleted_and_inserted_into_another_room_in_one_transaction() -> None:
    moved = replace(row(known(), task=task(room_id="r2")))
    given = absorb(moved, [change(What.DELETE), change(What.INSERT)], NOW).row
    action = decide(given, account(V), NOW)
    assert isinstance(action, Call)
    assert action.agent is not None
    assert (action.verb, action.agent.room_id) == (Verb.STOP, "r1")
    _, given = go_on(given, V, Done(), NOW)
    announced, _ = in_flight(given, Verb.START, None, NOW, account(V))
    assert announced.status.room_id == "r2"


def test_replaced_without_any_trigger_a_row_that_wants_to_run_goes_on() -> None:
    assert absorb(row(known()), [], NOW).row.unwanted == ()


def test_stopped_and_running_again_before_anybody_looked() -> None:
    given = absorb(row(known()), [change(What.STOP), change(What.RUN)], NOW).row
    verb, given = go_on(given, T, Done(), NOW)
    assert verb is Verb.STOP
    verb, given = go_on(given, T, Done(handle="h2"), NOW)
    assert (verb, given.status.incarnation, given.status.phase) == (Verb.START, 2, Phase.RUNNING)


# --- pace


def test_a_burst_at_the_end_of_one_second_and_at_the_begin_of_the_next() -> None:
    bucket, first = Bucket(limit=10).draw(900_000, 10, until=900_000)
    _, second = bucket.draw(1_000_000, 10, until=3_000_000)
    latest_of_first, earliest_of_second = first[-1] + GRACE_US + JITTER_US, second[0]
    assert earliest_of_second - latest_of_first >= SECOND_US


def test_a_deadline_behind_an_earlier_poll() -> None:
    ends = task(stop_at=NOW + 65 * S)
    status = arrange(row(known(), task=ends), account(V), NOW).status
    assert (status.due_at, status.stop_due_at) == (poll_at(), NOW + 65 * S)


def test_a_start_that_waits_for_a_slot_is_parked_once() -> None:
    given = row()
    parked = park(given, call(Verb.START), WaitingFor.RATE_LIMIT, account(V), NOW).status
    assert parked.parked_class is WorkClass.START
    assert parked.due_at == NOW + account(V).start_within


# --- what the vendor cannot name


def test_the_slot_that_is_missing_is_held_by_our_own_lost_agent() -> None:
    given = lost_start(Z)
    verb, given = go_on(given, Z, Throttled(capacity=True), NOW + 20 * S)
    assert verb is Verb.START
    verb, given = go_on(given, Z, Done(), NOW + 20 * S)
    assert verb is Verb.KICK
    verb, given = go_on(given, Z, Throttled(capacity=True), NOW + 40 * S)
    assert (verb, given.status.waiting_for) == (Verb.START, WaitingFor.CAPACITY)


def test_a_slot_that_others_hold_is_waited_for() -> None:
    _, given = go_on(row(), Z, Throttled(capacity=True), NOW)
    assert given.status.waiting_for is WaitingFor.CAPACITY
    verb, _ = go_on(given, Z, Done(handle="i1"), NOW + 20 * S)
    assert verb is Verb.START


def test_a_kick_straight_after_an_unknown_create_does_nothing_and_the_agent_joins() -> None:
    given = absorb(lost_start(Z), [change(What.STOP)], NOW + S).row
    verbs = []
    for outcome in (Gone(), Gone()):
        verb, given = go_on(given, Z, outcome, NOW + S)
        verbs.append(verb)
    assert (verbs, given.status.phase) == ([Verb.FIND, Verb.KICK], Phase.QUARANTINED)
    verb, given = go_on(given, Z, Done(), NOW + 115 * S)  # it is in the room
    verb, given = go_on(given, Z, Done(), NOW + 120 * S)
    assert verb is Verb.KICK
    verb, given = go_on(given, Z, Gone(), NOW + 121 * S)
    assert (verb, given.status.phase) == (Verb.FIND, Phase.STOPPED)


# --- what starts nothing


@pytest.mark.parametrize("what", [What.TIMING, What.OWNER, What.LEDGER, What.START_BY])
def test_an_idle_agent_that_ended_is_not_started_by_a_later_deadline(what: What) -> None:
    given = row(retired=1, end_reason=EndReason.IDLE, task=task(stop_at=NOW + 900 * S))
    after = absorb(given, [change(what)], NOW).row
    assert decide(after, account(V), NOW) == Wait()


def test_a_whole_fleet_is_not_stopped_because_nobody_could_write() -> None:
    given = row(known(), task=task(heartbeat_timeout=30 * S, heartbeat_at=NOW))
    back = NOW + 60 * S
    assert lapse(given, account(V), back).row.unwanted
    spared = lapse(given, account(V, amnesty_at=back), back).row
    assert spared.unwanted == ()
    assert lapse(given, account(V, amnesty_at=back), back + 30 * S).row.unwanted


def test_a_heartbeat_is_not_missed_before_it_can_begin() -> None:
    given = row(task=task(heartbeat_timeout=30 * S, start_at=NOW + timedelta(minutes=30)))
    assert lapse(given, account(V), NOW + timedelta(minutes=29)).row is given


# --- a vendor without names


def test_a_late_stop_by_room_and_user_hits_no_later_agent() -> None:
    given = row(known(), incarnation=2, retired=1)
    verb, given = go_on(given, U, Indefinite(), NOW)
    assert verb is Verb.STOP
    given = replace(given, agents=tuple(replace(a, retry_at=None) for a in given.agents))
    verb, given = go_on(given, U, Gone(), NOW + S)
    assert given.status.stop_due_at == NOW + 115 * S
    verb, given = go_on(given, U, Gone(), NOW + 115 * S)
    assert given.status.phase is Phase.PENDING


def test_a_stop_by_room_and_user_that_was_answered_is_proof_at_once() -> None:
    _, given = go_on(row(known(), retired=1), U, Gone(), NOW)
    assert given.status.phase is Phase.STOPPED


# --- the spec


def test_a_spec_that_changed_while_the_start_is_unknown_is_not_sent_under_the_old_name() -> None:
    given = absorb(lost_start(V), [change(What.SPEC)], NOW + 20 * S).row
    verb, given = go_on(given, V, Gone(), NOW + 20 * S)
    assert (verb, given.status.incarnation) == (Verb.STOP, 2)
    verb, given = go_on(given, V, Gone(), NOW + 115 * S)
    action = decide(given, account(V), NOW + 115 * S)
    assert action == call(Verb.START)


def test_an_agents_user_id_from_the_spec_stays_and_all_else_is_new() -> None:
    draw = Draw(name="n2", site="here", agent_user_id="bot")
    new = new_agent(row(unknown(name="bot")), task(), draw, NOW)
    assert (new.name, new.session_name, new.stream_id) == ("bot", "n2", "n2_s2")


def test_where_no_more_agents_are_allowed_a_second_start_waits() -> None:
    full = account(V, has_room=False)
    action = decide(row(), full, NOW)
    assert isinstance(action, Wait)
    assert action.waiting_for is WaitingFor.CAPACITY


# --- found by the simulation


def test_a_poll_that_knew_nothing_yet_held_back_the_users_stop() -> None:
    young = known(horizon_at=NOW + 10 * S, hinted_at=NOW)
    given = absorb(row(young), [change(What.STOP)], NOW + S).row
    verb, _ = go_on(given, T, Done(), NOW + S)
    assert verb is Verb.STOP


def test_the_answer_of_an_old_call_is_not_for_the_row_that_was_inserted_again() -> None:
    """Both statuses count their versions from nought, and one daemon claimed both."""
    _, old = in_flight(row(), Verb.START, None, NOW, account(T))
    again, _ = in_flight(row(unknown(id="other")), Verb.FIND, unknown(id="other"), NOW, account(T))
    assert again.status.version == old.version
    assert not late.is_awaited(again.status, old)


def test_a_late_word_about_an_ended_agent_gave_its_handle_to_another_of_its_name() -> None:
    """The second try was stopped; what is told of it names both, and only the first is open."""
    lost, told = unknown(), Fact(key="k", event=Event.STARTED, event_at=NOW + 20 * S)
    told = replace(told, vendor_task_id="h2", name="a1")
    assert is_past(told, [lost], {"h2"})
    assert not is_past(told, [lost], {"h1"})
    assert not is_past(replace(told, vendor_task_id=None), [lost], {"h2"})
    assert not is_past(told, [lost, known(id="a2", vendor_task_id="h2")], {"h2"})


@pytest.mark.parametrize(("horizon_at", "goes_on"), [(NOW + 115 * S, True), (NOW - 100 * S, False)])
def test_an_old_unknown_try_kept_a_row_from_ending_however_often_its_agents_died(
    horizon_at: datetime, goes_on: bool
) -> None:
    """Only one that was still on its way can have evicted the agent that is gone."""
    old = unknown(id="old", horizon_at=horizon_at)
    newest = known(id="new", announced_at=NOW - 60 * S, horizon_at=NOW - 50 * S)
    verb, after = go_on(row(old, newest), Z, Gone(), NOW + 100 * S)
    assert (verb, after.status.retires) == (Verb.POLL, not goes_on)
