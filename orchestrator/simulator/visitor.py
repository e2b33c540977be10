"""Whoever visits simulated vendors that are served: looks at their agents, and speaks to them.

It is what `curl` does on the `/_sim/` routes, for programs.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import aiohttp

from orchestrator.simulator.questions import Unheard


class Visitor:
    """A user of `/_sim/`."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._base_url = base_url

    async def live_agent(self, room_id: str) -> str:
        """Return the name of the newest agent that runs in a room.

        Raises:
            Unheard: there is none.
        """
        query = {"live": "true", "room_id": room_id}
        async with self._session.get(f"{self._base_url}/_sim/agents", params=query) as response:
            agents = (await response.json())["agents"]
        if not agents:
            raise Unheard("no agent runs in the room")
        return str(agents[-1]["id"])

    async def say(self, agent_id: str, text: str) -> Mapping[str, Any]:
        """Let the agent's user say something; return the turn when it has ended.

        Raises:
            Unheard: with the vendors' reason.
        """
        url = f"{self._base_url}/_sim/agents/{agent_id}/say"
        async with self._session.post(url, json={"text": text}) as response:
            answer: dict[str, Any] = await response.json()
        if response.status != HTTPStatus.OK:
            raise Unheard(answer["expected"])
        return answer


@asynccontextmanager
async def visiting(base_url: str) -> AsyncIterator[Visitor]:
    """Visit the simulated vendors at this URL while the context is open."""
    async with aiohttp.ClientSession() as session:
        yield Visitor(session, base_url)
