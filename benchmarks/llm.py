"""The LLM gateway beside a direct connection: how late words are, and what an open turn holds.

Gateway and direct connection take turns, with the same client, the same model and the same words.
What is said to be added is the difference of the two percentiles.
"""

from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Final

import aiohttp
import anyio
from anyio.abc import Process

from benchmarks.application import Application, open_application
from benchmarks.databases import Kind
from benchmarks.figures import Figure, percentile, say_median
from benchmarks.model import KEYS
from benchmarks.programs import can_read_processes, cpu_s, memory_mb, run_daemon, run_model
from benchmarks.setting import ACCOUNT, INSERT, SPEC, Setting, Tables
from benchmarks.speakers import Address, Heard, Manner, open_client, open_turns, talk
from orchestrator.examples import UPSTREAM
from orchestrator.providers.ticket import Ticket, derive_key, sign
from tests.ports import unused_port

PARTS: Final = (0.50, 0.95)
PERCENTILES: Final = "ms p50 / p95"
_SECRET: Final = "bench-token-secret"  # noqa: S105 - plainly fake
_RUNNING: Final = "SELECT count(*) FROM agent_status WHERE phase = 'running'"
_AGENTS: Final = "SELECT task_id, incarnation, id FROM vendor_agent ORDER BY task_id"
_CONFIRMED: Final = "SELECT count(*) FROM agent_status WHERE confirmed_at IS NOT NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How many talk, and how much."""

    agents: int = 200
    manner: Manner = field(default_factory=lambda: Manner(words=100, per_s=25, think_s=0.3))
    """A word in 40 ms is quicker than speech: most models' pace."""
    first: Manner = field(default_factory=lambda: Manner(words=4, per_s=4, think_s=0.3))
    """Of each agent's first turn, which is not measured."""
    turns_each: int = 2
    rounds: int = 3
    open_turns: int = 1_000
    settle_s: float = 1.0
    """Before memory is read."""
    hold_s: float = 45.0
    """How long the model keeps a turn open that nobody closes; shorter than a turn may last."""


@dataclass(slots=True)
class _Measured:
    """What all rounds came to."""

    direct: Heard = field(default_factory=Heard)
    gateway: Heard = field(default_factory=Heard)
    cpu_us: list[float] = field(default_factory=list)
    """Of the daemon, for each word; a turn's beginning and end are spread over its words."""


async def measure(setting: Setting, kind: Kind, scale: Scale) -> list[Figure]:
    """Return the delays of first and later words, what the gateway adds, and a turn's memory."""
    url = await setting.databases.make(kind)
    await setting.vendors.begin_anew()
    async with run_model() as model, open_application(url) as application:
        place = f"127.0.0.1:{unused_port()}"
        config = setting.configure(url, _tables(place, model))
        async with run_daemon(config, application) as daemon, open_client() as client:
            agents = await _start_agents(application, scale, f"http://{place}")
            direct = [Address(url=f"{model}/chat/completions")] * scale.agents
            # An agent's first request is proof of life, which is looked into once.
            await talk(client, agents, scale.first, 1)
            await application.wait_for(scale.agents, _CONFIRMED)
            measured = _Measured()
            for _ in range(scale.rounds):
                await _take_turns(client, daemon, (direct, agents), measured, scale)
            memory = await _weigh_turns(client, daemon, agents, scale)
    return [*_figures(measured), memory]


def _tables(place: str, model: str) -> Tables:
    return {
        "llm_gateway": {
            "listen": place,
            "public_url": f"http://{place}",
            "token_secret": _SECRET,
        },
        f"llm_upstreams.{UPSTREAM}": {"url": model, "pass_fields": KEYS},
    }


async def _start_agents(application: Application, scale: Scale, gateway: str) -> list[Address]:
    """Start agents and return where, and with which token, each of them asks."""
    await application.run_many(INSERT, [(f"t{number}", SPEC) for number in range(scale.agents)])
    await application.wait_for(scale.agents, _RUNNING)
    key = derive_key(_SECRET, ACCOUNT)
    tickets = [
        Ticket(
            upstream=UPSTREAM,
            account=ACCOUNT,
            room_id=task_id,
            user_id="user",
            task_id=task_id,
            incarnation=incarnation,
            agent_id=agent_id,
        )
        for task_id, incarnation, agent_id in await application.ask(_AGENTS)
    ]
    return [Address(url=gateway + one.path, token=sign(one, key)) for one in tickets]


async def _take_turns(
    client: aiohttp.ClientSession,
    daemon: Process,
    addresses: tuple[list[Address], list[Address]],
    measured: _Measured,
    scale: Scale,
) -> None:
    """Hold the same talks with the model itself, and through the gateway."""
    direct, agents = addresses
    measured.direct.add(await talk(client, direct, scale.manner, scale.turns_each))
    used_s = cpu_s(daemon) if can_read_processes() else None
    heard = await talk(client, agents, scale.manner, scale.turns_each)
    measured.gateway.add(heard)
    if used_s is not None:
        words = len(heard.first_ms) + len(heard.later_ms)
        measured.cpu_us.append((cpu_s(daemon) - used_s) * 1e6 / words)


async def _weigh_turns(
    client: aiohttp.ClientSession, daemon: Process, agents: list[Address], scale: Scale
) -> Figure:
    """Return the resident memory that many open turns add, for each of them."""
    what = f"memory of each of {scale.open_turns} open turns, KiB"
    if not can_read_processes():
        return Figure(what, "not measured: this system has no /proc")
    await anyio.sleep(scale.settle_s)
    before_mb = memory_mb(daemon)
    many = list(islice(cycle(agents), scale.open_turns))
    async with open_turns(client, many, scale.hold_s):
        await anyio.sleep(scale.settle_s)
        after_mb = memory_mb(daemon)
    return Figure(what, f"{(after_mb - before_mb) * 1024 / scale.open_turns:.0f}")


def _figures(measured: _Measured) -> list[Figure]:
    direct, gateway = measured.direct, measured.gateway
    return [
        *_compare("first word", direct.first_ms, gateway.first_ms),
        *_compare("later words", direct.later_ms, gateway.later_ms),
        Figure("daemon's processor time for a word, µs", say_median(measured.cpu_us, ".0f")),
    ]


def _compare(what: str, direct: list[float], gateway: list[float]) -> list[Figure]:
    bare = [percentile(direct, part) for part in PARTS]
    ours = [percentile(gateway, part) for part in PARTS]
    both = list(zip(ours, bare, strict=True))
    return [
        Figure(f"{what}, direct, {PERCENTILES}", _say(bare)),
        Figure(f"{what}, gateway, {PERCENTILES}", _say(ours)),
        Figure(f"{what}, added, {PERCENTILES}", _say([our - one for our, one in both])),
        Figure(f"{what}, gateway / direct", _say([our / one for our, one in both])),
    ]


def _say(values: list[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)
