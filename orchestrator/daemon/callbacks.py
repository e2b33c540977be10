"""The server that the vendors post to: `POST /callbacks/<account>`, judged, kept, then answered.

What it says: 200 when the facts are committed; 401 what this account's vendor did not sign; 400
what it does not document; 404 no such account; 413 and 408 a body that is too large or too slow;
503 come again (the vendors do); 500 what the database cannot hold.

Rule 1: nothing of a post is believed before its account's adapter has judged the raw bytes.
Rule 2: nothing of a post is logged or stored but the facts in it.
Rule 3: what a sender can make us keep or wait for is bounded: requests, bytes, seconds.
"""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final, assert_never

import anyio
import structlog
from aiohttp import web

from orchestrator.core.fact import CLOCK_NOISE
from orchestrator.core.replace import replace
from orchestrator.daemon.bodies import LINGER_S, Unread, read_body
from orchestrator.daemon.book import Book
from orchestrator.daemon.callback_tally import CallbackTally, Result
from orchestrator.daemon.listening import BACKLOG, IDLE_S, MUTE_LOG
from orchestrator.daemon.recorder import Desk, Recorder, Verdict
from orchestrator.providers.base import Forged, Garbled, Post
from orchestrator.store.facts import Told

IN_FLIGHT_MAX: Final = 256
"""Requests at a time. One more is asked to come again."""
FINISH_WITHIN_S: Final = 5.0
"""How long requests may take that are open when the server closes."""
ANSWER_WITHIN_S: Final = 1.0
"""How long the answers of those then take to leave."""
TAKEN: Final = b'{"code":0}'
"""What Tencent recommends to answer; the others look at the status alone."""

_STATUS: Final = {
    Result.KEPT: HTTPStatus.OK,
    Result.NOTHING: HTTPStatus.OK,
    Result.GARBLED: HTTPStatus.BAD_REQUEST,
    Result.FORGED: HTTPStatus.UNAUTHORIZED,
    Result.STRANGER: HTTPStatus.NOT_FOUND,
    Result.SLOW: HTTPStatus.REQUEST_TIMEOUT,
    Result.LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Result.FAILED: HTTPStatus.INTERNAL_SERVER_ERROR,
    Result.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
}
_UNREAD: Final = {
    Unread.LARGE: Result.LARGE,
    Unread.SLOW: Result.SLOW,
    Unread.GARBLED: Result.GARBLED,
}
_NOBODY: Final = ""
"""Stands for all accounts that there are not: who posts cannot choose what is counted."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """What posts are received with."""

    book: Book
    """The accounts; those of a reload count from the next request on."""
    tally: CallbackTally
    now: Callable[[], datetime]
    """The database's clock, UTC."""
    max_body_bytes: int
    """The longest body that is read."""


@asynccontextmanager
async def receive(bound: socket.socket | None, desk: Desk, mailbox: Mailbox) -> AsyncIterator[None]:
    """Receive callbacks while the context is open, and keep what came when it closes."""
    if bound is None:
        yield
        return
    recorder = Recorder(desk)
    receiver = Receiver(mailbox, recorder)
    async with anyio.create_task_group() as telling:
        telling.start_soon(mailbox.tally.run)
        async with anyio.create_task_group() as writing:
            writing.start_soon(recorder.run)
            try:
                async with receiver.serve(bound):
                    yield
            finally:
                recorder.finish()
        mailbox.tally.tell()
        telling.cancel_scope.cancel()


class Receiver:
    """Answers callbacks; `recorder` writes what was told."""

    def __init__(self, mailbox: Mailbox, recorder: Recorder) -> None:
        self._mailbox = mailbox
        self._book = mailbox.book
        self._recorder = recorder
        self._in_flight = 0
        self._idle = anyio.Event()
        self._idle.set()

    @asynccontextmanager
    async def serve(self, listening: socket.socket) -> AsyncIterator[None]:
        """Answer while the context is open. At its end nothing new is taken, and what is open ends.

        Takes the socket over.
        """
        app = web.Application()
        app.router.add_post("/callbacks/{account}", self.answer)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=MUTE_LOG,
            # A signature covers the bytes as they were sent.
            auto_decompress=False,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            shutdown_timeout=ANSWER_WITHIN_S,
        )
        await runner.setup()
        site = web.SockSite(runner, listening, backlog=BACKLOG)
        try:
            await site.start()
            host, port = listening.getsockname()[:2]
            log.info("hearing_callbacks", host=host, port=port)
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await site.stop()
                # The runner's own end would not read the rest of a body.
                with anyio.move_on_after(FINISH_WITHIN_S):
                    await self._idle.wait()
                await runner.cleanup()

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one callback."""
        account = request.match_info["account"]
        if account not in self._book.runtimes:
            return self._respond(_NOBODY, Result.STRANGER)
        if self._in_flight >= IN_FLIGHT_MAX:
            return self._respond(account, Result.BUSY)
        self._begin()
        try:
            return await self._judge(account, request)
        except ConnectionError:
            raise  # the sender has gone
        except Exception:
            log.exception("callback_failed", account=account)
            return self._respond(account, Result.FAILED)
        finally:
            self._end()

    def _begin(self) -> None:
        if self._in_flight == 0:
            self._idle = anyio.Event()
        self._in_flight += 1

    def _end(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    async def _judge(self, account: str, request: web.Request) -> web.Response:
        body = await read_body(request, self._mailbox.max_body_bytes)
        if isinstance(body, Unread):
            return self._respond(account, _UNREAD[body])
        # A reload may have taken the account away while its post was read.
        runtime, offset = self._book.runtime(account), self._offset(account)
        heard = runtime.provider.hear(
            Post(
                headers={name.lower(): value for name, value in request.headers.items()},
                body=body,
                received_at=self._mailbox.now() + offset,
            )
        )
        match heard:
            case Forged(why=why):
                return self._respond(account, Result.FORGED, why)
            case Garbled(why=why):
                return self._respond(account, Result.GARBLED, why)
            case ():
                return self._respond(account, Result.NOTHING)
            case told:
                ours = tuple(replace(fact, event_at=fact.event_at - offset) for fact in told)
                verdict = await self._recorder.record(Told(account=account, facts=ours))
                return self._respond(account, _result(verdict))

    def _offset(self, account: str) -> timedelta:
        """Return by how much the vendor's clock is surely ahead of the database's.

        A smaller one may be none at all, and each correction by another one would change the order
        in which an agent's facts happened.
        """
        offset = self._book.offset(account)
        return offset if abs(offset) > CLOCK_NOISE else timedelta(0)

    def _respond(self, account: str, result: Result, why: str = "") -> web.Response:
        self._mailbox.tally.count(account, result, why)
        status = _STATUS[result]
        body = TAKEN if status is HTTPStatus.OK else f'{{"code":{status.value}}}'.encode()
        return web.Response(status=status, body=body, content_type="application/json")


def _result(verdict: Verdict) -> Result:
    match verdict:
        case Verdict.KEPT:
            return Result.KEPT
        case Verdict.BUSY:
            return Result.BUSY
        case Verdict.FAILED:
            return Result.FAILED
        case _:
            assert_never(verdict)
