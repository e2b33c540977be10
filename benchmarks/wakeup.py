"""From the application's commit to the request on the vendor's side, for one row at a time.

The time ends when the simulated vendor has read the request, so it holds the whole way: the hint,
the look, the claim's durable commit, the signature, the connection.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

import anyio

from benchmarks.application import Application, open_application
from benchmarks.databases import Kind
from benchmarks.figures import Figure, say_percentiles
from benchmarks.programs import run_daemon
from benchmarks.setting import INSERT, SPEC, Setting, Vendors
from orchestrator.clock import boot_ns, utc_now

WARM_UP: Final = 10
"""Inserts before the first that counts: connections are made, statements prepared."""
ARRIVAL_S: Final = 10.0
"""How long a request may take to arrive at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How many rows are inserted, and how quickly."""

    at_rest: int = 100
    under_load: int = 300
    per_s: int = 50


async def measure(setting: Setting, kind: Kind, scale: Scale) -> list[Figure]:
    """Return percentiles in milliseconds, at rest and under light load, for each kind of wake."""
    figures = []
    # SQLite has no NOTIFY that an application could want to save.
    for wake in ("notify",) if kind == "sqlite" else ("notify", "poll"):
        url = await setting.databases.make(kind)
        config = setting.configure(url, wake=wake)
        await setting.vendors.begin_anew()
        async with open_application(url) as application, run_daemon(config, application):
            watched = _Watched(application, setting.vendors)
            await watched.time(WARM_UP, 0.05)
            at_rest = await watched.time(scale.at_rest, 0.1)
            loaded = await watched.time(scale.under_load, 1 / scale.per_s)
        means = "inotify" if kind == "sqlite" else "LISTEN" if wake == "notify" else "poll"
        figures += [
            Figure(f"{means}, at rest, ms p50 / p95 / p99", say_percentiles(at_rest)),
            Figure(f"{means}, {scale.per_s}/s, ms p50 / p95 / p99", say_percentiles(loaded)),
        ]
    return figures


class _Watched:
    """An application that notes when each of its commits returned."""

    def __init__(self, application: Application, vendors: Vendors) -> None:
        self._application = application
        self._vendors = vendors
        self._inserted = 0
        self._lots = Random(1)

    async def time(self, rows: int, every_s: float) -> list[float]:
        """Insert rows at about this pace; return how long each request took, milliseconds."""
        since = await self._vendors.last_call()
        committed: dict[str, datetime] = {}
        for _ in range(rows):
            # Never in step with anything that the daemon does at intervals.
            await anyio.sleep(every_s * self._lots.uniform(0.5, 1.5))
            id_ = f"t{self._inserted}"
            self._inserted += 1
            await self._application.run(INSERT, id_, SPEC)
            committed[id_] = utc_now()
        arrived = await self._arrivals(since, rows)
        return [(arrived[id_] - at).total_seconds() * 1000 for id_, at in committed.items()]

    async def _arrivals(self, since: int, rows: int) -> dict[str, datetime]:
        """Return when the request about each room arrived; a row's id is its room's too."""
        give_up_ns = boot_ns() + int(ARRIVAL_S * 1e9)
        while True:
            arrived = {_room(call): _arrival(call) for call in await self._vendors.calls(since)}
            if len(arrived) >= rows:
                return arrived
            if boot_ns() > give_up_ns:
                raise RuntimeError(f"{rows - len(arrived)} requests have not arrived")
            await anyio.sleep(0.1)


def _room(call: dict[str, Any]) -> str:
    return str(call["ids"]["room_id"])


def _arrival(call: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(call["at"]).astimezone(UTC)
