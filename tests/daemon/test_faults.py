"""Whatever goes wrong with a call: the row converges, nothing is doubled, one event tells of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.daemon.application import quoted, update_task
from tests.daemon.customers import (
    CUSTOMERS,
    TENCENT,
    VOLCENGINE,
    VOLCENGINE_FIRST,
    VOLCENGINE_NEXT,
    ZEGO,
    Customer,
)
from tests.daemon.running import GIVEN, Scene, task
from tests.daemon.vendors import doubled

pytestmark = pytest.mark.anyio

MEMORY_KB_MAX = 16_000
"""What an answer of 30 MB may cost a daemon."""
SLOWEST_S = 60.0
"""A lost reply is settled at its horizon; a few in a row open the circuit breaker besides."""


@dataclass(frozen=True)
class Fault:
    """A fault and what the daemon makes of it."""

    name: str
    outcome: str
    code: str | None = None
    """Null: whatever the vendor's file calls it."""
    more: dict[str, Any] = field(default_factory=dict)


WIRE = (
    Fault("lose_request", "Indefinite"),
    Fault("lose_reply", "Indefinite"),
    Fault("hang", "Indefinite"),
    Fault("http_500", "Indefinite"),
    Fault("html", "Indefinite"),
    Fault("half_json", "Indefinite"),
    Fault("huge", "Indefinite"),
    Fault("empty", "Indefinite"),
    Fault("throttle", "Throttled"),
)
"""What can happen to any call of any vendor."""


def told(code: str, outcome: str, status: int = 200) -> Fault:
    return Fault("code", outcome, code, {"code": code, "status": status})


CODES = {
    "volcengine": (
        told("FlowLimitExceeded.TaskNumberOverLimit", "Throttled", 400),
        told("InternalError", "Indefinite", 400),
        told("NobodyKnowsThis", "Indefinite", 400),
        told("InvalidTimestamp", "Expired", 400),
    ),
    "tencent": (
        told("FailedOperation.RestrictedConcurrency", "Throttled"),
        told("InternalError", "Indefinite"),
        told("NobodyKnowsThis", "Indefinite"),
        told("AuthFailure.SignatureExpire", "Expired"),
    ),
    "zego": (
        told("410000011", "Throttled"),
        told("410000001", "Indefinite"),
        told("499999999", "Indefinite"),
        told("100000004", "Expired"),
    ),
}
"""Codes of a start after which it is tried again, for each outcome.

Expired comes last: the signatures after it have their full life, and so have the horizons.
"""

REFUSALS = {
    "volcengine": told("InvalidParameter.Fake", "Refused", 400),
    "tencent": told("InvalidParameterValue.Fake", "Refused"),
    "zego": told("410001010", "Refused"),
}


def vendor_of(customer: Customer) -> str:
    vendor: str = customer.settings["provider"]
    return vendor


async def meet(scene: Scene, action: str, fault: Fault) -> None:
    await scene.vendors.script(action, fault.name, **fault.more)


OURS = ("RateLimited", "LeaseTooShort")


async def assert_told(scene: Scene, action: str, faults: Iterable[Fault]) -> None:
    """Of the calls of an action that went wrong there is one event each, with outcome and code.

    Which row met which fault is open: the retry of one may meet the fault of the next.
    """
    events = await scene.app.read(f"{_EVENTS}{quoted(action)}")
    # What a busy machine sent too late for its slot is no fault of the vendor's.
    wrong = [
        event
        for event in events
        if event["outcome"] not in {"Done", "Gone"} and event["code"] not in OURS
    ]
    assert Counter(e["outcome"] for e in wrong) == Counter(f.outcome for f in faults)
    assert {event["code"] for event in wrong} >= {f.code for f in faults if f.code}
    assert all(event["latency_ms"] is not None for event in wrong)
    silent = {event["outcome"] for event in wrong if not event["code"]}
    assert silent <= {"Throttled"}


_EVENTS = "SELECT * FROM agent_event WHERE event = 'call' AND action = "


@dataclass(frozen=True)
class Met:
    """A row, and the fault that its call meets."""

    id: str
    customer: Customer
    fault: Fault


def lineup(scene: Scene, number: int) -> tuple[Customer, ...]:
    """Return who meets the fault of this number: each vendor, Volcengine's versions in turn."""
    versions = (VOLCENGINE_FIRST, VOLCENGINE, VOLCENGINE_NEXT)
    return (versions[(number + scene.on_sqlite) % len(versions)], TENCENT, ZEGO)


def by_action(everything: Iterable[Met], *, starts: bool) -> dict[str, list[Fault]]:
    """Return the faults that each action met."""
    found: dict[str, list[Fault]] = {}
    for met in everything:
        action = met.customer.start if starts else met.customer.stop
        found.setdefault(action, []).append(met.fault)
    return found


def meetings(scene: Scene, kind: str, faults: Mapping[str, Sequence[Fault]]) -> list[list[Met]]:
    """Return rounds: in each, one row of each vendor meets its vendor's next fault."""
    rounds = []
    for number in range(max(map(len, faults.values()))):
        row = []
        for customer in lineup(scene, number):
            theirs = faults[vendor_of(customer)]
            if number < len(theirs):
                id_ = f"{kind}-{number}-{customer.name}"
                row.append(Met(id_, customer, theirs[number]))
        rounds.append(row)
    return rounds


