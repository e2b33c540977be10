"""How long to wait before the next try: exponential, capped, with deterministic jitter.

The jitter comes from a hash of who waits and how often it has tried, so that a thousand rows that
failed together do not come back together, and a decision made twice is the same decision.
"""

from datetime import timedelta
from zlib import crc32

_DOUBLINGS_MAX = 32


def delay(base: timedelta, cap: timedelta, attempt: int, key: str) -> timedelta:
    """Return the wait before try number `attempt` + 1: between half and all of base * 2^attempt.

    `attempt` counts the failures so far, from 0. The result is never above `cap` and, for a `cap`
    not below `base`, never below half of `base`.
    """
    factor: int = 1 << min(attempt, _DOUBLINGS_MAX)
    whole = min(cap, base * factor)
    lot = crc32(f"{key}/{attempt}".encode()) % 1024
    half: timedelta = whole / 2
    return half + half * lot / 1024


def spread(period: timedelta, key: str) -> timedelta:
    """Return a period up to a tenth shorter: rows of one moment do not stay together."""
    return period - period * (crc32(key.encode()) % 1024) / 10_240
