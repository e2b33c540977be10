"""One announced call on its way to a simulated vendor: slots, leases, times, and what is said."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import anyio
import pytest

from orchestrator.clock import boot_ns, utc_now
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Done, Indefinite, NotSent, Outcome, Refused
from orchestrator.daemon.book import Book, Keys
from orchestrator.daemon.claim import Order
from orchestrator.daemon.gateway import SETTLE_RESERVE_NS, Gateway
from orchestrator.daemon.limiter import Action, Limiter
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.settle import Settlement
from orchestrator.daemon.transport import Transport
from orchestrator.providers.base import Reply, Request
from orchestrator.providers.zego import Zego
from orchestrator.simulator import Simulator, serve
from orchestrator.simulator.faults import Fault, Kind
from orchestrator.simulator.keys import DEMO
from orchestrator.store.engine import Database
from tests.store.claiming import Daemon, make_desk, runtime, ticket, want
from tests.store.rows import query, value

pytestmark = pytest.mark.anyio

ZEGO = DEMO[2]
CREATE = "CreateAgentInstance"
CREATION = Action(account="zego", name=CREATE)
SPEC = """'{"AgentId": "agent", "RTC": {"UserStreamId": "s"}}'"""
TEMPLATE = """'{"RTC": {"UserStreamId": "s"}, "Agent": {"AgentId": "made", "Name": "Bot",
    "LLM": {"Url": "https://llm.test/v1", "ApiKey": "fake-key", "Model": "gpt"}}}'"""


@dataclass
class Bench:
    """A simulated vendor, a claimed start, and the gateway between them."""

    daemon: Daemon
    simulator: Simulator
    transport: Transport
    limits: dict[str, int]
    redact: Callable[[str], str] = str

    async def order(self, spec: str = SPEC) -> Order:
        await want(self.daemon.database, "a", account="zego", spec=spec)
        return await self.daemon.claim_one("a")

    def limiter(self) -> Limiter:
        limits = {Action(account="zego", name=name): n for name, n in self.limits.items()}
        return Limiter(self.daemon.database, limits)

    async def carry_out(self, order: Order, limiter: Limiter | None = None) -> Settlement:
        gateway = Gateway(
            transport=self.transport,
            limiter=limiter or self.limiter(),
            book=self.daemon.desk.book,
            meter=Meter(),
            redact=self.redact,
        )
        return await gateway.carry_out(order)

    async def outcome(self, order: Order) -> Outcome:
        return (await self.carry_out(order)).settled.outcome

    def actions(self) -> list[str]:
        return [call["action"] for call in self.simulator.calls.since(0)]

    async def slots(self, action: str) -> int:
        """Return how many slots of an action were drawn."""
        rows = await query(self.daemon.database, "SELECT action, slots FROM rate_limit")
        (slots,) = [slots for name, slots in rows if name == action]
        return len(json.loads(slots))


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    simulator = Simulator(DEMO)
    async with (
        serve(simulator, "127.0.0.1", 0) as url,
        Transport(now=utc_now, on_date=lambda _host, _offset: None) as transport,
    ):
        zego = Zego(
            app_id=ZEGO.app_id,
            server_secret=ZEGO.server_secret,
            endpoint=url,
            rtc_endpoint=url,
        )
        book = Book(Keys(accounts={"zego": runtime("zego", zego)}, secrets={}))
        daemon = await Daemon(database, make_desk(book)).ready()
        yield Bench(daemon, simulator, transport, {})


async def test_a_start_returns_the_vendor_s_handle_and_when_it_was_asked(bench: Bench) -> None:
    order = await bench.order()
    one = await bench.carry_out(order)
    assert isinstance(one.settled.outcome, Done)
    assert one.settled.outcome.handle
    assert one.action == CREATE
    assert order.flight.announced_at <= one.settled.asked_at <= one.settled.answered_at
    spent = one.settled.answered_at - one.settled.asked_at
    assert spent >= timedelta(milliseconds=one.latency_ms)


# --- slots


async def test_a_ticket_is_used_and_no_second_one_drawn(bench: Bench) -> None:
    bench.limits[CREATE] = 5
    now_ns = boot_ns()
    drawn = replace(ticket("zego", CREATE), opens_ns=now_ns, closes_ns=now_ns + 10**9)
    assert isinstance(await bench.outcome(replace(await bench.order(), ticket=drawn)), Done)
    assert await value(bench.daemon.database, "SELECT count(*) FROM rate_limit") == 0


