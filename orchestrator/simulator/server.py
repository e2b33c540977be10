"""The simulated vendors on a port: bytes in, a vendor and a call; an answer or a fault, bytes out.

Rule 1: requests are told apart by their shape alone, since a vendor's SDK knows only a host.
Rule 2: what goes wrong at the level of the connection goes wrong here; the vendors do not know it.
Rule 3: a delayed request takes effect even if its client has gone: that is the case worth having.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from http import HTTPStatus

import anyio
from aiohttp import web

from orchestrator.simulator.control import add_control_routes
from orchestrator.simulator.courier import Courier
from orchestrator.simulator.echo_model import add_model_routes
from orchestrator.simulator.faults import ANY_ACTION, Fault, Kind
from orchestrator.simulator.simulation import Simulator
from orchestrator.simulator.speech import Speech
from orchestrator.simulator.wire import Answer, Call
from orchestrator.simulator.world import Vendor

LARGEST_BODY = 10 * 2**20
"""Bytes of a request that are read, Tencent's limit for a POST."""
HUGE_BODY = 30 * 2**20
"""Bytes of the `huge` fault's answer."""
HANG_S = 300
"""How long a hanging answer hangs if the client never gives up."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CHUNK = b" " * 2**20
_HTML = b"<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"
_ZEGO_MARKS = frozenset({"SignatureNonce", "SignatureVersion", "Signature", "Timestamp"})


class Server:
    """Answers requests on behalf of the vendors of one simulator."""

    def __init__(self, simulator: Simulator, courier: Courier, speech: Speech) -> None:
        self._simulator = simulator
        self._courier = courier
        self._speech = speech
        self._closing: anyio.Event | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, app: web.Application) -> None:  # noqa: ARG002 - aiohttp's signature
        """Prepare for requests, in the loop that will bring them."""
        self._closing = anyio.Event()
        for work in (self._courier.run(), self._speech.run()):
            self._tasks.append(
                asyncio.create_task(work)  # noqa: TID251 - lives as long as the application
            )

    async def close(self, app: web.Application) -> None:  # noqa: ARG002 - aiohttp's signature
        """Let go of every request that hangs or is delayed; carry and say nothing any more."""
        if self._closing is not None:
            self._closing.set()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one vendor call, or let it meet its fault."""
        body = await request.read()
        call = self._read_call(request, body)
        if call is None:
            return web.json_response(_unknown_shape(), status=HTTPStatus.NOT_FOUND)
        fault = self._simulator.faults.draw(call.action, ANY_ACTION)
        if fault is None:
            answer = self._simulator.serve(call)
            self._simulator.calls.add(call, answer.code, answer.status, None)
            return _response(answer, call.at)
        return await self._answer_with_fault(request, call, fault)

    async def _answer_with_fault(
        self, request: web.Request, call: Call, fault: Fault
    ) -> web.StreamResponse:
        if fault.kind is Kind.DELAY:
            await self._wait(fault.ms / 1000)
            self._arrive(call)
        answer = self._answer_before_fault(call, fault)
        sent = None if answer is None else _spoil(answer, fault.kind)
        self._simulator.calls.add(
            call, answer.code if answer else "", sent.status if sent else None, fault.kind
        )
        match fault.kind:
            case Kind.HANG:
                await self._wait(HANG_S)
            case Kind.DELAY_REPLY:
                await self._wait(fault.ms / 1000)
            case Kind.HUGE:
                return await _send_huge(request)
            case _:
                pass
        return _reset(request) if sent is None else _response(sent, self._simulator.clock())

    def _answer_before_fault(self, call: Call, fault: Fault) -> Answer | None:
        """Let the call have its effect, unless the fault comes before it."""
        match fault.kind:
            case Kind.LOSE_REQUEST:
                return None
            case Kind.THROTTLE:
                return self._simulator.throttle(call)
            case Kind.CODE:
                return self._simulator.refuse(call, fault)
            case Kind.DIES:
                return self._simulator.serve_stillborn(call)
            case _:
                return self._simulator.serve(call)

    def _arrive(self, call: Call) -> None:
        """Let the call be as late as it is."""
        call.at = self._simulator.clock()
        call.world_at = self._simulator.world_time(call.at)

    async def _wait(self, seconds: float) -> None:
        if self._closing is not None:
            with anyio.move_on_after(seconds):
                await self._closing.wait()

    def _read_call(self, request: web.Request, body: bytes) -> Call | None:
        """Return the call, or None if it is of none of the three shapes."""
        headers = request.headers
        query: dict[str, str | list[str]] = {}
        for name, value in request.rel_url.query.items():
            _add(query, name, value)
        if "X-TC-Action" in headers:
            vendor, action = Vendor.TENCENT, headers["X-TC-Action"]
            version = headers.get("X-TC-Version", "")
        elif not _ZEGO_MARKS.isdisjoint(query):
            vendor, action, version = Vendor.ZEGO, _first(query, "Action"), "2.0"
        elif "Action" in query or "X-Date" in headers:
            vendor, action = Vendor.VOLCENGINE, _first(query, "Action")
            version = _first(query, "Version")
        else:
            return None
        at = self._simulator.clock()
        return Call(
            vendor=vendor,
            action=action,
            version=version,
            method=request.method,
            host=headers.get("Host", ""),
            query=query,
            headers=headers,
            body=body,
            at=at,
            world_at=self._simulator.world_time(at),
        )


