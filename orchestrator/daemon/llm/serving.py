"""The gateway as a whole: what is started beside its server, and how it ends."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from orchestrator.daemon.book import Book
from orchestrator.daemon.llm.callers import Callers
from orchestrator.daemon.llm.frame import LlmFrame
from orchestrator.daemon.llm.host import Desk
from orchestrator.daemon.llm.scribe import Scribe
from orchestrator.daemon.llm.server import LlmServer
from orchestrator.daemon.llm.upstream import UpstreamClient
from orchestrator.daemon.llm.witness import Witness
from orchestrator.daemon.monitoring.llm_meter import LlmMeter
from orchestrator.daemon.recorder import Desk as RecorderDesk
from orchestrator.daemon.recorder import Recorder


@asynccontextmanager
async def serve_llm(
    bound: socket.socket, frame: LlmFrame, book: Book, meter: LlmMeter, desk: RecorderDesk
) -> AsyncIterator[None]:
    """Serve the vendors' agents while the context is open; write what is left when it closes."""
    scribe, callers, recorder = Scribe(desk.database), Callers(desk.database), Recorder(desk)
    async with anyio.create_task_group() as writing:
        for work in (scribe.run, recorder.run, callers.run):
            writing.start_soon(work)
        try:
            async with anyio.create_task_group() as aside, UpstreamClient(aside) as client:
                served = Desk(
                    frame=frame,
                    book=book,
                    client=client,
                    callers=callers,
                    witness=Witness(desk.database, recorder),
                    scribe=scribe,
                    meter=meter,
                    aside=aside,
                )
                async with LlmServer(served).serve(bound):
                    yield
                    # From here on all that is waited for is bounded, and what was said is written,
                    # however little time the calls have.
                    writing.cancel_scope.shield = True
        finally:
            callers.finish()
            recorder.finish()
            scribe.finish()
