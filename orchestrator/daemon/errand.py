"""One call in progress: it leaves in its slot, ends within its lease, and is never repeated.

Whose conversation it is, and what it says, is the gateway's business.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import anyio
import structlog

from orchestrator.clock import Anchor, boot_ns
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite, NotSent, Outcome, Settled
from orchestrator.daemon.limiter import Action, Limiter, Ticket
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.transport import Transport
from orchestrator.providers.base import Conversation, Reply, Request
from orchestrator.store.engine import DatabaseAway, StatementError

SWAP_WAIT_NS: Final = 5_000_000
"""How soon a slot is drawn for again that other daemons were quicker to take."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What a call was promised by its announce."""

    account: str
    work_class: WorkClass
    ticket: Ticket | None
    anchor: Anchor
    deadline_ns: int
    """`boot_ns` by which it has ended: inside its lease, with time left to settle it."""
    shortest: timedelta
    """A call that has less than this left is not sent at all."""
    changed_at: datetime | None
    """When the application asked for this call, if nothing but us was waited for since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a call came to."""

    settled: Settled
    action: str
    """The vendor's name of its last request; empty if it came to none."""
    latency_ms: int


class Call:
    """Leads one conversation to its outcome."""

    def __init__(
        self, transport: Transport, limiter: Limiter, meter: Meter, errand: Errand
    ) -> None:
        self._transport = transport
        self._limiter = limiter
        self._meter = meter
        self._errand = errand
        self._ticket = errand.ticket
        """Drawn by the announce, and not yet stood at: kept for the request of its own action."""
        self._slot: Ticket | None = None
        """Of the request that is about to leave; null where its action has no limit."""
        self._shortest_ns = errand.shortest // timedelta(microseconds=1) * 1000
        self._action = ""
        self._changed_at = errand.changed_at
        """Null from the first request on: one is measured, and no retry."""
        self._asked_ns = 0
        self._latency_ns = 0

    async def lead(self, begin: Callable[[], Conversation]) -> Answer:
        """Return what the conversation came to. Raises nothing but cancellation."""
        try:
            with closing(begin()) as conversation:
                outcome = await self._run(conversation)
        except Exception as error:
            # One row's trouble must not end the others'.
            log.exception("call_broken", action=self._action)
            outcome = Indefinite(code="InternalError", message=type(error).__name__)
        finally:
            self._release_ticket()
        log.debug(
            "call",
            action=self._action,
            outcome=type(outcome).__name__,
            code=outcome.code,
            request_id=outcome.request_id,
        )
        return self._answer(outcome)

    async def _run(self, conversation: Conversation) -> Outcome:
        try:
            request = next(conversation)
            while True:
                request = conversation.send(await self._exchange(request))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    async def _exchange(self, request: Request) -> Reply:
        self._action = request.action
        late = await self._stand_at_slot(request)
        if late is not None:
            return late
        started_ns = boot_ns()
        # What a look through many pages proves, it proves as of the first.
        self._asked_ns = self._asked_ns or started_ns
        reply = await self._transport.send(
            request,
            deadline_ns=self._errand.deadline_ns,
            work_class=self._errand.work_class,
            hold=partial(self._hold, request),
        )
        self._latency_ns += boot_ns() - started_ns
        return reply

    async def _hold(self, request: Request) -> NotSent | None:
        """Wait for another slot if this one has passed while the call was connecting."""
        if self._slot is not None and boot_ns() > self._slot.closes_ns:
            late = await self._stand_at_slot(request, missed=self._slot)
            if late is not None:
                return late
        self._note_wire()
        return None

    def _note_wire(self) -> None:
        """Note how long the application has waited for what leaves now."""
        if self._changed_at is None:
            return
        waited = self._errand.anchor.not_earlier(boot_ns()) - self._changed_at
        self._changed_at = None
        self._meter.note_wire(self._errand.work_class, waited / timedelta(seconds=1))

    async def _stand_at_slot(
        self, request: Request, missed: Ticket | None = None
    ) -> NotSent | None:
        """Wait for the time at which this request may leave; return why it may not."""
        try:
            late = await self._wait_for_slot(request, missed)
        except (DatabaseAway, StatementError) as error:
            # Nothing has left: who takes this for unknown waits for a proof of nothing.
            why = type(error).__name__
            return NotSent(code="RateLimited", message=f"no slot of {request.action}: {why}")
        if late is None and self._errand.deadline_ns - boot_ns() < self._shortest_ns:
            return NotSent(code="LeaseTooShort", message="too little of the lease is left")
        return late

    async def _wait_for_slot(self, request: Request, missed: Ticket | None) -> NotSent | None:
        """Wait for the time of the slot; draw one where the announce drew none for this action.

        A slot whose grace has passed, because this process or its database stood still, is given
        back for another.
        """
        self._slot = None
        action = Action(account=self._errand.account, name=request.action)
        if not self._limiter.is_limited(action):
            return None
        came_ns = boot_ns()
        ticket = self._take_ticket(action) or await self._draw(action, missed=missed)
        while ticket is not None:
            self._limiter.note_arrival(ticket)
            await anyio.sleep(max(0, ticket.opens_ns - boot_ns()) / 1e9)
            if boot_ns() <= ticket.closes_ns:
                self._slot = ticket
                self._meter.note_slot(action.account, action.name, (boot_ns() - came_ns) / 1e9)
                return None
            ticket = await self._draw(action, missed=ticket)
        return NotSent(code="RateLimited", message=f"no slot of {action.name} in time")

    def _take_ticket(self, action: Action) -> Ticket | None:
        """Return the announce's ticket if it was drawn for this action, the first time."""
        if self._ticket is None or self._ticket.action != action:
            return None
        ticket, self._ticket = self._ticket, None
        return ticket

    def _release_ticket(self) -> None:
        """Leave the announce's ticket to others if the conversation never came to its action."""
        if self._ticket is not None:
            self._limiter.release(self._ticket)
            self._ticket = None

    async def _draw(self, action: Action, missed: Ticket | None) -> Ticket | None:
        """Draw one slot that leaves time for the call. Returns at once if none will in time."""
        keep_half = self._errand.work_class is WorkClass.OBSERVE
        latest_ns = self._errand.deadline_ns - self._shortest_ns
        while boot_ns() < latest_ns:
            ticket = await self._limiter.draw_one(action, keep_half=keep_half, missed=missed)
            if ticket is not None:
                return ticket
            missed = None
            # With no time known, others were quicker at every swap: they are done in a moment.
            opens_ns = self._limiter.opens_ns(action, keep_half=keep_half)
            again_ns = max(opens_ns, boot_ns() + SWAP_WAIT_NS)
            if again_ns >= latest_ns:
                return None
            await anyio.sleep((again_ns - boot_ns()) / 1e9)
        return None

    def _answer(self, outcome: Outcome) -> Answer:
        """Return the outcome with the times that decide what it proves."""
        anchor, now_ns = self._errand.anchor, boot_ns()
        return Answer(
            settled=Settled(
                outcome=outcome,
                asked_at=anchor.not_later(self._asked_ns or now_ns),
                answered_at=anchor.not_earlier(now_ns),
            ),
            action=self._action,
            latency_ms=self._latency_ns // 1_000_000,
        )
