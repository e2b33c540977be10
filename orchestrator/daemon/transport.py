"""The one owner of the HTTP client: it sends a request once and says what is known about it.

Rule 1: a request leaves at most once. Nothing here repeats, redirects or remembers.
Rule 2: trouble is a verdict, never an exception. `NotSent` means that no byte of the request has
left this process; from the first byte on, everything but a whole response is `Indefinite`.
Rule 3: after an `Indefinite` no byte of the request can leave any more: the connection is reset,
and `reset_at` says when.
Rule 4: what a vendor can make us keep in memory, and for how long it can make us wait, is bounded.

Why aborting takes care: `close()` on an asyncio transport first writes out what is buffered, and
the kernel goes on delivering the send buffer of a socket that was closed, even after the death of
its process. So a request that timed out here could still start an agent a minute later. `abort()`
drops our buffer, and SO_LINGER with zero seconds, set before the socket connects, drops the
kernel's, whether we close the socket or are killed.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from types import MappingProxyType, TracebackType
from typing import Final, Self, cast

import aiohttp
import anyio
from aiohttp import AddrInfoType
from aiohttp.client_middlewares import ClientHandlerType
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from anyio.lowlevel import cancel_shielded_checkpoint
from yarl import URL

from orchestrator.clock import boot_ns
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite, NotSent
from orchestrator.providers.base import Reply, Request, Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The connections of one class of work. No class uses those of another."""

    connections: int
    """At most so many to one host at a time; a call beyond waits for one, within its deadline."""
    idle: timedelta
    """A connection that carried nothing for longer is not used again."""


POOLS: Final[Mapping[WorkClass, Pool]] = MappingProxyType(
    {
        WorkClass.STOP: Pool(connections=64, idle=timedelta(seconds=15)),
        WorkClass.LISTENING: Pool(connections=64, idle=timedelta(seconds=30)),
        # The vendor may close an idle connection just as we write to it. For a start that is an
        # unknown outcome, which costs a horizon; so its connections are never idle for 5 s.
        WorkClass.START: Pool(connections=64, idle=timedelta(seconds=4)),
        WorkClass.OBSERVE: Pool(connections=32, idle=timedelta(seconds=15)),
    }
)

MAX_BODY_BYTES: Final = 1 << 20
FRESH_NS: Final = 1_000_000_000
"""A response that was longer on its way says too little about the time: its vendor was slow, or
this process stood still, and a `Date` that waited here is as old as that."""
_CHUNK_BYTES: Final = 1 << 16
_MAX_MESSAGE_CHARS: Final = 300

# A signature may cover any header, so aiohttp adds none but Host and Content-Length.
_UNSIGNED_HEADERS: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


Hold = Callable[[], Awaitable[NotSent | None]]


async def _hold_nothing() -> None:
    """Let a request leave as soon as it is connected."""