async def test_a_start_that_goes_wrong(scene: Scene) -> None:
    await scene.vendors.turn(zego_capacity=len(WIRE) * 2)
    daemon = await scene.start_daemon()
    rounds = meetings(scene, "start", {v: (*WIRE, *codes) for v, codes in CODES.items()})
    for together in rounds:
        for met in together:
            await meet(scene, met.customer.start, met.fault)
        await scene.app.write(*(task(met.customer, met.id) for met in together))
        await scene.wait_for_faults()
    everything = [met for together in rounds for met in together]
    for met in everything:
        await scene.wait(met.id, SLOWEST_S, phase="running", reason=None)
    for action, faults in by_action(everything, starts=True).items():
        await assert_told(scene, action, faults)
    live = {agent["room_id"] for agent in await scene.vendors.live()}
    assert live == {f"room-{met.id}" for met in everything}
    assert doubled(await scene.vendors.agents()) == []
    await scene.app.write("DELETE FROM agent_task")
    for met in everything:
        await scene.wait_gone(met.id)
    assert await scene.vendors.live() == []
    assert daemon.events("call_broken") == []


async def test_a_stop_that_goes_wrong(scene: Scene) -> None:
    await scene.vendors.turn(zego_capacity=len(WIRE) * 2)
    await scene.start_daemon()
    rounds = meetings(scene, "stop", dict.fromkeys(CODES, WIRE))
    everything = [met for together in rounds for met in together]
    await scene.app.write(*(task(met.customer, met.id) for met in everything))
    for met in everything:
        await scene.wait(met.id, phase="running")
    for together in rounds:
        for met in together:
            await meet(scene, met.customer.stop, met.fault)
        await scene.app.write(*(update_task(met.id, desired_state="'stopped'") for met in together))
        await scene.wait_for_faults()
    for met in everything:
        await scene.wait(met.id, SLOWEST_S, phase="stopped", end_reason="requested")
    for action, faults in by_action(everything, starts=False).items():
        await assert_told(scene, action, faults)
    for met in everything:
        assert [agent["ended_at"] for agent in await scene.ledger(met.id)] == [GIVEN]
    assert await scene.vendors.live() == []


async def test_a_poll_that_goes_wrong_ends_nothing(scene: Scene) -> None:
    await scene.start_daemon()
    customers = (VOLCENGINE, TENCENT, ZEGO)
    for customer in customers:
        await scene.ask_for(customer, customer.name)
        await scene.wait(customer.name, phase="running", confirmed_at=GIVEN)
    for fault in WIRE:
        for customer in customers:
            await meet(scene, customer.look, fault)
        await scene.wait_for_faults()
    for customer in customers:
        clean = len(await scene.vendors.calls(customer.look))
        await scene.wait_for_calls(customer.look, clean + 1)
        await scene.wait(customer.name, phase="running", incarnation=1, reason=None)
        outcomes = [event["outcome"] for event in await scene.calls(customer.name)]
        assert outcomes.count("Indefinite") == len(WIRE) - 1
        assert outcomes.count("Throttled") == 1
    assert len(await scene.vendors.live()) == len(await scene.vendors.agents()) == len(customers)


async def test_a_look_for_a_lost_start_that_goes_wrong(scene: Scene) -> None:
    """Tencent's lost start is looked for by its name, and is no longer wanted."""
    await scene.start_daemon()
    await scene.vendors.script(TENCENT.start, "lose_reply", n=len(WIRE))
    for fault in WIRE:
        await meet(scene, TENCENT.look, fault)
    ids = [f"lost-{fault.name}" for fault in WIRE]
    for id_ in ids:
        await scene.ask_for(TENCENT, id_)
    await scene.wait_for_faults()
    await scene.app.write("UPDATE agent_task SET desired_state = 'stopped'")
    for id_ in ids:
        await scene.wait(id_, SLOWEST_S, phase="stopped")
    assert await scene.vendors.live() == []
    assert len(await scene.vendors.agents()) == len(WIRE)


async def test_a_refusal_fails_its_row_and_no_other(scene: Scene) -> None:
    await scene.start_daemon()
    for customer in CUSTOMERS:
        fault = REFUSALS[vendor_of(customer)]
        await meet(scene, customer.start, fault)
        id_ = await scene.ask_for(customer, f"refused-{customer.name}")
        row = await scene.wait(id_, phase="failed", end_reason="start_failed")
        assert (row["reason"], row["message"]) == (fault.code, "scripted")
        other = await scene.ask_for(customer, f"other-{customer.name}")
        await scene.wait(other, phase="running")
        assert [agent["evidence"] for agent in await scene.ledger(id_)] == ["never_started"]


async def test_an_answer_of_30_mb_costs_no_memory(scene: Scene) -> None:
    daemon = await scene.start_daemon()
    for customer in (VOLCENGINE, TENCENT, ZEGO):
        await scene.ask_for(customer, f"warm-{customer.name}")
        await scene.wait(f"warm-{customer.name}", phase="running")
    before = daemon.peak_memory_kb()
    for customer in (VOLCENGINE, TENCENT, ZEGO):
        await scene.vendors.script(customer.stop, "huge", n=2)
    await scene.app.write("UPDATE agent_task SET desired_state = 'stopped'")
    for customer in (VOLCENGINE, TENCENT, ZEGO):
        await scene.wait(f"warm-{customer.name}", SLOWEST_S, phase="stopped")
    assert daemon.peak_memory_kb() - before < MEMORY_KB_MAX
