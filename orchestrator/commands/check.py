"""`orchestrator check`: is everything as the daemon needs it, and if not, what to do.

Rule 1: it changes nothing, at the database or at a vendor: no signed request is sent.
Rule 2: each line stands by itself: ✓ is well, ! works and should not stay so, ✗ is to be mended.
Rule 3: one ✗ hides no other; what cannot be asked because of an earlier ✗ is not guessed.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import anyio
from rich.console import Console
from rich.markup import escape

from orchestrator import settings
from orchestrator.clock import boot_ns, utc_now
from orchestrator.commands.reading import opened
from orchestrator.commands.terminal import console
from orchestrator.config import Config, open_config
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite, NotSent
from orchestrator.daemon.transport import Transport
from orchestrator.errors import ConfigError, OrchestratorError, SchemaError
from orchestrator.providers.base import Request
from orchestrator.store import examine, version
from orchestrator.store.engine import Database

SKEW_WORTH_A_WARNING = timedelta(seconds=2)
"""NTP keeps a healthy machine within some milliseconds; the `Date` header has whole seconds."""

Verdict = Literal["well", "warning", "trouble"]
_MARKS: dict[Verdict, str] = {
    "well": "[green]✓[/]",
    "warning": "[yellow]![/]",
    "trouble": "[red]✗[/]",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    what: str
    advice: str = ""
    """What to do about it; empty if it is well."""


def run(option: Path | None) -> int:
    """Print the report and return the exit code: 0, 1 if anything is ✗, 2 for the configuration."""
    out = console()
    try:
        config = open_config(option)
    except ConfigError as wrong:
        _print(out, Finding("trouble", f"configuration: {wrong}"))
        return wrong.exit_code
    return anyio.run(_report, config, out)


async def _report(config: Config, out: Console) -> int:
    trouble = False
    async for finding in findings(config):
        trouble |= finding.verdict == "trouble"
        _print(out, finding)
    return 1 if trouble else 0


async def findings(config: Config) -> AsyncIterator[Finding]:
    """Yield what `check` finds, in the order in which a person would mend it."""
    for finding in judge_configuration(config):
        yield finding
    async with opened(config) as database:
        async for finding in _judge_database(database):
            yield finding
    for name, account in config.accounts.items():
        for endpoint in _endpoints(account):
            yield await judge_vendor(name, account, endpoint)


def judge_configuration(config: Config) -> Sequence[Finding]:
    """Return what is to be said about the file: it was read, so only warnings are left."""
    count = len(config.accounts)
    read = Finding("well", f"configuration {config.path}: {count} accounts, all secrets found")
    none = Finding("warning", "no accounts", "add a table [accounts.<name>]; no row can run")
    return [
        read,
        *(Finding("warning", warning) for warning in config.warnings),
        *(() if count else (none,)),
    ]


async def _judge_database(database: Database) -> AsyncIterator[Finding]:
    try:
        await version.check_version(database)
    except SchemaError as unfit:
        yield Finding("trouble", f"database ({database.dialect}): {unfit}")
        return
    except OrchestratorError as away:
        advice = "is it there, is database.url right, and may this user use it?"
        yield Finding("trouble", f"database ({database.dialect}): {away}", advice)
        return
    yield Finding("well", f"database ({database.dialect}): reachable, schema known")
    yield await _judge_rights(database)
    yield await _judge_durability(database)
    yield await _judge_specs(database)


async def _judge_rights(database: Database) -> Finding:
    advice = "run as the user of the service; on Postgres grant the role orchestrator_daemon"
    try:
        missing = await database.write(examine.missing_rights)
    except OrchestratorError as refused:
        return Finding("trouble", f"rights: {refused}", advice)
    if missing:
        return Finding("trouble", f"rights: no {', '.join(missing)}", advice)
    return Finding("well", "rights: this user can write what the daemon writes")


async def _judge_durability(database: Database) -> Finding:
    weak = await database.write(examine.lost_by_power_cut)
    if not weak:
        return Finding("well", "durability: what is announced outlives a power cut")
    advice = "a start may be forgotten in a power cut and run on unpaid for: turn it on"
    return Finding("trouble", f"durability: {', '.join(weak)}", advice)


async def _judge_specs(database: Database) -> Finding:
    count = await database.read(examine.count_plain_secrets)
    if not count:
        return Finding("well", "specs: no row holds a key in plain text")
    advice = 'write {"$secret": "name"} there, and the key under [secrets]'
    return Finding("warning", f"specs: {count} rows hold what looks like a plain key", advice)


async def judge_vendor(name: str, account: settings.Account, endpoint: str) -> Finding:
    """Return whether a vendor answers at all, and how far its clock is from ours."""
    offsets: list[timedelta] = []
    deadline_ns = boot_ns() + account.call_timeout_ms * 1_000_000
    request = Request(action="", method="GET", url=f"{endpoint}/", headers={}, body=b"")
    # Whatever it answers to a request that nobody signed, it is there.
    async with Transport(
        now=utc_now, on_date=lambda _, offset: offsets.append(offset)
    ) as transport:
        reply = await transport.send(request, deadline_ns=deadline_ns, work_class=WorkClass.OBSERVE)
    what = f"account {name}: {endpoint}"
    if isinstance(reply, NotSent | Indefinite):
        advice = "is the endpoint right, and may this machine reach it?"
        return Finding("trouble", f"{what}: {reply.code}: {reply.message}", advice)
    return _judge_clock(what, offsets, timedelta(seconds=account.clock_margin_s))


def _judge_clock(what: str, offsets: Sequence[timedelta], margin: timedelta) -> Finding:
    if not offsets:
        return Finding("warning", f"{what}: reachable, tells no time", "compare the clock yourself")
    offset = offsets[-1]
    told = f"{what}: reachable, its clock {offset.total_seconds():+.1f} s from ours"
    if abs(offset) > margin:
        return Finding("trouble", told, "more than clock_margin_s: set this machine's clock by NTP")
    if abs(offset) > SKEW_WORTH_A_WARNING:
        return Finding("warning", told, "set this machine's clock by NTP")
    return Finding("well", told)


def _endpoints(account: settings.Account) -> Sequence[str]:
    match account:
        case settings.ZegoAccount():
            return (account.endpoint, account.rtc_endpoint)
        case settings.VolcengineAccount() | settings.TencentAccount():
            return (account.endpoint,)


def _print(out: Console, finding: Finding) -> None:
    advice = f"\n  [dim]{escape(finding.advice)}[/]" if finding.advice else ""
    out.print(f"{_MARKS[finding.verdict]} {escape(finding.what)}{advice}")
