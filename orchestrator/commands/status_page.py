"""How everything stands, as one page for people: a summary, the trouble, then the tables.

Rule 1: nothing here reads a database. What is wrong comes first and is said in words.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import chain, islice
from math import ceil

from rich.console import RenderableType
from rich.text import Text

from orchestrator.commands.terminal import (
    Column,
    Rows,
    count,
    is_roomy,
    phase_cell,
    plain,
    screen_of_tasks,
    spell,
    spell_age,
    table,
    tasks_table,
)
from orchestrator.store.snapshot import Snapshot
from orchestrator.store.views import View

_PHASES = ("running", "starting", "stopping", "pending", "quarantined", "failed", "stopped")
_ORPHANS_ON_A_SCREEN = 5
_LEAST_LINES = 8
"""Of a screen that tasks have at least; what stands below them gives way."""
_CLOCK_OFF_MS = 5_000
"""A vendor's clock that is further from ours is worth a line; NTP keeps both within some ms."""


def page(snapshot: Snapshot, width: int | None) -> Iterator[RenderableType]:
    """Yield the whole page, line by line. `width`: null where lines have no end."""
    yield from (*_top(snapshot), Text())
    if snapshot.leaking:
        yield from (*table(_orphans(snapshot, width), width), Text())
    yield from tasks_table(snapshot.tasks, width)
    for rows in _below(snapshot):
        yield from (Text(), *table(rows, width))


def screen(snapshot: Snapshot, width: int, height: int) -> Iterator[Text]:
    """Yield as much of the page as a screen has lines for."""
    top = [*_top(snapshot), Text()]
    if snapshot.leaking:
        heading, *orphans = _orphans(snapshot, width).lines(width, one_line=True)
        top += [*heading, *chain(*orphans[:_ORPHANS_ON_A_SCREEN]), Text()]
    below = [
        line
        for rows in _below(snapshot)
        for line in (Text(), *chain(*rows.lines(width, one_line=True)))
    ]
    taken = sum(_height(line, width) for line in top) + len(below)
    left = max(_LEAST_LINES, height - taken)
    tasks = screen_of_tasks(snapshot.tasks, width, left)
    yield from islice(chain(top, tasks, below), height)


def _height(line: Text, width: int) -> int:
    """Return how many lines of a screen a line takes, which may be longer than one is wide."""
    return 1 if line.no_wrap else max(1, ceil(line.cell_len / width))


def _top(snapshot: Snapshot) -> Iterator[Text]:
    yield summary(snapshot)
    yield daemons_line(snapshot)
    yield from notes(snapshot)


def _below(snapshot: Snapshot) -> Iterator[Rows]:
    if snapshot.convergence:
        yield _convergence(snapshot)
    if snapshot.health:
        yield _health(snapshot)


def summary(snapshot: Snapshot) -> Text:
    """Return the one line that says whether there is anything to do."""
    parts = [
        phase_cell(phase).append(f" {snapshot.totals[phase]}")
        for phase in _PHASES
        if snapshot.totals.get(phase)
    ]
    told = Text(count(sum(snapshot.totals.values()), "task"), style="bold")
    if parts:
        told = Text(": ").join([told, Text(", ").join(parts)])
    return Text(" · ").join([told, _unconverged(snapshot), _leaking(snapshot)])


def _unconverged(snapshot: Snapshot) -> Text:
    if not snapshot.unconverged:
        return Text("all as desired", style="green")
    oldest = max(row["oldest_s"] for row in snapshot.convergence)
    told = f"{snapshot.unconverged} not as desired, the oldest for {spell_age(oldest)}"
    return Text(told, style="yellow")


def _leaking(snapshot: Snapshot) -> Text:
    leaking = len(snapshot.leaking)
    if not leaking:
        return Text("no orphans", style="green")
    return Text(f"{count(leaking, 'orphan')} may run", style="red")


def daemons_line(snapshot: Snapshot) -> Text:
    """Return who works, or since when nobody does."""
    alive = [each for each in snapshot.daemons if each["is_alive"]]
    if alive:
        names = ", ".join(_daemon(each) for each in alive)
        return Text(f"{count(len(alive), 'daemon')}: ").append(plain(names))
    if not snapshot.daemons:
        return Text("no daemon runs: nothing is started, stopped or looked after", style="bold red")
    last = max(each["heartbeat_at"] for each in snapshot.daemons)
    told = f"no daemon has said that it runs since {spell(last)}, {_ago(snapshot.at, last)}"
    return Text(told, style="bold red")


