"""The server that the vendors ask for words: who asks is judged, looked up, and then served.

What it says: 200 with a stream, or with one completion, whatever becomes of the turn; 401 a token
that is not this agent's; 400 no chat completion; 404 no such account; 413 and 408 a body that is
too large or too slow; 503 too many turns at once.

Rule 1: nothing of a request is believed, nor read, before its token is.
Rule 2: no word of a conversation is logged or stored, unless the configuration says so.
Rule 3: what a sender can make us keep or wait for is bounded: turns, bytes, seconds.
"""

import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import uuid4

import anyio
import structlog
from aiohttp import web
from anyio.abc import TaskGroup

from orchestrator.clock import boot_ns
from orchestrator.core.turn import Reason, Standing, TurnOutcome, stand
from orchestrator.daemon.book import ATTEMPTS, Book
from orchestrator.daemon.listening import BACKLOG, IDLE_S, MUTE_LOG
from orchestrator.daemon.llm.callers import Callers, Found, Unread
from orchestrator.daemon.llm.frame import LlmFrame, Upstream
from orchestrator.daemon.llm.refusal import Refusal
from orchestrator.daemon.llm.reply import Reply, StreamReply, WholeReply, open_stream
from orchestrator.daemon.llm.rounds import Rounds
from orchestrator.daemon.llm.scribe import Scribe
from orchestrator.daemon.llm.turn import Ended, Turn
from orchestrator.daemon.llm.upstream import UpstreamClient
from orchestrator.daemon.llm.witness import Witness
from orchestrator.daemon.monitoring.llm_meter import LlmMeter
from orchestrator.providers.base import Garbled
from orchestrator.providers.chat import ChatRequest, failure, read_chat
from orchestrator.providers.chat_answer import Answer
from orchestrator.providers.chat_chunks import Head
from orchestrator.providers.llm_form import Asked
from orchestrator.providers.ticket import ROUTE, Ticket, is_signed, read_ticket
from orchestrator.store import llm_turns

TURNS_MAX: Final = 2_000
"""Turns at a time; each takes two connections. One more is asked to come again."""
FILES: Final = 2 * TURNS_MAX + 1_000
BODY_WITHIN_S: Final = 10.0
LINGER_S: Final = 1.0
FINISH_WITHIN_S: Final = 5.0
"""How long turns may take that are open when the server closes; then they are ended politely."""
ANSWER_WITHIN_S: Final = 1.0

