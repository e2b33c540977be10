"""Reading the dates of signatures. The clock itself is the caller's."""

import re
from datetime import UTC, datetime

_BASIC = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", re.ASCII)


def parse_basic(text: str) -> datetime | None:
    """Return the instant of a date like `20250101T000000Z`, or None if it is none."""
    found = _BASIC.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def from_unix(text: str) -> datetime | None:
    """Return the instant of decimal Unix seconds, or None if they are none."""
    if not text.isascii() or not text.isdecimal():
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        return None
