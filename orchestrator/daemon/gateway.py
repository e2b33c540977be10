"""Carries out an announced call: the only way to a vendor.

It keeps the time that the announce promised: not before the slot, not after its grace, and only
with enough of the lease left. It signs a start as of its announce. It never repeats anything.
"""

import secrets as lots
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, assert_never

import anyio
import structlog
from structlog.contextvars import bound_contextvars

from orchestrator.clock import boot_ns
from orchestrator.core.model import Verb, WorkClass
from orchestrator.core.outcome import Indefinite, NotSent, Outcome, Settled
from orchestrator.daemon.book import Book
from orchestrator.daemon.claim import Order
from orchestrator.daemon.limiter import Action, Limiter, Ticket
from orchestrator.daemon.settle import Settlement
from orchestrator.daemon.transport import Transport
from orchestrator.providers.base import Conversation, Provider, Reply, Request, Stamp
from orchestrator.providers.spec import resolve_secrets

SETTLE_RESERVE_NS: Final = 1_000_000_000
"""A call ends this long before its lease, so that its outcome can be settled under it."""
SHORTEST_CALL_NS: Final = 500_000_000
"""A call that has less than this left is not sent at all."""
SWAP_WAIT_NS: Final = 5_000_000
"""How soon a slot is drawn for again that other daemons were quicker to take."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Turns orders into settlements."""

    transport: Transport
    limiter: Limiter
    book: Book
    redact: Callable[[str], str]
    """Takes known secrets out of what a vendor said."""

    async def carry_out(self, order: Order) -> Settlement:
        """Make the call and return what it came to. Raises nothing but cancellation."""
        flight, call = order.flight, _Call(self, order)
        about = {"task_id": flight.task_id, "account": flight.agent.account}
        with bound_contextvars(**about, incarnation=flight.agent.incarnation):
            try:
                outcome = await call.run()
            except Exception as error:
                # One row's trouble must not end the others'.
                log.exception("call_broken", action=call.action)
                outcome = Indefinite(code="InternalError", message=type(error).__name__)
            log.debug(
                "call",
                action=call.action,
                outcome=type(outcome).__name__,
                code=outcome.code,
                request_id=outcome.request_id,
            )
        said = self.redact(outcome.message)
        return call.settle(replace(outcome, message=said) if said != outcome.message else outcome)


class _Call:
    """One call in progress."""

    def __init__(self, gateway: Gateway, order: Order) -> None:
        self.gateway = gateway
        self.order = order
        self.runtime = gateway.book.runtime(order.account.name)
        timeout_ns = self.runtime.call_timeout // timedelta(microseconds=1) * 1000
        self.latest_ns = order.lease_ends_ns - SETTLE_RESERVE_NS
        self.deadline_ns = min(self.latest_ns, boot_ns() + timeout_ns)
        self.ticket: Ticket | None = order.ticket
        self.action = ""
        self.asked_ns = 0
        self.latency_ns = 0

    async def run(self) -> Outcome:
        """Lead the conversation to its outcome."""
        conversation = self._converse()
        try:
            request = next(conversation)
            while True:
                reply = await self._exchange(request)
                request = conversation.send(reply)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        finally:
            conversation.close()

    def _converse(self) -> Conversation:
        order, provider = self.order, self._provider()
        agent, stamp = order.flight.agent, self._stamp()
        match order.flight.verb:
            case Verb.START:
                spec, _ = resolve_secrets(order.spec, self.gateway.book.secrets)
                return provider.start(agent, spec, stamp)
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

    def _provider(self) -> Provider:
        """Return the account as it was where this agent lives: only answers from there count."""
        return self.runtime.provider.at(self.order.flight.agent.site)

    def _stamp(self) -> Stamp:
        """Return the time to sign with, on the vendor's clock.

        What the horizon was computed from is signed as of its announce, and so far back that only
        `send_life` is left of it: a start, and a stop that would hit a later agent of the same
        user. Anything else is signed as of now.
        """
        order, account = self.order, self.order.account
        offset = self.gateway.book.offset(account.name)
        if order.flight.verb is Verb.START or (
            order.flight.verb is Verb.STOP and account.caps.one_per_user
        ):
            back = account.caps.signature_window - account.send_life
            signed_at = order.flight.announced_at + offset - back
        else:
            signed_at = order.anchor.not_later(boot_ns()) + offset
        return Stamp(signed_at=signed_at, nonce=_nonce)

    async def _exchange(self, request: Request) -> Reply:
        self.action = request.action
        late = await self._wait_for_slot(request)
        if late is not None:
            return late
        if self.deadline_ns - boot_ns() < SHORTEST_CALL_NS:
            return NotSent(code="LeaseTooShort", message="too little of the lease is left")
        started_ns = boot_ns()
        # What a look through many pages proves, it proves as of the first.
        self.asked_ns = self.asked_ns or started_ns
        reply = await self.gateway.transport.send(
            request, deadline_ns=self.deadline_ns, work_class=self.order.flight.work_class
        )
        self.latency_ns += boot_ns() - started_ns
        return reply

    async def _wait_for_slot(self, request: Request) -> NotSent | None:
        """Wait for the time of the slot; draw one where the announce drew none for this action."""
        action = Action(account=self.order.account.name, name=request.action)
        if not self.gateway.limiter.is_limited(action):
            return None
        ticket, self.ticket = self.ticket, None
        if ticket is None or ticket.action != action or ticket.closes_ns < boot_ns():
            ticket = await self._draw(action)
        if ticket is None:
            return NotSent(code="RateLimited", message=f"no slot of {action.name} in time")
        await anyio.sleep(max(0, ticket.opens_ns - boot_ns()) / 1e9)
        if boot_ns() > ticket.closes_ns:
            return NotSent(code="SlotMissed", message="the slot's grace was over")
        return None

    async def _draw(self, action: Action) -> Ticket | None:
        """Draw one slot that leaves time for the call. Returns at once if none will in time."""
        limiter = self.gateway.limiter
        keep_half = self.order.flight.work_class is WorkClass.OBSERVE
        latest_ns = self.deadline_ns - SHORTEST_CALL_NS
        while boot_ns() < latest_ns:
            tickets = await limiter.draw(action, 1, keep_half=keep_half)
            if tickets:
                return tickets[0]
            # With no time known, others were quicker at every swap: they are done in a moment.
            again_ns = max(limiter.opens_ns(action, keep_half=keep_half), boot_ns() + SWAP_WAIT_NS)
            if again_ns >= latest_ns:
                return None
            await anyio.sleep((again_ns - boot_ns()) / 1e9)
        return None

    def settle(self, outcome: Outcome) -> Settlement:
        """Return the outcome with the times that decide what it proves."""
        anchor, verb = self.order.anchor, self.order.flight.verb
        now_ns = boot_ns()
        return Settlement(
            order=self.order,
            settled=Settled(
                outcome=outcome,
                asked_at=anchor.not_later(self.asked_ns or now_ns),
                answered_at=anchor.not_earlier(now_ns),
            ),
            action=self.action or self.runtime.provider.action(verb),
            latency_ms=self.latency_ns // 1_000_000,
        )


def _nonce() -> str:
    return lots.token_hex(8)
