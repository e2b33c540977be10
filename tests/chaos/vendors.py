"""The simulated vendors in a process of their own, and what they show as values.

Rule: times are the simulator's own, so that it does not matter how late somebody looked.
"""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
from anyio import to_thread

from tests.daemon.vendors import Agent, Vendors

ROOM: Final = "room-"
"""Begins the room's name of a task; the task's id follows."""


@dataclass(frozen=True, kw_only=True)
class Lived:
    """One agent at a vendor, from its start to its end."""

    id: str
    account: str
    room_id: str
    user_id: str
    agent_user_id: str
    handle: str
    started_at: datetime
    joined_at: datetime | None
    ended_at: datetime | None
    why: str | None

    @property
    def task_id(self) -> str:
        return self.room_id.removeprefix(ROOM)

    @classmethod
    def read(cls, shown: Agent) -> "Lived":
        """Return what `/_sim/agents` shows as a value."""
        texts = ("id", "account", "room_id", "user_id", "agent_user_id", "handle", "why")
        return cls(
            started_at=datetime.fromisoformat(shown["started_at"]),
            joined_at=_instant(shown["joined_at"]),
            ended_at=_instant(shown["ended_at"]),
            **{name: shown[name] for name in texts},
        )


@dataclass(frozen=True, kw_only=True)
class Called:
    """One call that reached a vendor."""

    seq: int
    at: datetime
    account: str
    action: str
    code: str
    fault: str | None
    handle: str
    room_id: str
    user_id: str
    sequence: int | None

    @classmethod
    def read(cls, shown: dict[str, Any]) -> "Called":
        """Return what `/_sim/calls` shows as a value."""
        ids = shown["ids"]
        return cls(
            at=datetime.fromisoformat(shown["at"]),
            handle=str(ids.get("task_id", "")),
            room_id=str(ids.get("room_id", "")),
            user_id=str(ids.get("user_id", "")),
            sequence=ids.get("sequence"),
            **{name: shown[name] for name in ("seq", "account", "action", "code", "fault")},
        )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class ChaosVendors(Vendors):
    """The vendors, with what a long run asks of them."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        super().__init__(url, client)
        self.called: list[Called] = []
        """All calls up to the last `collect`, in the order of their answers."""

    async def lived(self) -> list[Lived]:
        """Return all agents ever, oldest first."""
        return [Lived.read(shown) for shown in await self.agents()]

    async def collect(self) -> None:
        """Fetch the calls since the last time; the simulator forgets the oldest."""
        shown = await self._ask("GET", "calls", params={"since": str(self._last)})
        # Somebody else may have fetched them meanwhile.
        self.called += [Called.read(one) for one in shown["calls"] if one["seq"] > self._last]

    @property
    def _last(self) -> int:
        return self.called[-1].seq if self.called else 0

    async def set_ratio(self, action: str, fault: str, ratio: float, ms: int = 1) -> None:
        """Let this share of an action's calls meet a fault."""
        body = {"action": action, "fault": fault, "ratio": ratio, "ms": ms}
        await self._ask("POST", "faults", body)

    async def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        await self._ask("POST", "faults", {"clear": True})

    async def post_callbacks(self, account: str, url: str) -> None:
        """Let a vendor post an account's callbacks to a URL."""
        await self._ask("POST", "callbacks", {"account": account, "url": url})


@asynccontextmanager
async def simulate(config_path: Path, seed: int) -> AsyncIterator[ChaosVendors]:
    """Serve the vendors of a configuration's accounts in a process of their own."""
    command = [sys.executable, "-m", "orchestrator", "simulate", "--listen", "127.0.0.1:0"]
    process = _launch([*command, "-c", str(config_path), "--seed", str(seed)])
    try:
        url = await to_thread.run_sync(_wait_ready, process)
        async with aiohttp.ClientSession() as client:
            yield ChaosVendors(url, client)
    finally:
        process.kill()
        process.communicate()


def _launch(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _wait_ready(process: "subprocess.Popen[str]") -> str:
    """Return the URL when the simulator has said that it is ready."""
    if process.stdout is None:
        raise RuntimeError("the simulator's output is not piped")
    url = ""
    for line in process.stdout:
        if line.startswith("simulated vendors at "):
            url = line.split()[-1]
        if line.strip() == "ready":
            return url
    raise RuntimeError("the simulator ended before it was ready")
