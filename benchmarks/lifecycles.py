"""Lifecycles per second: a row is inserted, its agent runs, the row wants `stopped`, it is stopped.

The application keeps a backlog: whatever runs it asks to stop, and for each that has ended it
inserts another, in bulk. What is counted are ended rows, after a while of warming up.
Floor and daemon take turns, so that whatever else the machine does meets both.
"""

from dataclasses import dataclass
from itertools import count
from typing import Final

import anyio

from benchmarks.application import Application, open_application
from benchmarks.databases import Kind
from benchmarks.figures import Figure, say_median
from benchmarks.floor import run_floor
from benchmarks.programs import run_daemon
from benchmarks.setting import INSERT, SPEC, Setting
from orchestrator.clock import boot_ns

BACKLOG: Final = 512
"""Rows in the making: enough for all places in flight, starts and stops."""
TICK_S: Final = 0.05

_STOP: Final = """
    UPDATE agent_task SET desired_state = 'stopped'
    WHERE desired_state = 'running'
      AND id IN (SELECT task_id FROM agent_status WHERE phase = 'running')
"""
_ENDED: Final = "SELECT count(*) FROM agent_status WHERE phase = 'stopped'"
_LOST: Final = "SELECT count(*), max(reason) FROM agent_status WHERE phase = 'failed'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How long it is measured."""

    rounds: int = 3
    warm_up_s: float = 1.5
    seconds: float = 4.0


async def measure(setting: Setting, kind: Kind, scale: Scale) -> list[Figure]:
    """Return lifecycles per second of floor and daemon, and their ratio."""
    floors, daemons = [], []
    for _ in range(scale.rounds):
        config = setting.configure("sqlite:///none.db")
        await setting.vendors.begin_anew()
        floors.append(await run_floor(config, scale.seconds))
        await setting.vendors.begin_anew()
        daemons.append(await _run_daemon(setting, kind, scale))
    ratios = [100 * one / floor for one, floor in zip(daemons, floors, strict=True) if floor]
    return [
        Figure("floor, lifecycles/s", say_median(floors, ".0f")),
        Figure("daemon, lifecycles/s", say_median(daemons, ".0f")),
        Figure("daemon / floor, %", say_median(ratios, ".0f")),
    ]


async def _run_daemon(setting: Setting, kind: Kind, scale: Scale) -> float:
    url = await setting.databases.make(kind)
    config = setting.configure(url)
    async with open_application(url) as application, run_daemon(config, application):
        load = _Load(application)
        await load.keep_up(scale.warm_up_s)
        before, began_ns = load.ended, boot_ns()
        await load.keep_up(scale.seconds)
        return (load.ended - before) / ((boot_ns() - began_ns) / 1e9)


class _Load:
    """An application that never runs out of wishes."""

    def __init__(self, application: Application) -> None:
        self.ended = 0
        self._application = application
        self._inserted = 0
        self._numbers = count()

    async def keep_up(self, seconds: float) -> None:
        """Keep the backlog full for some time."""
        until_ns = boot_ns() + int(seconds * 1e9)
        while boot_ns() < until_ns:
            await self._top_up()
            await anyio.sleep(TICK_S)
        await self._count()

    async def _top_up(self) -> None:
        await self._application.run(_STOP)
        await self._count()
        missing = BACKLOG - (self._inserted - self.ended)
        rows = [(f"t{next(self._numbers)}", SPEC) for _ in range(missing)]
        await self._application.run_many(INSERT, rows)
        self._inserted += missing

    async def _count(self) -> None:
        ((self.ended,),) = await self._application.ask(_ENDED)
        ((failed, reason),) = await self._application.ask(_LOST)
        if failed:
            raise RuntimeError(f"{failed} rows failed: {reason}")
