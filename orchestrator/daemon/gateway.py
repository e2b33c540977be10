"""Carries out announced calls: the only way to a vendor.

It says which conversation a call is and how it is signed; `errand` leads it. What the vendor said
is cleaned of known secrets here, before anything is told or written.
"""

import secrets as lots
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final, assert_never

from structlog.contextvars import bound_contextvars

from orchestrator.clock import boot_ns
from orchestrator.core.model import Agent, Verb, WorkClass
from orchestrator.core.outcome import NotSent
from orchestrator.daemon.book import Book
from orchestrator.daemon.claim import Order
from orchestrator.daemon.errand import Answer, Call, Errand
from orchestrator.daemon.lane_claim import CommandOrder
from orchestrator.daemon.limiter import Limiter
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.settle import Settlement
from orchestrator.daemon.spelling import Misspelt, Speaker, spell
from orchestrator.daemon.transport import Transport
from orchestrator.providers.base import Conversation, Provider, Spec, Stamp, without_asking
from orchestrator.providers.spec import resolve_secrets

SETTLE_RESERVE_NS: Final = 1_000_000_000
"""A call ends this long before its lease, so that its outcome can be settled under it."""
SHORTEST_CALL: Final = timedelta(milliseconds=500)
COMMAND_TIMEOUT: Final = timedelta(seconds=2)
"""Of a command: shorter than a lane's lease, because the next press waits behind it."""
SHORTEST_COMMAND: Final = timedelta(milliseconds=100)

_Begin = Callable[[Spec], Conversation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Turns orders into settlements."""

    transport: Transport
    limiter: Limiter
    book: Book
    meter: Meter
    redact: Callable[[str], str]
    """Takes known secrets out of what a vendor said."""

    async def carry_out(self, order: Order) -> Settlement:
        """Make the call and return what it came to. Raises nothing but cancellation."""
        flight, runtime = order.flight, self.book.runtime(order.account.name)
        errand = Errand(
            account=order.account.name,
            work_class=flight.work_class,
            ticket=order.ticket,
            anchor=order.anchor,
            deadline_ns=_deadline_ns(order.lease_ends_ns, runtime.call_timeout),
            shortest=SHORTEST_CALL,
            changed_at=order.changed_at,
        )
        begin = partial(self._converse, order)
        answer = await self._lead(flight.task_id, flight.agent, errand, begin)
        action = answer.action or runtime.provider.action(flight.verb)
        self._count(errand, action, answer)
        return Settlement(
            order=order, settled=answer.settled, action=action, latency_ms=answer.latency_ms
        )

    async def send_command(self, order: CommandOrder) -> Answer:
        """Send a command and return what it came to. Raises nothing but cancellation."""
        flight = order.flight
        listens = flight.command.kind.listens
        errand = Errand(
            account=order.account.name,
            work_class=WorkClass.LISTENING if listens else WorkClass.START,
            ticket=order.ticket,
            anchor=order.anchor,
            deadline_ns=_deadline_ns(order.lease_ends_ns, COMMAND_TIMEOUT),
            shortest=SHORTEST_COMMAND,
            changed_at=order.changed_at,
        )
        begin = partial(self._command, order)
        answer = await self._lead(flight.command.task_id, flight.agent, errand, begin)
        self._count(errand, answer.action, answer)
        return answer

    async def _lead(
        self, task_id: str, agent: Agent, errand: Errand, begin: Callable[[], Conversation]
    ) -> Answer:
        about = {"task_id": task_id, "account": agent.account}
        with bound_contextvars(**about, incarnation=agent.incarnation):
            call = Call(self.transport, self.limiter, self.meter, errand)
            with self.meter.in_flight(errand.work_class):
                answer = await call.lead(begin)
        outcome = answer.settled.outcome
        said = self.redact(outcome.message)
        if said == outcome.message:
            return answer
        cleaned = replace(answer.settled, outcome=replace(outcome, message=said))
        return replace(answer, settled=cleaned)

    def _count(self, errand: Errand, action: str, answer: Answer) -> None:
        outcome = answer.settled.outcome
        self.meter.count_call(errand.account, action, outcome, answer.latency_ms)

    # --- which conversation ---

    def _converse(self, order: Order) -> Conversation:
        agent, stamp = order.flight.agent, self._stamp(order)
        provider = self._provider(order.account.name, agent)
        match order.flight.verb:
            case Verb.START:
                return self._with_spec(
                    order, provider, lambda spec: provider.start(agent, spec, stamp)
                )
            case Verb.UPDATE:
                return self._with_spec(
                    order, provider, lambda spec: provider.update(agent, spec, stamp)
                )
            case Verb.STOP:
                return provider.stop(agent, stamp)
            case Verb.FIND:
                return provider.find(agent, stamp)
            case Verb.KICK:
                return provider.kick(agent, stamp)
            case Verb.POLL:
                return provider.poll(agent, stamp)
            case other:
                assert_never(other)

    def _with_spec(self, order: Order, provider: Provider, begin: _Begin) -> Conversation:
        """Begin a conversation that carries the spec.

        Nothing leaves if the spec's words stand for nothing any more: the next claim says why.
        """
        flight = order.flight
        speaker = Speaker(task_id=flight.task_id, agent=flight.agent, provider=provider)
        spec = spell(order.spec, self.book, speaker)
        if isinstance(spec, Misspelt):
            return without_asking(NotSent(code=spec.reason, message=spec.message))
        return begin(spec)

    def _command(self, order: CommandOrder) -> Conversation:
        name, command = order.account.name, order.flight.outgoing
        payload, _ = resolve_secrets(command.payload, self.book.secrets)
        signed_at = order.anchor.not_later(boot_ns()) + self.book.offset_at(name, order.anchor)
        stamp = Stamp(signed_at=signed_at, nonce=_nonce)
        agent = order.flight.agent
        outgoing = replace(command, payload=payload)
        return self._provider(name, agent).command(agent, outgoing, stamp)

    def _provider(self, name: str, agent: Agent) -> Provider:
        """Return the account as it was where this agent lives: only answers from there count."""
        return self.book.runtime(name).provider.at(agent.site)

    def _stamp(self, order: Order) -> Stamp:
        """Return the time to sign with, on the vendor's clock.

        What the horizon was computed from is signed as of its announce, and so far back that only
        `send_life` is left of it: a start, and a stop that would hit a later agent of the same
        user. Anything else is signed as of now.
        """
        account, verb = order.account, order.flight.verb
        offset = self.book.offset_at(account.name, order.anchor)
        if verb is Verb.START or (verb is Verb.STOP and account.caps.one_per_user):
            back = account.caps.signature_window - account.send_life
            signed_at = order.flight.announced_at + offset - back
        else:
            signed_at = order.anchor.not_later(boot_ns()) + offset
        return Stamp(signed_at=signed_at, nonce=_nonce)


def _deadline_ns(lease_ends_ns: int, timeout: timedelta) -> int:
    timeout_ns = timeout // timedelta(microseconds=1) * 1000
    return min(lease_ends_ns - SETTLE_RESERVE_NS, boot_ns() + timeout_ns)


def _nonce() -> str:
    return lots.token_hex(8)
