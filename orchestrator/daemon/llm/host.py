"""Receives one agent's request: reads it, looks up who asks, and has it answered and written down.

Rule 1: no upstream is asked for an agent that nobody wants.
Rule 2: no word of a conversation is stored, unless the configuration says so.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import uuid4

import anyio
from aiohttp import web
from anyio.abc import TaskGroup

from orchestrator.clock import boot_ns
from orchestrator.core.asking import Asker
from orchestrator.core.turn import Standing, TurnOutcome, TurnReason, is_news, stand
from orchestrator.daemon.bodies import Unread, read_body
from orchestrator.daemon.book import ATTEMPTS, Book
from orchestrator.daemon.llm.budget import Budget
from orchestrator.daemon.llm.callers import Callers, Found, Untold
from orchestrator.daemon.llm.frame import LlmFrame, Upstream
from orchestrator.daemon.llm.refusal import Refusal
from orchestrator.daemon.llm.reply import Reply, StreamReply, WholeReply, open_stream
from orchestrator.daemon.llm.rounds import Rounds
from orchestrator.daemon.llm.scribe import Scribe
from orchestrator.daemon.llm.thrift import Thrift
from orchestrator.daemon.llm.turn import Ended, Turn
from orchestrator.daemon.llm.upstream import UpstreamClient
from orchestrator.daemon.llm.visit import Visit
from orchestrator.daemon.llm.witness import Witness
from orchestrator.daemon.monitoring.llm_meter import LlmMeter
from orchestrator.providers.base import Garbled
from orchestrator.providers.chat import ChatRequest, failure, read_chat
from orchestrator.providers.chat_answer import Answer
from orchestrator.providers.chat_chunks import Head
from orchestrator.store import llm_turns

BYTES_MAX: Final = 134_217_728
"""Of all requests that are open, as they were sent. One more is asked to come again."""
ATTEST_EVERY_S: Final = 4.0
"""Less than any `idle_timeout_s`."""

_UNREAD: Final = {
    Unread.LARGE: Refusal.LARGE,
    Unread.SLOW: Refusal.SLOW,
    Unread.GARBLED: Refusal.GARBLED,
}
_CAME_TO_NOTHING: Final = frozenset({TurnOutcome.ENDED, TurnOutcome.REFUSED})
_ENDS: Final = {
    Standing.STOPPED: TurnReason.STOPPED,
    Standing.SUPERSEDED: TurnReason.SUPERSEDED,
    Standing.GONE: TurnReason.GONE,
    Standing.UNKNOWN: TurnReason.UNKNOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What requests are answered with."""

    frame: LlmFrame
    book: Book
    client: UpstreamClient
    callers: Callers
    witness: Witness
    scribe: Scribe
    meter: LlmMeter
    aside: TaskGroup
    """For what no turn waits for."""


