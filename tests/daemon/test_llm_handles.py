"""Handles that a request tells: whoever has a token may make them up, and two agents may have one.

A token holder can have nothing stopped but what its ledger row stands for, or what the vendor says
is ours.
"""

import pytest

from tests.daemon.application import update_task
from tests.daemon.customers import TENCENT, ZEGO, Customer
from tests.daemon.llm import TEXT, Gate, Heard, Talker, said
from tests.daemon.orphanage import (
    FORGET,
    calls_about,
    describe,
    is_live,
    orphans,
    start_stranger,
    wait_orphan,
)
from tests.daemon.running import until

pytestmark = pytest.mark.anyio


async def ask_as(agent: Talker, customer: Customer, handle: str) -> Heard:
    """Ask as the vendor's agent of this handle does."""
    if customer is ZEGO:
        return await agent.ask(said("Hi", agent_info={"agent_instance_id": handle}))
    return await agent.ask(said("Hi"), {"X-Task-Id": handle})


async def wait_for_line(gate: Gate, event: str) -> None:
    """Wait until the daemon has said so in its log."""
    (daemon,) = gate.scene.daemons

    async def look() -> bool | None:
        return f'"{event}"' in daemon.log() or None

    await until(look, daemon.describe)


async def test_a_handle_that_another_agent_of_ours_has_is_not_believed(gate: Gate) -> None:
    await gate.scene.start_daemon()
    first = await gate.start_agent(ZEGO, "first")
    await gate.start_agent(ZEGO, "second")
    (before,) = await gate.scene.ledger("first")
    (other,) = await gate.scene.ledger("second")
    assert (await ask_as(first, ZEGO, other["vendor_task_id"])).text == TEXT
    await wait_for_line(gate, "llm_handle_of_another")
    await gate.scene.app.write(update_task("first", desired_state="'stopped'"))
    await gate.scene.wait("first", phase="stopped")
    (after,) = await gate.scene.ledger("first")
    assert after["vendor_task_id"] == before["vendor_task_id"]
    live = await gate.scene.vendors.live(account=ZEGO.name)
    assert [agent["handle"] for agent in live] == [other["vendor_task_id"]]


async def test_a_stranger_is_not_stopped_because_a_token_names_it(gate: Gate) -> None:
    """Tencent is asked whose it is; the token's own agent is another."""
    await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    stranger = await start_stranger(gate.scene, TENCENT, "stranger")
    await gate.scene.app.write(update_task("call", desired_state="'stopped'"))
    await gate.scene.wait("call", phase="stopped")
    assert (await ask_as(agent, TENCENT, stranger["handle"])).text == ""
    row = await wait_orphan(gate.scene, vendor_task_id=stranger["handle"])
    assert (row["source"], bool(row["ours"]), row["action"]) == ("gateway", False, "report")
    # Its own agent, which the token stands for, is stopped again meanwhile.
    await wait_orphan(gate.scene, ours=row["ours"] + 1, phase="stopped")
    assert await is_live(gate.scene, stranger)
    stops = {call["action"] for call in await calls_about(gate.scene, stranger)}
    assert TENCENT.stop not in stops


async def test_a_lost_one_of_ours_is_stopped_when_the_vendor_has_said_so(gate: Gate) -> None:
    """As after a restore: the ledger has no row, and only the request tells the TaskId."""
    await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    (lost,) = await gate.scene.vendors.live(account=TENCENT.name)
    await gate.scene.app.write(*FORGET)
    assert (await ask_as(agent, TENCENT, lost["handle"])).text == ""

    async def look() -> bool | None:
        found = await orphans(gate.scene, vendor_task_id=lost["handle"])
        return bool(found and found[0]["phase"] == "stopped") or None

    await until(look, lambda: describe(gate.scene))
    assert not await is_live(gate.scene, lost)


async def test_a_second_agent_with_the_same_token_is_found(gate: Gate) -> None:
    """What a repeated start may leave behind: one row, two agents."""
    await gate.scene.start_daemon()
    agent = await gate.start_agent(ZEGO, "call")
    assert (await ask_as(agent, ZEGO, (await gate.scene.ledger("call"))[0]["vendor_task_id"])).text
    second = await start_stranger(gate.scene, ZEGO, "second")

    async def look() -> bool | None:
        # What is told is written once a second.
        await ask_as(agent, ZEGO, second["handle"])
        handles = {row["vendor_task_id"] for row in await gate.scene.ledger("call")}
        return second["handle"] in handles or None

    await until(look, lambda: gate.scene.describe("call"))
