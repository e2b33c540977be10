"""Waiting for a database that is away: one line says why, then it is tried until it is there.

Rule 1: a start gives up on what waiting will not mend (`DatabaseRefuses`): a person must put it
right, and hears of it at once. A daemon that runs gives up on nothing.
Rule 2: the pauses grow, to a bound that nobody minds to wait when the database is back.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
import structlog

from orchestrator.daemon.sd_notify import Notifier
from orchestrator.store.engine import DatabaseAway, DatabaseRefuses

RETRY_FIRST_S: Final = 0.2
RETRY_LAST_S: Final = 5.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def reach_at_start(work: Callable[[], Awaitable[T]], notifier: Notifier) -> T:
    """Return what `work` returns, as soon as its database can be reached; tell the service manager.

    Raises DatabaseRefuses, and whatever else `work` raises but DatabaseAway.
    """
    attempt = _Attempt()
    while True:
        try:
            return await work()
        except DatabaseRefuses:
            raise
        except DatabaseAway as error:
            notifier.status(f"waiting for the database: {error}")
            await attempt.wait(error)


async def reach_again(work: Callable[[], Awaitable[T]]) -> T:
    """Return what `work` returns, as soon as its database can be reached, whatever it says."""
    attempt = _Attempt()
    while True:
        try:
            return await work()
        except DatabaseAway as error:
            await attempt.wait(error)


class _Attempt:
    """The pauses of one attempt, and its one line."""

    def __init__(self) -> None:
        self._wait_s = RETRY_FIRST_S
        self._told = False

    async def wait(self, error: DatabaseAway) -> None:
        if not self._told:
            log.warning("database_away", error=str(error), message="trying until it is there")
        self._told = True
        await anyio.sleep(self._wait_s)
        self._wait_s = min(RETRY_LAST_S, self._wait_s * 2)
