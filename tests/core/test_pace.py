"""Backoff, bucket, breaker, names, horizon: the arithmetic."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import backoff, horizon, names
from orchestrator.core.breaker import OPEN_MAX, OPEN_MIN, THRESHOLD, Breaker
from orchestrator.core.bucket import GRACE_US, JITTER_US, SECOND_US, WINDOW_US, Bucket
from orchestrator.core.caps import Recovery
from orchestrator.core.outcome import Done, Gone, Indefinite, NotSent, Outcome, Refused, Throttled
from tests.core.builders import NOW, S, account

# --- backoff


@given(
    base=st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(seconds=10)),
    more=st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=1)),
    attempt=st.integers(0, 10_000),
    key=st.text(max_size=64),
)
def test_a_delay_is_between_half_and_all_of_its_step(
    base: timedelta, more: timedelta, attempt: int, key: str
) -> None:
    cap = base + more
    whole = min(cap, base * 2 ** min(attempt, 32))
    waited = backoff.delay(base, cap, attempt, key)
    assert whole / 2 <= waited <= whole
    assert waited == backoff.delay(base, cap, attempt, key)


def test_rows_that_failed_together_come_back_apart() -> None:
    waits = {backoff.delay(S, 60 * S, 3, f"task{n}") for n in range(100)}
    assert len(waits) > 80


# --- bucket


@given(
    limit=st.integers(1, 20),
    asks=st.lists(
        st.tuples(st.integers(0, 400_000), st.integers(0, GRACE_US + JITTER_US)), max_size=120
    ),
)
def test_no_second_at_the_vendor_holds_more_than_the_limit(
    limit: int, asks: list[tuple[int, int]]
) -> None:
    """However late within grace and jitter each call arrives."""
    bucket, now, arrivals = Bucket(limit=limit), 0, list[int]()
    for pause, late in asks:
        now += pause
        bucket, drawn = bucket.draw(now, 1, until=now + SECOND_US)
        arrivals += [slot + late for slot in drawn]
    arrivals.sort()
    for first in arrivals:
        assert sum(first <= other < first + SECOND_US for other in arrivals) <= limit


def test_a_burst_of_the_limit_leaves_at_once_and_the_next_a_window_later() -> None:
    bucket, drawn = Bucket(limit=3).draw(0, 5, until=0)
    assert drawn == (0, 0, 0)
    assert bucket.next_slot(10) == WINDOW_US


@given(limit=st.integers(1, 9), count=st.integers(1, 9))
def test_what_was_given_back_can_be_drawn_again(limit: int, count: int) -> None:
    bucket, drawn = Bucket(limit=limit).draw(0, count, until=0)
    assert bucket.give_back(drawn).draw(0, count, until=0)[1] == drawn


def test_a_slot_that_was_never_drawn_is_not_given_back() -> None:
    bucket = Bucket(limit=2, slots=(1, 2))
    assert bucket.give_back([7]) == bucket


@given(limit=st.integers(1, 9), slots=st.lists(st.integers(0, 10**7), max_size=9))
def test_nothing_leaves_before_the_end_of_a_throttle(limit: int, slots: list[int]) -> None:
    bucket = Bucket(limit=limit, slots=tuple(sorted(slots)[-limit:])).throttle(10**7)
    assert bucket.next_slot(0) >= 10**7


def test_what_is_kept_for_stops_is_not_drawn_by_polls() -> None:
    bucket, polls = Bucket(limit=4).draw(0, 9, until=0, kept=2)
    assert len(polls) == 2
    assert len(bucket.draw(0, 9, until=0)[1]) == 2


def test_something_is_left_where_all_is_kept() -> None:
    assert Bucket(limit=1).next_slot(5, kept=1) == 5


# --- breaker


def after(*outcomes: Outcome) -> Breaker:
    breaker = Breaker()
    for outcome in outcomes:
        breaker = breaker.record(outcome, NOW)
    return breaker


@pytest.mark.parametrize("failure", [NotSent(), Indefinite()])
def test_it_opens_after_so_many_failures_in_a_row(failure: Outcome) -> None:
    assert not after(*[failure] * (THRESHOLD - 1)).is_open
    opened = after(*[failure] * THRESHOLD)
    assert opened.is_open
    assert opened.open_until == NOW + OPEN_MIN


@pytest.mark.parametrize("answer", [Done(), Gone(), Refused(), Throttled()])
def test_any_definite_answer_closes_it(answer: Outcome) -> None:
    assert after(*[Indefinite()] * 9, answer) == Breaker()


def test_each_failed_probe_doubles_the_wait_up_to_a_bound() -> None:
    assert after(*[NotSent()] * (THRESHOLD + 1)).open_until == NOW + 2 * OPEN_MIN
    assert after(*[NotSent()] * 100).open_until == NOW + OPEN_MAX


# --- names

VENDOR_ALPHABETS = {
    "volcengine": set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.@"),
    "tencent": set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"),
    "zego": set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."),
}


@pytest.mark.parametrize("vendor", VENDOR_ALPHABETS)
@given(lots=st.binary(min_size=16, max_size=16), try_=st.integers(1, 99))
def test_every_vendor_takes_a_name(vendor: str, lots: bytes, try_: int) -> None:
    name = names.compose("orcorc", "abcde", lots)
    for each in (name, names.stream_id(name, try_)):
        assert len(each.encode()) <= names.NAME_MAX
        assert set(each) <= VENDOR_ALPHABETS[vendor]


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("orcabcde" + "a" * 16, True),
        ("orcabcde" + "a" * 16 + "_s2", True),
        ("orczzzzz" + "a" * 16, False),  # another installation of the same owner
        ("xyzabcde" + "a" * 16, False),
        ("orcabcde" + "a" * 15, False),
        ("orcabcde" + "A" * 16, False),
    ],
)
def test_ours_means_prefix_and_installation(name: str, *, ours: bool) -> None:
    assert names.is_ours(name, "orc", "abcde") is ours


# --- horizon


def test_the_horizon_of_each_kind_of_send() -> None:
    of = account(Recovery.FIND)
    assert horizon.after_announce(of, NOW) == NOW + (90 + 15 + 10) * S
    assert horizon.after_reply(of, NOW) == NOW + 10 * S
    assert horizon.after_reset(of, NOW) == NOW + (10 + 10) * S
    undated = account(Recovery.FIND, backdated=False)
    assert horizon.after_announce(undated, NOW) == NOW + (300 + 15 + 10) * S


def test_several_sends_have_the_latest_horizon() -> None:
    assert horizon.latest(None, NOW, NOW - S) == NOW
    assert horizon.latest(None, None) is None
