"""Leads one turn: asks an upstream, passes on what it says, and ends the turn whatever happens.

Rule 1: while nothing was said, a fallback may take over; from the first word on, a turn that breaks
is ended where it is.
Rule 2: a turn is over at `total_timeout`, and an upstream has `first_token_timeout` for its first
word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio

from orchestrator.clock import boot_ns
from orchestrator.core.turn import TurnOutcome, TurnReason
from orchestrator.daemon.llm.frame import LlmFrame, Upstream
from orchestrator.daemon.llm.reply import Reply
from orchestrator.daemon.llm.upstream import Unanswered, UpstreamClient
from orchestrator.providers.chat import ChatRequest, upstream_body
from orchestrator.providers.chat_answer import UpstreamError, UpstreamFault
from orchestrator.providers.chat_events import TooLong

_FAULTS: Final[Mapping[UpstreamFault, TurnReason]] = {
    UpstreamFault.GARBLED: TurnReason.GARBLED,
    UpstreamFault.ERROR: TurnReason.ERROR,
}


@dataclass(slots=True, kw_only=True)
class Ended:
    """What a turn came to, as far as it has come."""

    outcome: TurnOutcome = TurnOutcome.INTERRUPTED
    """Of a turn whose vendor hangs up nothing more is heard."""
    code: str | None = None
    """`llm_turn.reason`."""
    upstream: str = ""
    is_fallback: bool = False
    gave_up: list[str] = field(default_factory=list)
    """Upstreams that did not answer, or not to the end."""
    first_token_ns: int = 0
    """When the first word left (`boot_ns`); 0: none has."""


class Turn:
    """One turn that is served. `headers`: the vendor's request's, in lower case."""

    def __init__(
        self,
        frame: LlmFrame,
        client: UpstreamClient,
        request: ChatRequest,
        headers: Mapping[str, str],
        reply: Reply,
    ) -> None:
        self._frame = frame
        self._client = client
        self._request: ChatRequest | None = request
        self._headers = headers
        self._reply = reply
        self._scope = anyio.CancelScope()
        """Of the present upstream."""
        self._ends_at = 0.0
        self._cut: TurnReason | None = None
        self.ended = Ended()

    def cut(self, reason: TurnReason) -> None:
        """End the turn now, politely."""
        self._cut = reason
        self._scope.cancel()

    async def lead(self, upstreams: Sequence[Upstream]) -> None:
        """Answer the vendor, asking one after the other; there is at least one.

        Ends with a valid end, or by cancellation: the vendor has hung up.
        """
        self._ends_at = anyio.current_time() + self._frame.total_timeout.total_seconds()
        for number, upstream in enumerate(upstreams):
            if self._cut is not None:
                self.ended.code = self._cut.value
                break
            self.ended.upstream, self.ended.is_fallback = upstream.name, number > 0
            code = await self._ask(upstream)
            if code is None:
                return
            self.ended.code = self.ended.code or code
            self.ended.gave_up.append(upstream.name)
            if self._reply.answer.has_spoken:
                self.ended.outcome = TurnOutcome.CUT
                await self._reply.end()
                return
            if self._is_over():
                break
            self._reply.restart()
        # It is the first one's trouble: who stands in for it did what he could.
        self.ended.upstream, self.ended.is_fallback = upstreams[0].name, False
        self.ended.outcome = TurnOutcome.FAILED
        await self._reply.part(self._frame.apology)

    def _is_over(self) -> bool:
        return self._cut is not None or anyio.current_time() >= self._ends_at

    def _body(self, upstream: Upstream) -> bytes:
        assert self._request is not None  # noqa: S101 - let go of at the first word
        return upstream_body(
            self._request,
            model=upstream.model,
            pass_fields=upstream.pass_fields,
            counts_tokens=upstream.counts_tokens,
        )

    async def _ask(self, upstream: Upstream) -> str | None:
        """Let one upstream speak; return why it has not, or not to the end."""
        first_s = self._frame.first_token_timeout.total_seconds()
        until = min(anyio.current_time() + first_s, self._ends_at)
        self._scope = anyio.CancelScope(deadline=until)
        try:
            with self._scope:
                await self._listen(upstream)
                return None
        except Unanswered as why:
            return why.code
        except UpstreamError as fault:
            return _FAULTS[fault.reason].value
        except TooLong:
            return TurnReason.TOO_LONG.value
        return self._why_cut().value

    def _why_cut(self) -> TurnReason:
        if self._cut is not None:
            return self._cut
        has_spoken = self._reply.answer.has_spoken
        return TurnReason.TOTAL_TIMEOUT if has_spoken or self._is_over() else TurnReason.NO_WORD

    async def _listen(self, upstream: Upstream) -> None:
        passed = {
            name: value for name, value in self._headers.items() if name in upstream.pass_headers
        }
        reply = self._reply
        async with self._client.ask(upstream, self._body(upstream), passed) as stream:
            answer = reply.answer
            while not answer.is_done and (payloads := await stream.read()) is not None:
                await reply.say(payloads)
                self._note_first_word()
            if not answer.is_done and answer.finish_reason is None:
                raise Unanswered(TurnReason.BROKEN if answer.has_spoken else TurnReason.SILENT)
            await reply.end()
            # Whoever leaves from now on has heard all of it.
            self.ended.outcome = TurnOutcome.ANSWERED

    def _note_first_word(self) -> None:
        """From its first word on an upstream may speak to the end of the turn."""
        if self.ended.first_token_ns == 0 and self._reply.answer.has_spoken:
            self.ended.first_token_ns = boot_ns()
            self._scope.deadline = self._ends_at
            self._request = None  # nobody else will be asked, and a history is large
