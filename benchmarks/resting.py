"""A million agents that rest, beside a thousand: what a pass costs, and how much memory it takes.

A pass is what the scheduler does each time it wakes: one look, and a claim of the row it found.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Final

import anyio

from benchmarks.application import Application, open_application
from benchmarks.databases import Kind
from benchmarks.figures import Figure
from benchmarks.programs import can_read_processes, memory_mb, run_daemon
from benchmarks.setting import Setting
from orchestrator.app import build
from orchestrator.clock import boot_ns
from orchestrator.config import open_config
from orchestrator.daemon.book import Book
from orchestrator.daemon.choose import free_places, full_accounts
from orchestrator.daemon.claim import Desk, Wanted, claim
from orchestrator.daemon.look import Glance, look
from orchestrator.daemon.setup import Setup
from orchestrator.log import Redactor
from orchestrator.store import accounts
from orchestrator.store.engine import Connection
from orchestrator.store.engine import now as database_now

_INSERT: Final = (
    "INSERT INTO agent_task (id, account, room_id, user_id) "
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) "
    "SELECT 't' || i, 'volcengine', 'room' || i, 'user' FROM n"
)
_LEDGER: Final = (
    "INSERT INTO vendor_agent (id, task_id, incarnation, account, site, name, vendor_task_id) "
    "SELECT id, id, 1, account, '{}', id, id FROM agent_task"
)
_REST: Final = (
    "UPDATE agent_status SET phase = 'running', incarnation = 1, due_at = {day}, "
    "vendor_task_id = task_id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How many rest, and how often a pass is timed."""

    few: int = 1_000
    many: int = 1_000_000
    passes: int = 200
    calm_s: float = 2.0
    """How long the daemon runs before its memory is read: its first looks are behind it."""


async def measure(setting: Setting, kind: Kind, scale: Scale) -> list[Figure]:
    """Return times of a pass and memory beside few and many resting agents, and the ratios."""
    few_ms, few_mb = await _measure_beside(setting, kind, scale.few, scale)
    many_ms, many_mb = await _measure_beside(setting, kind, scale.many, scale)
    figures = [
        Figure(f"pass beside {scale.few} / {scale.many}, ms", f"{few_ms:.2f} / {many_ms:.2f}"),
        Figure("ratio", f"{many_ms / few_ms:.2f}"),
    ]
    if few_mb is None or many_mb is None:
        return [*figures, Figure("memory", "not measured: this system has no /proc")]
    return [
        *figures,
        Figure(f"memory beside {scale.few} / {scale.many}, MiB", f"{few_mb:.0f} / {many_mb:.0f}"),
        Figure("ratio", f"{many_mb / few_mb:.2f}"),
    ]


async def _measure_beside(
    setting: Setting, kind: Kind, agents: int, scale: Scale
) -> tuple[float, float | None]:
    url = await setting.databases.make(kind)
    config = setting.configure(url)
    async with open_application(url) as application:
        await _lay_to_rest(application, kind, agents)
        pass_ms = await _time_passes(config, application, scale.passes)
        if not can_read_processes():
            return pass_ms, None
        async with run_daemon(config, application) as daemon:
            await anyio.sleep(scale.calm_s)
            return pass_ms, memory_mb(daemon)


async def _lay_to_rest(application: Application, kind: Kind, agents: int) -> None:
    """Make running agents whose next look is a day away, as if it had been done long ago."""
    day = "strftime('%Y-%m-%d %H:%M:%f000', 'now', '+1 day')"
    if kind == "postgresql":
        day = "now() + interval '1 day'"
    await application.run(_INSERT, agents)
    await application.run(_REST.format(day=day))
    await application.run(_LEDGER)
    await application.run("DELETE FROM task_change")
    await application.run("ANALYZE" if kind == "sqlite" else "VACUUM ANALYZE")


async def _time_passes(config: Path, application: Application, passes: int) -> float:
    """Return the median milliseconds of a look and a claim of one row that a change made due."""
    setup = build(open_config(config), Redactor())
    book = Book(setup.keys, setup.llm)
    try:
        await setup.database.write(_make_accounts, book.names)
        spent_ms = [
            await _time_pass(setup, book, application, number) for number in range(1, passes + 1)
        ]
    finally:
        await setup.database.close()
    return median(spent_ms[passes // 10 :])


def _make_accounts(connection: Connection, names: list[str]) -> None:
    accounts.ensure(connection, names, database_now(connection))


async def _time_pass(setup: Setup, book: Book, application: Application, number: int) -> float:
    # A later deadline is a change of meaning that asks for no call.
    await application.run(
        "UPDATE agent_task SET stop_at = '2100-01-01 00:00:00' WHERE id = $1", f"t{number}"
    )
    desk = Desk(
        daemon_id="bench",
        daemon_name="bench",
        lease=timedelta(seconds=15),
        book=book,
        draw_name=lambda: f"pass{number}",
        redact=setup.redact,
    )
    began_ns = boot_ns()
    room = free_places(book.names, {})
    glance = Glance(
        daemon_id="bench",
        names=book.names,
        most=100,
        queues=(),
        elsewhere=frozenset(),
        full=full_accounts(room, ()),
        failing=frozenset(),
        survey=True,
    )
    seen = await setup.database.read(look, glance)
    wanted = Wanted(ids=[one.task_id for one in seen.candidates])
    await setup.database.write(claim, desk, wanted, {}, room)
    return (boot_ns() - began_ns) / 1e6