_ENDS: Final = {
    Standing.STOPPED: Reason.STOPPED,
    Standing.SUPERSEDED: Reason.SUPERSEDED,
    Standing.GONE: Reason.GONE,
    Standing.UNKNOWN: Reason.UNKNOWN,
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the server works with."""

    frame: LlmFrame
    book: Book
    client: UpstreamClient
    callers: Callers
    witness: Witness
    scribe: Scribe
    meter: LlmMeter


@dataclass(slots=True, kw_only=True)
class _Visit:
    """One request, as far as it is understood."""

    ticket: Ticket
    headers: dict[str, str]
    """Names in lower case."""
    began_ns: int
    asked: Asked = field(default_factory=Asked)
    try_: int = 1
    user_text: str | None = None
    is_written: bool = False


class LlmServer:
    """Answers the vendors' agents."""

    def __init__(self, desk: Desk, aside: TaskGroup) -> None:
        self._desk = desk
        self._frame = desk.frame
        self._aside = aside
        """For what no turn waits for."""
        self._rounds = Rounds()
        self._turns: set[Turn] = set()
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
            log.info("serving_llm", host=host, port=port, public_url=self._frame.public_url)
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await site.stop()
                await self._finish()
                await runner.cleanup()

    async def _finish(self) -> None:
        """Let open turns come to their end, and end those that do not."""
        with anyio.move_on_after(FINISH_WITHIN_S):
            await self._idle.wait()
        for turn in self._turns:
            turn.cut(Reason.DRAINING)
        with anyio.move_on_after(ANSWER_WITHIN_S):
            await self._idle.wait()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        began_ns = boot_ns()
        ticket = read_ticket(request.match_info)
        if ticket is None or ticket.account not in self._desk.book.runtimes:
            return self._refuse("", Refusal.STRANGER)
        if not self._is_genuine(ticket, request):
            return self._refuse(ticket.account, Refusal.FORGED)
        if self._open >= TURNS_MAX:
            return self._refuse(ticket.account, Refusal.BUSY)
        headers = {name.lower(): value for name, value in request.headers.items()}
        visit = _Visit(ticket=ticket, headers=headers, began_ns=began_ns)
        self._begin()
        try:
            return await self._welcome(visit, request)
        finally:
            if not visit.is_written:  # it was hung up on before anybody was asked
                self._write(visit, Ended(upstream=ticket.upstream), None)
            self._end()

    def _is_genuine(self, ticket: Ticket, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        keys = self._desk.book.token_keys(ticket.account)
        return scheme.lower() == "bearer" and is_signed(ticket, token.strip(), keys)

    def _begin(self) -> None:
        if self._open == 0:
            self._idle = anyio.Event()
        self._open += 1
        self._desk.meter.open.inc()

    def _end(self) -> None:
        self._open -= 1
        self._desk.meter.open.dec()
        if self._open == 0:
            self._idle.set()

    # --- what is asked ---

    async def _welcome(self, visit: _Visit, request: web.Request) -> web.StreamResponse:
        body = await self._read(request)
        if isinstance(body, Refusal):
            return self._refuse_visit(visit, body)
        chat = read_chat(body)
        if isinstance(chat, Garbled):
            return self._refuse_visit(visit, Refusal.GARBLED, chat.why)
        provider = self._desk.book.runtime(visit.ticket.account).provider
        visit.asked = provider.llm.read(visit.headers, chat.fields)
        visit.try_ = self._rounds.count(visit.ticket.agent_id, visit.asked.round)
        if self._frame.keep_text:
            visit.user_text = chat.last_user_text
        found = await self._desk.callers.find(visit.ticket.agent_id)
        standing = self._note(visit, found)
        if standing is not Standing.WANTED:
            return await self._part(visit, request, chat, _ENDS[standing])
        return await self._talk(visit, request, chat)

    async def _read(self, request: web.Request) -> bytes | Refusal:
        """Return the body, or why it was not read to its end."""
        most = self._frame.max_body_bytes
        if (request.content_length or 0) > most:
            return Refusal.LARGE
        body = bytearray()
        with anyio.move_on_after(BODY_WITHIN_S) as patience:
            try:
                async for data in request.content.iter_any():
                    body += data
                    if len(body) > most:
                        return Refusal.LARGE
            except web.RequestPayloadError:
                return Refusal.GARBLED
        return Refusal.SLOW if patience.cancelled_caught else bytes(body)

    def _note(self, visit: _Visit, found: Found) -> Standing:
        """Return whether who asks is wanted, and let be written what its request proves."""
        ticket, now = visit.ticket, self._desk.book.timekeeper.now()
        if isinstance(found, Unread):
            return Standing.WANTED
        caps = self._desk.book.runtime(ticket.account).provider.caps
        self._aside.start_soon(self._desk.witness.tell, ticket, visit.asked, found, caps, now)
        standing = stand(found)
        if standing is Standing.WANTED:
            self._desk.scribe.talked(ticket.task_id, now)
        return standing

    # --- what is answered ---

    async def _talk(
        self, visit: _Visit, request: web.Request, chat: ChatRequest
    ) -> web.StreamResponse:
        upstreams = self._upstreams(visit.ticket.upstream)
        if not upstreams:
            return await self._part(visit, request, chat, Reason.UNKNOWN_UPSTREAM)
        response, reply = await self._open_reply(visit, request, chat)
        turn = Turn(self._frame, self._desk.client, chat, visit.headers, reply)
        self._turns.add(turn)
        try:
            with suppress(ConnectionError):  # the vendor has hung up while it was written to
                await turn.lead(upstreams)
        finally:
            self._turns.discard(turn)
            self._write(visit, turn.ended, reply.answer)
        return response

    def _upstreams(self, name: str) -> list[Upstream]:
        """Return who is asked, one after the other; none: a reload has taken it away."""
        found, following = list[Upstream](), self._desk.book.upstreams.get(name)
        while following is not None and len(found) < ATTEMPTS:
            found.append(following)
            following = self._desk.book.upstreams.get(following.fallback or "")
        return found

    async def _part(
        self, visit: _Visit, request: web.Request, chat: ChatRequest, why: Reason
    ) -> web.StreamResponse:
        """End the turn politely, and ask nobody."""
        is_end = why in _ENDS.values()
        outcome = TurnOutcome.ENDED if is_end else TurnOutcome.FAILED
        ended = Ended(outcome=outcome, code=why.value, upstream=visit.ticket.upstream)
        response, reply = await self._open_reply(visit, request, chat)
        try:
            with suppress(ConnectionError):
                await reply.part("" if is_end else self._frame.apology)
        finally:
            self._write(visit, ended, reply.answer)
        return response

    async def _open_reply(
        self, visit: _Visit, request: web.Request, chat: ChatRequest
    ) -> tuple[web.StreamResponse, Reply]:
        now = self._desk.book.timekeeper.now()
        model = chat.fields.get("model")
        head = Head(
            id=f"chatcmpl-{uuid4().hex}",
            created=int(now.timestamp()),
            model=model if isinstance(model, str) else visit.ticket.upstream,
        )
        keep_text = self._frame.keep_text
        if not chat.stream:
            most = self._frame.max_body_bytes
            whole = WholeReply(head, max_bytes=most, keep_text=keep_text)
            return whole.response, whole
        response = open_stream()
        await response.prepare(request)
        reply = StreamReply(
            request, response, head, wants_usage=chat.wants_usage, keep_text=keep_text
        )
        return response, reply

    def _refuse(self, account: str, refusal: Refusal, why: str = "") -> web.Response:
        """Refuse what cannot be served, as OpenAI says it."""
        self._desk.meter.refuse(account, refusal)
        body = failure(refusal.kind, why or refusal.sentence)
        return web.Response(status=refusal.status, body=body, content_type="application/json")

    def _refuse_visit(self, visit: _Visit, refusal: Refusal, why: str = "") -> web.Response:
        """Refuse a request of an agent that may ask: a turn of its that came to nothing."""
        ended = Ended(
            outcome=TurnOutcome.REFUSED, code=refusal.reason, upstream=visit.ticket.upstream
        )
        self._write(visit, ended, None)
        return self._refuse(visit.ticket.account, refusal, why)

    # --- what is written ---

    def _write(self, visit: _Visit, ended: Ended, answer: Answer | None) -> None:
        """Let the turn be written, and counted."""
        visit.is_written = True
        ticket, took_ns = visit.ticket, boot_ns() - visit.began_ns
        first_ms = _ms(ended.first_token_ns - visit.began_ns) if ended.first_token_ns else None
        now = self._desk.book.timekeeper.now()
        keeps = self._frame.keep_text and answer is not None
        turn = llm_turns.Turn(
            at=now - timedelta(microseconds=took_ns // 1000),
            task_id=ticket.task_id,
            account=ticket.account,
            incarnation=ticket.incarnation,
            agent_id=ticket.agent_id,
            round=visit.asked.round,
            try_=visit.try_,
            upstream=ended.upstream,
            is_fallback=ended.is_fallback,
            outcome=ended.outcome,
            reason=ended.code,
            first_token_ms=first_ms,
            total_ms=_ms(took_ns),
            prompt_tokens=answer.prompt_tokens if answer is not None else None,
            completion_tokens=answer.completion_tokens if answer is not None else None,
            finish_reason=answer.finish_reason if answer is not None else None,
            user_text=visit.user_text,
            agent_text=answer.text if keeps and answer is not None else None,
        )
        self._desk.meter.count(turn)
        self._desk.scribe.write(turn)


def _ms(ns: int) -> int:
    return max(0, ns) // 1_000_000


def _allow_connections() -> None:
    """Let this process have as many connections as the turns that it takes need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        log.info("more_connections", files=wanted)
