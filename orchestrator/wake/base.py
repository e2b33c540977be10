"""What a waker is, and the hint that all of them share.

Rule 1: a hint says "look", never what to look for; two are as good as one.
Rule 2: a hint may come for nothing, late, or not at all. So every wait has a bound, and what is
done after it is the same whether it was hinted or timed out.
Rule 3: a hint given while nobody waits is kept for the next wait.
"""

from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self

import anyio


class Waker(Protocol):
    """Where a scheduler waits until there may be work. One waits at a time.

    An async context manager: inside it the waker watches, after it nothing of it is left.
    """

    async def __aenter__(self) -> Self:
        """Begin to watch. Trouble with the database raises nothing: it is tried again."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop watching and close what was opened."""
        ...

    async def wait(self, timeout: timedelta) -> None:  # noqa: ASYNC109 - it is what wait does
        """Return at a hint, and after `timeout` at the latest (sooner where a waker is blind)."""
        ...

    def nudge(self) -> None:
        """Hint from inside this process: a call finished, or something was settled."""
        ...


class Hint:
    """One bit that one waits for and any number give."""

    def __init__(self) -> None:
        self._given = anyio.Event()

    def give(self) -> None:
        """End the present wait, or the next one if nobody waits."""
        self._given.set()

    async def wait(self, timeout: timedelta) -> bool:  # noqa: ASYNC109 - it is what wait does
        """Take the hint, or give up after `timeout`; return whether there was one."""
        with anyio.move_on_after(timeout.total_seconds()):
            await self._given.wait()
        given, self._given = self._given, anyio.Event()
        # Looked at last, so that a hint that came together with the time-out counts.
        return given.is_set()
