"""What holds calls back: rate limits, capacity, the operator's word; and in which order they go."""

from itertools import pairwise

import pytest

from tests.daemon.application import quoted, update, update_task
from tests.daemon.customers import CUSTOMERS, TENCENT, VOLCENGINE, ZEGO, Customer
from tests.daemon.running import Scene, as_json, task, until
from tests.daemon.vendors import doubled

pytestmark = pytest.mark.anyio

MANY = 30


async def control(scene: Scene, customer: Customer, **columns: str) -> None:
    """Say something as the operator."""
    await scene.app.write(
        update("account_control", f"account = {quoted(customer.name)}", **columns)
    )


async def test_no_second_holds_more_calls_than_the_limit(scene: Scene) -> None:
    limits = {"StartVoiceChat": 10, "StopVoiceChat": 10}
    scene.account(VOLCENGINE)["qps"] = limits
    scene.account(TENCENT)["qps"] = {"StartAIConversation": 7, "StopAIConversation": 7}
    await scene.start_daemon()
    ids = [f"many-{n}" for n in range(MANY)]
    asked = [(VOLCENGINE if n % 2 else TENCENT, id_) for n, id_ in enumerate(ids)]
    await scene.app.write(*(task(customer, id_) for customer, id_ in asked))
    for id_ in ids:
        await scene.wait(id_, phase="running")
    await scene.app.write("UPDATE agent_task SET desired_state = 'stopped'")
    for id_ in ids:
        await scene.wait(id_, phase="stopped")
    worst = await scene.vendors.busiest_seconds()
    assert worst[VOLCENGINE.name, "StartVoiceChat"] <= 10
    assert worst[VOLCENGINE.name, "StopVoiceChat"] <= 10
    assert worst[TENCENT.name, "StartAIConversation"] <= 7
    assert worst[TENCENT.name, "StopAIConversation"] <= 7
    assert {call["code"] for call in await scene.vendors.calls()} <= {"", *_NEGATIVE}
    assert await scene.vendors.live() == []


_NEGATIVE = {"InvalidParameter.ErrorActiveTaskNotFound", "FailedOperation.TaskNotExist"}


async def test_the_higher_priority_starts_first(scene: Scene) -> None:
    scene.account(TENCENT)["qps"] = {TENCENT.start: 2}
    await scene.start_daemon()
    await control(scene, TENCENT, paused="true")
    priorities = [0, 3, 1, 5, 4, 2]
    ids = {f"priority-{priority}": priority for priority in priorities}
    await scene.app.write(*(task(TENCENT, id_, priority=str(p)) for id_, p in ids.items()))
    for id_ in ids:
        await scene.wait(id_, phase="pending", waiting_for="paused")
    await control(scene, TENCENT, paused="false")
    for id_ in ids:
        await scene.wait(id_, phase="running")
    rooms = [agent["room_id"] for agent in await scene.vendors.agents()]
    order = [ids[room.removeprefix("room-")] for room in rooms]
    # Two leave together, so a pair may arrive either way round.
    pairs = [sorted(order[n : n + 2], reverse=True) for n in range(0, len(order), 2)]
    assert [one for pair in pairs for one in pair] == sorted(priorities, reverse=True)


async def test_no_more_agents_than_there_is_room_for(scene: Scene) -> None:
    scene.account(VOLCENGINE)["max_agents"] = 2
    await scene.start_daemon()
    ids = ["room-for-1", "room-for-2", "room-for-3"]
    await scene.app.write(*(task(VOLCENGINE, id_, priority=f"{-n}") for n, id_ in enumerate(ids)))
    waiting = await one_waits_for_capacity(scene)
    running = [id_ for id_ in ids if id_ != waiting]
    for id_ in running:
        await scene.wait(id_, phase="running")
    assert len(await scene.vendors.agents()) == 2

    await scene.app.write(update_task(running[0], desired_state="'stopped'"))
    await scene.wait(waiting, phase="running")
    assert await most_at_once(scene) == 2

    # The operator's word goes before the file's.
    await control(scene, VOLCENGINE, max_agents="3")
    await scene.app.write(update_task(running[0], desired_state="'running'"))
    await scene.wait(running[0], phase="running")
    assert len(await scene.vendors.live()) == 3


async def one_waits_for_capacity(scene: Scene) -> str:
    async def look() -> str | None:
        rows = await scene.app.read(
            "SELECT task_id FROM agent_status WHERE waiting_for = 'capacity'"
        )
        return rows[0]["task_id"] if len(rows) == 1 else None

    async def awaited() -> str:
        return f"one that waits for capacity\n{scene.logs()}"

    return await until(look, awaited)


