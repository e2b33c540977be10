"""The times of a run: those of the daemons' configuration, and the bounds that follow from them.

Rule: a bound is derived here from what is configured, and from nothing that was measured.
"""

from dataclasses import dataclass
from typing import Any, Final

RESET_MARGIN_S: Final = 10
"""How long the daemon waits for bytes of a connection that it has itself reset."""
RATE_S: Final = 8
"""What a vendor's limit can cost: all rows of an account at once, and bursts of throttling."""
RECOVERY_S: Final = 5
"""For a daemon to notice that its database is back, and to connect."""
FAILURES: Final = 8
"""Calls about one agent that fail one after the other: at the worst weather's odds, one time in a
million."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """What is configured, in seconds unless the name says otherwise."""

    lease_s: int
    call_timeout_ms: int
    retry_base_ms: int
    retry_cap_ms: int
    signature_life_s: int
    clock_margin_s: int
    settle_in_s: int
    poll_s: int

    @property
    def account(self) -> dict[str, Any]:
        """Return the keys of an account's table."""
        return {
            "signature_life_s": self.signature_life_s,
            "clock_margin_s": self.clock_margin_s,
            "settle_in_s": self.settle_in_s,
            "call_timeout_ms": self.call_timeout_ms,
            "poll_s": self.poll_s,
        }

    @property
    def horizon_s(self) -> float:
        """Return how long after its announce a start can still take effect, and be noticed."""
        unread = self.signature_life_s + self.clock_margin_s
        reset = self.call_timeout_ms / 1000 + RESET_MARGIN_S
        return max(unread, reset) + self.settle_in_s

    @property
    def latest_ms(self) -> int:
        """Return how late a request may take effect whose sender has given up.

        The vendor enforces the life of its signature. When the sender has reset the connection
        the daemon counts on less, and a vendor that takes longer is beyond what it promises.
        """
        life_ms = (self.signature_life_s + self.clock_margin_s) * 1_000
        return min(life_ms, self.call_timeout_ms + RESET_MARGIN_S * 1_000)

    @property
    def retries_s(self) -> float:
        """Return what the calls cost that fail one after the other, each with its pause."""
        doubled = (self.retry_base_ms << failures for failures in range(FAILURES))
        pauses_ms = sum(min(pause_ms, self.retry_cap_ms) for pause_ms in doubled)
        return (FAILURES * self.call_timeout_ms + pauses_ms) / 1000

    @property
    def leak_s(self) -> float:
        """Return how long an agent may live that nobody wants: lease, retry, the vendor's limit.

        Before its stop can leave, one call about it may be in flight, and its lease be a dead
        daemon's.
        """
        return self.lease_s + self.call_timeout_ms / 1000 + self.retries_s + RATE_S

    @property
    def zombie_leak_s(self) -> float:
        """Return the same for one whose start took effect after it had stopped being wanted."""
        return self.leak_s + self.horizon_s

    @property
    def calm_s(self) -> float:
        """Return how long after the last trouble the vendors' world may differ from the rows."""
        return RECOVERY_S + self.horizon_s + self.leak_s


SHORT: Final = Times(
    lease_s=3,
    call_timeout_ms=1_000,
    retry_base_ms=50,
    retry_cap_ms=1_000,
    signature_life_s=10,
    clock_margin_s=1,
    settle_in_s=1,
    poll_s=2,
)
"""As short as they may be: much trouble in little time."""

USUAL: Final = Times(
    lease_s=15,
    call_timeout_ms=10_000,
    retry_base_ms=500,
    retry_cap_ms=60_000,
    signature_life_s=90,
    clock_margin_s=15,
    settle_in_s=10,
    poll_s=60,
)
"""The configuration's own defaults."""
