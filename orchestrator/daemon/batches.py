"""How single things become batches: what came meanwhile goes together, and one alone goes at once.

A transaction costs more than what is written in it. So while things come quickly a moment is waited
for more of them; a single one never waits.
"""

from collections.abc import AsyncIterator
from typing import Final, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

T = TypeVar("T")

BUSY: Final = 4
GATHER_S: Final = 0.01
"""After a batch of `BUSY` things the next one gathers for so long."""


async def gather(stream: MemoryObjectReceiveStream[T], most: int) -> AsyncIterator[list[T]]:
    """Yield batches of up to `most` things until the stream is closed and empty.

    While one batch is dealt with, the next one gathers.
    """
    is_busy = False
    async for first in stream:
        if is_busy:
            await anyio.sleep(GATHER_S)
        batch = [first]
        while len(batch) < most and stream.statistics().current_buffer_used:
            batch.append(stream.receive_nowait())
        yield batch
        is_busy = len(batch) >= BUSY
