"""Asks an upstream and hands on what it says, as it says it: the HTTP client of the gateway.

Rule 1: a request is sent once. Who is asked next is the turn's business.
Rule 2: whatever goes wrong is a `TurnReason`. Nothing of what an upstream said is in it, for that
may repeat what was spoken, or a key.
Rule 3: who stops listening ends the request at once: a model that nobody hears is not paid for.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Self

import aiohttp
import anyio
from anyio.abc import TaskGroup

from orchestrator import __version__
from orchestrator.core.turn import TurnReason
from orchestrator.daemon.llm.frame import Upstream
from orchestrator.providers.chat_events import EventReader, TooLong

EVENT_BYTES_MAX: Final = 262_144
IDLE_S: Final = 30.0
"""How long a connection without a turn is kept: a new one costs a handshake before each word."""
DRAIN_S: Final = 0.2
"""How long the end of an answer is waited for after its last word, so that its connection is used
again. No turn waits for it."""
_OURS: Final = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # who compresses gathers words first
    "Content-Type": "application/json",
    "User-Agent": f"orchestrator/{__version__}",
}


class Unanswered(Exception):  # noqa: N818 - it says what is, as the others do
    """An upstream has not answered, or not to the end. `code` is the reason, for `llm_turn`."""

    def __init__(self, reason: TurnReason, detail: str = "") -> None:
        super().__init__(reason)
        self.code = f"{reason.value}{detail}"


class UpstreamClient:
    """The connections to all upstreams. Use it as an async context manager, in one event loop."""

    def __init__(self, aside: TaskGroup) -> None:
        """`aside`: for what no turn waits for."""
        self._aside = aside
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # Turns are bounded, and each has one request: nothing waits for a connection.
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=IDLE_S, ssl=ssl.create_default_context()
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            with anyio.CancelScope(shield=True):
                await self._session.close()

    @asynccontextmanager
    async def ask(
        self, upstream: Upstream, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator["Stream"]:
        """Yield what it says. Raises Unanswered.

        `headers`: those of the vendor's request that are passed on.
        """
        assert self._session is not None  # noqa: S101 - within the context
        sent = {**headers, **_OURS, **upstream.headers}
        try:
            response = await self._session.post(
                upstream.url, data=body, headers=sent, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unanswered(TurnReason.UNREACHABLE) from error
        del body  # it has left, and a history is large
        is_heard = False
        try:
            _check(response)
            yield Stream(response)
            is_heard = True
        finally:
            if is_heard:
                self._aside.start_soon(_give_back, response)
            else:
                response.close()


def _check(response: aiohttp.ClientResponse) -> None:
    if response.status != HTTPStatus.OK:
        raise Unanswered(TurnReason.STATUS, str(response.status))
    if response.content_type != "text/event-stream":
        raise Unanswered(TurnReason.NO_STREAM)


class Stream:
    """What one upstream says, read by read."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        self._reader = EventReader(EVENT_BYTES_MAX)

    async def read(self) -> list[bytes] | None:
        """Return the data of the events that came together; null: it has ended.

        Raises Unanswered.
        """
        try:
            while data := await self._content.readany():
                payloads = self._reader.feed(data)
                if payloads:
                    return payloads
        except TooLong as error:
            raise Unanswered(TurnReason.TOO_LONG) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unanswered(TurnReason.BROKEN) from error
        return None


async def _give_back(response: aiohttp.ClientResponse) -> None:
    """Read the end of an answer, so that its connection can be used again; else close it."""
    try:
        with anyio.move_on_after(DRAIN_S):
            while not response.content.at_eof():
                await response.content.readany()
    except (aiohttp.ClientError, OSError):
        return
    finally:
        response.close()
