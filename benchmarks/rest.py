"""What the daemon costs while there is nothing to do."""

from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import Process

from benchmarks.application import Application, open_application
from benchmarks.databases import Kind
from benchmarks.figures import Figure
from benchmarks.programs import can_read_processes, cpu_s, run_daemon
from benchmarks.setting import INSERT, SPEC, Setting
from orchestrator.clock import boot_ns

_RUNNING: Final = "SELECT count(*) FROM agent_status WHERE phase = 'running'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How long, and beside how many running agents."""

    seconds: float = 6.0
    agents: int = 1_000
    calm_s: float = 1.5
    """After the last work, before the measurement."""


async def measure(setting: Setting, kind: Kind, scale: Scale) -> list[Figure]:
    """Return the share of a core that a daemon at rest uses, without agents and with them."""
    if not can_read_processes():
        return [Figure("idle CPU", "not measured: this system has no /proc")]
    url = await setting.databases.make(kind)
    config = setting.configure(url)
    await setting.vendors.begin_anew()
    async with open_application(url) as application, run_daemon(config, application) as daemon:
        empty = await _share(daemon, scale)
        await _start_agents(application, scale.agents)
        full = await _share(daemon, scale)
    return [
        Figure("no rows, % of a core", f"{empty:.2f}"),
        Figure(f"{scale.agents} running agents, % of a core", f"{full:.2f}"),
    ]


async def _start_agents(application: Application, agents: int) -> None:
    await application.run_many(INSERT, [(f"t{number}", SPEC) for number in range(agents)])
    await application.wait_for(agents, _RUNNING)


async def _share(daemon: Process, scale: Scale) -> float:
    await anyio.sleep(scale.calm_s)
    used_s, began_ns = cpu_s(daemon), boot_ns()
    await anyio.sleep(scale.seconds)
    return 100 * (cpu_s(daemon) - used_s) / ((boot_ns() - began_ns) / 1e9)
