"""One waker for several who wait: whoever is hinted, all are.

A waker lets one wait at a time. Behind it, each loop of the daemon waits at a hint of its own.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from orchestrator.wake.base import Hint, Waker

LONGEST_WAIT: Final = timedelta(seconds=1)


class Seat:
    """Where one loop waits."""

    def __init__(self) -> None:
        self._hint = Hint()

    async def wait(self, timeout: timedelta) -> None:  # noqa: ASYNC109 - it is what wait does
        """Return at a hint, and after `timeout` at the latest."""
        await self._hint.wait(timeout)

    def nudge(self) -> None:
        """Hint this loop alone."""
        self._hint.give()


class Fan:
    """Hands the hints of one waker to several seats."""

    def __init__(self, waker: Waker, seats: Sequence[Seat]) -> None:
        self._waker = waker
        self._seats = seats

    async def run(self) -> None:
        """Hand on hints for ever. A time-out of the waker's own is handed on as well."""
        while True:
            await self._waker.wait(LONGEST_WAIT)
            self.nudge()

    def nudge(self) -> None:
        """Hint all."""
        for seat in self._seats:
            seat.nudge()
