"""What a vendor gets: a stream of chunks, or one whole answer for who does not stream.

Rule 1: whatever happens, it is a valid end: the vendor's agent never hangs. Only who does not read
gets none: it is hung up on.
Rule 2: nothing is held back: what one read of the upstream brought leaves with one write.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import anyio
from aiohttp import web

from orchestrator.providers.chat_answer import Answer
from orchestrator.providers.chat_chunks import Head, Shaper, farewell
from orchestrator.providers.chat_completion import Collector, whole_farewell

LEAVE_WITHIN_S: Final = 1.0
"""How long the last words may take to leave, beyond what the system's buffers hold."""

_STREAM = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # a proxy in front that gathers words would undo all this
}


class Reply(ABC):
    """One answer to a vendor, in which one upstream after the other may speak."""

    answer: Answer
    """What the present upstream has said so far."""

    @abstractmethod
    def restart(self) -> None:
        """Let another upstream speak. Only while nothing was said."""

    @abstractmethod
    async def say(self, payloads: Sequence[bytes]) -> None:
        """Pass on what an upstream said. Raises `UpstreamError`, and `TooLong`."""

    @abstractmethod
    async def end(self) -> None:
        """Send what is missing to a valid end. Raises ConnectionError: nobody reads it."""

    @abstractmethod
    async def part(self, words: str) -> None:
        """End the turn with these words, where nothing was said. Raises ConnectionError."""


class StreamReply(Reply):
    """Server-sent events, chunk by chunk."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        head: Head,
        *,
        wants_usage: bool,
        keep_text: bool,
    ) -> None:
        """`response`: the request's, prepared."""
        self._request = request
        self._response = response
        self._is_stuck = False
        """The vendor has not read what was written last."""
        self._head = head
        self._wants_usage = wants_usage
        self._keep_text = keep_text
        self.restart()

    def restart(self) -> None:
        """See `Reply`."""
        self.answer = self._shaper = Shaper(
            self._head, wants_usage=self._wants_usage, keep_text=self._keep_text
        )

    async def say(self, payloads: Sequence[bytes]) -> None:
        """See `Reply`. What came before a bad payload is said."""
        said = bytearray()
        try:
            for payload in payloads:
                said += self._shaper.shape(payload)
        finally:
            if said:
                self._is_stuck = True
                await self._response.write(said)
                self._is_stuck = False

    async def end(self) -> None:
        """See `Reply`."""
        await self._leave(self._shaper.end())

    async def part(self, words: str) -> None:
        """See `Reply`."""
        await self._leave(farewell(self._head, words))

    async def _leave(self, last: bytes) -> None:
        """Send the last words. Nothing cuts them off but a vendor that does not read."""
        if not self._is_stuck:
            with anyio.move_on_after(LEAVE_WITHIN_S, shield=True):
                await self._response.write(last)
                await self._response.write_eof()
                return
        self._hang_up()
        raise ConnectionAbortedError

    def _hang_up(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.abort()


class WholeReply(Reply):
    """One chat completion, bounded, when all has been said."""

    def __init__(self, head: Head, *, max_bytes: int, keep_text: bool) -> None:
        self._head = head
        self._max_bytes = max_bytes
        self._keep_text = keep_text
        self.response = web.Response(content_type="application/json")
        self.restart()

    def restart(self) -> None:
        """See `Reply`."""
        self.answer = self._collector = Collector(
            self._head, max_bytes=self._max_bytes, keep_text=self._keep_text
        )

    async def say(self, payloads: Sequence[bytes]) -> None:
        """See `Reply`."""
        for payload in payloads:
            self._collector.collect(payload)

    async def end(self) -> None:
        """See `Reply`."""
        self.response.body = self._collector.completion()

    async def part(self, words: str) -> None:
        """See `Reply`."""
        self.response.body = whole_farewell(self._head, words)


def open_stream() -> web.StreamResponse:
    """Return the response of a stream, not prepared yet."""
    return web.StreamResponse(headers=_STREAM)
