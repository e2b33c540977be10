"""The simulator on a port: telling vendors apart, faults as a client meets them, and `/_sim/`."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from aiohttp.client_exceptions import ClientConnectionError, ClientPayloadError

from orchestrator.clock import utc_now
from orchestrator.providers.signing import TC3Call, TC3Keys, sign_tc3, zego_query
from orchestrator.simulator import Simulator, serve
from orchestrator.simulator.keys import DEMO

_, TENCENT, ZEGO = DEMO
CREATE = {
    "AgentId": "template1",
    "UserId": "user1",
    "RTC": {
        "RoomId": "room1",
        "AgentStreamId": "stream1",
        "AgentUserId": "agent1",
        "UserStreamId": "user1",
    },
}


class Client:
    """Speaks to a served simulator as ZEGO's client, and to its controls."""

    def __init__(self, session: aiohttp.ClientSession, url: str, simulator: Simulator) -> None:
        self.session = session
        self.url = url
        self.simulator = simulator

    async def zego(self, action: str, body: Any) -> tuple[int, bytes, Any]:
        query = zego_query(
            app_id=ZEGO.app_id,
            server_secret=ZEGO.server_secret,
            nonce="00112233445566aa",
            at=utc_now(),
            action=action,
        )
        async with self.session.post(f"{self.url}/?{query}", json=body) as response:
            return response.status, await response.read(), response.headers

    async def create(self) -> int:
        _, body, _ = await self.zego("CreateAgentInstance", CREATE)
        return int(json.loads(body)["Code"])

    async def get(self, path: str) -> Any:
        async with self.session.get(f"{self.url}/_sim/{path}") as response:
            return await response.json()

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        async with self.session.post(f"{self.url}/_sim/{path}", json=body) as response:
            return response.status, await response.json()

    async def script(self, fault: str, **more: Any) -> None:
        body = {"action": "CreateAgentInstance", "n": 1, "fault": fault} | more
        assert (await self.post("faults", body))[0] == 200

    def is_idle(self, number: int) -> bool:
        return self.simulator.world.agents[number].idle_since is not None

    def agents(self) -> int:
        return len(self.simulator.world.agents)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    simulator = Simulator(DEMO)
    async with (
        serve(simulator, "127.0.0.1", 0) as url,
        # Without keep-alive: aiohttp repeats some requests when a kept connection is reset.
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        yield Client(session, url, simulator)


@pytest.mark.anyio
async def test_every_answer_is_plain_json_with_the_simulators_date() -> None:
    simulator = Simulator(DEMO, clock=lambda: utc_now() - timedelta(days=400))
    body = b'{"TaskId":"none"}'
    async with serve(simulator, "127.0.0.1", 0) as url, aiohttp.ClientSession() as session:
        host = url.removeprefix("http://")
        headers = sign_tc3(
            TC3Call(
                host=host,
                action="StopAIConversation",
                version="2019-07-22",
                region="ap-guangzhou",
                body=body,
            ),
            keys=TC3Keys(secret_id=TENCENT.secret_id, secret_key=TENCENT.secret_key),
            at=simulator.clock(),
        )
        async with session.post(url, data=body, headers=headers) as response:
            answer = await response.json()
            date = response.headers["Date"]
            assert response.headers["Content-Type"] == "application/json"
    assert answer["Response"]["Error"]["Code"] == "FailedOperation.TaskNotExist"
    assert f"{simulator.clock():%b %Y}" in date


@pytest.mark.anyio
async def test_a_request_of_no_vendor_is_told_what_was_expected(client: Client) -> None:
    async with client.session.post(client.url, json={}) as response:
        assert response.status == 404
        assert "X-TC-Action" in (await response.json())["expected"]


@pytest.mark.anyio
@pytest.mark.parametrize(("fault", "agents"), [("lose_request", 0), ("lose_reply", 1)])
async def test_a_lost_call_ends_in_a_reset(client: Client, fault: str, agents: int) -> None:
    await client.script(fault)
    with pytest.raises(ClientConnectionError):
        await client.create()
    assert client.agents() == agents
    (call,) = (await client.get("calls"))["calls"]
    assert (call["action"], call["status"], call["fault"]) == ("CreateAgentInstance", None, fault)
    assert await client.create() == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fault", "status", "start"),
    [
        ("http_500", 500, b'{"message"'),
        ("html", 502, b"<html>"),
        ("half_json", 200, b'{"Code":0'),
        ("empty", 200, b""),
    ],
)
async def test_a_spoilt_answer_comes_after_the_effect(
    client: Client, fault: str, status: int, start: bytes
) -> None:
    await client.script(fault)
    found, body, _ = await client.zego("CreateAgentInstance", CREATE)
    assert (found, body[: len(start)], client.agents()) == (status, start, 1)
    if fault == "half_json":
        with pytest.raises(ValueError, match="line 1"):
            json.loads(body)