async def test_a_ticket_that_closed_is_not_used(bench: Bench) -> None:
    bench.limits[CREATE] = 5
    closed = replace(ticket("zego", CREATE), closes_ns=boot_ns() - 1)
    assert isinstance(await bench.outcome(replace(await bench.order(), ticket=closed)), Done)
    assert await bench.slots(CREATE) == 1


class Sluggish(Transport):
    """Takes longer to connect than a slot is open."""

    async def send(self, request: Request, **how: Any) -> Reply:
        await anyio.sleep(0.12)
        return await super().send(request, **how)


async def test_a_slot_that_closes_while_a_call_connects_is_not_used(bench: Bench) -> None:
    bench.limits[CREATE] = 5
    now_ns = boot_ns()
    short = replace(ticket("zego", CREATE), opens_ns=now_ns, closes_ns=now_ns + 100_000_000)
    order = replace(await bench.order(), ticket=short)
    async with Sluggish(now=utc_now, on_date=lambda _host, _offset: None) as transport:
        assert isinstance(await replace(bench, transport=transport).outcome(order), Done)
    assert await bench.slots(CREATE) == 1


async def test_a_call_leaves_not_before_its_slot(bench: Bench) -> None:
    bench.limits[CREATE] = 5
    opens_ns = boot_ns() + 50_000_000
    soon = replace(ticket("zego", CREATE), opens_ns=opens_ns, closes_ns=opens_ns + 10**9)
    await bench.carry_out(replace(await bench.order(), ticket=soon))
    assert boot_ns() >= opens_ns


async def test_each_request_of_a_conversation_has_a_slot_of_its_own(bench: Bench) -> None:
    bench.limits |= {"RegisterAgent": 5, "UpdateAgent": 5, CREATE: 5}
    assert isinstance(await bench.outcome(await bench.order(TEMPLATE)), Done)
    assert bench.actions()[-1] == CREATE
    assert len(bench.actions()) >= 2
    for action in set(bench.actions()):
        assert await bench.slots(action) == bench.actions().count(action)


async def test_a_ticket_waits_for_the_request_of_its_own_action(bench: Bench) -> None:
    bench.limits |= {"RegisterAgent": 5, CREATE: 5}
    now_ns = boot_ns()
    drawn = replace(ticket("zego", CREATE), opens_ns=now_ns, closes_ns=now_ns + 10**10)
    order = replace(await bench.order(TEMPLATE), ticket=drawn)
    assert isinstance(await bench.outcome(order), Done)
    assert bench.actions() == ["RegisterAgent", CREATE]
    drawn_for = await query(bench.daemon.database, "SELECT action FROM rate_limit")
    assert drawn_for == [("RegisterAgent",)]


async def test_a_ticket_that_closes_before_its_request_is_given_back(bench: Bench) -> None:
    bench.limits |= {"RegisterAgent": 5, CREATE: 5}
    limiter = bench.limiter()
    (drawn,) = await limiter.draw(CREATION, 1, keep_half=False)
    late = replace(drawn, closes_ns=boot_ns() - 1)
    order = replace(await bench.order(TEMPLATE), ticket=late)
    assert isinstance((await bench.carry_out(order, limiter)).settled.outcome, Done)
    assert await bench.slots(CREATE) == 1


async def test_a_ticket_is_given_back_if_its_request_never_comes(bench: Bench) -> None:
    bench.limits[CREATE] = 1
    bench.simulator.faults.script("RegisterAgent", 1, Fault(kind=Kind.CODE, code="410000004"))
    limiter = bench.limiter()
    (drawn,) = await limiter.draw(CREATION, 1, keep_half=False)
    order = replace(await bench.order(TEMPLATE), ticket=drawn)
    assert isinstance((await bench.carry_out(order, limiter)).settled.outcome, Refused)
    assert bench.actions() == ["RegisterAgent"]
    (again,) = await limiter.draw(CREATION, 1, keep_half=False)
    assert again.opens_ns - drawn.opens_ns < 10**9


