"""What vendors tell is acted upon at once, although nobody would look for an hour."""

from collections.abc import Mapping

import pytest

from tests.daemon.application import quoted, update_task
from tests.daemon.customers import TENCENT, VOLCENGINE, VOLCENGINE_NEXT, ZEGO, Customer
from tests.daemon.posts import open_mailbox
from tests.daemon.running import GIVEN, Scene, task
from tests.daemon.vendors import doubled

pytestmark = pytest.mark.anyio

TELLING = (VOLCENGINE, VOLCENGINE_NEXT, TENCENT, ZEGO)
SOON_S = 10.0
"""On a busy machine; by asking it would be an hour."""
ENDS = ("idle", "kicked", "fault")
REASONS: Mapping[Customer, Mapping[str, str]] = {
    # Its taskStop gives no reason.
    VOLCENGINE: dict.fromkeys(ENDS, "vendor_gone"),
    TENCENT: {"idle": "idle", "kicked": "kicked", "fault": "vendor_fault"},
    ZEGO: {"idle": "idle", "kicked": "kicked", "fault": "vendor_fault"},
}


def never_look(scene: Scene) -> None:
    """Let every account be told, or know nothing."""
    for customer in TELLING:
        scene.account(customer)["poll_s"] = 3_600


async def assert_no_orphan(scene: Scene) -> None:
    """Nothing that a vendor told was taken for somebody else's."""
    assert await scene.app.read("SELECT * FROM orphan_task") == []


async def test_an_end_is_seen_at_once_with_its_reason(scene: Scene) -> None:
    never_look(scene)
    async with open_mailbox(scene):
        wanted = {f"{customer.name}-{why}": (customer, why) for customer in REASONS for why in ENDS}
        await scene.app.write(*(task(customer, id_) for id_, (customer, _) in wanted.items()))
        for id_ in wanted:
            await scene.wait(id_, phase="running")
        for agent in await scene.vendors.live():
            _, why = wanted[agent["room_id"].removeprefix("room-")]
            await scene.vendors.end(agent, why)
        for id_, (customer, why) in wanted.items():
            reason = REASONS[customer][why]
            await scene.wait(id_, SOON_S, phase="stopped", end_reason=reason)
    assert len(await scene.vendors.agents()) == len(wanted)
    await assert_no_orphan(scene)


@pytest.mark.parametrize("customer", [TENCENT, ZEGO], ids=lambda one: one.name)
async def test_a_fault_starts_again_and_an_idle_end_does_not(
    scene: Scene, customer: Customer
) -> None:
    never_look(scene)
    async with open_mailbox(scene):
        policy = quoted("on_failure")
        id_ = await scene.ask_for(customer, "again", restart_policy=policy)
        await scene.wait(id_, phase="running", incarnation=1)
        (first,) = await scene.vendors.live()
        await scene.vendors.end(first, "fault")
        await scene.wait(id_, phase="running", incarnation=2)
        (second,) = await scene.vendors.live()
        await scene.vendors.end(second, "idle")
        row = await scene.wait(id_, phase="stopped")
        assert (row["incarnation"], row["end_reason"]) == (2, "idle")
    assert len(await scene.vendors.agents()) == 2
    assert doubled(await scene.vendors.agents()) == []


@pytest.mark.parametrize("customer", TELLING, ids=lambda one: one.name)
async def test_what_comes_before_the_start_s_own_answer_is_understood(
    scene: Scene, customer: Customer
) -> None:
    never_look(scene)
    async with open_mailbox(scene):
        await scene.vendors.script(customer.start, "delay_reply", ms=1_000)
        id_ = await scene.ask_for(customer, "early")
        await scene.wait(id_, phase="running", confirmed_at=GIVEN)
        (told,) = await scene.app.read("SELECT * FROM vendor_fact WHERE event = 'started'")
        (call,) = await scene.calls(id_)
        assert told["received_at"] < call["at"]
        await assert_no_orphan(scene)
        await scene.app.write(update_task(id_, desired_state=quoted("stopped")))
        await scene.wait(id_, phase="stopped", end_reason="requested")


@pytest.mark.parametrize("customer", [VOLCENGINE, TENCENT, ZEGO], ids=lambda one: one.name)
async def test_an_agent_that_ends_before_its_start_is_answered_has_ended(
    scene: Scene, customer: Customer
) -> None:
    never_look(scene)
    async with open_mailbox(scene):
        await scene.vendors.script(customer.start, "dies")
        id_ = await scene.ask_for(customer, "stillborn")
        await scene.wait(id_, phase="stopped", end_reason=REASONS[customer]["fault"])
    assert len(await scene.vendors.agents()) == 1
    await assert_no_orphan(scene)


async def test_a_lost_create_is_adopted_from_what_the_vendor_tells(scene: Scene) -> None:
    never_look(scene)
    async with open_mailbox(scene):
        await scene.vendors.script(ZEGO.start, "lose_reply")
        id_ = await scene.ask_for(ZEGO, "lost")
        row = await scene.wait(id_, SOON_S, phase="running")
        (agent,) = await scene.vendors.agents()
        assert row["vendor_task_id"] == agent["handle"]
        assert len(await scene.vendors.calls(ZEGO.start)) == 1
        await assert_no_orphan(scene)
        await scene.app.write(update_task(id_, desired_state=quoted("stopped")))
        await scene.wait(id_, phase="stopped")
    assert await scene.vendors.live() == []