@pytest.mark.anyio
async def test_a_huge_answer_is_thirty_megabytes_of_json(client: Client) -> None:
    await client.script("huge")
    _, body, _ = await client.zego("CreateAgentInstance", CREATE)
    assert len(body) > 30 * 2**20
    assert set(json.loads(body)) == {"padding"}


@pytest.mark.anyio
async def test_a_client_may_give_up_on_a_huge_answer(client: Client) -> None:
    await client.script("huge")
    query = zego_query(
        app_id=ZEGO.app_id,
        server_secret=ZEGO.server_secret,
        nonce="aa",
        at=utc_now(),
        action="CreateAgentInstance",
    )
    async with client.session.post(f"{client.url}/?{query}", json=CREATE) as response:
        assert await response.content.readexactly(12) == b'{"padding":"'
        response.close()
    assert await client.create() == 0


@pytest.mark.anyio
async def test_a_throttled_call_and_one_with_a_code_have_no_effect(client: Client) -> None:
    await client.script("throttle")
    await client.script("code", code="410004014")
    assert [await client.create() for _ in range(3)] == [410000018, 410004014, 0]
    assert client.agents() == 1


@pytest.mark.anyio
async def test_an_agent_may_die_after_a_good_answer(client: Client) -> None:
    await client.script("dies")
    assert await client.create() == 0
    assert [agent.why for agent in client.simulator.world.agents] == ["fault"]


@pytest.mark.anyio
async def test_a_late_request_has_its_effect_though_its_client_has_gone(client: Client) -> None:
    joined = anyio.Event()
    client.simulator.world.listen(lambda *_: joined.set())
    await client.script("delay", ms=100)
    with anyio.move_on_after(0.02) as impatience:
        await client.create()
    assert impatience.cancelled_caught
    assert client.agents() == 0
    with anyio.fail_after(5):
        await joined.wait()
    assert client.agents() == 1


@pytest.mark.anyio
async def test_a_late_request_is_judged_when_it_arrives() -> None:
    lateness = timedelta(0)
    simulator = Simulator(DEMO, clock=lambda: utc_now() + lateness)
    async with serve(simulator, "127.0.0.1", 0) as url, aiohttp.ClientSession() as session:
        client, codes = Client(session, url, simulator), []

        async def create() -> None:
            codes.append(await client.create())

        await client.script("delay", ms=100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(create)
            # Once the fault is drawn the request is on its way, for longer than a signature lives.
            while simulator.faults.pending():
                await anyio.lowlevel.checkpoint()
            lateness = timedelta(seconds=700)
    assert codes == [100000004]
    assert simulator.world.agents == []


@pytest.mark.anyio
@pytest.mark.parametrize(("fault", "more"), [("hang", {}), ("delay_reply", {"ms": 60_000})])
async def test_a_hanging_answer_has_had_its_effect(
    client: Client, fault: str, more: dict[str, int]
) -> None:
    joined = anyio.Event()
    client.simulator.world.listen(lambda *_: joined.set())
    await client.script(fault, **more)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.create)
        with anyio.fail_after(5):
            await joined.wait()
        tasks.cancel_scope.cancel()
    assert client.agents() == 1


@pytest.mark.anyio
async def test_a_script_for_any_action_and_its_end(client: Client) -> None:
    await client.script("throttle", action="*", n=2)
    assert (await client.get("faults")) == {"pending": {"*": 2}}
    assert [await client.create() for _ in range(3)] == [410000018, 410000018, 0]
    await client.script("throttle", n=9)
    assert (await client.post("faults", {"clear": True}))[1] == {"pending": {}}
    assert (await client.zego("CreateAgentInstance", {}))[0] == 200