async def most_at_once(scene: Scene) -> int:
    """Return the most agents that ever lived together."""
    agents = await scene.vendors.agents()
    edges = [(agent["started_at"], 1) for agent in agents]
    edges += [(agent["ended_at"], -1) for agent in agents if agent["ended_at"]]
    most = now = 0
    for _, change in sorted(edges):
        now += change
        most = max(most, now)
    return most


async def test_paused_holds_starts_and_frozen_holds_everything(scene: Scene) -> None:
    await scene.start_daemon()
    await scene.app.write(*(task(one, f"early-{one.name}") for one in CUSTOMERS))
    for one in CUSTOMERS:
        await scene.wait(f"early-{one.name}", phase="running")
    await scene.app.write(update("account_control", "true", paused="true"))
    await scene.app.write(*(task(one, f"late-{one.name}") for one in CUSTOMERS))
    for one in CUSTOMERS:
        await scene.wait(f"late-{one.name}", phase="pending", waiting_for="paused")
    await scene.app.write(update_task(f"early-{TENCENT.name}", desired_state="'stopped'"))
    await scene.wait(f"early-{TENCENT.name}", phase="stopped")

    await scene.app.write(update("account_control", "true", frozen="true"))
    stopped = f"early-{ZEGO.name}"
    await scene.app.write(update_task(stopped, desired_state="'stopped'"))
    await scene.wait(stopped, phase="stopping", waiting_for="frozen")
    assert await scene.calls(f"late-{ZEGO.name}") == []

    await scene.app.write(update("account_control", "true", frozen="false", paused="false"))
    await scene.wait(stopped, phase="stopped")
    for one in CUSTOMERS:
        await scene.wait(f"late-{one.name}", phase="running")
    assert doubled(await scene.vendors.agents()) == []


async def test_a_denied_account_waits_and_is_tried_when_the_operator_says_so(scene: Scene) -> None:
    daemon = await scene.start_daemon()
    denial = {"code": "AuthFailure.SecretIdNotFound", "status": 200}
    await scene.vendors.script(TENCENT.start, "code", n=2, **denial)
    ids = [f"denied-{n}" for n in range(4)]
    await scene.ask_for(TENCENT, ids[0])
    await scene.wait(ids[0], phase="pending", waiting_for="denied")
    await scene.app.write(*(task(TENCENT, id_) for id_ in ids[1:]), task(ZEGO, "other"))
    for id_ in ids:
        await scene.wait(id_, phase="pending", waiting_for="denied")
    await scene.wait("other", phase="running")
    (state,) = await scene.app.read("SELECT * FROM account_state WHERE account = 'tencent'")
    assert state["denied_code"] == "AuthFailure.SecretIdNotFound"

    # One start is tried, and denied again; the others go on waiting.
    await control(scene, TENCENT, retry_at=scene.app.in_seconds(1))
    await scene.wait_for_faults()
    for id_ in ids:
        await scene.wait(id_, phase="pending", waiting_for="denied")
    assert len(await scene.vendors.calls(TENCENT.start)) == 2

    await control(scene, TENCENT, retry_at=scene.app.in_seconds(1))
    for id_ in ids:
        await scene.wait(id_, phase="running")
    (told,) = daemon.events("account_denied")
    assert (told["level"], told["account"]) == ("error", "tencent")


async def test_zego_s_template_is_registered_then_updated(scene: Scene) -> None:
    # One call here is three requests, each of which may wait for a slot of its own.
    scene.account(ZEGO)["call_timeout_ms"] = 10_000
    scene.settings["leases"]["ttl_s"] = 15
    await scene.vendors.turn(zego_agents_registered=False)
    await scene.start_daemon()
    template = {
        "AgentId": "fake-agent",
        "Name": "Fake agent",
        "LLM": {"Url": "https://llm.invalid/v1", "ApiKey": "fake", "Model": "fake"},
        "TTS": {"Vendor": "ByteDance", "Params": {"app": {"appid": "fake", "token": "fake"}}},
    }
    spec = {**ZEGO.spec, "Agent": template}
    for id_ in ("first", "second"):
        await scene.ask_for(ZEGO, id_, spec=as_json(spec))
        await scene.wait(id_, phase="running")
    calls = [call["action"] for call in await scene.vendors.calls()]
    made = [one for one in calls if one in {"RegisterAgent", "UpdateAgent", ZEGO.start}]
    assert made == ["RegisterAgent", ZEGO.start, "RegisterAgent", "UpdateAgent", ZEGO.start]
    assert all(earlier != later for earlier, later in pairwise(made))
