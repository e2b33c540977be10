"""A TCP proxy that misbehaves on command: late, cut off, or half open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import anyio
from anyio import CancelScope
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream, SocketAttribute


@dataclass
class FaultProxy:
    """Passes bytes on between whoever connects to `port` (loopback) and the server behind it."""

    server_host: str
    server_port: int
    port: int = 0
    delay: timedelta = timedelta(0)
    """How much later each piece arrives, in both directions."""
    is_half_open: bool = False
    """While true every byte is swallowed and nobody is told: connections look alive."""
    connections: int = 0
    """How many were ever accepted."""
    _open: set[CancelScope] = field(default_factory=set)
    _clients: set[ByteStream] = field(default_factory=set)

    def cut(self) -> None:
        """End all present connections."""
        for scope in self._open:
            scope.cancel()

    async def say(self, piece: bytes) -> None:
        """Send every client a piece as if it were the server's."""
        for client in self._clients:
            await client.send(piece)

    async def serve_connection(self, client: ByteStream) -> None:
        self.connections += 1
        # A server that is away cannot be connected to: its client is closed, and others go on.
        with (
            CancelScope() as scope,
            suppress(anyio.BrokenResourceError, anyio.EndOfStream, OSError),
        ):
            self._open.add(scope)
            async with (
                client,
                await anyio.connect_tcp(self.server_host, self.server_port) as server,
                anyio.create_task_group() as pumps,
            ):
                self._clients.add(client)
                pumps.start_soon(self._pump, client, server, pumps.cancel_scope)
                pumps.start_soon(self._pump, server, client, pumps.cancel_scope)
        self._open.discard(scope)
        self._clients.discard(client)

    async def _pump(
        self, source: ByteReceiveStream, target: ByteSendStream, both: CancelScope
    ) -> None:
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
            while True:
                piece = await source.receive()
                await anyio.sleep(self.delay.total_seconds())
                if not self.is_half_open:
                    await target.send(piece)
        # One direction's end is the end of both.
        both.cancel()


@asynccontextmanager
async def fault_proxy(server_host: str, server_port: int) -> AsyncIterator[FaultProxy]:
    """Serve a proxy on a free port of loopback for as long as the context lasts."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's, not Django's
    proxy = FaultProxy(server_host, server_port, port=port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, proxy.serve_connection)
        yield proxy
        tasks.cancel_scope.cancel()
