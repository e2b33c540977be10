"""Wakes by the clock, for a database that shall not be asked to notify (`wake = "poll"`)."""

from datetime import timedelta
from types import TracebackType
from typing import Self

from orchestrator.wake.base import Hint


class PollWaker:
    """A waker that hints every `every`, and knows of nothing but nudges in between."""

    def __init__(self, every: timedelta) -> None:
        self._every = every
        self._hint = Hint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return

    async def wait(self, timeout: timedelta) -> None:  # noqa: ASYNC109 - it is what wait does
        """Return after `timeout`, after the period, or at a nudge, whichever is first."""
        await self._hint.wait(min(timeout, self._every))

    def nudge(self) -> None:
        """End the wait from inside this process."""
        self._hint.give()
