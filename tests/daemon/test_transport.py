import gzip
import re
import socket
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from anyio import TypedAttributeProvider
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from orchestrator.clock import boot_ns
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite, NotSent
from orchestrator.daemon.transport import POOLS, Pool, Transport, _Attempt, _open_socket
from orchestrator.providers.base import Request, Response

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LONG_S = 10.0
SHORT_S = 0.05
CERTIFICATE = Path(__file__).parent / "vectors" / "loopback.pem"

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


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def trusting_tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))


# What comes back whole


async def test_response_is_returned_whole_with_lower_case_headers() -> None:
    html = answer(b"<html>busy</html>", "X-Tt-LogId: 7", status="502 Bad Gateway")
    async with vendor(answering(html)) as served, open_transport() as transport:
        reply = await send(transport, served.request())
    assert reply == Response(
        status=502,
        headers={"content-length": "17", "x-tt-logid": "7"},
        body=b"<html>busy</html>",
    )


async def test_request_leaves_exactly_as_signed() -> None:
    seen: list[bytes] = []

    async def record(stream: ByteStream) -> None:
        seen.append(await read_request(stream))
        await stream.send(answer(b"{}"))

    async with vendor(record) as served, open_transport() as transport:
        await send(transport, served.request(path="/a%2Fb?x=%7E&y=a%20b", body=b'{"a": 1}'))
    head, _, body = seen[0].partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    assert first == b"POST /a%2Fb?x=%7E&y=a%20b HTTP/1.1"
    assert sorted(headers) == [
        b"Content-Length: 8",
        f"Host: 127.0.0.1:{served.port}".encode(),
        b"X-Signed: yes",
    ]
    assert body == b'{"a": 1}'


async def test_redirect_is_an_answer_and_not_followed() -> None:
    elsewhere = answer(b"", "Location: /elsewhere", status="307 Temporary Redirect")
    seen: list[bytes] = []

    async def record(stream: ByteStream) -> None:
        while request := await read_request(stream):
            seen.append(request)
            await stream.send(elsewhere)

    async with vendor(record) as served, open_transport() as transport:
        reply = await send(transport, served.request(method="GET", body=b""))
    assert isinstance(reply, Response)
    assert (reply.status, len(seen)) == (307, 1)


async def test_cookies_are_not_kept() -> None:
    seen: list[bytes] = []

    async def record(stream: ByteStream) -> None:
        while request := await read_request(stream):
            seen.append(request)
            await stream.send(answer(b"{}", "Set-Cookie: a=b; Path=/"))

    async with vendor(record) as served, open_transport() as transport:
        await send(transport, served.request())
        await send(transport, served.request())
    assert len(seen) == 2
    assert b"cookie" not in seen[1].lower()


async def test_compressed_body_is_decompressed() -> None:
    packed = answer(gzip.compress(b'{"Result":"ok"}'), "Content-Encoding: gzip")
    async with vendor(answering(packed)) as served, open_transport() as transport:
        reply = await send(transport, served.request())
    assert isinstance(reply, Response)
    assert reply.body == b'{"Result":"ok"}'


async def test_tls_with_a_trusted_certificate_works() -> None:
    async with (
        vendor(answering(answer(b"{}")), server_tls()) as served,
        open_transport(tls=trusting_tls()) as transport,
    ):
        reply = await send(transport, served.request())
    assert isinstance(reply, Response)


# What never left


async def test_refused_connection_is_not_sent() -> None:
    request = Vendor(hang, port=unused_port()).request()
    async with open_transport() as transport:
        reply = await send(transport, request)
    assert isinstance(reply, NotSent)
    assert reply.code == "ConnectFailed"


async def test_unknown_host_is_not_sent() -> None:
    # RFC 6761 keeps .invalid from ever resolving.
    request = replace(Vendor(hang).request(), url="http://vendor.invalid/")
    async with open_transport() as transport:
        reply = await send(transport, request)
    assert isinstance(reply, NotSent)
    assert reply.code == "DnsFailed"


async def test_untrusted_certificate_is_not_sent() -> None:
    seen: list[bytes] = []

    async def record(stream: ByteStream) -> None:
        seen.append(await read_request(stream))

    # The handshake fails on the server's side too; that is this server's own affair.
    async with vendor(hang) as plain, open_transport() as transport:
        not_tls = replace(plain.request(), url=f"https://127.0.0.1:{plain.port}/")
        reply = await send(transport, not_tls, within_s=SHORT_S)
        assert isinstance(reply, NotSent)
        assert reply.code == "ConnectTimeout"
    async with vendor(record, server_tls()) as served, open_transport() as transport:
        reply = await send(transport, served.request())
    assert isinstance(reply, NotSent)
    assert reply.code == "TlsFailed"
    assert seen == []


