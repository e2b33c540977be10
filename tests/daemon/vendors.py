"""The simulated vendors as a test sees them: their world and their faults, by HTTP."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import aiohttp

from orchestrator.simulator import Simulator, serve
from orchestrator.simulator.keys import Keys

Agent = dict[str, Any]
"""As `GET /_sim/agents` shows it."""


@dataclass
class Vendors:
    """The three vendors, at one URL."""

    url: str
    _client: aiohttp.ClientSession

    async def agents(self, **where: str) -> list[Agent]:
        """Return all agents ever, oldest first; `account=` and the like narrow it."""
        answer = await self._ask("GET", "agents", params=where)
        return sorted(answer["agents"], key=lambda agent: agent["started_at"])

    async def live(self, **where: str) -> list[Agent]:
        """Return the agents that run, and bill."""
        return await self.agents(live="true", **where)

    async def calls(self, action: str | None = None) -> list[dict[str, Any]]:
        """Return the calls in the order of their answers."""
        calls = (await self._ask("GET", "calls"))["calls"]
        return [call for call in calls if action in {None, call["action"]}]

    async def busiest_seconds(self) -> dict[tuple[str, str], int]:
        """Return the most calls of a second, by account and action."""
        worst = (await self._ask("GET", "calls"))["busiest_second"]
        return {(one["account"], one["action"]): one["calls"] for one in worst}

    async def end(self, agent: Agent, why: str) -> None:
        """Let the vendor end an agent: `idle`, `kicked` or `fault`."""
        await self._ask("POST", f"agents/{agent['id']}/end", {"why": why})

    async def script(self, action: str, fault: str, n: int = 1, **more: Any) -> None:
        """Let the next `n` calls of an action meet a fault."""
        await self._ask("POST", "faults", {"action": action, "fault": fault, "n": n, **more})

    async def faults_to_come(self) -> dict[str, int]:
        """Return how many scripted faults nobody met yet."""
        pending: dict[str, int] = (await self._ask("GET", "faults"))["pending"]
        return pending

    async def turn(self, **switches: Any) -> None:
        """Turn what the vendors' documents leave open."""
        await self._ask("POST", "switches", switches)

    async def move_user(self, account: str, room_id: str, user_id: str, do: str) -> None:
        """Let a human `join` or `leave` a room, `publish` or `unpublish` there."""
        body = {"account": account, "room_id": room_id, "user_id": user_id, "do": do}
        await self._ask("POST", "users", body)

    async def post_callbacks(self, account: str, url: str) -> None:
        """Let an account's callbacks be posted there; empty: nowhere."""
        await self._ask("POST", "callbacks", {"account": account, "url": url})

    async def callbacks(self) -> list[dict[str, Any]]:
        """Return the newest attempts to post a callback, oldest first."""
        attempts: list[dict[str, Any]] = (await self._ask("GET", "callbacks"))["attempts"]
        return attempts

    async def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        params: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        url = f"{self.url}/_sim/{path}"
        async with self._client.request(method, url, json=body, params=params) as answer:
            told: dict[str, Any] = await answer.json()
            assert answer.status == 200, told
            return told


@asynccontextmanager
async def serve_vendors(keys: Sequence[Keys]) -> AsyncIterator[Vendors]:
    """Serve the vendors in this process."""
    async with serve(Simulator(keys), "127.0.0.1", 0) as url, aiohttp.ClientSession() as client:
        yield Vendors(url, client)


def doubled(agents: Iterable[Agent]) -> list[tuple[Agent, Agent]]:
    """Return those that ran at the same time for the same user in the same room of an account."""
    by_room: dict[tuple[str, str, str], list[Agent]] = {}
    for agent in agents:
        key = (agent["account"], agent["room_id"], agent["user_id"])
        by_room.setdefault(key, []).append(agent)
    return [pair for one in by_room.values() for pair in overlapping(one)]


def overlapping(agents: Sequence[Agent]) -> list[tuple[Agent, Agent]]:
    """Return neighbours of which the later began before the earlier had ended."""
    return [
        (earlier, later)
        for earlier, later in pairwise(agents)
        if earlier["ended_at"] is None or earlier["ended_at"] > later["started_at"]
    ]
