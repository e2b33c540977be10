"""Tencent's rules, each as the vendor's pages or a switch state it."""

from typing import Any

import pytest

from orchestrator.simulator.keys import DEMO
from orchestrator.simulator.wire import Call
from orchestrator.simulator.world import Vendor

APP = DEMO[1].sdk_app_id
GONE = "FailedOperation.TaskNotExist"
UNKNOWN = "UnknownParameter"
SESSION = {"SdkAppId": APP, "SessionId": "s1"}


def start(world: Any, *args: Any, **kwargs: Any) -> str:
    status, code, answer = world.tencent(
        "StartAIConversation", world.tencent_start(*args, **kwargs)
    )
    assert (status, code) == (200, "")
    return str(answer["TaskId"])


def pushed(**fields: Any) -> dict[str, Any]:
    return {"Command": "ServerPushText", "ServerPushText": {"Text": "hi"} | fields}


def test_a_task_is_described_by_task_and_by_session_until_it_stopped(world: Any) -> None:
    task_id = start(world)
    for query in ({"TaskId": task_id}, SESSION):
        shown = world.tencent("DescribeAIConversation", query)[2]
        assert (shown["TaskId"], shown["SessionId"]) == (task_id, "s1")
        assert (shown["Status"], shown["StartTime"]) == ("InProgress", "2026-03-01 20:00:00.000000")
    assert world.tencent("StopAIConversation", {"TaskId": task_id})[1] == ""
    assert world.ended() == {"agent1": "requested"}
    assert world.tencent("StopAIConversation", {"TaskId": task_id})[1] == GONE
    assert world.tencent("DescribeAIConversation", SESSION)[2]["Status"] == "Stopped"
    world.clock.move(1)
    assert world.tencent("DescribeAIConversation", SESSION)[1] == GONE


def test_an_agent_that_has_not_joined_is_preparing(world: Any) -> None:
    world.turn(join_delay_ms=500)
    start(world)
    assert world.tencent("DescribeAIConversation", SESSION)[2]["Status"] == "Preparing"
    world.clock.move(0.5)
    assert world.tencent("DescribeAIConversation", SESSION)[2]["Status"] == "InProgress"


def test_describe_without_task_id_by_switch(world: Any) -> None:
    start(world)
    world.turn(tencent_describe_without_task_id=True)
    assert "TaskId" not in world.tencent("DescribeAIConversation", SESSION)[2]


@pytest.mark.parametrize("query", [{}, {"SdkAppId": APP}, {"SessionId": "s1"}])
def test_describe_needs_a_task_or_an_app_and_a_session(world: Any, query: dict[str, Any]) -> None:
    assert world.tencent("DescribeAIConversation", query)[1] == "InvalidParameter.TaskId"


@pytest.mark.parametrize(
    ("bound", "code"),
    [(True, GONE), (False, "")],
)
def test_tasks_are_bound_to_their_region_by_switch(world: Any, bound: bool, code: str) -> None:
    world.turn(tencent_region_bound=bound)
    task = {"TaskId": start(world)}
    assert world.tencent("StopAIConversation", task, region="ap-singapore")[1] == code
    assert bool(world.live()) == bound


@pytest.mark.parametrize(
    ("session", "agent", "switch"),
    [
        ("s1", "agent2", "tencent_duplicate_session"),
        ("s2", "agent1", "tencent_duplicate_agent"),
    ],
)
@pytest.mark.parametrize(
    ("policy", "code", "live"),
    [("reject", "FailedOperation.TaskExist", 1), ("takeover", "", 1), ("allow", "", 2)],
)
def test_duplicate_policies(
    world: Any, session: str, agent: str, switch: str, policy: str, code: str, live: int
) -> None:
    start(world, "s1", "agent1")
    world.turn(**{switch: policy})
    body = world.tencent_start(session, agent)
    assert world.tencent("StartAIConversation", body)[1] == code
    assert len(world.live()) == live
    assert set(world.ended().values()) == ({"evicted"} if policy == "takeover" else set())


def test_a_stopped_session_may_start_again(world: Any) -> None:
    world.tencent("StopAIConversation", {"TaskId": start(world)})
    assert world.tencent("DescribeAIConversation", {"TaskId": start(world)})[1] == ""


def test_idle_counts_streams_not_users(world: Any) -> None:
    start(world)
    world.move_user(Vendor.TENCENT, present=True, publishing=False)
    world.clock.move(29)
    assert world.live() == ["agent1"]
    world.clock.move(1)
    assert world.ended() == {"agent1": "idle"}


