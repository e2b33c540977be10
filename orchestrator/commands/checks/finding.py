"""One line of `check`: what was found, how bad it is, and what to do about it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

Verdict = Literal["well", "warning", "trouble"]

SKEW_WORTH_A_WARNING: Final = timedelta(seconds=2)
"""NTP keeps a healthy machine within some milliseconds; the `Date` header has whole seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    what: str
    advice: str = ""
    """What to do about it; empty if it is well, or if `what` says it."""


Chapter = Callable[[], Awaitable[Sequence[Finding]]]
"""Looks at one thing. What it cannot look at is a finding too: it raises nothing."""


def judge_clock(what: str, offset: timedelta, margin: timedelta) -> Finding:
    """Return how a clock (`what`) that is `offset` ahead of this machine's is to be taken.

    Within `margin` it does no harm.
    """
    told = f"{what} {offset.total_seconds():+.1f} s from ours"
    if abs(offset) > margin:
        return Finding("trouble", told, "more than clock_margin_s: set this machine's clock by NTP")
    if abs(offset) > SKEW_WORTH_A_WARNING:
        return Finding("warning", told, "set both clocks by NTP")
    return Finding("well", told)