class Transport:
    """Sends requests to vendors, each at most once.

    Use it as an async context manager, in one event loop.

    Args:
        now: The database's clock, UTC.
        on_date: Told at each quick response by how much the `Date` of a host (with its port, if the
            URL has one) is ahead of `now`. Good to about half a second: the header has whole ones.
        tls: Whom to trust. The default trusts the system's authorities.
        pools: The connections for each class of work.
        max_body_bytes: The longest response body that is read, counted after decompression.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        on_date: Callable[[str, timedelta], None],
        tls: ssl.SSLContext | None = None,
        pools: Mapping[WorkClass, Pool] = POOLS,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._now = now
        self._on_date = on_date
        self._tls = tls or ssl.create_default_context()
        self._pools = pools
        self._max_body_bytes = max_body_bytes
        self._sessions: dict[WorkClass, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        self._sessions = {each: _open_session(self._pools[each], self._tls) for each in WorkClass}
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            for session in self._sessions.values():
                await session.close()

    async def send(
        self,
        request: Request,
        *,
        deadline_ns: int,
        work_class: WorkClass,
        hold: Hold = _hold_nothing,
    ) -> Reply:
        """Send the request and wait for the whole response, until `deadline_ns` (`boot_ns`).

        `hold` is asked when the connection stands and no byte has left: it may wait, and what it
        returns is returned instead of sending. To connect may take longer than a slot is open.

        Returns the response whatever its status, or one of these; never raises for network
        trouble. `code` is one of

        - `NotSent`: `DeadlinePassed`, `DnsFailed`, `ConnectFailed`, `ConnectTimeout` (also when
          all connections of the class were in use all the time), `TlsFailed`;
        - `Indefinite`, always with `reset_at`: `Timeout`, `Disconnected`, `ConnectionReset`,
          `UnreadableResponse`, `ResponseTooLarge`.

        A cancelled call resets its connection too, and raises what cancelled it.
        """
        left_s = (deadline_ns - boot_ns()) / 1e9
        if left_s <= 0:
            return NotSent(code="DeadlinePassed", message="the call's deadline has passed")
        attempt = _Attempt(deadline_ns, hold)
        try:
            with anyio.fail_after(left_s), attempt:
                return await self._exchange(request, work_class, attempt)
        except _HeldBackError as held:
            return held.verdict
        except (aiohttp.ClientError, HttpProcessingError, OSError, _ResponseTooLargeError) as error:
            return await self._judge(attempt, error)

    async def _exchange(
        self, request: Request, work_class: WorkClass, attempt: "_Attempt"
    ) -> Response:
        """Make the exchange, or raise; `attempt` knows how far it came."""
        url = URL(request.url, encoded=True)
        async with self._sessions[work_class].request(
            request.method,
            url,
            headers=request.headers,
            data=request.body or None,
            allow_redirects=False,
            middlewares=(attempt,),
        ) as response:
            if boot_ns() - attempt.began_ns < FRESH_NS:
                self._note_date(url, response.headers)
            return Response(
                status=response.status,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=await self._read(response.content),
            )

    async def _read(self, stream: aiohttp.StreamReader) -> bytes:
        """Return the body; raise as soon as it is longer than allowed."""
        body = bytearray()
        async for chunk in stream.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._max_body_bytes:
                raise _ResponseTooLargeError(f"more than {self._max_body_bytes} bytes")
        return bytes(body)

    def _note_date(self, url: URL, headers: Mapping[str, str]) -> None:
        """Compare the vendor's clock, as the head of its response arrives, with ours."""
        stamped_at = _parse_date(headers.get("Date", ""))
        if stamped_at is None:
            return
        # The header drops the fraction of a second, half a second on average.
        offset = stamped_at + timedelta(milliseconds=500) - self._now()
        self._on_date(url.authority, offset)

    async def _judge(self, attempt: "_Attempt", error: Exception) -> NotSent | Indefinite:
        """Say what a failed attempt means; its connection, if it had one, is aborted."""
        if isinstance(error, _NeverRepeatedError):
            error = error.reason
        if not attempt.has_begun:
            return NotSent(code=_name_before_sending(error), message=_describe(error))
        # The socket is closed by a callback that stands before us in the loop's queue. Our clock
        # is read after it, so that `reset_at` is never earlier than the reset.
        await cancel_shielded_checkpoint()
        return Indefinite(
            code=_name_after_sending(error), message=_describe(error), reset_at=self._now()
        )


