"""`orchestrator check`: is everything as the daemon needs it, and if not, what to do.

Rule 1: it changes nothing, at the database or at a vendor: no signed request is sent.
Rule 2: each line stands by itself: ✓ is well, ! works and should not stay so, ✗ is to be mended.
Rule 3: one ✗ hides no other; what cannot be asked because of an earlier ✗ is not guessed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from rich.console import Console
from rich.markup import escape

from orchestrator.commands.checks.configuration import judge_configuration
from orchestrator.commands.checks.database import judge_database
from orchestrator.commands.checks.finding import Chapter, Finding, Verdict
from orchestrator.commands.checks.llm import judge_llm
from orchestrator.commands.checks.ports import judge_ports
from orchestrator.commands.checks.systemd import judge_unit
from orchestrator.commands.checks.vendors import judge_vendors
from orchestrator.commands.reading import opened
from orchestrator.commands.terminal import console
from orchestrator.config import Config, open_config
from orchestrator.errors import ConfigError

_MARKS: Final[dict[Verdict, str]] = {
    "well": "[green]✓[/]",
    "warning": "[yellow]![/]",
    "trouble": "[red]✗[/]",
}

Say = Callable[[Finding], None]


def run(option: Path | None) -> int:
    """Print the report and return the exit code: 0, 1 if anything is ✗, 2 for the configuration."""
    report = _Report(console())
    try:
        config = open_config(option)
    except ConfigError as wrong:
        report.say(Finding("trouble", f"configuration: {wrong}"))
        anyio.run(_say_in_order, (judge_unit,), report.say)
        return wrong.exit_code
    anyio.run(inspect, config, report.say)
    return 1 if report.trouble else 0


async def inspect(config: Config, say: Say) -> None:
    """Say what there is to find, in the order in which a person would mend it."""
    for finding in judge_configuration(config):
        say(finding)
    async with opened(config) as database:
        chapters = (
            partial(judge_database, config, database),
            partial(judge_vendors, config),
            partial(judge_llm, config),
            partial(judge_ports, config, database),
            judge_unit,
        )
        await _say_in_order(chapters, say)


async def _say_in_order(chapters: Sequence[Chapter], say: Say) -> None:
    """Look at everything at the same time, and say each chapter as soon as its turn has come."""
    pending = [_Pending(chapter) for chapter in chapters]
    async with anyio.create_task_group() as looking:
        for one in pending:
            looking.start_soon(one.look)
        for one in pending:
            await one.done.wait()
            for finding in one.findings:
                say(finding)


class _Pending:
    """A chapter that is being looked at."""

    def __init__(self, chapter: Chapter) -> None:
        self._chapter = chapter
        self.done = anyio.Event()
        self.findings: Sequence[Finding] = ()

    async def look(self) -> None:
        self.findings = await self._chapter()
        self.done.set()


class _Report:
    """Prints findings, and remembers whether anything is to be mended."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self.trouble = False

    def say(self, finding: Finding) -> None:
        """Print a finding: a line, and below it what to do."""
        self.trouble |= finding.verdict == "trouble"
        advice = f"\n  [dim]{escape(finding.advice)}[/]" if finding.advice else ""
        self._out.print(f"{_MARKS[finding.verdict]} {escape(finding.what)}{advice}")