async def test_server_that_speaks_no_tls_is_not_sent() -> None:
    async def speak_http(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(answer(b"this is not TLS"))
        await anyio.sleep_forever()

    async with vendor(speak_http) as served, open_transport() as transport:
        request = replace(served.request(), url=f"https://127.0.0.1:{served.port}/")
        reply = await send(transport, request)
    assert isinstance(reply, NotSent)
    assert reply.code == "TlsFailed"


async def test_connection_that_closes_during_the_handshake_is_not_sent() -> None:
    async def leave(stream: ByteStream) -> None:
        await stream.receive()

    async with vendor(leave) as served, open_transport() as transport:
        request = replace(served.request(), url=f"https://127.0.0.1:{served.port}/")
        reply = await send(transport, request)
    assert isinstance(reply, NotSent)


async def test_host_that_never_accepts_is_not_sent() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port: int = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        async with open_transport() as transport:
            reply = await send(transport, Vendor(hang, port=port).request(), within_s=SHORT_S)
        for filler in fillers:
            filler.close()
    assert isinstance(reply, NotSent)
    assert reply.code == "ConnectTimeout"


async def test_passed_deadline_opens_no_connection() -> None:
    async with vendor(hang) as served, open_transport() as transport:
        reply = await transport.send(
            served.request(), deadline_ns=boot_ns(), work_class=WorkClass.STOP
        )
        assert served.connections == 0
    assert isinstance(reply, NotSent)
    assert reply.code == "DeadlinePassed"


async def test_deadline_that_passes_while_connecting_sends_nothing() -> None:
    # As when the host sleeps during the handshake: the timer is late, the clock is not.
    seen: list[bytes] = []

    async def record(stream: ByteStream) -> None:
        seen.append(await read_request(stream))

    async with vendor(record) as served, open_transport() as transport:
        attempt = _Attempt(deadline_ns=boot_ns())
        with pytest.raises(TimeoutError):
            await transport._exchange(served.request(), WorkClass.START, attempt)
        assert not attempt.has_begun
        verdict = await transport._judge(attempt, TimeoutError())
    assert verdict == NotSent(code="ConnectTimeout", message="the deadline passed")
    assert seen in ([], [b""])


# What nobody knows


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        pytest.param(reset, "ConnectionReset", id="reset"),
        pytest.param(answering_once(b""), "Disconnected", id="closed without an answer"),
        pytest.param(
            answering_once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
            "UnreadableResponse",
            id="half a body",
        ),
        pytest.param(answering_once(b"HTTP/1.1 200 OK\r\nConte"), "Disconnected", id="half a head"),
        pytest.param(answering(b"220 mail.example ESMTP\r\n"), "UnreadableResponse", id="not HTTP"),
        pytest.param(
            answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            "UnreadableResponse",
            id="broken chunks",
        ),
        pytest.param(
            answering(answer(b"not gzip", "Content-Encoding: gzip")),
            "UnreadableResponse",
            id="broken gzip",
        ),
        pytest.param(
            answering(answer(b"{}", "X-Long: " + "x" * 20_000)),
            "UnreadableResponse",
            id="endless header",
        ),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_no_whole_answer_is_indefinite_and_never_repeated(
    handler: Handler, code: str, method: str
) -> None:
    async with vendor(handler) as served, open_transport() as transport:
        reply = await send(transport, served.request(method=method))
        assert served.connections == 1
    assert isinstance(reply, Indefinite)
    assert (reply.code, reply.reset_at) == (code, NOW)


async def test_get_on_a_kept_connection_that_closes_is_not_repeated() -> None:
    requests = 0

    async def answer_one_take_two(stream: ByteStream) -> None:
        nonlocal requests
        while await read_request(stream):
            requests += 1
            if requests > 1:
                return
            await stream.send(answer(b"{}"))

    async with vendor(answer_one_take_two) as served, open_transport() as transport:
        look = served.request(method="GET", body=b"")
        first = await send(transport, look, work_class=WorkClass.OBSERVE)
        second = await send(transport, look, work_class=WorkClass.OBSERVE)
        assert served.connections == 1
    assert isinstance(first, Response)
    assert isinstance(second, Indefinite)
    assert requests == 2


async def test_timeout_resets_the_connection_and_says_when() -> None:
    ended: list[BaseException | None] = []
    over = anyio.Event()

    async def wait_for_the_end(stream: ByteStream) -> None:
        await read_request(stream)
        with pytest.raises(anyio.BrokenResourceError) as broken:
            await stream.receive()
        ended.append(broken.value.__cause__)
        over.set()

    async with vendor(wait_for_the_end) as served, open_transport() as transport:
        reply = await send(transport, served.request(), within_s=SHORT_S)
        with anyio.fail_after(LONG_S):
            await over.wait()
    assert reply == Indefinite(code="Timeout", message="the deadline passed", reset_at=NOW)
    assert isinstance(ended[0], ConnectionResetError)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
async def test_unsent_bytes_die_with_a_timeout(encrypted: bool) -> None:
    body = bytes((1 << 20) - 1)
    received = 0
    go_on = anyio.Event()
    over = anyio.Event()

    async def read_late(stream: ByteStream) -> None:
        nonlocal received
        try:
            received += len(await stream.receive(1))
            await go_on.wait()
            while True:
                received += len(await stream.receive(1 << 20))
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            over.set()

    async with (
        vendor(read_late, server_tls() if encrypted else None) as served,
        open_transport(tls=trusting_tls()) as transport,
    ):
        reply = await send(transport, served.request(body=body), within_s=0.2)
        go_on.set()
        with anyio.fail_after(LONG_S):
            await over.wait()
    assert isinstance(reply, Indefinite)
    assert 0 < received < len(body)


async def test_cancelled_call_resets_the_connection_too() -> None:
    taken = anyio.Event()
    over = anyio.Event()

    async def wait_for_the_end(stream: ByteStream) -> None:
        await read_request(stream)
        taken.set()
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()
        over.set()

    async with vendor(wait_for_the_end) as served, open_transport() as transport:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, transport, served.request())
            await taken.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(LONG_S):
            await over.wait()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip bomb"])
