"""How a running daemon looks to its service manager: ready, alive, and in one line what it does.

Rule 1: a sign of life is given by the loops' own turns, in the turn that completes a round: both
have turned since the last sign. A timer would speak for a daemon that hangs.
Rule 2: a daemon whose database is away turns, so it is alive; to end it would help nobody.
"""

from collections.abc import Callable
from typing import Final

import anyio

from orchestrator.clock import boot_ns
from orchestrator.daemon.pulse import Pulse
from orchestrator.daemon.sd_notify import Notifier
from orchestrator.store.engine import Database, DatabaseAway, StatementError
from orchestrator.store.headline import Headline, read_headline

STATUS_EVERY_S: Final = 5.0
SIGNS_PER_PATIENCE: Final = 4
"""Signs of life in the time that the service manager waits for one."""


class Service:
    """Tells the service manager how a daemon is, from the moment it is made.

    Args:
        notifier: the way to the service manager.
        pulse: tells when the loops turn.
        database: for the line of figures.
        is_draining: whether the daemon is on its way out.
    """

    def __init__(
        self,
        notifier: Notifier,
        pulse: Pulse,
        database: Database,
        is_draining: Callable[[], bool],
    ) -> None:
        self._notifier = notifier
        self._pulse = pulse
        self._database = database
        self._is_draining = is_draining
        self._is_ready = False
        self._signed_ns = boot_ns()
        every_s = (notifier.watchdog_s or 0) / SIGNS_PER_PATIENCE
        self._every_ns = int(every_s * 1e9) if notifier.watchdog_s else None
        pulse.on_turn(self._on_turn)

    async def describe(self) -> None:
        """Keep the line of figures fresh, until cancelled."""
        if not self._notifier.is_heard:
            return
        while True:
            self._notifier.status(await self._line())
            await anyio.sleep(STATUS_EVERY_S)

    def _on_turn(self) -> None:
        if not self._is_ready and self._pulse.ready.is_set():
            self._is_ready = self._notifier.ready()
        if self._every_ns is None:
            return
        # Every loop has turned since the last sign, and that sign is old enough.
        if self._pulse.turned_ns > self._signed_ns and boot_ns() - self._signed_ns > self._every_ns:
            self._signed_ns = boot_ns()
            self._notifier.alive()

    async def _line(self) -> str:
        try:
            figures = spell(await self._database.read(read_headline))
        except DatabaseAway as error:
            return f"waiting for the database: {error}"
        except StatementError:
            return "the figures cannot be read"
        return f"draining: {figures}" if self._is_draining() else figures


def spell(found: Headline) -> str:
    """Return figures as a person reads them."""
    least = "at least " if found.is_partial else ""
    return (
        f"{least}{found.running} running, {found.starting} starting, {found.stopping} stopping; "
        f"{found.unconverged} not as desired, {found.orphans} orphans"
    )
