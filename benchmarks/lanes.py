"""Walkie-talkie: from the application's commit of a press to its arrival at the vendor.

Many lanes press and let go at a steady pace, on ZEGO, the vendor that enforces the order. The
daemon works under a rate limit that allows the load, since drawing slots is part of the way, and
once more under none; and once at ease. Two floors say the same things: the application itself, and
a bare loop that wakes, marks a row and sends.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.application import open_application
from benchmarks.databases import Kind
from benchmarks.figures import Figure, percentile, say_percentiles
from benchmarks.lanes_floor import ACCOUNT, FLOORS, open_wire
from benchmarks.presses import ACTIONS, Heard, Load, Press, Said, hear, lanes_of, say
from benchmarks.programs import run_daemon
from benchmarks.setting import Setting
from orchestrator.examples import ZEGO
from orchestrator.simulator.keys import DEMO

LIMIT: Final = 400
"""Calls per second of StartListening, and as many of StopListening. The daemon keeps that in any
second and a quarter, so it allows itself 320/s of each; the load is 200/s of each."""
PERCENTILES: Final = ", ms p50 / p95 / p99"
WRONG: Final = ", what went wrong"

_NO_LIMITS: Final = {"zego_qps": 0, "zego_capacity": 0}
_UNLIMITED: Final = (
    "CreateAgentInstance",
    "DeleteAgentInstance",
    "DescribeUserList",
    "KickoutUser",
    "QueryAgentInstanceStatus",
)
_SPEC: Final = json.dumps(ZEGO)
_TASK: Final = (
    "INSERT INTO agent_task (id, account, room_id, user_id, spec) VALUES ($1, 'zego', $1, $1, $2)"
)
_COMMAND: Final = "INSERT INTO agent_command (task_id, kind, sequence) VALUES ($1, $2, $3)"
_RUNNING: Final = "SELECT count(*) FROM agent_status WHERE phase = 'running'"
_UNSETTLED: Final = "SELECT count(*) FROM agent_command WHERE state IN ('queued', 'sending')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is said."""

    busy: Load = field(default_factory=Load)
    calm: Load = field(default_factory=lambda: Load(lanes=20, per_s=1))
    """So little that hardly anybody waits for others: what is left is the way itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What one way of saying it came to."""

    said: Said
    heard: Heard


async def measure(setting: Setting, kind: Kind, scale: Scale) -> list[Figure]:
    """Return percentiles in milliseconds of daemon and floors, ratios, and what went wrong."""
    busy, calm = scale.busy, scale.calm
    floors = {name: await _run_floor(setting, kind, busy, name) for name in FLOORS}
    limited = await _run_daemon(setting, kind, busy, LIMIT)
    daemons = {
        "daemon at ease": await _run_daemon(setting, kind, calm, LIMIT),
        "daemon under a limit": limited,
        "daemon without a limit": await _run_daemon(setting, kind, busy, 0),
    }
    return [
        *(figure for who, run in (floors | daemons).items() for figure in _figures(who, run)),
        *(_ratio(name, limited, run) for name, run in floors.items()),
    ]


def _figures(who: str, run: _Run) -> list[Figure]:
    heard = run.heard
    wrong = (
        f"{heard.disordered} out of order, {heard.doubled} twice, {heard.unsent} unsent, "
        f"{heard.refused} refused"
    )
    pace = f"{run.said.per_s:.0f} committed, of one action at most {heard.busiest} sent"
    return [
        Figure(f"{who}{PERCENTILES}", say_percentiles(heard.late_ms)),
        Figure(f"{who}, in a second", pace),
        Figure(f"{who}{WRONG}", wrong),
    ]


def _ratio(floor: str, daemon: _Run, bare: _Run) -> Figure:
    parts = [
        percentile(daemon.heard.late_ms, part) / percentile(bare.heard.late_ms, part)
        for part in (0.50, 0.95, 0.99)
    ]
    said = " / ".join(f"{part:.1f}" for part in parts)
    return Figure(f"under a limit / {floor}", said)


async def _run_daemon(setting: Setting, kind: Kind, load: Load, limit: int) -> _Run:
    url = await setting.databases.make(kind)
    config = _configure(setting, url, limit)
    await _begin_anew(setting)
    async with open_application(url) as application, run_daemon(config, application):
        await application.run_many(_TASK, [(lane, _SPEC) for lane in lanes_of(load)])
        await application.wait_for(load.lanes, _RUNNING)
        since = await setting.vendors.last_call()

        async def commit(press: Press) -> None:
            await application.run(_COMMAND, press.lane, press.kind.value, press.sequence)

        said = await say(load, commit)
        await application.wait_for(0, _UNSETTLED)
        return _Run(said=said, heard=await hear(setting.vendors, said, since))


async def _run_floor(setting: Setting, kind: Kind, load: Load, name: str) -> _Run:
    url = await setting.databases.make(kind)
    await _begin_anew(setting)
    async with open_wire(_configure(setting, url, 0), lanes_of(load)) as wire:
        since = await setting.vendors.last_call()
        async with FLOORS[name](wire, url) as commit:
            said = await say(load, commit)
        return _Run(said=said, heard=await hear(setting.vendors, said, since))


async def _begin_anew(setting: Setting) -> None:
    await setting.vendors.begin_anew()
    await setting.vendors.turn(_NO_LIMITS)


def _configure(setting: Setting, url: str, limit: int) -> Path:
    keys, endpoint = DEMO[2], setting.vendors.url
    return setting.write(
        {
            "database": {"url": url},
            f"accounts.{ACCOUNT}": {
                "provider": "zego",
                "app_id": keys.app_id,
                "server_secret": keys.server_secret,
                "endpoint": endpoint,
                "rtc_endpoint": endpoint,
                "settle_in_s": 0,
                "poll_s": 86_400,
            },
            f"accounts.{ACCOUNT}.qps": dict.fromkeys(_UNLIMITED, 0) | dict.fromkeys(ACTIONS, limit),
        }
    )
