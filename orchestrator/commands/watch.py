"""`orchestrator status --watch`: the page of `status`, again and again, until Ctrl-C.

On a terminal it is drawn over itself. Elsewhere a line is written for what has changed, as a log.

Rule 1: asking and drawing are two tasks: a database that does not answer leaves what it last said
on the screen, with a line that says so, and Ctrl-C works.
Rule 2: asking takes a fraction of the time, however large the tables are.
"""

import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from orchestrator.clock import boot_ns
from orchestrator.commands.reading import QueryFailed, ask, opened
from orchestrator.commands.status import expect_account
from orchestrator.commands.status_page import daemons_line, notes, screen, summary
from orchestrator.commands.task_board import Lines
from orchestrator.commands.terminal import console, plain, spell, spell_age
from orchestrator.config import Config, account_names, open_part
from orchestrator.store import snapshot
from orchestrator.store.engine import Database, DatabaseAway
from orchestrator.store.snapshot import Snapshot, Wanted

REFRESH_S = 0.5
_REST = 4
"""Times as long as asking took are spent without asking."""
_LATE_NS = 3_000_000_000
"""A database that has not answered for this long is said not to answer."""


@dataclass(slots=True)
class Seen:
    """What is known now, written by who asks and read by who draws."""

    snapshot: Snapshot
    at_ns: int = field(default_factory=boot_ns)
    """When the database last answered."""
    trouble: str = ""
    """Why it does not; empty while it does, or while nobody knows."""

    @property
    def silence_s(self) -> float | None:
        """For how many seconds there has been no answer; null: there is nothing to say."""
        silent_ns = boot_ns() - self.at_ns
        return silent_ns / 1e9 if self.trouble or silent_ns > _LATE_NS else None

    def answered(self, found: Snapshot) -> None:
        """Take what the database said."""
        self.snapshot, self.at_ns, self.trouble = found, boot_ns(), ""


class Display(Protocol):
    """Where what is seen is shown."""

    def draw(self, seen: Seen) -> None:
        """Show it as it is now."""
        ...


def watch(option: Path | None, wanted: Wanted) -> None:
    """Show how everything stands until Ctrl-C or SIGTERM.

    Raises:
        UsageError: nobody knows the account that is asked for.
        ConfigError, SchemaError: as their names say.
        DatabaseAway, QueryFailed: it is away at the start; later it is waited for.
    """
    try:
        anyio.run(_watch, open_part(option), wanted, account_names(option))
    except BaseExceptionGroup as ended:
        # Who read the lines has gone: rich then asks to exit, from inside a task.
        if ended.split(SystemExit)[1] is not None:
            raise
        raise SystemExit(1) from None


async def _watch(config: Config, wanted: Wanted, configured: Sequence[str]) -> None:
    async with opened(config) as database:
        seen = Seen(await _look(database, wanted))
        expect_account(seen.snapshot, wanted, configured)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_told, tasks.cancel_scope.cancel)
            tasks.start_soon(follow, lambda: _look(database, wanted), seen)
            out = console()
            if not out.is_terminal:
                await _redraw(Log(out), seen)
            with Live(console=out, auto_refresh=False, screen=True) as live:
                await _redraw(Picture(live), seen)


async def _until_told(end: Callable[[], None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            end()


async def _look(database: Database, wanted: Wanted) -> Snapshot:
    # Each time anew: somebody may bring the schema up to date meanwhile.
    return await ask(database, snapshot.take, wanted)


async def follow(look: Callable[[], Awaitable[Snapshot]], seen: Seen) -> None:
    """Ask for ever, and write down what is heard. A database that does not say is asked again."""
    while True:
        began_ns = boot_ns()
        try:
            seen.answered(await look())
        except (DatabaseAway, QueryFailed) as away:
            seen.trouble = str(away).partition("\n")[0]
        took_s = (boot_ns() - began_ns) / 1e9
        await anyio.sleep(max(REFRESH_S, _REST * took_s))


async def _redraw(display: Display, seen: Seen) -> None:
    while True:
        display.draw(seen)
        await anyio.sleep(REFRESH_S)


class Picture:
    """The page, drawn over itself."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def draw(self, seen: Seen) -> None:
        """Draw the page as large as the terminal is now."""
        size = self._live.console.size
        head = silence(seen)
        below = screen(seen.snapshot, size.width, size.height - len(head))
        self._live.update(Group(*head, *below), refresh=True)


class Log:
    """Lines about what has changed."""

    def __init__(self, out: Console) -> None:
        self._lines = Lines(out)
        self._said: tuple[str, ...] = ()

    def draw(self, seen: Seen) -> None:
        """Print what is not as it was: how everything stands, then each task that has changed."""
        if seen.trouble:
            told: tuple[str, ...] = (f"the database is away: {seen.trouble}",)
        else:
            now = seen.snapshot
            told = tuple(line.plain for line in (summary(now), daemons_line(now), *notes(now)))
        for line in told:
            if line not in self._said:
                self._lines.say(f"{spell(seen.snapshot.at)}  {line}")
        self._said = told
        self._lines.show(seen.snapshot.tasks)


def silence(seen: Seen) -> list[Text]:
    """Return the line that says that what stands below is old, or nothing."""
    seconds = seen.silence_s
    if seconds is None:
        return []
    reason = f": {seen.trouble}" if seen.trouble else ""
    told = f"the database has not answered for {spell_age(seconds)}{reason}; asking again"
    return [plain(told, "bold white on red")]
