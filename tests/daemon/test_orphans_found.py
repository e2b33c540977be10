"""Agents without a task that vendors tell of: ours are stopped, a stranger's only if told to."""

import signal

import pytest

from tests.daemon.application import quoted, update_task
from tests.daemon.customers import TENCENT, VOLCENGINE, VOLCENGINE_NEXT, ZEGO, Customer
from tests.daemon.orphanage import (
    FORGET,
    calls_about,
    describe,
    is_live,
    orphans,
    report,
    start_stranger,
    volcengine,
    wait_ended,
    wait_orphan,
)
from tests.daemon.posts import Mailbox, Written, open_mailbox, tencent, zego
from tests.daemon.running import GIVEN, Scene, until
from tests.daemon.vendors import Agent

pytestmark = pytest.mark.anyio

TELLING = (VOLCENGINE, VOLCENGINE_NEXT, TENCENT, ZEGO)
STOPS = ("StopVoiceChat", "StopAIConversation", "DeleteAgentInstance", "RemoveUserByStrRoomId")


def lives(customer: Customer, agent: Agent) -> Written:
    """Return a callback that says that an agent lives."""
    handle, place = agent["handle"], {"RoomId": agent["room_id"]}
    match customer.settings["provider"]:
        case "volcengine":
            return volcengine(customer, agent, "taskStart")
        case "tencent":
            return tencent(903, handle, UserId="human")
        case _:
            return zego("AgentInstanceCreated", handle, AgentUserId=agent["agent_user_id"], **place)


async def restore(scene: Scene, *customers: Customer) -> list[Agent]:
    """Start an agent at each, and forget all rows as a backup from before them would."""
    daemon = await scene.start_daemon("before")
    for customer in customers:
        await scene.wait(await scene.ask_for(customer, f"t-{customer.name}"), phase="running")
    agents = [(await scene.vendors.live(account=one.name))[0] for one in customers]
    assert await daemon.stop() == 0
    await scene.app.write(*FORGET)
    return agents


async def tell_of_strangers(scene: Scene, mailbox: Mailbox) -> dict[Customer, Agent]:
    """Start a stranger at each vendor; its callbacks arrive as the vendors send them."""
    del mailbox  # it is where they arrive
    return {one: await start_stranger(scene, one, f"strange-{one.name}") for one in TELLING}


# --- ours, after a restore


async def test_ours_that_a_callback_names_is_stopped(scene: Scene) -> None:
    agents = await restore(scene, *TELLING)
    async with open_mailbox(scene) as mailbox:
        for customer, agent in zip(TELLING, agents, strict=True):
            assert await mailbox.post(lives(customer, agent)) == 200
        for customer, agent in zip(TELLING, agents, strict=True):
            row = await wait_orphan(scene, account=customer.name, phase="stopped")
            assert (bool(row["ours"]), row["action"], row["source"]) == (True, "stop", "callback")
            assert row["vendor_task_id"] == agent["handle"]
            assert (row["stopped_at"], row["request_id"]) == (GIVEN, GIVEN)
    assert await scene.vendors.live() == []
    assert await scene.app.read("SELECT task_id FROM agent_status") == []