async def test_thirty_megabytes_are_refused_in_bounded_memory(packed: bool) -> None:
    chunk = b"\0" * 65_536
    length = 30 << 20
    bomb = answer(gzip.compress(bytes(length)), "Content-Encoding: gzip")

    async def flood(stream: ByteStream) -> None:
        await read_request(stream)
        if packed:
            await stream.send(bomb)
            await anyio.sleep_forever()
        await stream.send(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode())
        for _ in range(length // len(chunk)):
            await stream.send(chunk)

    async with vendor(flood) as served, open_transport() as transport:
        request = served.request()
        tracemalloc.start()
        try:
            reply = await send(transport, request)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(reply, Indefinite)
    assert (reply.code, reply.reset_at) == ("ResponseTooLarge", NOW)
    assert peak_bytes < 8 << 20


# Connections


async def test_a_class_never_waits_for_another_class() -> None:
    starts = 0
    full = anyio.Event()

    async def answer_stops(stream: ByteStream) -> None:
        nonlocal starts
        while request := await read_request(stream):
            if request.startswith(b"POST /start"):
                starts += 1
                if starts == 2:
                    full.set()
                await anyio.sleep_forever()
            await stream.send(answer(b"{}"))

    pools = {each: Pool(connections=2, idle=timedelta(seconds=9)) for each in WorkClass}
    async with (
        vendor(answer_stops) as served,
        open_transport(pools=pools) as transport,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(5):
            tasks.start_soon(send, transport, served.request(path="/start"))
        await full.wait()
        late = await send(transport, served.request(path="/start"), within_s=SHORT_S)
        reply = await send(transport, served.request(path="/stop"), work_class=WorkClass.STOP)
        assert served.connections == 3
        tasks.cancel_scope.cancel()
    assert isinstance(late, NotSent)
    assert late.code == "ConnectTimeout"
    assert isinstance(reply, Response)


@pytest.mark.parametrize(("idle_s", "connections"), [(30.0, 1), (0.0, 2)])
async def test_connection_idle_for_too_long_is_not_used_again(
    idle_s: float, connections: int
) -> None:
    pools = {each: Pool(connections=2, idle=timedelta(seconds=30)) for each in WorkClass}
    pools[WorkClass.START] = Pool(connections=2, idle=timedelta(seconds=idle_s))
    async with vendor(answering(answer(b"{}"))) as served, open_transport(pools=pools) as transport:
        await send(transport, served.request())
        await send(transport, served.request())
        assert served.connections == connections


def test_a_start_never_leaves_on_a_connection_idle_for_five_seconds() -> None:
    assert POOLS[WorkClass.START].idle < timedelta(seconds=5)


async def test_sockets_are_opened_to_die_with_their_bytes() -> None:
    opened = _open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1)))
    with opened:
        linger = struct.unpack("ii", opened.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    assert linger == (1, 0)


# What is told


@pytest.mark.parametrize("handler", [reset, answering(b"what?\r\n"), answering_once(b"")])
async def test_no_message_shows_the_query_which_may_hold_a_signature(handler: Handler) -> None:
    async with vendor(handler) as served, open_transport() as transport:
        reply = await send(transport, served.request(path="/?Signature=abcdef"))
    assert isinstance(reply, Indefinite)
    assert "abcdef" not in reply.message
    assert len(reply.message) <= 300


# The vendor's clock


@pytest.mark.parametrize(
    ("date", "offset"),
    [
        ("Sun, 01 Mar 2026 12:00:05 GMT", timedelta(seconds=5.5)),
        ("Sun, 01 Mar 2026 11:58:00 GMT", timedelta(seconds=-119.5)),
        ("Sun, 01 Mar 2026 20:00:00 +0800", timedelta(seconds=0.5)),
        ("Sunday, 01-Mar-26 12:00:00 GMT", timedelta(seconds=0.5)),
        ("soon", None),
        ("Sun, 99 Mar 2026 12:00:00 GMT", None),
    ],
)
async def test_date_of_the_vendor_is_compared_with_ours(
    date: str, offset: timedelta | None
) -> None:
    dates = Dates()
    raw = answer(b"{}", f"Date: {date}")
    async with vendor(answering(raw)) as served, open_transport(dates=dates) as transport:
        await send(transport, served.request())
    expected = [] if offset is None else [(f"127.0.0.1:{served.port}", offset)]
    assert dates.seen == expected