async def test_without_a_slot_in_time_nothing_is_sent(bench: Bench) -> None:
    bench.limits[CREATE] = 1
    order = await bench.order()
    taken = Limiter(bench.daemon.database, {CREATION: 1})
    await taken.draw(CREATION, 1, keep_half=False)
    short = replace(order, lease_ends_ns=boot_ns() + SETTLE_RESERVE_NS + 600_000_000)
    outcome = await bench.outcome(short)
    assert isinstance(outcome, NotSent)
    assert bench.actions() == []


async def test_a_slot_that_opens_too_late_is_not_waited_for(bench: Bench) -> None:
    bench.limits[CREATE] = 2
    order = await bench.order()
    polls = replace(order, flight=replace(order.flight, work_class=WorkClass.OBSERVE))
    used = Limiter(bench.daemon.database, {CREATION: 2})
    await used.draw(CREATION, 1, keep_half=True)
    began_ns = boot_ns()
    in_vain = replace(polls, lease_ends_ns=began_ns + SETTLE_RESERVE_NS + 1_500_000_000)
    outcome = await bench.outcome(in_vain)
    # The half opens in 1.25 s, and half a second must be left for the call.
    assert boot_ns() - began_ns < 700_000_000
    assert isinstance(outcome, NotSent)
    assert bench.actions() == []


async def test_a_slot_of_the_half_is_waited_for_and_asked_for_once_it_opens(bench: Bench) -> None:
    bench.limits[CREATE] = 2
    order = await bench.order()
    polls = replace(order, flight=replace(order.flight, work_class=WorkClass.OBSERVE))
    used = Limiter(bench.daemon.database, {CREATION: 2})
    (first,) = await used.draw(CREATION, 1, keep_half=True)
    assert isinstance(await bench.outcome(polls), Done)
    assert boot_ns() - first.opens_ns > 1_200_000_000
    assert await bench.slots(CREATE) == 2


# --- leases


async def test_too_little_of_the_lease_sends_nothing(bench: Bench) -> None:
    order = await bench.order()
    late = replace(order, lease_ends_ns=boot_ns() + SETTLE_RESERVE_NS + 100_000_000)
    outcome = await bench.outcome(late)
    assert isinstance(outcome, NotSent)
    assert outcome.code == "LeaseTooShort"
    assert bench.actions() == []


async def test_a_call_ends_inside_its_lease(bench: Bench) -> None:
    bench.simulator.faults.script(CREATE, 1, Fault(kind=Kind.HANG))
    ends_ns = boot_ns() + SETTLE_RESERVE_NS + 700_000_000
    one = await bench.carry_out(replace(await bench.order(), lease_ends_ns=ends_ns))
    assert isinstance(one.settled.outcome, Indefinite)
    assert boot_ns() < ends_ns


# --- what is said


async def test_secrets_are_taken_out_of_what_a_vendor_says(bench: Bench) -> None:
    fault = Fault(kind=Kind.CODE, code="410000004", message="key fake-key is wrong")
    bench.simulator.faults.script(CREATE, 1, fault)
    bench.redact = lambda text: text.replace("fake-key", "***")
    outcome = await bench.outcome(await bench.order())
    assert isinstance(outcome, Refused)
    assert "***" in outcome.message
    assert "fake-key" not in outcome.message


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"LLM": {"$llm_gateway": "gone"}}, "UnknownUpstream"),
        ({"LLM": {"$secret": "gone"}}, "UnknownSecret"),
    ],
)
async def test_a_spec_whose_words_stand_for_nothing_any_more_is_not_sent(
    bench: Bench, words: dict[str, Any], code: str
) -> None:
    order = await bench.order()
    outcome = await bench.outcome(replace(order, spec={"AgentId": "agent", **words}))
    assert isinstance(outcome, NotSent)
    assert outcome.code == code
    assert "gone" in outcome.message
    assert bench.actions() == []


async def test_an_adapter_that_raises_is_an_unknown_outcome(bench: Bench) -> None:
    order = await bench.order()
    broken = replace(order.flight.agent, site="no JSON")
    outcome = await bench.outcome(replace(order, flight=replace(order.flight, agent=broken)))
    assert isinstance(outcome, Indefinite)
    assert outcome.code == "InternalError"
    assert bench.actions() == []
