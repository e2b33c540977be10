"""Rows whose claim failed for a reason nobody thought of: how long each is left alone.

A lock time-out is over in a moment, a row that breaks the code is not; so the time doubles with
each failure in a row, and is forgotten with the first claim that succeeds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

FIRST_NS: Final = 1_000_000_000
LONGEST_NS: Final = 60_000_000_000
MOST_ROWS: Final = 256
"""Beyond it the row that would be tried again soonest is forgotten, and so tried at once."""


@dataclass(frozen=True, slots=True)
class _Failure:
    wait_ns: int
    until_ns: int


class Failing:
    """Rows to be left alone, by task id. Times are `boot_ns`."""

    def __init__(self) -> None:
        self._rows: dict[str, _Failure] = {}

    def note(self, id_: str, now_ns: int) -> None:
        """Note that a claim of this row alone has failed."""
        before = self._rows.pop(id_, None)
        wait_ns = FIRST_NS if before is None else min(LONGEST_NS, before.wait_ns * 2)
        if len(self._rows) >= MOST_ROWS:
            del self._rows[min(self._rows, key=lambda each: self._rows[each].until_ns)]
        self._rows[id_] = _Failure(wait_ns, now_ns + wait_ns)

    def forget(self, ids: Iterable[str]) -> None:
        """Note that a claim of these rows succeeded."""
        if self._rows:
            for id_ in ids:
                self._rows.pop(id_, None)

    def left_alone(self, now_ns: int) -> frozenset[str]:
        """Return the rows that are not to be claimed yet."""
        return frozenset(id_ for id_, one in self._rows.items() if one.until_ns > now_ns)