async def test_ours_that_was_told_of_when_it_ended_is_no_orphan(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    scene.settings["callbacks"] = {"listen": "127.0.0.1:0"}
    agents = await restore(scene, *TELLING)
    async with open_mailbox(scene) as mailbox:
        for agent in agents:
            await scene.vendors.end(agent, "idle")

        async def is_judged() -> bool | None:
            taken = "SELECT key FROM vendor_fact WHERE taken_at IS NOT NULL"
            return True if len(await scene.app.read(taken)) == len(agents) else None

        await until(is_judged, mailbox.daemon.describe)
    assert await orphans(scene) == []
    assert await scene.app.read("SELECT task_id FROM agent_status") == []


async def test_ours_in_a_room_that_is_looked_into_is_stopped(scene: Scene) -> None:
    (agent,) = await restore(scene, VOLCENGINE)
    await scene.start_daemon()
    await scene.ask_for(VOLCENGINE, "neighbour", room_id=quoted(agent["room_id"]))
    await scene.wait("neighbour", phase="running")
    row = await wait_orphan(scene, phase="stopped")
    assert (row["source"], bool(row["ours"]), row["vendor_task_id"]) == (
        "lookup",
        True,
        agent["handle"],
    )
    assert not await is_live(scene, agent)
    assert (await scene.status("neighbour"))["phase"] == "running"
    assert len(await scene.vendors.live()) == 1


async def test_ours_in_a_room_where_a_lost_one_is_looked_for_is_stopped(
    sqlite_scene: Scene,
) -> None:
    scene = sqlite_scene
    (agent,) = await restore(scene, ZEGO)
    await scene.start_daemon()
    await scene.vendors.script(ZEGO.start, "hang", n=9)
    await scene.ask_for(ZEGO, "lost", room_id=quoted(agent["room_id"]), user_id=quoted("another"))
    await scene.wait("lost", phase="starting", reason=GIVEN)
    await scene.app.write(update_task("lost", desired_state=quoted("stopped")))
    await wait_ended(scene, agent)
    row = await wait_orphan(scene, phase="stopped")
    assert (row["source"], bool(row["ours"])) == ("lookup", True)
    assert row["agent_user_id"] == agent["agent_user_id"]
    await scene.wait("lost", phase="stopped")


async def test_the_agent_of_a_lost_answer_is_not_taken_for_a_strangers(scene: Scene) -> None:
    scene.settings["orphans"] = {"foreign": "stop"}
    async with open_mailbox(scene):
        await scene.vendors.script(TENCENT.start, "lose_reply")
        # Its task cannot find it for longer than an unknown handle waits.
        await scene.vendors.script(TENCENT.look, "http_500", n=10)
        await scene.ask_for(TENCENT, "lost")
        row = await wait_orphan(scene, phase="ignored")
        assert row["reason"] == "HasTask: it is the agent of task lost; stop that"
        await scene.wait("lost", phase="running", vendor_task_id=row["vendor_task_id"])
        assert len(await scene.vendors.live()) == 1
    assert await scene.vendors.calls(TENCENT.stop) == []


# --- a stranger's


async def test_a_strangers_is_reported_and_never_stopped(scene: Scene) -> None:
    scene.settings["orphans"] = {"foreign": "report"}
    async with open_mailbox(scene) as mailbox:
        agents = await tell_of_strangers(scene, mailbox)
        found = {}
        for customer, agent in agents.items():
            row = await wait_orphan(scene, account=customer.name)
            assert (row["phase"], row["action"], bool(row["ours"])) == ("seen", "report", False)
            assert (row["vendor_task_id"], row["stopped_at"]) == (agent["handle"], None)
            found[row["id"]] = row["leaked_s"]

        async def all_leak() -> bool | None:
            now = {row["id"]: row["leaked_s"] for row in await orphans(scene)}
            return True if all(now[id_] > found[id_] for id_ in found) else None

        await until(all_leak, mailbox.daemon.describe)
        # Its end is told by its vendor, and so is that of one that nobody wants.
        for agent in agents.values():
            assert await is_live(scene, agent)
            await scene.vendors.end(agent, "idle")
        for customer in agents:
            await wait_orphan(scene, account=customer.name, phase="stopped", stopped_at=GIVEN)
    made = {call["action"] for call in await scene.vendors.calls()}
    assert not made & set(STOPS)


async def test_a_strangers_is_stopped_where_the_configuration_says_so(scene: Scene) -> None:
    scene.settings["orphans"] = {"foreign": "stop"}
    async with open_mailbox(scene) as mailbox:
        agents = await tell_of_strangers(scene, mailbox)
        own = await scene.ask_for(TENCENT, "own")
        await scene.wait(own, phase="running")
        for customer in agents:
            row = await wait_orphan(scene, account=customer.name, phase="stopped")
            assert (row["action"], bool(row["ours"])) == ("stop", False)
        assert [agent["user_id"] for agent in await scene.vendors.live()] == ["human"]
        assert (await scene.status(own))["phase"] == "running"
        # Whose a TaskId is tells only the vendor, so that was asked before.
        actions = [call["action"] for call in await calls_about(scene, agents[TENCENT])]
        assert actions.index("DescribeAIConversation") < actions.index("StopAIConversation")


async def test_a_reload_turns_reports_into_stops(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    scene.settings["orphans"] = {"foreign": "report"}
    async with open_mailbox(scene) as mailbox:
        agents = await tell_of_strangers(scene, mailbox)
        for customer in agents:
            await wait_orphan(scene, account=customer.name, phase="seen")
        scene.settings["orphans"] = {"foreign": "stop"}
        scene.write_config("one")
        mailbox.daemon.process.send_signal(signal.SIGHUP)
        for customer in agents:
            await wait_orphan(scene, account=customer.name, phase="stopped")
        assert await scene.vendors.live() == []


async def test_a_reported_one_that_is_inserted_is_stopped_and_its_report_closes(
    scene: Scene,
) -> None:
    async with open_mailbox(scene) as mailbox:
        agents = await tell_of_strangers(scene, mailbox)
        for customer, agent in agents.items():
            seen = await wait_orphan(scene, account=customer.name, phase="seen")
            known = {"vendor_task_id": agent["handle"], "room_id": agent["room_id"]}
            await report(scene, customer, f"by-hand-{seen['id']}", **known)
        for customer, agent in agents.items():

            async def both(customer: Customer = customer) -> bool | None:
                ended = await orphans(scene, account=customer.name, phase="stopped")
                return True if len(ended) == 2 else None

            await until(both, lambda: describe(scene, "two reports that have ended"))
            assert not await is_live(scene, agent)


async def test_a_deleted_report_is_forgotten_and_nothing_is_asked_of_it(scene: Scene) -> None:
    async with open_mailbox(scene):
        agent = await start_stranger(scene, TENCENT, "left-alone")
        row = await wait_orphan(scene, account=TENCENT.name)
        await scene.wait_for_calls(TENCENT.look, 1)
        await scene.wait(f"~{row['id']}", intent=None, last_request_id=GIVEN)
        await scene.app.write("DELETE FROM orphan_task")
        before = await calls_about(scene, agent)

        async def is_forgotten() -> bool | None:
            left = await scene.app.read("SELECT id FROM vendor_agent")
            statuses = await scene.app.read("SELECT task_id FROM agent_status")
            return None if left or statuses else True

        await until(is_forgotten, lambda: describe(scene, "nothing left"))
        assert await calls_about(scene, agent) == before
        assert await is_live(scene, agent)


async def test_one_that_is_told_of_by_two_daemons_is_one_orphan(postgres_scene: Scene) -> None:
    scene = postgres_scene
    scene.settings["orphans"] = {"foreign": "stop"}
    await scene.start_daemon("two")
    async with open_mailbox(scene) as mailbox:
        for number in range(8):
            agent = await start_stranger(scene, ZEGO, f"strange-{number}")
            for event in ("AgentInstanceCreated", "ASRResult"):
                spoken = {"AgentUserId": agent["agent_user_id"], "RoomId": agent["room_id"]}
                assert await mailbox.post(zego(event, agent["handle"], **spoken)) in {200, 400}

        async def all_stopped() -> bool | None:
            return True if len(await orphans(scene, phase="stopped")) >= 8 else None

        await until(all_stopped, lambda: describe(scene, "eight that have ended"))
    assert len(await orphans(scene)) == 8
    stops = [call["ids"] for call in await scene.vendors.calls("DeleteAgentInstance")]
    assert len(stops) == 8
