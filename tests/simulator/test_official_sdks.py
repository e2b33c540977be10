"""The vendors' own SDKs, unchanged, against the simulator: the judge of its fidelity."""

import json
from typing import Any

import anyio.to_thread
import pytest
from tencentcloud.common.credential import Credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.trtc.v20190722 import models
from tencentcloud.trtc.v20190722.trtc_client import TrtcClient
from TLSSigAPIv2 import TLSSigAPIv2
from volcengine.ApiInfo import ApiInfo
from volcengine.base.Service import Service
from volcengine.Credentials import Credentials
from volcengine.ServiceInfo import ServiceInfo

from orchestrator.simulator import Simulator, serve
from orchestrator.simulator.keys import DEMO

VOLCENGINE, TENCENT, _ = DEMO
VERSION = "2024-12-01"
TASK = {"AppId": VOLCENGINE.app_id, "RoomId": "room1", "TaskId": "task1"}
START = TASK | {
    "Config": {"LLMConfig": {"Mode": "ArkV3", "EndPointId": "ep", "SystemMessages": ["你好"]}},
    "AgentConfig": {"TargetUserId": ["user1"], "UserId": "agent1"},
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def volcengine_service(address: str, secret: str) -> Service:
    apis = {
        action: ApiInfo("POST", "/", {"Action": action, "Version": VERSION}, {}, {})
        for action in ("StartVoiceChat", "UpdateVoiceChat", "StopVoiceChat")
    }
    apis["GetRoomOnlineUsers"] = ApiInfo(
        "GET", "/", {"Action": "GetRoomOnlineUsers", "Version": "2023-11-01"}, {}, {}
    )
    credentials = Credentials(VOLCENGINE.access_key_id, secret, "rtc", "cn-north-1")
    headers = {"Content-Type": "application/json"}
    return Service(ServiceInfo(address, headers, credentials, 5, 5, "http"), apis)


def run_volcengine(address: str, secret: str) -> list[Any]:
    """Start, look, speak, stop; return the answers."""
    service = volcengine_service(address, secret)
    room = {"AppId": TASK["AppId"], "RoomId": TASK["RoomId"]}
    answers = [service.json("StartVoiceChat", {}, json.dumps(START))]
    answers.append(service.get("GetRoomOnlineUsers", room))
    answers.append(service.json("UpdateVoiceChat", {}, json.dumps(TASK | {"Command": "interrupt"})))
    answers.append(service.json("StopVoiceChat", {}, json.dumps(TASK)))
    service.session.close()
    return [json.loads(answer) for answer in answers]


@pytest.mark.anyio
async def test_volcengine_sdk_starts_looks_updates_and_stops() -> None:
    simulator = Simulator(DEMO)
    async with serve(simulator, "127.0.0.1", 0) as url:
        started, online, updated, stopped = await anyio.to_thread.run_sync(
            run_volcengine, url.removeprefix("http://"), VOLCENGINE.secret_access_key
        )
    assert started["Result"] == updated["Result"] == stopped["Result"] == "ok"
    assert started["ResponseMetadata"]["Action"] == "StartVoiceChat"
    assert online["Result"]["VisibleUserList"] == ["user1", "agent1"]
    (agent,) = simulator.world.agents
    assert (agent.handle, agent.agent_user_id, agent.is_live) == ("task1", "agent1", False)


@pytest.mark.anyio
async def test_volcengine_sdk_is_refused_with_a_wrong_key() -> None:
    simulator = Simulator(DEMO)
    async with serve(simulator, "127.0.0.1", 0) as url:
        with pytest.raises(Exception, match="SignatureDoesNotMatch") as refusal:
            await anyio.to_thread.run_sync(
                run_volcengine, url.removeprefix("http://"), "no-such-secret"
            )
    assert "100010" in str(refusal.value)
    assert simulator.world.agents == []


def trtc_client(address: str, secret: str) -> TrtcClient:
    profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=address))
    return TrtcClient(Credential(TENCENT.secret_id, secret), "ap-guangzhou", profile)


