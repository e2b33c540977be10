"""Sums of calls per minute, gathered in memory and added to `call_minute` now and then.

They are for `account_health`, where the last seconds may be missing; a crash loses as much.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.core.outcome import Done, Gone, Settled
from orchestrator.store import call_minutes
from orchestrator.store.schema import LATENCY_BOUNDS_MS

Cell = tuple[str, str, datetime, int]
"""Account, action, minute, latency bucket."""


@dataclass(slots=True)
class CallTally:
    """What has been counted and not yet written."""

    calls: Counter[Cell] = field(default_factory=Counter)
    failures: Counter[Cell] = field(default_factory=Counter)

    def count(self, account: str, action: str, settled: Settled, latency_ms: int) -> None:
        """Count a call."""
        minute = settled.answered_at.replace(second=0, microsecond=0)
        bucket = min(bisect_left(LATENCY_BOUNDS_MS, latency_ms), len(LATENCY_BOUNDS_MS) - 1)
        cell = (account, action, minute, bucket)
        self.calls[cell] += 1
        if not isinstance(settled.outcome, Done | Gone):
            self.failures[cell] += 1

    def take(self) -> list[call_minutes.Sum]:
        """Return what was counted since the last time, in the order of its keys."""
        calls, failures = self.calls, self.failures
        self.calls, self.failures = Counter(), Counter()
        return [
            call_minutes.Sum(
                account=account,
                action=action,
                minute=minute,
                bucket=bucket,
                calls=calls[account, action, minute, bucket],
                failures=failures[account, action, minute, bucket],
            )
            for account, action, minute, bucket in sorted(calls)
        ]
