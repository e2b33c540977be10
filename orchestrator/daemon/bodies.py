"""Reads the body of a request that somebody sends us, for no longer than is bearable.

Rule 1: what a sender can make us keep or wait for is bounded: bytes and seconds.
"""

from enum import Enum, auto
from typing import Final

import anyio
from aiohttp import web

BODY_WITHIN_S: Final = 10.0
LINGER_S: Final = 1.0
"""How long the rest of a refused body is read, unseen, so that its sender reads the answer."""


class Unread(Enum):
    """Why a body was not read to its end."""

    LARGE = auto()
    SLOW = auto()
    GARBLED = auto()  # it is no HTTP, or ends too soon


async def read_body(request: web.Request, most: int) -> bytes | Unread:
    """Return the body, or why it was not read to its end. `most`: bytes."""
    if (request.content_length or 0) > most:
        return Unread.LARGE
    body = bytearray()
    with anyio.move_on_after(BODY_WITHIN_S) as patience:
        try:
            async for data in request.content.iter_any():
                body += data
                if len(body) > most:
                    return Unread.LARGE
        except web.RequestPayloadError:
            return Unread.GARBLED
    return Unread.SLOW if patience.cancelled_caught else bytes(body)