class Host:
    """Answers the agents whose tokens are genuine."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._frame = desk.frame
        self._rounds = Rounds()
        self._budget = Budget(BYTES_MAX)
        self._turns: dict[Turn, Visit] = {}
        self._ending: TurnReason | None = None
        self._thrift = Thrift()

    def cut(self, reason: TurnReason) -> None:
        """End all turns now, politely, and those that are about to begin."""
        self._ending = reason
        for turn in self._turns:
            turn.cut(reason)

    async def attest(self) -> None:
        """Say now and then of turns that last that somebody talks."""
        while True:
            await anyio.sleep(ATTEST_EVERY_S)
            now = self._desk.book.timekeeper.now()
            for visit in self._turns.values():
                self._desk.scribe.talked(visit.ticket.task_id, now)

    async def receive(self, visit: Visit) -> web.StreamResponse:
        """Answer one request. Whatever becomes of it, it is written."""
        try:
            return await self._welcome(visit)
        finally:
            self._budget.release(visit.reserved)
            if not visit.is_written:  # it was hung up on before anybody was asked
                self._write(visit, Ended(upstream=visit.ticket.upstream), None)

    async def _welcome(self, visit: Visit) -> web.StreamResponse:
        # Its body is read while it is looked up.
        lookup = self._desk.callers.look_up(visit.ticket.agent_id)
        refusal, why = await self._understand(visit)
        # Whatever it asks, it is alive.
        standing = self._note(visit, await lookup.found())
        if refusal is not None:
            return self._refuse(visit, refusal, why)
        if standing is not Standing.WANTED:
            return await self._part(visit, _ENDS[standing])
        upstreams = self._upstreams(visit.ticket.upstream)
        if not upstreams:
            return await self._part(visit, TurnReason.UNKNOWN_UPSTREAM)
        return await self._talk(visit, upstreams)

    # --- what is asked ---

    async def _understand(self, visit: Visit) -> tuple[Refusal | None, str]:
        """Read what is asked; return why it is not served, and in what words."""
        most = self._frame.max_body_bytes
        visit.reserved = self._budget.reserve(min(visit.request.content_length or most, most))
        if visit.reserved == 0:
            return Refusal.BUSY, Refusal.BUSY.sentence
        body = await read_body(visit.request, most)
        if isinstance(body, Unread):
            return _UNREAD[body], _UNREAD[body].sentence
        # Who did not say how long it would be has reserved the most.
        visit.reserved = self._budget.shrink(visit.reserved, len(body))
        chat = read_chat(body)
        if isinstance(chat, Garbled):
            return Refusal.GARBLED, chat.why
        provider = self._desk.book.runtime(visit.ticket.account).provider
        visit.chat = chat
        visit.asked = provider.llm.read(visit.headers, chat.fields)
        visit.try_ = self._rounds.count(visit.ticket.agent_id, visit.asked.round)
        if self._frame.keep_text:
            visit.user_text = chat.last_user_text
        return None, ""

    def _note(self, visit: Visit, found: Found) -> Standing:
        """Return whether who asks is wanted, and let be written what its request proves."""
        ticket, now = visit.ticket, self._desk.book.timekeeper.now()
        if isinstance(found, Untold):
            self._desk.scribe.talked(ticket.task_id, now)
            return Standing.WANTED
        if is_news(found, visit.asked.handle):
            caps = self._desk.book.runtime(ticket.account).provider.caps
            asker = Asker(
                agent_id=ticket.agent_id,
                room_id=ticket.room_id,
                user_id=ticket.user_id,
                handle=visit.asked.handle,
                caller=found,
                at=now,
            )
            self._desk.aside.start_soon(self._desk.witness.tell, ticket.account, asker, caps)
        standing = stand(found)
        if standing is Standing.WANTED:
            self._desk.scribe.talked(ticket.task_id, now)
        return standing

    def _upstreams(self, name: str) -> list[Upstream]:
        """Return who is asked, one after the other; none: a reload has taken it away."""
        found, following = list[Upstream](), self._desk.book.upstreams.get(name)
        while following is not None and len(found) < ATTEMPTS:
            found.append(following)
            following = self._desk.book.upstreams.get(following.fallback or "")
        return found

    # --- what is answered ---

    async def _talk(self, visit: Visit, upstreams: list[Upstream]) -> web.StreamResponse:
        chat = visit.take_chat()
        response, reply = await self._open_reply(visit, chat)
        turn = Turn(self._frame, self._desk.client, chat, visit.headers, reply)
        del chat  # the turn's alone, which lets go of it
        self._turns[turn] = visit
        if self._ending is not None:
            turn.cut(self._ending)
        try:
            with suppress(ConnectionError):  # the vendor has hung up while it was written to
                await turn.lead(upstreams)
        finally:
            del self._turns[turn]
            self._desk.scribe.talked(visit.ticket.task_id, self._desk.book.timekeeper.now())
            self._write(visit, turn.ended, reply.answer)
        return response

    async def _part(self, visit: Visit, why: TurnReason) -> web.StreamResponse:
        """End the turn politely, and ask nobody."""
        is_end = why in _ENDS.values()
        outcome = TurnOutcome.ENDED if is_end else TurnOutcome.FAILED
        ended = Ended(outcome=outcome, code=why.value, upstream=visit.ticket.upstream)
        response, reply = await self._open_reply(visit, visit.take_chat())
        try:
            with suppress(ConnectionError):
                await reply.part("" if is_end else self._frame.apology)
        finally:
            self._write(visit, ended, reply.answer)
        return response

    async def _open_reply(
        self, visit: Visit, chat: ChatRequest
    ) -> tuple[web.StreamResponse, Reply]:
        model = chat.fields.get("model")
        head = Head(
            id=f"chatcmpl-{uuid4().hex}",
            created=int(self._desk.book.timekeeper.now().timestamp()),
            model=model if isinstance(model, str) else visit.ticket.upstream,
        )
        keep_text = self._frame.keep_text
        if not chat.stream:
            most = self._frame.max_body_bytes
            whole = WholeReply(head, max_bytes=most, keep_text=keep_text)
            return whole.response, whole
        response = open_stream()
        await response.prepare(visit.request)
        reply = StreamReply(
            visit.request, response, head, wants_usage=chat.wants_usage, keep_text=keep_text
        )
        return response, reply

    def _refuse(self, visit: Visit, refusal: Refusal, why: str) -> web.Response:
        """Refuse a request of an agent that may ask: a turn of its that came to nothing."""
        upstream = visit.ticket.upstream
        ended = Ended(outcome=TurnOutcome.REFUSED, code=refusal.reason, upstream=upstream)
        self._write(visit, ended, None)
        self._desk.meter.refuse(visit.ticket.account, refusal)
        return refuse(refusal, why)

    # --- what is written ---

    def _write(self, visit: Visit, ended: Ended, answer: Answer | None) -> None:
        """Let the turn be written, and counted."""
        visit.is_written = True
        ticket, took_ns = visit.ticket, boot_ns() - visit.began_ns
        first_ms = _ms(ended.first_token_ns - visit.began_ns) if ended.first_token_ns else None
        now = self._desk.book.timekeeper.now()
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
            agent_text=answer.text if self._frame.keep_text and answer is not None else None,
        )
        self._desk.meter.count(turn, ended.gave_up)
        is_vain = ended.outcome in _CAME_TO_NOTHING
        if not is_vain or self._thrift.allows(ticket.agent_id, boot_ns()):
            self._desk.scribe.write(turn)


def refuse(refusal: Refusal, why: str) -> web.Response:
    """Return a refusal as OpenAI says it."""
    body = failure(refusal.kind, why)
    return web.Response(status=refusal.status, body=body, content_type="application/json")


def _ms(ns: int) -> int:
    return max(0, ns) // 1_000_000
