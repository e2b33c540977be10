"""What holds for every row: `decide` is total and idle rows rest; without faults all converges."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.action import Call, Forget, Wait
from orchestrator.core.arrange import arrange
from orchestrator.core.caps import Recovery
from orchestrator.core.deadline import lapse
from orchestrator.core.decide import decide
from orchestrator.core.evolve import evolve
from orchestrator.core.invariants import broken
from orchestrator.core.model import (
    Account,
    Agent,
    Phase,
    Row,
    Verb,
    WaitingFor,
    What,
)
from orchestrator.core.outcome import Done, Gone, Outcome, Settled
from orchestrator.core.wishes import absorb
from tests.core.builders import NOW, S, account, agent, change, in_flight, row, task

TIMES = st.none() | st.integers(-200, 200).map(lambda s: NOW + s * S)


@st.composite
def agents(draw: Any) -> tuple[Agent, ...]:
    return tuple(
        agent(
            id=f"a{n}",
            incarnation=draw(st.integers(1, 3)),
            horizon_at=draw(TIMES),
            vendor_task_id=draw(st.sampled_from([None, f"h{n}"])),
            hinted_at=draw(TIMES),
            kicked_at=draw(TIMES),
            retry_at=draw(TIMES),
        )
        for n in range(draw(st.integers(0, 3)))
    )


@st.composite
def rows(draw: Any) -> Row:
    wanted = draw(st.none() | st.booleans())
    given_task = None if wanted is None else task(running=wanted, start_at=draw(TIMES))
    incarnation = draw(st.integers(1, 3))
    return row(
        *draw(agents()),
        task=given_task,
        incarnation=incarnation,
        retired=draw(st.integers(0, incarnation)),
        retry_at=draw(TIMES),
        waiting_for=draw(st.none() | st.sampled_from(WaitingFor)),
    )


ACCOUNTS = st.builds(
    account,
    st.sampled_from(Recovery),
    paused=st.booleans(),
    frozen=st.booleans(),
    has_room=st.booleans(),
    denied_until=TIMES,
)


@given(rows(), ACCOUNTS)
def test_a_decision_is_total_and_made_twice_the_same(given_row: Row, of: Account) -> None:
    action = decide(given_row, of, NOW)
    assert isinstance(action, Call | Wait | Forget)
    assert decide(given_row, of, NOW) == action


@given(rows(), ACCOUNTS)
def test_no_wait_is_for_a_time_that_has_passed(given_row: Row, of: Account) -> None:
    action = decide(given_row, of, NOW)
    if isinstance(action, Wait) and action.until is not None:
        assert action.until > NOW


@given(rows(), ACCOUNTS)
def test_nothing_starts_beside_what_must_end(given_row: Row, of: Account) -> None:
    action = decide(given_row, of, NOW)
    if given_row.unwanted and isinstance(action, Call):
        assert action.verb in {Verb.STOP, Verb.FIND, Verb.KICK}
        assert action.agent in given_row.unwanted


@given(rows(), ACCOUNTS)
def test_an_open_ledger_row_is_always_due_some_time(given_row: Row, of: Account) -> None:
    status = arrange(given_row, of, NOW).status
    if given_row.agents:
        assert status.due_at is not None or status.stop_due_at is not None


@given(rows(), st.lists(st.sampled_from(What), max_size=6))
def test_wishes_only_ever_add_up(given_row: Row, whats: list[What]) -> None:
    after = absorb(given_row, [change(what) for what in whats], NOW).row
    assert after.status.incarnation >= given_row.status.incarnation
    assert after.status.retired >= given_row.status.retired
    assert after.status.generation == given_row.status.generation + len(whats)
    assert after.task is given_row.task


# --- without faults


def answer(verb: Verb, live: set[str], target: Agent) -> Outcome:
    """A vendor that does at once what it is asked, and tells the truth."""
    match verb:
        case Verb.START:
            live.add(target.id)
            return Done(handle=target.session_name)
        case Verb.STOP | Verb.KICK:
            gone = target.id in live
            live.discard(target.id)
            return Done() if gone else Gone()
        case Verb.FIND:
            found = target.id in live
            return Done(handle=target.session_name) if found else Gone()
        case Verb.POLL | Verb.UPDATE:
            return Done() if target.id in live else Gone()


def settle_down(given_row: Row, of: Account, live: set[str], now: datetime) -> tuple[Row, int]:
    """Follow a row until it rests for longer than a minute; return it with the calls it took."""
    for calls in range(20):
        given_row = lapse(given_row, of, now).row
        action = decide(given_row, of, now)
        while isinstance(action, Wait) and action.until and action.until < now + 60 * S:
            now = action.until
            action = decide(given_row, of, now)
        if not isinstance(action, Call) or action.verb is Verb.POLL:
            return arrange(given_row, of, now), calls
        announced, flight = in_flight(given_row, action.verb, action.agent, now, of)
        outcome = answer(action.verb, live, flight.agent)
        now += timedelta(milliseconds=50)
        told = Settled(outcome=outcome, asked_at=flight.announced_at, answered_at=now)
        given_row = arrange(evolve(announced, flight, told, of).row, of, now)
        assert list(broken(given_row, of)) == []
    pytest.fail("it never rests")


@pytest.mark.parametrize("recovery", Recovery)
def test_without_faults_a_start_takes_one_call_and_a_stop_at_most_two(recovery: Recovery) -> None:
    of, live = account(recovery), set[str]()
    running, calls = settle_down(row(), of, live, NOW)
    assert (running.status.phase, calls, len(live)) == (Phase.RUNNING, 1, 1)
    wished = absorb(replace(running, task=task(running=False)), [change(What.STOP)], NOW + S).row
    stopped, calls = settle_down(wished, of, live, NOW + S)
    assert stopped.status.phase is Phase.STOPPED
    assert (calls <= 2, live) == (True, set())
