import gzip
import socket
import struct
import tracemalloc
from datetime import timedelta

import anyio
import pytest
from anyio.abc import ByteStream

from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite, NotSent
from orchestrator.daemon.transport import POOLS, Pool, _open_socket
from orchestrator.providers.base import Response
from tests.loopback_vendor import (
    LONG_S,
    NOW,
    SHORT_S,
    answer,
    answering,
    open_transport,
    read_request,
    send,
    server_tls,
    trusting_tls,
    vendor,
)

pytestmark = pytest.mark.anyio

# The end of a connection


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