def read_request(request: Any, fields: dict[str, Any]) -> Any:
    request.from_json_string(json.dumps(fields))
    return request


def start_request() -> Any:
    usersig = TLSSigAPIv2(TENCENT.sdk_app_id, TENCENT.usersig_key).gen_sig("agent1", 3600)
    fields = {
        "SdkAppId": TENCENT.sdk_app_id,
        "RoomId": "10000",
        "SessionId": "session1",
        "AgentConfig": {"UserId": "agent1", "UserSig": usersig, "TargetUserId": "user1"},
        "STTConfig": {"Language": "zh"},
        "LLMConfig": "{}",
        "TTSConfig": "{}",
    }
    return read_request(models.StartAIConversationRequest(), fields)


def run_tencent(address: str, secret: str) -> list[Any]:
    """Start, describe by session, update, push text, stop; return the answers."""
    client = trtc_client(address, secret)
    started = client.StartAIConversation(start_request())
    session = {"SdkAppId": TENCENT.sdk_app_id, "SessionId": "session1"}
    described = client.DescribeAIConversation(
        read_request(models.DescribeAIConversationRequest(), session)
    )
    task = {"TaskId": started.TaskId}
    client.UpdateAIConversation(
        read_request(models.UpdateAIConversationRequest(), task | {"WelcomeMessage": "hi"})
    )
    push = task | {"Command": "ServerPushText", "ServerPushText": {"Text": "hi"}}
    client.ControlAIConversation(read_request(models.ControlAIConversationRequest(), push))
    stopped = client.StopAIConversation(read_request(models.StopAIConversationRequest(), task))
    return [started, described, stopped]


@pytest.mark.anyio
async def test_tencent_sdk_starts_describes_and_stops() -> None:
    simulator = Simulator(DEMO)
    async with serve(simulator, "127.0.0.1", 0) as url:
        started, described, stopped = await anyio.to_thread.run_sync(
            run_tencent, url.removeprefix("http://"), TENCENT.secret_key
        )
    assert described.TaskId == started.TaskId
    assert described.Status == "InProgress"
    assert stopped.RequestId
    (agent,) = simulator.world.agents
    assert (agent.handle, agent.session_id, agent.is_live) == (started.TaskId, "session1", False)


@pytest.mark.anyio
async def test_tencent_sdk_removes_the_agent_from_its_room() -> None:
    simulator = Simulator(DEMO)

    def start_and_remove(address: str) -> None:
        client = trtc_client(address, TENCENT.secret_key)
        client.StartAIConversation(start_request())
        fields = {"SdkAppId": TENCENT.sdk_app_id, "RoomId": 10000, "UserIds": ["agent1"]}
        client.RemoveUser(read_request(models.RemoveUserRequest(), fields))

    async with serve(simulator, "127.0.0.1", 0) as url:
        await anyio.to_thread.run_sync(start_and_remove, url.removeprefix("http://"))
    assert [agent.why for agent in simulator.world.agents] == ["kicked"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("secret_id", "secret", "code"),
    [
        (TENCENT.secret_id, "no-such-secret", "AuthFailure.SignatureFailure"),
        ("AKIDnobody", TENCENT.secret_key, "AuthFailure.SecretIdNotFound"),
    ],
)
async def test_tencent_sdk_is_refused_with_a_wrong_key(
    secret_id: str, secret: str, code: str
) -> None:
    simulator = Simulator(DEMO)

    def start(address: str) -> None:
        profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=address))
        TrtcClient(Credential(secret_id, secret), "ap-guangzhou", profile).StartAIConversation(
            start_request()
        )

    async with serve(simulator, "127.0.0.1", 0) as url:
        with pytest.raises(TencentCloudSDKException) as refusal:
            await anyio.to_thread.run_sync(start, url.removeprefix("http://"))
    assert refusal.value.code == code
    assert simulator.world.agents == []
