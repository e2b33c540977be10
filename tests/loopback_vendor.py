"""A vendor on loopback that treats its connections as one handler says, and a way to call it."""

import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
from anyio import TypedAttributeProvider
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from orchestrator.clock import boot_ns
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite, NotSent
from orchestrator.daemon.transport import POOLS, Pool, Transport
from orchestrator.providers.base import Request, Response

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LONG_S = 10.0
SHORT_S = 0.05
CERTIFICATE = Path(__file__).parent / "daemon" / "vectors" / "loopback.pem"

Handler = Callable[[ByteStream], Awaitable[None]]


@dataclass
class Vendor:
    """A server on loopback that behaves as one handler says, connection by connection."""

    handler: Handler
    port: int = 0
    connections: int = 0
    scheme: str = "http"

    async def serve_connection(self, stream: ByteStream) -> None:
        self.connections += 1
        # The client ends every connection by a reset, so this is an end like any other.
        with suppress(anyio.BrokenResourceError):
            async with stream:
                await self.handler(stream)

    def request(self, *, path: str = "/", method: str = "POST", body: bytes = b"{}") -> Request:
        return Request(
            action="Start",
            method=method,
            url=f"{self.scheme}://127.0.0.1:{self.port}{path}",
            headers={"X-Signed": "yes"},
            body=body,
        )


def raw_socket(of: TypedAttributeProvider) -> socket.socket:
    return of.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's `extra`, not Django's


@asynccontextmanager
async def vendor(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Vendor]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    # Small, so that what is not read stays with the client.
    raw = raw_socket(listener)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    served = Vendor(handler, port=raw.getsockname()[1])
    async with listener, anyio.create_task_group() as tasks:
        if tls is None:
            tasks.start_soon(listener.serve, served.serve_connection)
        else:
            served.scheme = "https"
            wrapped = TLSListener(listener, tls, standard_compatible=False)
            tasks.start_soon(wrapped.serve, served.serve_connection)
        yield served
        tasks.cancel_scope.cancel()


@dataclass
class Dates:
    seen: list[tuple[str, timedelta]] = field(default_factory=list)

    def note(self, host: str, offset: timedelta) -> None:
        self.seen.append((host, offset))


def open_transport(
    *,
    pools: Mapping[WorkClass, Pool] = POOLS,
    dates: Dates | None = None,
    tls: ssl.SSLContext | None = None,
) -> Transport:
    return Transport(now=lambda: NOW, on_date=(dates or Dates()).note, pools=pools, tls=tls)


def deadline(seconds: float) -> int:
    return boot_ns() + int(seconds * 1e9)


async def send(
    transport: Transport,
    request: Request,
    *,
    within_s: float = LONG_S,
    work_class: WorkClass = WorkClass.START,
) -> Response | NotSent | Indefinite:
    return await transport.send(request, deadline_ns=deadline(within_s), work_class=work_class)


async def read_request(stream: ByteStream) -> bytes:
    """Return the next request, or what came of it before the end; empty if none came."""
    received = b""
    while b"\r\n\r\n" not in received:
        try:
            received += await stream.receive()
        except anyio.EndOfStream:
            return received
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += await stream.receive()
    return head + b"\r\n\r\n" + body


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def answering(raw: bytes) -> Handler:
    """Answer every request with the same bytes."""

    async def handle(stream: ByteStream) -> None:
        while await read_request(stream):
            await stream.send(raw)

    return handle


def answering_once(raw: bytes) -> Handler:
    """Answer one request, then close the connection."""

    async def handle(stream: ByteStream) -> None:
        await read_request(stream)
        await stream.send(raw)

    return handle


async def hang(stream: ByteStream) -> None:
    await read_request(stream)
    await anyio.sleep_forever()


async def reset(stream: ByteStream) -> None:
    await read_request(stream)
    raw_socket(stream).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def trusting_tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))
