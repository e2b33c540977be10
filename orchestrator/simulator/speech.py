"""Asks the customers' own LLMs what the users say, and hears the answers.

Rule 1: a turn never raises: what goes wrong with it is its fault.
Rule 2: to interrupt is to close the connection, at once, as the vendors do.
Rule 3: waiting for an answer goes by real time; only the pace of users who talk by themselves goes
by the world's.
"""

import math
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace

import aiohttp
import anyio
from anyio.abc import TaskGroup

from orchestrator.clock import boot_ns
from orchestrator.simulator.answers import EVENT_STREAM, AnswerReader, Rule
from orchestrator.simulator.chatter import Chatter
from orchestrator.simulator.questions import Request, Unheard, Utterance
from orchestrator.simulator.simulation import Simulator
from orchestrator.simulator.turns import Turn
from orchestrator.simulator.world import Agent, Exchange

SILENCE_S = 30
"""How long a vendor waits for the next chunk. None of them documents it."""
REMEMBERED = 500
"""Exchanges of a conversation that are kept: the vendors' largest history."""
LONGEST_PAUSE_S = 0.25

_FAILURES = (aiohttp.ClientError, OSError, ValueError)
"""What a request meets; ValueError: the customer's own headers or URL are no such thing."""


@dataclass(frozen=True, slots=True)
class _Lines:
    """What there is while conversations are held."""

    session: aiohttp.ClientSession
    turns: TaskGroup


@dataclass(frozen=True, slots=True)
class Spoken:
    """A turn that has begun."""

    turn: Turn
    ended: anyio.Event = field(default_factory=anyio.Event)


