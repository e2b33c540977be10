"""A reading that many may ask for: made by one, one at a time, and kept for a while.

Rule 1: nothing is read while nobody asks.
Rule 2: who asks waits for `PATIENCE_S` at most, whatever the reading waits for, and hears then
that there is none. An old reading is never given for a new one.
Rule 3: what a reading costs decides how long it is kept, so that no number of askers can make it
cost more than a small part of the time.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import anyio
import structlog

from orchestrator.clock import boot_ns
from orchestrator.errors import OrchestratorError
from orchestrator.store.engine import StatementError

PATIENCE_S: Final = 3.0
"""Prometheus gives up after 10 s, an orchestrator of containers after one or a few."""
READ_WITHIN_S: Final = 30.0
"""Then a reading is given up, so that the next one may find a connection that is not dead."""
SHARE: Final = 20
"""A reading is kept for so many times as long as it took …"""
KEPT_MAX_S: Final = 60.0
"""… but not for longer than this: alerts go by it."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Missing(str):
    """Why there is no reading: one line, without secrets."""

    __slots__ = ()


class Cached(Generic[T]):
    """Shares what `read` returns for `keep_s` seconds, or longer if it takes long."""

    def __init__(self, read: Callable[[], Awaitable[T]], keep_s: float) -> None:
        self._read = read
        self._keep_ns = int(keep_s * 1e9)
        self._good_until_ns = 0
        self._latest: T | Missing = Missing("nothing was read yet")
        self._wanted, self._came = anyio.Event(), anyio.Event()

    async def get(self) -> T | Missing:
        """Return a reading that is fresh, or why there is none."""
        if boot_ns() < self._good_until_ns:
            return self._latest
        self._wanted.set()
        with anyio.move_on_after(PATIENCE_S):
            await self._came.wait()
            return self._latest
        return Missing(f"the database has not answered for {PATIENCE_S:.0f} s")

    async def run(self) -> None:
        """Read for ever, whenever somebody asks."""
        while True:
            await self._wanted.wait()
            began_ns = boot_ns()
            self._latest = await self._try()
            self._good_until_ns = boot_ns() + self._keep_for_ns(boot_ns() - began_ns)
            self._came.set()
            self._wanted, self._came = anyio.Event(), anyio.Event()

    def _keep_for_ns(self, took_ns: int) -> int:
        if isinstance(self._latest, Missing):
            return self._keep_ns
        return max(self._keep_ns, min(SHARE * took_ns, int(KEPT_MAX_S * 1e9)))

    async def _try(self) -> T | Missing:
        try:
            with anyio.fail_after(READ_WITHIN_S):
                return await self._read()
        except TimeoutError:
            return Missing(f"the database has not answered for {READ_WITHIN_S:.0f} s")
        except (OrchestratorError, StatementError) as error:
            return Missing(str(error).partition("\n")[0])
        except Exception as error:
            # Who asks for numbers must not end the daemon.
            log.exception("reading_failed")
            return Missing(type(error).__name__)
