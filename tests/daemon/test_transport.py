import gzip
import socket
from dataclasses import replace
from datetime import timedelta

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from orchestrator.clock import boot_ns
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite, NotSent
from orchestrator.daemon.transport import _Attempt, _hold_nothing
from orchestrator.providers.base import Response
from tests.loopback_vendor import (
    NOW,
    SHORT_S,
    Dates,
    Handler,
    Vendor,
    answer,
    answering,
    answering_once,
    deadline,
    hang,
    open_transport,
    read_request,
    reset,
    send,
    server_tls,
    trusting_tls,
    vendor,
)
from tests.ports import unused_port

pytestmark = pytest.mark.anyio

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

    async with vendor(record, server_tls()) as served, open_transport() as transport:
        reply = await send(transport, served.request())
    assert isinstance(reply, NotSent)
    assert reply.code == "TlsFailed"
    assert seen == []


async def test_server_that_hangs_in_the_handshake_is_not_sent() -> None:
    async with vendor(hang) as served, open_transport() as transport:
        request = replace(served.request(), url=f"https://127.0.0.1:{served.port}/")
        reply = await send(transport, request, within_s=SHORT_S)
    assert isinstance(reply, NotSent)
    assert reply.code == "ConnectTimeout"


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
        attempt = _Attempt(boot_ns(), _hold_nothing)
        with pytest.raises(TimeoutError):
            await transport._exchange(served.request(), WorkClass.START, attempt)
        assert not attempt.has_begun
        verdict = await transport._judge(attempt, TimeoutError())
    assert verdict == NotSent(code="ConnectTimeout", message="the deadline passed")
    assert seen in ([], [b""])


@pytest.mark.parametrize("verdict", [None, NotSent(code="TooLate")])
async def test_a_request_is_held_when_its_connection_stands(verdict: NotSent | None) -> None:
    held: list[bool] = []

    async with vendor(answering(answer(b"{}"))) as served, open_transport() as transport:

        async def hold() -> NotSent | None:
            with anyio.fail_after(SHORT_S * 20):
                while not served.connections:  # it is the other side that counts them
                    await checkpoint()
            held.append(True)
            return verdict

        reply = await transport.send(
            served.request(), deadline_ns=deadline(5), work_class=WorkClass.STOP, hold=hold
        )
        assert held == [True]
    assert (reply if verdict else reply.status) == (verdict or 200)  # type: ignore[union-attr]  # a response


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
