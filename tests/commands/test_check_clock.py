"""When a clock that is off is worth a word."""

from datetime import timedelta

import pytest

from orchestrator.commands.checks.finding import judge_clock


@pytest.mark.parametrize(
    ("offset_s", "verdict"),
    [
        (0, "well"),
        (-2, "well"),
        (2.1, "warning"),
        (-15, "warning"),
        (15.1, "trouble"),
        (-3600, "trouble"),
    ],
)
def test_a_clock_that_is_wrong_is_told_before_it_hurts(offset_s: float, verdict: str) -> None:
    judged = judge_clock("account a", timedelta(seconds=offset_s), timedelta(seconds=15))
    assert judged.verdict == verdict
    assert f"{offset_s:+.1f} s" in judged.what
    assert bool(judged.advice) is (verdict != "well")
