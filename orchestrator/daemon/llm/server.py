"""The server that the vendors ask for words: whose token is genuine is received, one by one.

What it says: 200 with a stream, or with one completion, whatever becomes of the turn; 401 a token
that is not this agent's; 400 no chat completion; 404 no such account; 413 and 408 a body that is
too large or too slow; 503 too many turns at once; 500 a mistake of ours.

Rule 1: nothing of a request is believed, nor read, before its token is.
Rule 2: what vendors can make us serve at a time is bounded.
"""

import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import structlog
from aiohttp import web

from orchestrator.clock import boot_ns
from orchestrator.core.turn import TurnReason
from orchestrator.daemon.bodies import LINGER_S
from orchestrator.daemon.listening import BACKLOG, IDLE_S, MUTE_LOG
from orchestrator.daemon.llm.host import Desk, Host, refuse
from orchestrator.daemon.llm.refusal import Refusal
from orchestrator.daemon.llm.visit import Visit
from orchestrator.providers.ticket import ROUTE, Ticket, is_signed, read_ticket

TURNS_MAX: Final = 2_000
"""Turns at a time; each takes two connections. One more is asked to come again."""
FILES: Final = 2 * TURNS_MAX + 1_000
FINISH_WITHIN_S: Final = 5.0
"""How long turns may take that are open when the server closes; then they are ended politely."""
ANSWER_WITHIN_S: Final = 1.0

log = structlog.get_logger(__name__)


class LlmServer:
    """Lets the vendors' agents in."""

    def __init__(self, desk: Desk) -> None:
        self._book = desk.book
        self._meter = desk.meter
        self._public_url = desk.frame.public_url
        self._host = Host(desk)
        self._open = 0
        self._idle = anyio.Event()
        self._idle.set()

    @asynccontextmanager
    async def serve(self, listening: socket.socket) -> AsyncIterator[None]:
        """Answer while the context is open. At its end nothing new is taken, and what is open ends.

        Takes the socket over.
        """
        _allow_connections()
        app = web.Application()
        app.router.add_post(ROUTE, self.answer)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=MUTE_LOG,
            # A vendor that hangs up must not go on being paid for.
            handler_cancellation=True,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            shutdown_timeout=ANSWER_WITHIN_S,
        )
        await runner.setup()
        site = web.SockSite(runner, listening, backlog=BACKLOG)
        try:
            await site.start()
            host, port = listening.getsockname()[:2]
            log.info("serving_llm", host=host, port=port, public_url=self._public_url)
            async with anyio.create_task_group() as beat:
                beat.start_soon(self._host.attest)
                yield
                beat.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await site.stop()
                await self._finish()
                await runner.cleanup()

    async def _finish(self) -> None:
        """Let open turns come to their end, and end those that do not."""
        with anyio.move_on_after(FINISH_WITHIN_S):
            await self._idle.wait()
        self._host.cut(TurnReason.DRAINING)
        with anyio.move_on_after(ANSWER_WITHIN_S):
            await self._idle.wait()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        began_ns = boot_ns()
        ticket = read_ticket(request.match_info)
        if ticket is None or ticket.account not in self._book.runtimes:
            return self._refuse("", Refusal.STRANGER)
        if not self._is_genuine(ticket, request):
            return self._refuse(ticket.account, Refusal.FORGED)
        if self._open >= TURNS_MAX:
            return self._refuse(ticket.account, Refusal.BUSY)
        headers = {name.lower(): value for name, value in request.headers.items()}
        visit = Visit(request=request, ticket=ticket, began_ns=began_ns, headers=headers)
        self._begin()
        try:
            return await self._host.receive(visit)
        except ConnectionError:
            raise  # the vendor has gone
        except Exception:
            log.exception("llm_failed", account=ticket.account, task_id=ticket.task_id)
            return self._refuse(ticket.account, Refusal.FAILED)
        finally:
            self._end()

    def _is_genuine(self, ticket: Ticket, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        keys = self._book.token_keys(ticket.account)
        return scheme.lower() == "bearer" and is_signed(ticket, token.strip(), keys)

    def _refuse(self, account: str, refusal: Refusal) -> web.Response:
        self._meter.refuse(account, refusal)
        return refuse(refusal, refusal.sentence)

    def _begin(self) -> None:
        if self._open == 0:
            self._idle = anyio.Event()
        self._open += 1
        self._meter.open.inc()

    def _end(self) -> None:
        self._open -= 1
        self._meter.open.dec()
        if self._open == 0:
            self._idle.set()


def _allow_connections() -> None:
    """Let this process have as many connections as the turns that it takes need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        log.info("more_connections", files=wanted)
