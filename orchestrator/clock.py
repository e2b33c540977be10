"""The only file that asks the machine for the time.

The database's clock decides leases and due times (`store`); this one measures how much of them is
left, stamps logs, and gives signatures their date.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


def utc_now() -> datetime:
    """Return the wall clock of this machine, UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one place


def boot_ns() -> int:
    """Return nanoseconds since boot. It goes on while the host sleeps (where the system can)."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def monotonic_us() -> int:
    """Return microseconds of CLOCK_MONOTONIC, by which systemd orders what it is told."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One look at another clock (the database's), bracketed by two looks at `boot_ns`.

    The other clock said `then` at some moment between `before_ns` and `after_ns`. From that, any
    other moment on our clock can be told on theirs: never too late, or never too early.
    """

    then: datetime
    before_ns: int
    after_ns: int

    def not_later(self, at_ns: int) -> datetime:
        """Return their time at our `at_ns`, or a little earlier."""
        return self.then + timedelta(microseconds=(at_ns - self.after_ns) // 1000)

    def not_earlier(self, at_ns: int) -> datetime:
        """Return their time at our `at_ns`, or a little later."""
        return self.then + timedelta(microseconds=-((self.before_ns - at_ns) // 1000))

    def surely_before_ns(self, instant: datetime) -> int:
        """Return our latest time at which their clock has surely not passed `instant`."""
        return self.before_ns + _ns(instant - self.then)


def _ns(duration: timedelta) -> int:
    return (duration.days * 86_400 + duration.seconds) * 10**9 + duration.microseconds * 1000
