"""Whether a notification arrives at all: asked once, for `check`.

It is sent by another connection than the one that listens, as in life. Through a transaction pooler
that makes the difference: there LISTEN succeeds, and nothing ever comes.

Rule 1: it changes nothing and wakes nobody: the channel is its own.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import anyio
import asyncpg

from orchestrator.clock import boot_ns
from orchestrator.store.engine import DatabaseAway

CHANNEL: Final = "orchestrator_check"
PATIENCE_S: Final = 5.0
"""For each step; a notification takes less than a millisecond."""


async def time_notification(
    url: str, tell: Callable[[str, str], Awaitable[object]]
) -> timedelta | None:
    """Return how long a notification took to a connection at `url` (libpq's form); null: never.

    Args:
        url: where to listen.
        tell: sends a text (second) by a channel (first), and returns when that is committed.

    Raises:
        DatabaseAway: one cannot connect or listen there. Without the URL: it may hold a password.
        Exception: what `tell` raises.
    """
    text, heard = uuid4().hex, anyio.Event()

    def hear(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        if payload == text:
            heard.set()

    connection = await _listen(url, hear)
    try:
        sent_ns = boot_ns()
        await tell(CHANNEL, text)
        with anyio.move_on_after(PATIENCE_S):
            await heard.wait()
            return timedelta(microseconds=(boot_ns() - sent_ns) // 1_000)
        return None
    finally:
        connection.terminate()


async def _listen(
    url: str, hear: Callable[[Any, int, str, object], None]
) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        connection = await asyncpg.connect(url, timeout=PATIENCE_S)
        with anyio.fail_after(PATIENCE_S):
            await connection.add_listener(CHANNEL, hear)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseAway(str(error) or type(error).__name__) from error
    return connection
