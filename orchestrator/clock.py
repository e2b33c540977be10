"""The only file that asks the machine for the time.

The database's clock decides leases and due times (`store`); this one measures how much of them is
left, stamps logs, and gives signatures their date.
"""

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the wall clock of this machine, UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one place


def boot_ns() -> int:
    """Return nanoseconds since boot. It goes on while the host sleeps (where the system can)."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
