"""Wakes at a NOTIFY, on a connection that does nothing else.

A LISTEN dies silently: a firewall forgets the connection, a proxy swallows what it should pass on,
a pooler gives the server connection to somebody else, and the listener waits for ever. So the
waker trusts nothing that it has not just heard: every few seconds it notifies itself by the same
connection. What does not come back in time is dead; the connection is thrown away and made again.
Until then, and while there is none, waits are short: the scheduler polls.

The way that a notification takes is measured by the same echo (`round_trip`).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import anyio
import asyncpg
import structlog

from orchestrator.clock import boot_ns
from orchestrator.wake.base import Hint

WAKE_CHANNEL: Final = "orchestrator_wake"
_ECHO_CHANNEL: Final = "orchestrator_wake_echo"

_DEAD: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # The server's last words came while nothing was asked, the end of the connection not yet.
    asyncpg.InternalClientError,
)
"""What tells that a connection is dead."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How closely the connection is watched."""

    every: timedelta = timedelta(seconds=3)
    """Between one echo and the next."""
    patience: timedelta = timedelta(seconds=2)
    """How long an echo, a connect or a LISTEN may take."""
    poll: timedelta = timedelta(milliseconds=250)
    """How long a wait lasts at most while nobody listens."""
    reconnect_first: timedelta = timedelta(milliseconds=100)
    reconnect_last: timedelta = timedelta(seconds=5)


class PostgresWaker:
    """A waker for the database at `url` (libpq's form), which must be no transaction pooler's."""

    def __init__(self, url: str, watch: Watch | None = None) -> None:
        self._url = url
        self._watch = watch or Watch()
        self._hint = Hint()
        self._is_listening = False
        self._was_told = False
        self._stack = AsyncExitStack()
        self.round_trip: timedelta | None = None
        """How long the last echo took; None while nobody listens."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(self._keep_listening)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def wait(self, timeout: timedelta) -> None:  # noqa: ASYNC109 - it is what wait does
        """Return at a NOTIFY or a nudge, or after `timeout`; earlier while nobody listens."""
        await self._hint.wait(timeout if self._is_listening else min(timeout, self._watch.poll))

    def nudge(self) -> None:
        """End the wait from inside this process."""
        self._hint.give()

    async def _keep_listening(self) -> None:
        """Listen for ever, with pauses that grow while it does not work."""
        pause = self._watch.reconnect_first
        while True:
            try:
                async with self._open() as listener:
                    pause = self._watch.reconnect_first
                    await self._hear(listener)
            except _DEAD as error:
                self._note_deaf(error)
            await anyio.sleep(pause.total_seconds())
            pause = min(2 * pause, self._watch.reconnect_last)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator["_Listener"]:
        """Connect and listen; at the end throw the connection away without a word to the server."""
        patience_s = self._watch.patience.total_seconds()
        connection = await asyncpg.connect(
            self._url, timeout=patience_s, server_settings={"application_name": "orchestrator wake"}
        )
        try:
            listener = _Listener(connection)
            with anyio.fail_after(patience_s):
                await listener.listen(self._hint.give)
            yield listener
        finally:
            self._is_listening = False
            self.round_trip = None
            # A goodbye could wait for ever on a connection that is half open.
            connection.terminate()

    async def _hear(self, listener: "_Listener") -> None:
        """Have the connection prove itself again and again.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError:
                It is dead.
        """
        while True:
            with anyio.fail_after(self._watch.patience.total_seconds()):
                self.round_trip = await listener.echo()
            self._note_hearing()
            await listener.pause(self._watch.every)

    def _note_hearing(self) -> None:
        """Say once that notifications arrive, and make up for those that were missed."""
        if self._is_listening:
            return
        self._is_listening = True
        self._was_told = False
        self._hint.give()
        _log.info("waker_listens", channel=WAKE_CHANNEL)

    def _note_deaf(self, error: Exception) -> None:
        """Say once that notifications do not arrive, and end a wait that relies on them."""
        self._hint.give()
        if self._was_told:
            return
        self._was_told = True
        _log.warning(
            "waker_deaf",
            reason=str(error) or type(error).__name__,
            poll_ms=self._watch.poll // timedelta(milliseconds=1),
        )


class _Listener:
    """One connection that listens, and can tell whether it still does."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self._lost = anyio.Event()
        self._echoed = anyio.Event()
        self._echo_text = str(connection.get_server_pid())
        connection.add_termination_listener(self._take_loss)

    async def listen(self, heard: Callable[[], None]) -> None:
        """Subscribe to the wake channel, and to our own echo."""

        def take_wake(*_: Any) -> None:
            heard()

        await self._connection.add_listener(WAKE_CHANNEL, take_wake)
        await self._connection.add_listener(_ECHO_CHANNEL, self._take_echo)

    async def echo(self) -> timedelta:
        """Notify ourselves; return how long it took to hear it."""
        self._echoed = anyio.Event()
        sent_ns = boot_ns()
        await self._connection.execute("select pg_notify($1, $2)", _ECHO_CHANNEL, self._echo_text)
        await self._echoed.wait()
        return timedelta(microseconds=(boot_ns() - sent_ns) // 1000)

    async def pause(self, length: timedelta) -> None:
        """Let time pass.

        Raises:
            ConnectionError: The server or the network has ended the connection meanwhile.
        """
        with anyio.move_on_after(length.total_seconds()):
            await self._lost.wait()
            raise ConnectionError("the connection that listens was lost")

    def _take_loss(self, _: object) -> None:
        self._lost.set()

    def _take_echo(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        # Other daemons' echoes come by the same channel.
        if payload == self._echo_text:
            self._echoed.set()