@pytest.mark.parametrize(("publish", "live"), [(True, 2), (False, 0)])
def test_two_agents_keep_each_other_alive_by_switch(world: Any, publish: bool, live: int) -> None:
    world.turn(tencent_agents_publish=publish)
    start(world, "s1", "agent1")
    start(world, "s2", "agent2")
    world.move_user(Vendor.TENCENT, present=False, publishing=False)
    world.clock.move(1000)
    assert len(world.live()) == live


@pytest.mark.parametrize("kind", [0, 1])
def test_removing_the_agent_ends_its_task_and_dismissing_every_task(world: Any, kind: int) -> None:
    """Numeric and string rooms of the same name are two rooms."""
    suffix, other = (("", "ByStrRoomId"), ("ByStrRoomId", ""))[kind]
    room = {"SdkAppId": APP, "RoomId": (10000, "10000")[kind]}
    elsewhere = {"SdkAppId": APP, "RoomId": ("10000", 10000)[kind]}
    for number in (1, 2):
        body = world.tencent_start(f"s{number}", f"agent{number}")
        body |= {"RoomId": "10000", "RoomIdType": kind}
        assert world.tencent("StartAIConversation", body)[1] == ""
    kick = {"UserIds": ["agent1"]}
    missing = "FailedOperation.RoomNotExist"
    assert world.tencent(f"RemoveUser{other}", elsewhere | kick)[1] == missing
    assert world.tencent(f"RemoveUser{suffix}", room | kick)[1] == ""
    assert world.ended() == {"agent1": "kicked"}
    assert world.tencent(f"DismissRoom{suffix}", room)[1] == ""
    assert world.ended() == {"agent1": "kicked", "agent2": "room_dismissed"}
    assert world.tencent(f"DismissRoom{suffix}", room)[1] == missing


def test_a_kick_does_not_reach_an_agent_that_has_not_joined(world: Any) -> None:
    world.turn(join_delay_ms=1000)
    start(world)
    kick = {"SdkAppId": APP, "RoomId": "room1", "UserIds": ["agent1"]}
    assert world.tencent("RemoveUserByStrRoomId", kick)[1] == ""
    world.clock.move(2)
    assert world.live() == ["agent1"]


def test_a_kicked_agent_that_still_bills_by_switch(world: Any) -> None:
    world.turn(tencent_kick_ends=False)
    start(world)
    kick = {"SdkAppId": APP, "RoomId": "room1", "UserIds": ["agent1"]}
    assert world.tencent("RemoveUserByStrRoomId", kick)[1] == ""
    assert world.live() == ["agent1"]
    dismissed = world.tencent("RemoveUserByStrRoomId", kick | {"UserIds": ["user1"]})[1]
    assert dismissed == ""
    assert world.tencent("RemoveUserByStrRoomId", kick)[1] == "FailedOperation.RoomNotExist"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"Command": "ServerPushText", "ServerPushText": {"Text": "hi"}}, ""),
        ({"Command": "ServerPushText", "ServerPushText": {"Audio": "UklGRg=="}}, ""),
        ({"Command": "ServerPushText", "ServerPushText": {"Text": ""}}, "InvalidParameter"),
        (pushed(Speak="hi"), UNKNOWN),
        ({"Command": "ServerPushText"}, "MissingParameter"),
        ({"Command": "Sing"}, "InvalidParameter"),
        ({"Command": "InvokeLLM", "InvokeLLM": {"Content": "hi"}}, ""),
        ({"Command": "InvokeLLM", "InvokeLLM": {"Interrupt": True}}, "InvalidParameter"),
        ({"Command": "InvokeLLM", "InvokeLLM": {"Content": "hi"}, "Text": "hi"}, UNKNOWN),
        (pushed(Interrupt=True, DropMode=1, MetaInfo='{"a": 1}'), ""),
        (pushed(DropMode=2), "InvalidParameter"),
        (pushed(Priority=-1), "InvalidParameter"),
        (pushed(Interrupt=1), "InvalidParameter"),
        (pushed(MetaInfo="no json"), "InvalidParameter"),
    ],
)
def test_control_commands(world: Any, body: dict[str, Any], code: str) -> None:
    task = {"TaskId": start(world)}
    assert world.tencent("ControlAIConversation", task | body)[1] == code
    assert world.tencent("UpdateAIConversation", task | {"WelcomeMessage": "hi"})[1] == ""
    assert world.live() == ["agent1"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, ""),
        ({"InterruptMode": 1, "InterruptSpeechDuration": 300}, ""),
        ({"LLMConfig": '{"Model": "m"}', "TTSConfig": "{}"}, ""),
        ({"InterruptMode": 2}, "InvalidParameter"),
        ({"LLMConfig": {"Model": "m"}}, "InvalidParameter"),
        ({"LLMConfig": "m"}, "InvalidParameter"),
        ({"MaxIdleTime": 30}, UNKNOWN),
        ({"STTConfig": {}}, UNKNOWN),
        ({"TaskId": "nobody"}, GONE),
    ],
)
def test_what_can_change_while_it_runs(world: Any, change: dict[str, Any], code: str) -> None:
    update = {"TaskId": start(world)} | change
    assert world.tencent("UpdateAIConversation", update)[1] == code


