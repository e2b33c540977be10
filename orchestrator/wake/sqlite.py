"""Wakes when another connection has committed to the SQLite file.

Two looks, because neither is enough:

- inotify on the write-ahead log is the *hint*. It costs nothing at rest, but it comes when the
  first page of a transaction is written, which is before its commit can be seen: under
  `synchronous = FULL` always, and on a slow disk by a long way.
- `PRAGMA data_version`, on a connection of its own, is the *proof*. It changes if and only if
  another connection has committed; it costs 3 µs, but an event loop cannot ask all the time.

So after each sign of life the version is looked at often, then less and less often, each pause a
little longer than the last: a commit is seen at most about a fifth later than it took to come.
At rest the looks go on slowly, as the net under a hint that was lost. Where there is no inotify
they are all there is, and the pace at rest is as quick as one percent of a core allows.

The daemon's own writer is another connection too: its commits wake the scheduler, for one look
that finds nothing. Therefore a look that finds nothing must not commit a change, or it would wake
itself for ever.
"""

import sqlite3
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio
import structlog

from orchestrator.wake.base import Hint
from orchestrator.wake.inotify import watch_file

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Pauses between looks: from `first`, each `growth` times the last, up to `rest`."""

    first: timedelta
    growth: float
    rest: timedelta

    def after(self, pause: timedelta) -> timedelta:
        """Return the pause that follows `pause` when nothing has happened in it."""
        return min(pause * self.growth, self.rest)


HINTED: Final = Pace(first=timedelta(milliseconds=1), growth=1.2, rest=timedelta(milliseconds=250))
UNHINTED: Final = Pace(
    first=timedelta(milliseconds=2), growth=1.05, rest=timedelta(milliseconds=40)
)


class SqliteWaker:
    """A waker for the SQLite database at `path`, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        # SQLite puts the log beside the real file, not beside a link to it.
        self._path = path.resolve()
        self._hint = Hint()
        self._stirred = Hint()
        self._stack = AsyncExitStack()
        self._is_blind = False

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            pace = self._watch_log(stack)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(self._keep_looking, pace)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def wait(self, timeout: timedelta) -> None:  # noqa: ASYNC109 - it is what wait does
        """Return when the database changed or somebody nudged, or after `timeout`."""
        await self._hint.wait(timeout)

    def nudge(self) -> None:
        """End the wait from inside this process."""
        self._hint.give()

    def _watch_log(self, stack: AsyncExitStack) -> Pace:
        """Let inotify stir us, if it can; return the pace that goes with it."""
        log = self._path.with_name(self._path.name + "-wal")
        try:
            stack.enter_context(watch_file(log, self._stirred.give))
        except OSError as error:
            _log.warning("waker_without_inotify", reason=str(error))
            return UNHINTED
        return HINTED

    async def _keep_looking(self, pace: Pace) -> None:
        """Look for ever. A database that cannot be read is opened again."""
        while True:
            try:
                with closing(_open(self._path)) as connection:
                    await self._look(connection, pace)
            except sqlite3.Error as error:
                self._note_trouble(error)
            # Who cannot look must let the scheduler ask.
            self._hint.give()
            await self._stirred.wait(pace.rest)

    async def _look(self, connection: sqlite3.Connection, pace: Pace) -> None:
        """Give a hint whenever the version has changed since the last look.

        Raises:
            sqlite3.Error: The database cannot be read, or not now.
        """
        seen: int | None = None
        pause = pace.first
        while True:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            self._note_sight()
            is_new = version != seen
            if is_new:
                seen = version
                self._hint.give()
            is_stirred = await self._stirred.wait(pause)
            pause = pace.first if is_new or is_stirred else pace.after(pause)

    def _note_trouble(self, error: sqlite3.Error) -> None:
        """Say once that the database cannot be read."""
        if not self._is_blind:
            _log.warning("waker_blind", database=str(self._path), reason=str(error))
        self._is_blind = True

    def _note_sight(self) -> None:
        """Say once that it can be read again."""
        if self._is_blind:
            _log.info("waker_sees_again", database=str(self._path))
        self._is_blind = False


def _open(path: Path) -> sqlite3.Connection:
    """Open the file as it is: never make one, never wait for a lock in the event loop."""
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)
