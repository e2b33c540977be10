"""Rate limits as the vendors enforce them, and the busiest second that each of them saw.

Rule 1: a limit of L admits at most L calls in every window of one second, not only in those that
begin at a full second. A refused call takes no place.
Rule 2: the busiest second counts refused calls too: it is what the client sent.
"""

from collections import deque

SECOND_US = 1_000_000


class _Window:
    """Times of the calls of the last second, microseconds, oldest first."""

    __slots__ = ("times", "worst")

    def __init__(self) -> None:
        self.times: deque[int] = deque()
        self.worst = 0

    def count(self, now_us: int) -> int:
        times = self.times
        while times and times[0] <= now_us - SECOND_US:
            times.popleft()
        return len(times)


PaceKey = tuple[str, ...]


class Pace:
    """The sliding seconds of all signing keys and actions."""

    def __init__(self) -> None:
        self._admitted: dict[PaceKey, _Window] = {}
        self._arrived: dict[PaceKey, _Window] = {}

    def admit(self, key: PaceKey, limit: int, now_us: int) -> bool:
        """Return whether a call now stays within `limit` per second (0: no limit)."""
        if limit == 0:
            return True
        window = self._admitted.get(key)
        if window is None:
            window = self._admitted[key] = _Window()
        if window.count(now_us) >= limit:
            return False
        window.times.append(now_us)
        return True

    def arrive(self, key: PaceKey, now_us: int) -> None:
        """Count a call, admitted or not."""
        window = self._arrived.get(key)
        if window is None:
            window = self._arrived[key] = _Window()
        seen = window.count(now_us) + 1
        window.times.append(now_us)
        window.worst = max(window.worst, seen)

    def worst(self) -> dict[PaceKey, int]:
        """Return the largest number of calls in any one second, by key."""
        return {key: window.worst for key, window in self._arrived.items()}
