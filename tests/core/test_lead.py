"""Slots that are drawn ahead: as far as the way to them is long, and never too many in a second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.bucket import GRACE_US, JITTER_US, KEPT_WINDOWS, SECOND_US, WINDOW_US, Bucket
from orchestrator.core.lead import AIM_US, LEAD_MAX_US, Lead

WAYS = st.integers(0, 3 * SECOND_US)


@pytest.mark.parametrize(
    ("before", "took", "after"),
    [
        (0, 0, 0),
        (0, AIM_US, 0),  # in time as it is
        (0, 400_000, 350_000),  # a longer way counts at once
        (350_000, 400_000, 350_000),
        (350_000, 10_000_000, LEAD_MAX_US),
        (80_000, 0, 70_000),  # a shorter one little by little
        (1, 0, 0),
    ],
)
def test_what_a_call_teaches(before: int, took: int, after: int) -> None:
    assert Lead(before).after(took) == Lead(after)


@given(before=st.integers(0, LEAD_MAX_US), took=st.integers(0, LEAD_MAX_US))
def test_the_next_call_on_a_way_as_long_is_not_late(before: int, took: int) -> None:
    lead = Lead(before).after(took)
    assert took <= lead.us + GRACE_US


@given(ways=st.lists(WAYS))
def test_it_is_bounded_and_goes_when_it_is_not_needed(ways: list[int]) -> None:
    lead = Lead()
    for took in ways:
        lead = lead.after(took)
        assert 0 <= lead.us <= LEAD_MAX_US
    for _ in range(200):
        lead = lead.after(0)
    assert lead == Lead()


@given(
    limit=st.integers(1, 5),
    asks=st.lists(
        st.tuples(
            st.integers(0, 400_000),
            st.integers(0, LEAD_MAX_US),
            st.integers(0, GRACE_US + JITTER_US),
            st.booleans(),
        ),
        max_size=120,
    ),
)
def test_no_second_holds_more_than_the_limit_however_far_ahead_each_daemon_draws(
    limit: int, asks: list[tuple[int, int, int, bool]]
) -> None:
    """Nor when what was drawn ahead is given back before its time."""
    bucket, now, arrivals = Bucket(limit=limit), 0, list[int]()
    for pause, lead, late, is_used in asks:
        now += pause
        since = now + lead
        bucket, drawn = bucket.draw(since, limit, until=since + 20_000)
        assert len(bucket.slots) <= KEPT_WINDOWS * limit
        if is_used:
            arrivals += [slot + late for slot in drawn]
        else:
            bucket = bucket.give_back(drawn)
    arrivals.sort()
    for first in arrivals:
        assert sum(first <= other < first + SECOND_US for other in arrivals) <= limit


def test_a_slot_to_come_that_is_given_back_leaves_the_one_before_it_in_force() -> None:
    bucket, _ = Bucket(limit=1).draw(0, 1, until=0)
    ahead, drawn = bucket.draw(LEAD_MAX_US, 1, until=WINDOW_US)
    assert drawn == (WINDOW_US,)
    assert ahead.give_back(drawn).next_slot(LEAD_MAX_US) == WINDOW_US
