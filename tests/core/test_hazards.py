"""More histories that broke earlier drafts, step by step. The name of a test is its history."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from orchestrator.core.action import Call, Wait
from orchestrator.core.announce import abandon
from orchestrator.core.arrange import arrange
from orchestrator.core.caps import Recovery
from orchestrator.core.decide import decide
from orchestrator.core.evolve import evolve
from orchestrator.core.model import (
    Phase,
    Row,
    Verb,
    WaitingFor,
    What,
)
from orchestrator.core.outcome import Denied, Done, Gone, Indefinite, NotSent, Outcome, Refused
from orchestrator.core.wishes import absorb
from tests.core.builders import (
    NOW,
    S,
    account,
    agent,
    change,
    in_flight,
    known,
    row,
    settled,
    unknown,
)

V, T, Z, U = Recovery.SAME_NAME, Recovery.FIND, Recovery.EVICT, Recovery.STOP_FIRST
HORIZON = NOW + 115 * S


def go_on(given: Row, of: Recovery, outcome: Outcome, at: datetime) -> tuple[Verb, Row]:
    """Let the row make the call that is due, and settle it. Return which it was."""
    action = decide(given, account(of), at)
    assert isinstance(action, Call), action
    announced, flight = in_flight(given, action.verb, action.agent, at, account(of))
    told = settled(outcome, asked_at=at, after=timedelta())
    return action.verb, arrange(evolve(announced, flight, told, account(of)).row, account(of), at)


def lost_start(of: Recovery) -> Row:
    """A row whose daemon froze between its announce and its send."""
    return abandon(in_flight(row(), Verb.START, None, NOW, account(of))[0])


def test_a_late_first_send_arrives_after_the_second_was_stopped() -> None:
    """The vendor would take the same name again, so the good answer to the stop is a hint."""
    verb, given = go_on(lost_start(V), V, Done(), NOW + 20 * S)
    assert verb is Verb.START
    given = absorb(given, [change(What.STOP)], NOW + 40 * S).row
    verb, given = go_on(given, V, Done(), NOW + 40 * S)
    assert (verb, given.status.phase) == (Verb.STOP, Phase.STOPPING)
    assert (given.status.waiting_for, given.status.stop_due_at) == (WaitingFor.PROOF, HORIZON)
    verb, given = go_on(given, V, Done(), HORIZON)
    assert (verb, given.status.phase) == (Verb.STOP, Phase.STOPPED)


@pytest.mark.parametrize("of", [V, T, Z, U])
@pytest.mark.parametrize("outcome", [Refused(code="E"), NotSent(code="E"), Denied(code="E")])
def test_a_stop_that_failed_leaves_the_unknown_start_as_it_was(
    of: Recovery, outcome: Outcome
) -> None:
    """One row held one intent: the stop's took the place of the start's, and then it was over."""
    given = absorb(lost_start(of), [change(What.STOP)], NOW + S).row
    (before,) = given.agents
    _, given = go_on(given, of, outcome, NOW + S)
    (after,) = given.agents
    assert (after.name, after.ended_at) == (before.name, None)
    assert after.horizon_at is not None
    assert after.horizon_at >= HORIZON
    assert given.status.stop_due_at is not None


def test_the_user_talks_to_the_orphan_so_it_never_idles() -> None:
    """No age ends what is not known to be gone: it is asked for, and removed, without limit."""
    given = absorb(lost_start(Z), [change(What.STOP)], NOW + S).row
    at, kicks = NOW + S, 0
    for _ in range(200):
        action = decide(given, account(Z), at)
        if isinstance(action, Wait):
            assert action.until is not None
            at = action.until
            continue
        # Every look finds it in the room; what is removed joins again.
        verb, given = go_on(given, Z, Done(), at)
        kicks += verb is Verb.KICK
    assert at > HORIZON
    assert kicks > 1
    assert (given.status.phase, len(given.unwanted)) == (Phase.QUARANTINED, 1)


@pytest.mark.parametrize("of", [V, U])
def test_who_was_never_seen_is_not_reaped_for_its_age(of: Recovery) -> None:
    """A live conversation whose first sign of life is late, or never comes."""
    given = row(known())
    at = NOW
    for _ in range(50):
        action = decide(given, account(of), at)
        if isinstance(action, Wait):
            assert action.until is not None
            at = action.until
            continue
        verb, given = go_on(given, of, Gone(), at)
        assert verb is Verb.POLL
    assert at > NOW + timedelta(minutes=20)
    assert (given.status.phase, given.unwanted) == (Phase.RUNNING, ())


@pytest.mark.parametrize("of", [V, T, Z, U])
def test_a_vendor_in_trouble_says_nothing_of_its_agents(of: Recovery) -> None:
    """Status unknown is not gone: neither a look nor a stop that failed ends anything."""
    given = row(known(), polled_at=NOW - 60 * S, confirmed_at=NOW - 60 * S)
    verb, given = go_on(given, of, Indefinite(code="HTTP503"), NOW)
    assert (verb, given.status.phase, given.unwanted) == (Verb.POLL, Phase.RUNNING, ())
    given = absorb(given, [change(What.STOP)], NOW + S).row
    verb, given = go_on(given, of, Indefinite(code="HTTP503"), NOW + S)
    assert (verb, given.status.phase, len(given.agents)) == (Verb.STOP, Phase.STOPPING, 1)


@pytest.mark.parametrize("of", [V, T, Z, U])
def test_a_stop_is_tried_until_evidence_and_never_given_up(of: Recovery) -> None:
    given = absorb(row(known()), [change(What.DELETE)], NOW).row
    at = NOW
    for _ in range(100):
        verb, given = go_on(given, of, Indefinite(code="Timeout"), at)
        assert (verb, len(given.agents)) == (Verb.STOP, 1)
        due = given.status.stop_due_at
        assert due is not None
        assert timedelta() < due - at <= account(of).retry_cap
        at = due
    _, given = go_on(given, of, Done(), at + timedelta(hours=1))
    proof = given.status.stop_due_at
    if given.agents:  # by room and user: what nobody answered may still arrive
        assert proof is not None
        _, given = go_on(given, of, Done(), proof)
    assert given.agents == ()


def test_a_hint_before_the_horizon_is_no_reason_to_start_beside_it() -> None:
    given = absorb(lost_start(V), [change(What.STOP), change(What.RUN)], NOW + S).row
    verb, given = go_on(given, V, Gone(), NOW + S)
    assert verb is Verb.STOP
    action = decide(given, account(V), HORIZON - S)
    assert isinstance(action, Wait)
    assert (action.waiting_for, action.until) == (WaitingFor.PROOF, HORIZON)
    assert given.status.phase is Phase.STOPPING


def test_two_sends_of_one_name_share_no_horizon() -> None:
    """The later one moves it on; what is known of the later one never moves it back."""
    given = lost_start(V)
    verb, resent = go_on(given, V, Indefinite(code="Timeout"), NOW + 50 * S)
    assert verb is Verb.START
    (sent,) = resent.agents
    assert sent.horizon_at == NOW + 50 * S + (HORIZON - NOW)
    later = replace(resent.status, retry_at=None)
    _, again = go_on(replace(resent, status=later), V, Done(), NOW + 60 * S)
    assert again.agents[0].horizon_at == sent.horizon_at


def test_an_agent_that_only_a_person_knows_is_gone() -> None:
    given = absorb(row(unknown(), retired=1), [change(What.ASSUME_GONE)], NOW).row
    assert (given.agents, decide(given, account(Z), NOW)) == ((), Wait())


@pytest.mark.parametrize(
    ("given", "is_open"),
    [
        (row(), False),
        (row(agent()), False),
        (row(unknown()), True),
        (row(known()), False),
        (row(unknown(), known(id="a2")), True),
        (row(unknown(), retired=1), False),
    ],
)
def test_what_is_open_goes_before_what_is_new(given: Row, *, is_open: bool) -> None:
    """A start of which nobody knows: it may run, and bill, while it stands behind new ones."""
    assert given.is_open is is_open
