"""The circuit breaker of one account: stop starting where nothing answers.

Closed until `THRESHOLD` calls in a row came to nothing; then open for a while that doubles with
each failed probe; then half open: one start is let through, and its outcome decides. Stops never
ask it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.core.outcome import Indefinite, NotSent, Outcome

THRESHOLD = 5
OPEN_MIN = timedelta(seconds=1)
OPEN_MAX = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """How the last calls of an account went."""

    failures: int = 0
    """Calls in a row without an answer that means anything."""
    open_until: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether starts wait: until the probe after `open_until` has succeeded."""
        return self.open_until is not None

    def record(self, outcome: Outcome, at: datetime) -> "Breaker":
        """Return the breaker after a call. Any definite answer of the vendor closes it."""
        if not isinstance(outcome, NotSent | Indefinite):
            return Breaker()
        failures = self.failures + 1
        if failures < THRESHOLD:
            return Breaker(failures=failures)
        wait = min(OPEN_MAX, OPEN_MIN * 2 ** min(failures - THRESHOLD, 16))
        return Breaker(failures=failures, open_until=at + wait)
