"""A database or a vendor far away, a machine that stands still: all is late, nothing is lost."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, TypeVarTuple

import anyio
import pytest
from anyio.abc import ByteStream
from sqlalchemy import Connection

from orchestrator.clock import Anchor, boot_ns, utc_now
from orchestrator.core.bucket import GRACE_US
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Done, NotSent, Outcome
from orchestrator.daemon.errand import Call, Errand
from orchestrator.daemon.limiter import Action, Limiter
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.transport import FRESH_NS, Transport
from orchestrator.providers.base import Conversation, Request, Response
from orchestrator.store.engine import Database, DatabaseAway
from tests.loopback_vendor import (
    Dates,
    answer,
    answering,
    deadline,
    open_transport,
    read_request,
    send,
    vendor,
)

pytestmark = pytest.mark.anyio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = Action(account="volc", name="Start")
FAR_S = 2 * GRACE_US / 1e6
"""By when a slot for now is over, wherever in its second it lies."""


class DistantDatabase(Database):
    """A real one at the end of a long line."""

    def __init__(self, near: Database) -> None:
        self._near = near
        self.dialect = near.dialect
        self.is_away = False

    async def read(self, operation: Callable[[Connection, *Ts], T], *args: *Ts) -> T:
        return await self._near.read(operation, *args)

    async def write(
        self,
        operation: Callable[[Connection, *Ts], T],
        *args: *Ts,
        durable: bool = True,
        work_class: WorkClass | None = None,
    ) -> T:
        if self.is_away:
            raise DatabaseAway("distant: the connection was lost")
        await anyio.sleep(FAR_S / 2)
        result = await self._near.write(operation, *args, durable=durable, work_class=work_class)
        await anyio.sleep(FAR_S)
        return result

    async def close(self) -> None:
        await self._near.close()


async def lead(transport: Transport, limiter: Limiter, request: Request) -> Outcome:
    """Lead a call of one request to its outcome."""
    now_ns = boot_ns()
    errand = Errand(
        account=START.account,
        work_class=WorkClass.START,
        ticket=None,
        anchor=Anchor(then=utc_now(), before_ns=now_ns, after_ns=now_ns),
        deadline_ns=deadline(5),
        shortest=timedelta(milliseconds=100),
        changed_at=None,
    )
    answer = await Call(transport, limiter, Meter(), errand).lead(lambda: converse(request))
    return answer.settled.outcome


def converse(request: Request) -> Conversation:
    reply = yield request
    return Done(handle="taken") if isinstance(reply, Response) else reply


async def test_a_call_leaves_though_the_way_to_its_slot_is_longer_than_the_grace(
    database: Database,
) -> None:
    limiter = Limiter(DistantDatabase(database), {START: 5})
    async with vendor(answering(answer(b"{}"))) as served, open_transport() as transport:
        assert isinstance(await lead(transport, limiter, served.request()), Done)
    assert served.connections == 1


async def test_once_the_way_is_known_the_first_slot_is_in_time(database: Database) -> None:
    limiter = Limiter(DistantDatabase(database), {START: 5})
    async with vendor(answering(answer(b"{}"))) as served, open_transport() as transport:
        await lead(transport, limiter, served.request())
        (ticket,) = await limiter.draw(START, 1, keep_half=False)
    assert boot_ns() < ticket.closes_ns


async def test_a_call_whose_slot_cannot_be_drawn_was_not_sent(database: Database) -> None:
    """To take it for unknown would make a start wait for its horizon, and lose a word said once."""
    distant = DistantDatabase(database)
    distant.is_away = True
    limiter = Limiter(distant, {START: 5})
    async with vendor(answering(answer(b"{}"))) as served, open_transport() as transport:
        outcome = await lead(transport, limiter, served.request())
    assert isinstance(outcome, NotSent)
    assert outcome.code == "RateLimited"
    assert served.connections == 0


async def test_a_date_that_was_long_on_its_way_says_nothing_about_the_vendor_s_clock() -> None:
    """As many of them as calls were in flight would date all signatures back by as much."""

    async def stand_still(stream: ByteStream) -> None:
        while await read_request(stream):
            await anyio.sleep(FRESH_NS / 1e9)
            await stream.send(answer(b"{}", "Date: Sun, 01 Mar 2026 11:59:00 GMT"))

    dates = Dates()
    async with vendor(stand_still) as served, open_transport(dates=dates) as transport:
        reply = await send(transport, served.request())
    assert isinstance(reply, Response)
    assert dates.seen == []