@pytest.mark.anyio
async def test_the_world_is_looked_at_and_steered(client: Client) -> None:
    await client.create()
    (agent,) = (await client.get("agents"))["agents"]
    assert (agent["vendor"], agent["account"], agent["live"]) == ("zego", "zego", True)
    assert (agent["agent_user_id"], agent["room_id"], agent["why"]) == ("agent1", "room1", None)
    away = {"account": "zego", "room_id": "room1", "user_id": "user1", "do": "leave"}
    assert await client.post("users", away) == (200, {"present": False, "publishing": False})
    assert client.is_idle(0)
    assert (await client.post("users", away | {"do": "publish"}))[1]["publishing"]
    assert not client.is_idle(0)
    status, ended = await client.post(f"agents/{agent['id']}/end", {"why": "kicked"})
    assert (status, ended["why"], ended["live"]) == (200, "kicked", False)
    assert (await client.get("agents?live=true"))["agents"] == []
    assert len((await client.get("agents?vendor=zego&live=false"))["agents"]) == 1


@pytest.mark.anyio
async def test_calls_are_numbered_and_the_busiest_second_counted(client: Client) -> None:
    for _ in range(3):
        await client.create()
    calls = await client.get("calls?since=1")
    assert [(c["seq"], c["account"], c["code"]) for c in calls["calls"]] == [
        (2, "zego", ""),
        (3, "zego", ""),
    ]
    assert calls["last"] == 3
    assert calls["calls"][0]["ids"]["agent_user_id"] == "agent1"
    assert calls["busiest_second"] == [
        {"vendor": "zego", "account": "zego", "action": "CreateAgentInstance", "calls": 3}
    ]
    assert ZEGO.server_secret not in json.dumps(calls)


@pytest.mark.anyio
async def test_a_reset_begins_anew(client: Client) -> None:
    await client.create()
    await client.script("throttle")
    await client.post("switches", {"zego_capacity": 1})
    assert (await client.post("reset", {}))[0] == 200
    assert (await client.get("agents"))["agents"] == []
    assert (await client.get("calls"))["calls"] == []
    assert (await client.get("switches"))["zego_capacity"]["value"] == 10
    assert await client.create() == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("faults", [], "a JSON object"),
        ("faults", {"action": "StopVoiceChat", "fault": "explode"}, "lose_request"),
        ("faults", {"action": "StopVoiceChat", "fault": "html", "n": 0}, "an integer from 1"),
        ("faults", {"action": "StopVoiceChat", "fault": "delay"}, "an integer from 1"),
        ("faults", {"action": "StopVoiceChat", "fault": "code"}, "a string"),
        ("faults", {"action": "*", "fault": "html", "ratio": 2}, "a number from 0 to 1"),
        ("users", {"account": "zego", "room_id": "r", "user_id": "u", "do": "dance"}, "join"),
        ("users", {"account": "x", "room_id": "r", "user_id": "u", "do": "join"}, "volcengine"),
        ("agents/a0/end", {"why": "bored"}, "idle or kicked or fault"),
        ("agents/a0/end", {"why": "idle"}, "the id or handle of an agent"),
        ("switches", {"zego_capacity": "ten"}, "switches"),
        ("callbacks", {"account": "zego", "url": "ftp://x"}, "http"),
        ("faults", {"action": "callback", "fault": "hang"}, "delay or double or drop"),
    ],
)
async def test_wrong_requests_are_told_what_was_expected(
    client: Client, path: str, body: Any, expected: str
) -> None:
    status, answer = await client.post(path, body)
    assert status in {400, 404}
    assert expected in answer["expected"]


@pytest.mark.anyio
async def test_ratios_are_seeded(client: Client) -> None:
    await client.post("switches", {"zego_qps": 0, "zego_capacity": 0})
    ratio = {"action": "*", "fault": "empty", "ratio": 0.5}
    assert (await client.post("faults", ratio))[0] == 200
    empty = [not (await client.zego("ListAgents", {}))[1] for _ in range(20)]
    assert 3 < sum(empty) < 17
    await client.post("reset", {})
    await client.post("faults", ratio)
    await client.post("switches", {"zego_qps": 0})
    assert [not (await client.zego("ListAgents", {}))[1] for _ in range(20)] == empty


@pytest.mark.anyio
async def test_the_port_is_free_again_after_a_hanging_answer() -> None:
    simulator = Simulator(DEMO)
    joined = anyio.Event()
    simulator.world.listen(lambda *_: joined.set())

    async def hang(client: Client) -> None:
        await client.script("hang")
        with pytest.raises((ClientConnectionError, ClientPayloadError)):
            await client.create()

    async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
        async with serve(simulator, "127.0.0.1", 0) as url:
            tasks.start_soon(hang, Client(session, url, simulator))
            with anyio.fail_after(5):
                await joined.wait()
        with anyio.fail_after(5):
            async with serve(simulator, "127.0.0.1", int(url.rsplit(":", 1)[1])):
                pass