def make_app(simulator: Simulator) -> web.Application:
    """Return the application: the vendors at `/`, the world's controls below `/_sim/`."""
    courier = Courier(simulator)
    speech = Speech(simulator)
    server = Server(simulator, courier, speech)
    app = web.Application(client_max_size=LARGEST_BODY)
    app.on_startup.append(server.open)
    app.on_shutdown.append(server.close)
    app.router.add_route("*", "/", server.answer)
    add_control_routes(app, simulator, courier, speech)
    add_model_routes(app, simulator)
    return app


@asynccontextmanager
async def serve(simulator: Simulator, host: str, port: int) -> AsyncIterator[str]:
    """Serve the simulated vendors while the context is open; yield the base URL.

    Port 0 takes any free one.

    Raises:
        OSError: the address cannot be had.
    """
    runner = web.AppRunner(make_app(simulator), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{runner.addresses[0][1]}"
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


def _response(answer: Answer, at: datetime) -> web.Response:
    """Return the answer exactly as it is, with the date by the simulator's clock."""
    return web.Response(
        status=answer.status,
        body=answer.body,
        headers={
            "Content-Type": answer.content_type,
            "Date": _http_date(at.replace(microsecond=0)),
        },
    )


def _spoil(answer: Answer, kind: Kind) -> Answer | None:
    """Return the answer as the fault leaves it, or None if the connection ends without one."""
    match kind:
        case Kind.LOSE_REQUEST | Kind.LOSE_REPLY | Kind.HANG:
            return None
        case Kind.HTTP_500:
            return Answer(500, b'{"message":"internal server error"}', answer.code)
        case Kind.HTML:
            return Answer(502, _HTML, answer.code, "text/html")
        case Kind.HALF_JSON:
            return replace(answer, body=answer.body[: len(answer.body) // 2])
        case Kind.EMPTY:
            return replace(answer, body=b"")
        case _:
            return answer


def _reset(request: web.Request) -> web.Response:
    """Reset the connection: the client reads no orderly end, but an error."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    return web.Response()


async def _send_huge(request: web.Request) -> web.StreamResponse:
    """Send valid JSON of 30 MB, piece by piece; a client that gives up is right to."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    try:
        await response.prepare(request)
        await response.write(b'{"padding":"')
        for _ in range(HUGE_BODY // len(_CHUNK)):
            await response.write(_CHUNK)
        await response.write(b'"}')
        await response.write_eof()
    except ConnectionError:
        return _reset(request)
    return response


@lru_cache(maxsize=4)
def _http_date(second: datetime) -> str:
    return format_datetime(second.astimezone(UTC), usegmt=True)


def _add(query: dict[str, str | list[str]], name: str, value: str) -> None:
    earlier = query.get(name)
    if earlier is None:
        query[name] = value
    elif isinstance(earlier, list):
        earlier.append(value)
    else:
        query[name] = [earlier, value]


def _first(query: dict[str, str | list[str]], name: str) -> str:
    value = query.get(name, "")
    return value if isinstance(value, str) else value[0]


def _unknown_shape() -> dict[str, str]:
    return {
        "error": "no vendor's request",
        "expected": "a header X-TC-Action (Tencent), query parameters Action and SignatureNonce "
        "(ZEGO), or Action and Version with Authorization: HMAC-SHA256 (Volcengine)",
    }