class Speech:
    """The conversations of one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._chatter = Chatter(simulator.seed)
        self._busy: set[Agent] = set()
        self._opened = anyio.Event()
        self._lines: _Lines | None = None

    async def run(self) -> None:
        """Hold conversations until cancelled."""
        async with _open_session() as session, anyio.create_task_group() as turns:
            self._lines = _Lines(session, turns)
            self._opened.set()
            while True:
                await self._chat()
                await anyio.sleep(self._pause_s())

    async def say(self, agent: Agent, utterance: Utterance, *, zombie: bool = False) -> Spoken:
        """Let the agent's user say something; the vendor then asks the LLM.

        Raises:
            Unheard: nobody hears it, or there is no LLM to be asked.
        """
        lines = await self._open_lines()
        turn, request = self._simulator.begin_turn(agent, utterance, zombie=zombie)
        spoken = Spoken(turn)
        self._busy.add(agent)
        lines.turns.start_soon(self._hold, lines.session, agent, utterance, request, spoken)
        return spoken

    async def _open_lines(self) -> _Lines:
        while self._lines is None:
            await self._opened.wait()
        return self._lines

    async def _chat(self) -> None:
        """Let all those speak whose time has come, unless they still listen to an answer."""
        every = timedelta(seconds=self._simulator.switches.talk_every_s)
        if not every:
            return
        now = self._simulator.world_now()
        for agent, utterance in self._chatter.due(self._simulator.listeners(), now, every):
            with suppress(Unheard):
                if agent not in self._busy:
                    await self.say(agent, utterance)

    def _pause_s(self) -> float:
        every_s = self._simulator.real_s(self._simulator.switches.talk_every_s)
        return min(every_s / 2, LONGEST_PAUSE_S) if every_s else LONGEST_PAUSE_S

    async def _hold(
        self,
        session: aiohttp.ClientSession,
        agent: Agent,
        utterance: Utterance,
        request: Request,
        spoken: Spoken,
    ) -> None:
        """Hold one turn, from the request to the last word."""
        turn, limited = spoken.turn, self._simulator.switches.llm_time_limits
        try:
            if utterance.repeat:
                await _Asking(session, request, turn, limited=limited).abandon()
            await _Asking(session, request, turn, limited=limited).ask(utterance.interrupt_after)
        finally:
            self._busy.discard(agent)
            exchange = Exchange(turn.said, turn.answered)
            agent.exchanges = (*agent.exchanges, exchange)[-REMEMBERED:]
            turn.done = True
            spoken.ended.set()


class _Asking:
    """One request to an LLM, and its answer."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        request: Request,
        turn: Turn,
        *,
        limited: bool,
    ) -> None:
        turn.requests += 1
        self._session = session
        self._request = request
        self._turn = turn
        self._answer_within_s = request.answer_within_s if limited else math.inf
        self._silence_s = SILENCE_S if limited else math.inf
        self._reader = AnswerReader(wants_usage=request.wants_usage)
        self._began_ns = boot_ns()

    async def ask(self, interrupt_after: int | None) -> None:
        """Ask, and hang up after so many chunks with words (0: at once; None: never)."""
        if interrupt_after == 0:
            await self.abandon()
            self._turn.interrupted = self._reader.fault is None
        else:
            await self._ask(interrupt_after)
        self._turn.fault = self._reader.fault
        self._turn.total_ms = self._passed_ms()

    async def abandon(self) -> None:
        """Hang up as soon as the request is out."""
        sent = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send, sent)
            await sent.wait()
            tasks.cancel_scope.cancel()

    async def _ask(self, interrupt_after: int | None) -> None:
        patience = anyio.move_on_after(self._answer_within_s)
        try:
            with patience:
                async with self._post() as response:
                    await self._hear(response, interrupt_after, patience)
        except _FAILURES as failure:
            self._reader.break_rule(Rule.CONNECTION, type(failure).__name__)
        if patience.cancelled_caught:
            limit_s = self._silence_s if self._reader.events else self._answer_within_s
            self._reader.break_rule(Rule.LATE, f"nothing for {limit_s:g} s")

    async def _send(self, sent: anyio.Event) -> None:
        try:
            async with self._post(sent):
                pass
        except _FAILURES as failure:
            self._reader.break_rule(Rule.CONNECTION, type(failure).__name__)
        finally:
            sent.set()

    def _post(self, sent: anyio.Event | None = None) -> aiohttp.client._RequestContextManager:
        return self._session.post(
            self._request.url,
            data=self._request.body,
            headers=self._request.headers,
            allow_redirects=False,
            trace_request_ctx=sent,
        )

    async def _hear(
        self,
        response: aiohttp.ClientResponse,
        interrupt_after: int | None,
        patience: anyio.CancelScope,
    ) -> None:
        self._turn.status = response.status
        expected = EVENT_STREAM if self._request.streams else "application/json"
        content_type = response.headers.get("Content-Type", "")
        if not self._reader.begin(response.status, content_type, expected):
            response.close()
            return
        if not self._request.streams:
            self._reader.take_whole(await response.read())
            self._note()
            return
        async for data in response.content.iter_any():
            for line in self._reader.lines(data):
                self._reader.take(line)
                self._note()
                if self._reader.chunks == interrupt_after:
                    self._turn.interrupted = True
                    response.close()
                    return
            if self._reader.events:
                patience.deadline = anyio.current_time() + self._silence_s
        self._reader.end()

    def _note(self) -> None:
        """Write what has been heard so far into the turn."""
        turn, reader = self._turn, self._reader
        if reader.chunks and turn.first_token_ms is None:
            turn.first_token_ms = self._passed_ms()
        turn.answered, turn.chunks = reader.words, reader.chunks
        turn.finish_reason = reader.finish_reason

    def _passed_ms(self) -> float:
        return round((boot_ns() - self._began_ns) / 1e6, 3)


def _open_session() -> aiohttp.ClientSession:
    tracing = aiohttp.TraceConfig()
    tracing.on_request_chunk_sent.append(_tell_that_sent)
    return aiohttp.ClientSession(
        # A request that breaks off is repeated by the vendor's rule alone, not by the client's.
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S),
        trace_configs=[tracing],
    )


async def _tell_that_sent(
    session: aiohttp.ClientSession,  # noqa: ARG001 - aiohttp's signature
    context: SimpleNamespace,
    params: aiohttp.TraceRequestChunkSentParams,  # noqa: ARG001 - aiohttp's signature
) -> None:
    # The client tells this just before it writes, and lets nobody else run in between.
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.set()