def _daemon(each: View) -> str:
    name = each["name"] if each["name"] == each["host"] else f"{each['name']} on {each['host']}"
    ends = ", shutting down" if each["draining"] else ""
    return f"{name} (pid {each['pid']}, {each['version']}{ends})"


def notes(snapshot: Snapshot) -> Iterator[Text]:
    """Yield a line for each account that keeps its tasks waiting."""
    for account in snapshot.accounts:
        for style, told in _troubles(account):
            yield Text.assemble(("! ", style), plain(f"account {account['account']} {told}", style))


def _troubles(account: View) -> Iterator[tuple[str, str]]:
    if account["frozen"]:
        yield "red", "is frozen by an operator: no call leaves, not even a stop"
    if account["paused"]:
        yield "yellow", "is paused by an operator: starts wait"
    if account["denied_code"]:
        told = f"is denied by the vendor since {spell(account['denied_since'])}"
        again = f", one is tried at {spell(account['probe_at'])}" if account["probe_at"] else ""
        yield "red", f"{told} ({account['denied_code']}): starts wait{again}"
    if account["breaker"]:
        yield "yellow", "gets no answers from its vendor: starts wait (the circuit breaker is open)"
    offset = account["clock_offset_ms"] or 0
    if abs(offset) > _CLOCK_OFF_MS:
        yield "yellow", f"has a vendor whose clock is {offset / 1000:+.1f} s from the database's"


def _orphans(snapshot: Snapshot, width: int | None) -> Rows:
    """Return the orphans that somebody has to look after."""
    rows = snapshot.leaking
    columns = [
        Column("orphan", [plain(row["id"]) for row in rows]),
        Column("account", [plain(row["account"]) for row in rows]),
        Column("phase", [_orphan_phase(row) for row in rows]),
        Column("leaks", [plain(spell_age(row["leaked_s"]), "red") for row in rows]),
    ]
    if is_roomy(width):
        columns += [
            Column("whose", [plain("ours" if row["ours"] else "not ours") for row in rows]),
            Column("TaskId", [plain(row["vendor_task_id"]) for row in rows]),
            Column("room", [plain(row["room_id"]) for row in rows]),
        ]
    prose = Column("why", [plain(row["reason"], "red") for row in rows])
    return Rows(title="Agents that may run and have no task", columns=columns, prose=prose)


def _orphan_phase(row: View) -> Text:
    return plain("only reported", "yellow") if row["action"] == "report" else phase_cell("stopping")


def _convergence(snapshot: Snapshot) -> Rows:
    """Return how many tasks are not as desired, by account and age."""
    summed: dict[tuple[str, str], int] = defaultdict(int)
    oldest: dict[tuple[str, str], int] = defaultdict(int)
    for row in snapshot.convergence:  # one row for each of the labels too
        key = row["account"], row["age"].partition(": ")[2] or row["age"]
        summed[key] += row["tasks"]
        oldest[key] = max(oldest[key], row["oldest_s"])
    columns = [
        Column("account", [plain(account) for account, _ in summed]),
        Column("for", [plain(age) for _, age in summed]),
        Column("tasks", [plain(tasks) for tasks in summed.values()]),
    ]
    prose = Column("the oldest", [plain(spell_age(seconds)) for seconds in oldest.values()])
    return Rows(title="Not as desired", columns=columns, prose=prose)


def _health(snapshot: Snapshot) -> Rows:
    """Return how calls went."""
    rows = snapshot.health
    columns = [
        Column("account", [plain(row["account"]) for row in rows]),
        Column("action", [plain(row["action"]) for row in rows]),
        Column("calls", [plain(row["calls"]) for row in rows]),
        Column("failures", [_failures(row["failures"]) for row in rows]),
        Column("p50 ms", [plain(row["p50_ms"]) for row in rows]),
    ]
    prose = Column("p95 ms", [plain(row["p95_ms"]) for row in rows])
    return Rows(title="Calls of the last 5 minutes", columns=columns, prose=prose)


def _failures(number: int) -> Text:
    return plain(number, "red" if number else "dim")


def _ago(now: datetime, then: datetime) -> str:
    return f"{spell_age((now - then).total_seconds())} ago"
