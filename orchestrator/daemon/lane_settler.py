"""Collects what commands came to, and settles it: at once while few come, many together else.

Rule 1: an outcome is tried to be written for as long as its lane's lease lasts. After that whoever
takes the lane over knows that it is unknown.
Rule 2: an outcome that cannot be written keeps no other back.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import anyio
import structlog

from orchestrator.clock import boot_ns
from orchestrator.core.model import WorkClass
from orchestrator.daemon.lane_settle import CommandSettlement, LaneSettling, settle_lanes
from orchestrator.store.engine import Database, is_passing

BATCH_MAX: Final = 32
"""New outcomes in one transaction: SQLite's one lock is held for about 2 ms."""
LOCKED_WAIT_S: Final = 0.01
"""How soon what others had locked is tried again."""
AWAY_WAIT_S: Final = 0.1
QUEUE_MAX: Final = 1024

log = structlog.get_logger(__name__)


class LaneSettler:
    """Takes what commands came to from their calls, and writes it."""

    def __init__(
        self, database: Database, settling: LaneSettling, nudge: Callable[[], None]
    ) -> None:
        self._database = database
        self._settling = settling
        self._nudge = nudge
        self._send, self._receive = anyio.create_memory_object_stream[CommandSettlement](QUEUE_MAX)

    async def put(self, settlement: CommandSettlement) -> None:
        """Hand over what a command came to."""
        await self._send.send(settlement)

    def finish(self) -> None:
        """Take nothing more: `run` ends when all is settled."""
        self._send.close()

    async def run(self) -> None:
        """Settle until `finish`, and then what is left. While one batch is written, one gathers."""
        left: Sequence[CommandSettlement] = ()
        with self._receive:
            while batch := await self._gather(left):
                left = await self._settle(batch)
                if len(left) < len(batch):
                    self._nudge()

    async def _gather(self, left: Sequence[CommandSettlement]) -> list[CommandSettlement]:
        """Return what is left and still has its lease, and what came since; empty: it is the end.

        What others have locked is tried again with the next ones, which do not wait for it.
        """
        batch = [one for one in left if boot_ns() < one.order.lease_ends_ns]
        most = len(batch) + BATCH_MAX
        with suppress(anyio.WouldBlock, anyio.EndOfStream):
            if not batch:
                batch.append(await self._receive.receive())
            while len(batch) < most:
                batch.append(self._receive.receive_nowait())
        return batch

    async def _settle(self, batch: Sequence[CommandSettlement]) -> Sequence[CommandSettlement]:
        """Settle what can be settled now; return the others, after a pause."""
        try:
            left = await self._write(batch)
        except Exception as error:
            if is_passing(error):
                log.warning("commands_unsettled", commands=len(batch), error=str(error))
                await anyio.sleep(AWAY_WAIT_S)
                return batch
            log.exception("commands_unsettled", commands=len(batch))
            left = await self._settle_each(batch)
        if left:
            await anyio.sleep(LOCKED_WAIT_S)
        return left

    async def _settle_each(self, batch: Sequence[CommandSettlement]) -> list[CommandSettlement]:
        """Settle each alone; return what is to be settled later."""
        later: list[CommandSettlement] = []
        for number, one in enumerate(batch):
            try:
                later += await self._write([one])
            except Exception as error:
                if is_passing(error):
                    return [*later, *batch[number:]]
                log.exception("outcome_lost", command_id=one.order.flight.command.id)
        return later

    async def _write(self, batch: Sequence[CommandSettlement]) -> list[CommandSettlement]:
        """Settle in one transaction; return what others have locked."""
        return await self._database.write(
            settle_lanes, self._settling, batch, durable=False, work_class=WorkClass.LISTENING
        )
