"""A clock that was set is told from one that went on, and what is in flight is put off with it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.action import Flight
from orchestrator.core.bucket import AHEAD_MAX_US, SECOND_US, WINDOW_US, Bucket
from orchestrator.core.model import Agent, Row, Verb, WorkClass
from orchestrator.core.outcome import Done, Indefinite, Outcome, Settled
from orchestrator.core.steps import DRIFT, NOTICED, put_off, set_by
from tests.core.builders import NOW, agent, row

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
NONE = timedelta(0)
durations = st.timedeltas(min_value=timedelta(days=-400), max_value=timedelta(days=400))


@pytest.mark.parametrize(
    ("went", "passed", "step"),
    [
        pytest.param(10 * SECOND, 10 * SECOND, NONE, id="it went on"),
        pytest.param(NONE, NONE, NONE, id="two looks at once"),
        pytest.param(8 * SECOND, 10 * SECOND, NONE, id="a little slow"),
        pytest.param(NOTICED, NONE, NONE, id="no more than the bound"),
        pytest.param(NOTICED + 0.001 * SECOND, NONE, NOTICED + 0.001 * SECOND, id="more"),
        pytest.param(HOUR + SECOND, SECOND, HOUR, id="ahead"),
        pytest.param(-HOUR + SECOND, SECOND, -HOUR, id="back"),
        pytest.param(24 * HOUR + 80 * SECOND, 24 * HOUR, NONE, id="a day of drift"),
        pytest.param(24 * HOUR + 90 * SECOND, 24 * HOUR, 90 * SECOND, id="more than drift"),
        pytest.param(HOUR, HOUR, NONE, id="a host that slept: its boot clock went on"),
        pytest.param(-SECOND, -SECOND, NONE, id="looks in the wrong order"),
    ],
)
def test_a_step_is_told_from_going_on(went: timedelta, passed: timedelta, step: timedelta) -> None:
    assert set_by(went, passed, NOTICED) == step


@given(durations, durations)
def test_what_is_told_is_the_whole_step_or_nothing(went: timedelta, passed: timedelta) -> None:
    step = set_by(went, passed, NOTICED)
    assert step in {NONE, went - passed}
    assert bool(step) is (abs(went - passed) > NOTICED + abs(passed) / DRIFT)


# --- what is in flight


def flight_of(one: Agent, horizon_before: datetime | None) -> Flight:
    return Flight(
        task_id="t1",
        verb=Verb.START,
        agent=one,
        horizon_before=horizon_before,
        announced_at=NOW,
        version=1,
        work_class=WorkClass.START,
    )


def put_off_by_an_hour(
    outcome: Outcome, horizon_at: datetime | None, horizon_before: datetime | None
) -> tuple[Row, Flight, Settled]:
    """Put off a call that was announced at NOW, beside one that ran out before."""
    old, new = agent(id="old", horizon_at=NOW - SECOND), agent(id="new", horizon_at=horizon_at)
    settled = Settled(outcome=outcome, asked_at=NOW + SECOND, answered_at=NOW + 2 * SECOND)
    return put_off(row(old, new), flight_of(new, horizon_before), settled, HOUR)


def test_what_was_to_come_when_it_was_announced_is_put_off() -> None:
    after, flight, settled = put_off_by_an_hour(Done(), NOW + 115 * SECOND, NOW + 5 * SECOND)
    horizons = [NOW - SECOND, NOW + HOUR + 115 * SECOND]
    assert [one.horizon_at for one in after.agents] == horizons
    assert flight.agent == after.agents[1]
    assert flight.horizon_before == NOW + HOUR + 5 * SECOND
    assert flight.announced_at == NOW + HOUR
    assert settled.asked_at == NOW + HOUR + SECOND
    assert settled.answered_at == NOW + HOUR + 2 * SECOND
    assert settled.outcome == Done()


@pytest.mark.parametrize(
    ("reset_at", "after"), [(None, None), (NOW, NOW + HOUR)], ids=["nobody knows", "reset"]
)
def test_the_time_of_a_reset_is_put_off(reset_at: datetime | None, after: datetime | None) -> None:
    said = Indefinite(code="Timeout", reset_at=reset_at)
    _, _, settled = put_off_by_an_hour(said, NOW + SECOND, None)
    assert settled.outcome == Indefinite(code="Timeout", reset_at=after)


@pytest.mark.parametrize("horizon_at", [None, NOW - SECOND, NOW + SECOND])
def test_a_stop_that_added_nothing_to_the_horizon_still_adds_nothing(
    horizon_at: datetime | None,
) -> None:
    """Whether it did is told by comparing the two."""
    _, flight, _ = put_off_by_an_hour(Done(), horizon_at, horizon_at)
    assert flight.agent.horizon_at == flight.horizon_before


# --- the rate limit after a clock that was set back

BEGIN = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * SECOND_US


@pytest.mark.parametrize(
    ("slots", "left"),
    [
        pytest.param((), (), id="empty"),
        pytest.param((BEGIN - 5, BEGIN), (BEGIN - 5, BEGIN), id="past"),
        pytest.param(*((BEGIN, BEGIN + AHEAD_MAX_US),) * 2, id="as far ahead as can be"),
        pytest.param((BEGIN - 5, BEGIN + AHEAD_MAX_US + 1), (BEGIN - 5, BEGIN), id="of before"),
        pytest.param((BEGIN + 3600 * SECOND_US,) * 3, (BEGIN,) * 3, id="all of before"),
    ],
)
def test_slots_of_a_clock_that_was_set_back_count_as_used_now(
    slots: tuple[int, ...], left: tuple[int, ...]
) -> None:
    assert Bucket(limit=3, slots=slots).as_of(BEGIN).slots == left


def test_after_a_clock_was_set_back_the_next_call_waits_for_a_window() -> None:
    bucket = Bucket(limit=3, slots=(BEGIN + 3600 * SECOND_US,) * 3).as_of(BEGIN)
    assert bucket.next_slot(BEGIN) == BEGIN + WINDOW_US
