"""One request of an agent's, as far as it is understood, and the reading of it.

Rule 1: what a sender can make us keep or wait for is bounded: bytes and seconds.
"""

from dataclasses import dataclass, field
from typing import Final

import anyio
from aiohttp import web

from orchestrator.daemon.llm.refusal import Refusal
from orchestrator.providers.chat import ChatRequest
from orchestrator.providers.llm_form import Asked
from orchestrator.providers.ticket import Ticket

BODY_WITHIN_S: Final = 10.0


@dataclass(slots=True, kw_only=True)
class Visit:
    """A request whose token is this agent's."""

    request: web.Request
    ticket: Ticket
    began_ns: int
    headers: dict[str, str]
    """Names in lower case."""
    chat: ChatRequest | None = None
    """What is asked; null before it is read, and when a turn has taken it."""
    asked: Asked = field(default_factory=Asked)
    try_: int = 1
    user_text: str | None = None
    bytes: int = 0
    """What is reserved of the budget for it."""
    is_written: bool = False

    def take_chat(self) -> ChatRequest:
        """Hand over what is asked: a turn may last for a minute, and a history is large."""
        assert self.chat is not None  # noqa: S101 - taken once, after it was read
        chat, self.chat = self.chat, None
        return chat


async def read_body(request: web.Request, most: int) -> bytes | Refusal:
    """Return the body, or why it was not read to its end. `most`: bytes."""
    if (request.content_length or 0) > most:
        return Refusal.LARGE
    body = bytearray()
    with anyio.move_on_after(BODY_WITHIN_S) as patience:
        try:
            async for data in request.content.iter_any():
                body += data
                if len(body) > most:
                    return Refusal.LARGE
        except web.RequestPayloadError:
            return Refusal.GARBLED
    return Refusal.SLOW if patience.cancelled_caught else bytes(body)