class _Attempt:
    """One request on its way: whether it has begun to leave, and by which connection.

    As an aiohttp middleware it stands around connecting, writing and the head of the response. As
    a context manager it aborts the connection unless a whole response comes of it; also when the
    call is cancelled.
    """

    def __init__(self, deadline_ns: int, hold: Hold) -> None:
        self._deadline_ns = deadline_ns
        self._hold = hold
        self._wire: asyncio.Transport | None = None
        self.began_ns = 0
        """When the request began to leave (`boot_ns`)."""

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the request may have left this process."""
        return self._wire is not None

    async def wait(self) -> None:
        """Wait for the time at which the request may leave; raise if it may not."""
        verdict = await self._hold()
        if verdict is not None:
            raise _HeldBackError(verdict)

    def begin(self, wire: asyncio.Transport | None) -> None:
        """Take note that the next step writes to `wire`, or refuse it as a failed connection."""
        if wire is None:
            raise ConnectionError("the connection was lost before the request was written")
        # A host that slept, or a process that was stopped, while it connected comes back here.
        self.began_ns = boot_ns()
        if self.began_ns >= self._deadline_ns:
            raise TimeoutError("the deadline passed before the request was written")
        self._wire = wire

    async def __call__(
        self, request: aiohttp.ClientRequest, send: ClientHandlerType
    ) -> aiohttp.ClientResponse:
        cast("_Request", request).attempt = self
        try:
            return await send(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            # After these two aiohttp would send a GET once more by itself.
            raise _NeverRepeatedError(error) from error

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self._wire is not None:
            self._wire.abort()


class _Request(aiohttp.ClientRequest):
    """A request that tells its attempt just before its first byte is written."""

    attempt: _Attempt

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        await self.attempt.wait()
        self.attempt.begin(conn.transport)
        return await super().send(conn)


class _NeverRepeatedError(aiohttp.ClientError):
    """Stands for an error that aiohttp must not see."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _HeldBackError(aiohttp.ClientError):
    """The request was not to leave, after all."""

    def __init__(self, verdict: NotSent) -> None:
        super().__init__(verdict.code)
        self.verdict = verdict


class _ResponseTooLargeError(Exception):
    """The body is longer than we are willing to keep."""


def _open_session(pool: Pool, tls: ssl.SSLContext) -> aiohttp.ClientSession:
    """Return a client that adds, keeps and follows nothing, with connections of its own."""
    connector = aiohttp.TCPConnector(
        ssl=tls,
        # Bounded per host, so that a vendor that hangs takes no other vendor's connections.
        limit=0,
        limit_per_host=pool.connections,
        keepalive_timeout=pool.idle.total_seconds(),
        socket_factory=_open_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        request_class=_Request,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_UNSIGNED_HEADERS,
        # The deadline of the call is the only time limit; it covers connecting and reading.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        trust_env=False,
    )


def _open_socket(address: AddrInfoType) -> socket.socket:
    """Return a socket whose unsent bytes die with it."""
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def _name_before_sending(error: Exception) -> str:
    """Return the code of a failure before the first byte."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "DnsFailed"
        case aiohttp.ClientSSLError():
            return "TlsFailed"
        case TimeoutError():
            return "ConnectTimeout"
        case _:
            return "ConnectFailed"


def _name_after_sending(error: Exception) -> str:
    """Return the code of a failure after the first byte."""
    match error:
        case _ResponseTooLargeError():
            return "ResponseTooLarge"
        case TimeoutError():
            return "Timeout"
        case aiohttp.ServerDisconnectedError():
            return "Disconnected"
        case OSError():
            return "ConnectionReset"
        case _:
            return "UnreadableResponse"


def _describe(error: Exception) -> str:
    """Return a sentence about the failure. It never shows the URL, which may hold a signature."""
    match error:
        case aiohttp.ClientConnectorError() | _ResponseTooLargeError():
            text = str(error)
        case aiohttp.ClientResponseError() | HttpProcessingError():
            text = error.message
        case TimeoutError():
            text = "the deadline passed"
        case OSError(strerror=str(reason)):
            text = reason.partition(" for ")[0]
        case _:
            text = type(error).__name__
    return text[:_MAX_MESSAGE_CHARS]


@lru_cache(maxsize=16)  # a busy vendor says the same second in many answers
def _parse_date(text: str) -> datetime | None:
    """Return the time of a `Date` header, UTC, or None if it is none (RFC 9110, 5.6.7)."""
    try:
        parsed = parsedate_to_datetime(text)
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
