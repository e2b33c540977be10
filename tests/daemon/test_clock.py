"""An anchor tells another clock's time from ours: never too late, or never too early."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.clock import Anchor, boot_ns

THEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
US = timedelta(microseconds=1)
SECOND_NS = 10**9

looks = st.tuples(st.integers(0, SECOND_NS), st.integers(0, SECOND_NS)).map(
    lambda pair: Anchor(then=THEN, before_ns=pair[0], after_ns=pair[0] + pair[1])
)
moments = st.integers(-10 * SECOND_NS, 10 * SECOND_NS)


def truth(looked_ns: int, at_ns: int) -> timedelta:
    """Return how far their clock is past `then` at our `at_ns`, if it was read at `looked_ns`."""
    return (at_ns - looked_ns) // 1000 * US


@given(looks, moments)
def test_a_moment_lies_between_its_two_bounds(anchor: Anchor, at_ns: int) -> None:
    # Their clock was read at the first moment, or at the last: the two extremes.
    latest = THEN + truth(anchor.before_ns, at_ns)
    earliest = THEN + truth(anchor.after_ns, at_ns)
    assert anchor.not_later(at_ns) <= earliest
    assert anchor.not_earlier(at_ns) >= latest


@given(looks, st.integers(-(10**7), 10**7))
def test_an_instant_has_surely_not_passed_before_then(anchor: Anchor, offset_us: int) -> None:
    instant = THEN + offset_us * US
    before = anchor.surely_before_ns(instant)
    assert anchor.not_earlier(before) <= instant
    # Later by a microsecond, and it may have.
    assert anchor.not_earlier(before + 1_000) > instant


def test_an_exact_look_has_one_answer() -> None:
    anchor = Anchor(then=THEN, before_ns=5_000, after_ns=5_000)
    assert anchor.not_later(7_000) == anchor.not_earlier(7_000) == THEN + 2 * US
    assert anchor.surely_before_ns(THEN + 2 * US) == 7_000


def test_the_boot_clock_does_not_go_back() -> None:
    ticks = [boot_ns() for _ in range(100)]
    assert ticks == sorted(ticks)