def test_the_last_words_end_the_task(world: Any) -> None:
    task = {"TaskId": start(world)}
    bye = {"Command": "ServerPushText", "ServerPushText": {"Text": "bye", "StopAfterPlay": True}}
    assert world.tencent("ControlAIConversation", task | bye)[1] == ""
    assert world.ended() == {"agent1": "requested"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"secret": "wrong"}, "AuthFailure.SignatureFailure"),
        ({"key_id": "AKIDnobody"}, "AuthFailure.SecretIdNotFound"),
        ({"signed_ago_s": 301}, "AuthFailure.SignatureExpire"),
        ({"signed_ago_s": -301}, "AuthFailure.SignatureExpire"),
        ({"signed_ago_s": 299}, ""),
        ({"region": ""}, "MissingParameter"),
        ({"region": "eu-nowhere"}, "UnsupportedRegion"),
    ],
)
def test_the_gateway(world: Any, changes: dict[str, Any], code: str) -> None:
    status, found, answer = world.tencent("StartAIConversation", world.tencent_start(), **changes)
    assert (status, found) == (200, code)
    assert len(answer["RequestId"]) == 36
    assert bool(world.live()) == (code == "")


def _other_body(call: Call) -> None:
    call.body += b" "


def _malformed(call: Call) -> None:
    call.headers = dict(call.headers) | {"Authorization": "TC3-HMAC-SHA256"}


def _strange_token(call: Call) -> None:
    call.headers = dict(call.headers) | {"X-TC-Token": "strange"}


def _unknown_action(call: Call) -> None:
    call.action = "ListAIConversations"


def _unknown_version(call: Call) -> None:
    call.version = "2020-01-01"


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (_other_body, "AuthFailure.SignatureFailure"),
        (_malformed, "AuthFailure.InvalidAuthorization"),
        (_strange_token, "AuthFailure.TokenFailure"),
        # Neither is signed, so only the gateway's later checks see them.
        (_unknown_action, "InvalidAction"),
        (_unknown_version, "NoSuchVersion"),
    ],
)
def test_what_was_signed_may_not_change(world: Any, tamper: Any, code: str) -> None:
    call = world.tencent_call("StartAIConversation", world.tencent_start())
    tamper(call)
    assert world.ask(call)[1] == code
    assert world.live() == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"LLMConfig": {"LLMType": "openai"}}, "InvalidParameter"),
        ({"RoomId": 10000}, "InvalidParameter"),
        ({"RoomId": None}, "MissingParameter"),
        ({"MaxDuration": 10}, "UnknownParameter"),
        ({"SdkAppId": 1}, "UnauthorizedOperation.SdkAppId"),
        ({"RoomIdType": True}, "InvalidParameter"),
        ({"RoomIdType": 2}, "InvalidParameter"),
        ({"TTSConfig": "flow"}, "InvalidParameter"),
        ({"AvatarConfig": None}, ""),
    ],
)
def test_bodies(world: Any, change: dict[str, Any], code: str) -> None:
    assert world.tencent("StartAIConversation", world.tencent_start() | change)[1] == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"UserSig": "nonsense"}, "InvalidParameter.UserSig"),
        ({"UserId": "another"}, "InvalidParameter.UserSig"),
        ({"TargetUserId": "agent1"}, "InvalidParameter"),
        ({"Hat": "red"}, "UnknownParameter"),
        ({"MaxIdleTime": "60"}, "InvalidParameter"),
    ],
)
def test_agent_configs(world: Any, change: dict[str, Any], code: str) -> None:
    assert world.tencent("StartAIConversation", world.tencent_start(**change))[1] == code
    assert world.live() == []


def test_an_expired_user_sig_lets_nobody_in(world: Any) -> None:
    body = world.tencent_start()
    world.clock.move(3601)
    assert world.tencent("StartAIConversation", body)[1] == "InvalidParameter.UserSig"


def test_twenty_of_one_action_in_any_second(world: Any) -> None:
    world.turn(tencent_qps=20)
    codes = [world.tencent("DescribeAIConversation", SESSION)[1] for _ in range(21)]
    assert codes == [GONE] * 20 + ["RequestLimitExceeded"]


@pytest.mark.parametrize("body", ["half {", "[]", "[" * 100_000])
def test_a_body_that_is_no_json_object(world: Any, body: str) -> None:
    assert world.tencent("StartAIConversation", body)[1] == "InvalidParameter"
    assert world.live() == []
