"""The floor: a bare loop that makes the same calls, keeps nothing, and would lose everything.

The requests come from the same adapter, so they are equal to the byte but for ids and times.
"""

from itertools import count
from pathlib import Path
from typing import Final

import aiohttp
import anyio
from yarl import URL

from benchmarks.setting import ACCOUNT
from orchestrator.app import build_provider
from orchestrator.clock import boot_ns, utc_now
from orchestrator.config import open_config
from orchestrator.core.model import Agent
from orchestrator.core.outcome import Done, Outcome
from orchestrator.examples import SECRETS, VOLCENGINE
from orchestrator.providers.base import Conversation, Provider, Response, Stamp
from orchestrator.providers.spec import resolve_secrets

IN_FLIGHT: Final = 128
"""As many as the daemon has: 64 starts and 64 stops."""

_UNSIGNED: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


async def run_floor(config: Path, seconds: float) -> float:
    """Return lifecycles per second of a bare loop."""
    provider = build_provider(open_config(config).accounts[ACCOUNT])
    async with open_client(IN_FLIGHT) as http:
        loop = _Loop(provider, http)
        began_ns = boot_ns()
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as tasks:
                for _ in range(IN_FLIGHT):
                    tasks.start_soon(loop.run)
        return loop.done / ((boot_ns() - began_ns) / 1e9)


class _Loop:
    def __init__(self, provider: Provider, http: aiohttp.ClientSession) -> None:
        self.done = 0
        self._provider = provider
        self._http = http
        self._numbers = count()
        self._spec, _ = resolve_secrets(VOLCENGINE, SECRETS)

    async def run(self) -> None:
        """Start and stop one agent after the other, for ever."""
        while True:
            agent = self._draw()
            stamp = Stamp(signed_at=utc_now(), nonce=str)
            await converse(self._http, self._provider.start(agent, self._spec, stamp))
            stamp = Stamp(signed_at=utc_now(), nonce=str)
            await converse(self._http, self._provider.stop(agent, stamp))
            self.done += 1

    def _draw(self) -> Agent:
        name = f"floor{boot_ns()}n{next(self._numbers)}"
        return Agent(
            id=name,
            incarnation=1,
            try_=1,
            account=ACCOUNT,
            site=self._provider.site,
            room_id=name,
            user_id="user",
            name=name[-32:],
            session_name=name,
            stream_id=name,
            announced_at=utc_now(),
        )


def open_client(in_flight: int) -> aiohttp.ClientSession:
    """Return a client that adds no header which a signature might have to cover."""
    connector = aiohttp.TCPConnector(limit=in_flight)
    return aiohttp.ClientSession(connector=connector, skip_auto_headers=_UNSIGNED)


async def converse(http: aiohttp.ClientSession, conversation: Conversation) -> Done:
    """Lead a conversation to its end. Raises TypeError if the vendor refused."""
    request = next(conversation)
    while True:
        async with http.request(
            request.method,
            URL(request.url, encoded=True),
            headers=request.headers,
            data=request.body or None,
        ) as answer:
            reply = Response(
                status=answer.status,
                headers={name.lower(): value for name, value in answer.headers.items()},
                body=await answer.read(),
            )
        try:
            request = conversation.send(reply)
        except StopIteration as end:
            return _expect_done(end.value)


def _expect_done(outcome: Outcome) -> Done:
    if not isinstance(outcome, Done):
        raise TypeError(f"the floor was refused: {outcome}")
    return outcome
