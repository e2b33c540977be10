"""Volcengine's rules, each as the vendor's pages or a switch state it."""

from typing import Any

import pytest

from orchestrator.simulator.keys import DEMO
from orchestrator.simulator.volcengine import STARTED_ALREADY
from orchestrator.simulator.wire import Call
from orchestrator.simulator.world import Vendor

KEYS = DEMO[0]
GONE = "InvalidParameter.ErrorActiveTaskNotFound"
WRONG = "InvalidParameter"


@pytest.mark.parametrize("version", ["2024-12-01", "2025-06-01"])
def test_a_task_starts_once_updates_and_stops_once(world: Any, version: str) -> None:
    start, task = world.volcengine_start(), world.volcengine_task()
    status, code, answer = world.volcengine("StartVoiceChat", start, version)
    assert (status, code, answer["Result"]) == (200, "", "ok")
    assert answer["ResponseMetadata"]["Version"] == version
    status, code, answer = world.volcengine("StartVoiceChat", start, version)
    assert (status, code, answer["Result"]) == (200, "", STARTED_ALREADY)
    assert world.live() == ["agent-t1"]
    update = task | {"Command": "Interrupt"}
    assert world.volcengine("UpdateVoiceChat", update, version)[1] == ""
    assert world.volcengine("StopVoiceChat", task, version)[1] == ""
    assert world.ended() == {"agent-t1": "requested"}
    for action, body in (("StopVoiceChat", task), ("UpdateVoiceChat", update)):
        status, code, _ = world.volcengine(action, body, version)
        assert (status, code) == (400, GONE)
    assert world.volcengine("StartVoiceChat", start, version)[1] == ""
    assert world.live() == ["agent-t1"]


@pytest.mark.parametrize("with_room", [True, False])
def test_the_first_version_goes_by_room_and_user(world: Any, with_room: bool) -> None:
    start = {
        "AppId": KEYS.app_id,
        "RoomId": "Room1",
        "UserId": "user1",
        "Config": {"BotName": "bot"},
    }
    stop = {"AppId": KEYS.app_id, "UserId": "user1"} | ({"RoomId": "Room1"} if with_room else {})
    assert world.volcengine("StartVoiceChat", start, "2024-06-01")[1] == ""
    again = world.volcengine("StartVoiceChat", start, "2024-06-01")[2]["Result"]
    assert again == STARTED_ALREADY
    assert world.live() == ["bot"]
    assert world.volcengine("StopVoiceChat", stop | {"UserId": "user2"}, "2024-06-01")[1] == GONE
    assert world.volcengine("StopVoiceChat", stop, "2024-06-01")[1] == ""
    assert world.ended() == {"bot": "requested"}
    assert world.volcengine("StopVoiceChat", stop, "2024-06-01")[1] == GONE


def test_it_ends_an_agent_idle_timeout_after_its_user_left(world: Any) -> None:
    world.volcengine("StartVoiceChat", world.volcengine_start())
    world.clock.move(1000)
    assert world.live() == ["agent-t1"]
    world.move_user(Vendor.VOLCENGINE, present=False, publishing=False)
    world.clock.move(29)
    assert world.live() == ["agent-t1"]
    world.move_user(Vendor.VOLCENGINE, present=True, publishing=False)
    world.clock.move(29)
    world.move_user(Vendor.VOLCENGINE, present=False, publishing=False)
    world.clock.move(29)
    assert world.live() == ["agent-t1"]
    world.clock.move(100)
    assert world.ended() == {"agent-t1": "idle"}
    (agent,) = world.simulator.world.agents
    assert agent.billed_s(world.clock()) == 1000 + 29 + 29 + 30


def test_each_absence_counts_anew(world: Any) -> None:
    world.volcengine("StartVoiceChat", world.volcengine_start())
    world.move_user(Vendor.VOLCENGINE, present=False, publishing=False)
    world.clock.move(10)
    world.move_user(Vendor.VOLCENGINE, present=True, publishing=False)
    world.clock.move(1)
    world.move_user(Vendor.VOLCENGINE, present=False, publishing=False)
    # The first absence would be 40 s long by now, the second is 29.
    world.clock.move(29)
    assert world.live() == ["agent-t1"]
    world.clock.move(1)
    assert world.ended() == {"agent-t1": "idle"}


def test_an_absent_user_is_waited_for_from_the_start(world: Any) -> None:
    world.turn(users_present=False)
    start = world.volcengine_start()
    del start["AgentConfig"]["IdleTimeout"]
    world.volcengine("StartVoiceChat", start)
    world.clock.move(179)
    assert world.live() == ["agent-t1"]
    world.clock.move(1)
    assert world.ended() == {"agent-t1": "idle"}


def test_the_room_shows_its_users_and_agents(world: Any) -> None:
    room = {"AppId": KEYS.app_id, "RoomId": "room1"}

    def look() -> Any:
        return world.volcengine("GetRoomOnlineUsers", room, "2023-11-01")[2]["Result"]

    assert look() == {"RoomExists": False}
    world.turn(join_delay_ms=1000)
    world.volcengine("StartVoiceChat", world.volcengine_start())
    assert look()["VisibleUserList"] == ["user1"]
    world.clock.move(1)
    assert look()["VisibleUserList"] == ["user1", "agent-t1"]
    world.turn(volcengine_agent_visible=False)
    assert look()["InvisibleUserList"] == ["agent-t1"]


@pytest.mark.parametrize(
    ("switches", "action", "expected"),
    [
        (
            {"volcengine_duplicate_start": "error"},
            "StartVoiceChat",
            (400, "InvalidParameter.TaskAlreadyExists"),
        ),
        ({"volcengine_unknown_task": "ok"}, "StopVoiceChat", (200, "")),
        ({"volcengine_unknown_task": "error_200"}, "StopVoiceChat", (200, GONE)),
    ],
)
def test_switches_of_what_the_pages_leave_open(
    world: Any, switches: dict[str, Any], action: str, expected: tuple[int, str]
) -> None:
    world.volcengine("StartVoiceChat", world.volcengine_start())
    world.turn(**switches)
    body = (
        world.volcengine_start() if action == "StartVoiceChat" else world.volcengine_task("other")
    )
    assert world.volcengine(action, body)[:2] == expected


def test_a_second_task_in_a_room_by_switch(world: Any) -> None:
    assert world.volcengine("StartVoiceChat", world.volcengine_start("t1"))[1] == ""
    assert world.volcengine("StartVoiceChat", world.volcengine_start("t2"))[1] == ""
    world.turn(volcengine_second_task="refuse")
    code = world.volcengine("StartVoiceChat", world.volcengine_start("t3"))[1]
    assert code == "InvalidParameter.TaskAlreadyExists"
    assert world.live() == ["agent-t1", "agent-t2"]


def test_a_vendor_that_does_not_yet_know_its_own_task(world: Any) -> None:
    world.turn(visibility_lag_ms=2000)
    world.volcengine("StartVoiceChat", world.volcengine_start())
    assert world.volcengine("StopVoiceChat", world.volcengine_task())[1] == GONE
    assert world.live() == ["agent-t1"]
    world.clock.move(2)
    assert world.volcengine("StopVoiceChat", world.volcengine_task())[1] == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"secret": "wrong"}, (401, "SignatureDoesNotMatch")),
        ({"key_id": "AKLTnobody"}, (401, "InvalidAccessKey")),
        ({"signed_ago_s": 901}, (400, "InvalidTimestamp")),
        ({"signed_ago_s": -901}, (400, "InvalidTimestamp")),
        ({"signed_ago_s": 899}, (200, "")),
    ],
)
def test_signatures(world: Any, changes: dict[str, Any], expected: tuple[int, str]) -> None:
    answer = world.volcengine("StartVoiceChat", world.volcengine_start(), **changes)
    assert answer[:2] == expected
    assert bool(world.live()) == (expected[1] == "")


def test_the_window_is_not_enforced_by_switch(world: Any) -> None:
    world.turn(enforce_signature_window=False)
    answer = world.volcengine("StartVoiceChat", world.volcengine_start(), signed_ago_s=80000)
    assert answer[1] == ""


def _without_authorization(call: Call) -> None:
    call.headers = {k: v for k, v in call.headers.items() if k != "Authorization"}


def _without_signature(call: Call) -> None:
    call.headers = dict(call.headers) | {"Authorization": "HMAC-SHA256 Credential=a/b"}


def _malformed(call: Call) -> None:
    call.headers = dict(call.headers) | {"Authorization": "Basic Signature=x"}


def _other_body(call: Call) -> None:
    call.body += b" "


def _other_action(call: Call) -> None:
    call.query = dict(call.query) | {"Action": "StopVoiceChat"}


def _undated(call: Call) -> None:
    call.headers = dict(call.headers) | {"X-Date": "yesterday"}


def _strange_token(call: Call) -> None:
    call.headers = dict(call.headers) | {"X-Security-Token": "strange"}


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (_without_authorization, (401, "MissingAuthenticationToken")),
        (_without_signature, (401, "MissingSignature")),
        (_malformed, (400, "InvalidAuthorization")),
        (_other_body, (401, "SignatureDoesNotMatch")),
        (_other_action, (401, "SignatureDoesNotMatch")),
        (_undated, (400, "InvalidTimestamp")),
        (_strange_token, (401, "InvalidAccessKey")),
    ],
)
def test_what_was_signed_may_not_change(world: Any, tamper: Any, expected: tuple[int, str]) -> None:
    call = world.volcengine_call("StartVoiceChat", world.volcengine_start())
    tamper(call)
    assert world.ask(call)[:2] == expected
    assert world.live() == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"AppId": "another"}, "InvalidParameter.NotExistAppId"),
        ({"TaskId": None}, "InvalidParameter"),
        ({"RoomId": "no room"}, "InvalidParameter"),
        ({"TaskId": "x" * 129}, "InvalidParameter"),
        ({"Config": None}, "InvalidParameter"),
        ({"AgentConfig": {"TargetUserId": ["a", "b"], "UserId": "x"}}, "InvalidParameter"),
        ({"AgentConfig": {"TargetUserId": ["same"], "UserId": "same"}}, "InvalidParameter"),
        ({"AgentConfig": {"TargetUserId": ["a"], "IdleTimeout": 0}}, "InvalidParameter"),
    ],
)
def test_bodies_it_refuses(world: Any, change: dict[str, Any], code: str) -> None:
    answer = world.volcengine("StartVoiceChat", world.volcengine_start() | change)
    assert answer[:2] == (400, code)
    assert world.live() == []


def test_the_agents_user_id_has_a_default_until_2025(world: Any) -> None:
    start = world.volcengine_start()
    del start["AgentConfig"]["UserId"]
    assert world.volcengine("StartVoiceChat", start, "2025-06-01")[1] == "InvalidParameter"
    assert world.volcengine("StartVoiceChat", start, "2024-12-01")[1] == ""
    (name,) = world.live()
    assert name.startswith("voiceChat_user1_")


@pytest.mark.parametrize(
    ("action", "version"), [("StartVoiceChat", "2020-01-01"), ("ListVoiceChats", "2024-12-01")]
)
def test_unknown_actions_and_versions(world: Any, action: str, version: str) -> None:
    answer = world.volcengine(action, world.volcengine_start(), version)
    assert answer[:2] == (404, "InvalidActionOrVersion")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Command": "sing"}, "InvalidParameter"),
        ({"Command": "ExternalTextToSpeech", "Message": "hi"}, "InvalidParameter"),
        ({"Command": "ExternalTextToSpeech", "Message": "hi", "InterruptMode": 1}, ""),
        ({"Command": "ExternalTextToSpeech", "Message": "x" * 200, "InterruptMode": 3}, ""),
        (
            {"Command": "ExternalTextToSpeech", "Message": "x" * 201, "InterruptMode": 3},
            "InvalidParameter",
        ),
        (
            {"Command": "ExternalTextToSpeech", "Message": "hi", "InterruptMode": 4},
            "InvalidParameter",
        ),
        (
            {"Command": "ExternalTextToSpeech", "Message": "hi", "InterruptMode": True},
            "InvalidParameter",
        ),
        ({"Command": "ExternalTextToLLM", "Message": "x" * 201, "InterruptMode": 2}, ""),
        ({"Command": "ExternalPromptsForLLM", "Message": "hi"}, ""),
        ({"Command": "ExternalPromptsForLLM", "Message": ""}, "InvalidParameter"),
        ({"Command": "function", "Message": '{"ToolCallID": "c", "Content": ""}'}, ""),
        ({"Command": "FUNCTION", "Message": '{"ToolCallID": "c"}'}, "InvalidParameter"),
        ({"Command": "function", "Message": "[]"}, "InvalidParameter"),
        ({"Command": "function", "Message": "sunny"}, "InvalidParameter"),
        ({"Command": "function", "Message": {"ToolCallID": "c"}}, "InvalidParameter"),
        ({"Command": 5}, "InvalidParameter"),
        ({}, "InvalidParameter"),
    ],
)
def test_update_commands(world: Any, change: dict[str, Any], code: str) -> None:
    world.volcengine("StartVoiceChat", world.volcengine_start())
    assert world.volcengine("UpdateVoiceChat", world.volcengine_task() | change)[1] == code


def test_how_long_a_speech_may_be_is_open(world: Any) -> None:
    world.turn(volcengine_speech_limit=0)
    world.volcengine("StartVoiceChat", world.volcengine_start())
    speech = {"Command": "ExternalTextToSpeech", "Message": "x" * 201, "InterruptMode": 1}
    assert world.volcengine("UpdateVoiceChat", world.volcengine_task() | speech)[1] == ""


@pytest.mark.parametrize(
    ("version", "parameters", "code"),
    [
        ("2025-06-01", {"Config": {"InterruptMode": 1}}, ""),
        ("2025-06-01", {"Config": {}}, ""),
        ("2025-06-01", {"Config": None}, "InvalidParameter"),
        ("2025-06-01", None, "InvalidParameter"),
        ("2024-12-01", {"Config": {"InterruptMode": 1}}, "InvalidParameter"),
    ],
)
def test_parameters_change_since_2025(world: Any, version: str, parameters: Any, code: str) -> None:
    world.volcengine("StartVoiceChat", world.volcengine_start(), version)
    update = world.volcengine_task() | {"Command": "UpdateParameters", "Parameters": parameters}
    assert world.volcengine("UpdateVoiceChat", update, version)[1] == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Command": "interrupt"}, ""),
        ({"Command": "function", "Message": '{"ToolCallID": "c", "Content": "sunny"}'}, ""),
        ({"Command": "interrupt", "UserId": "user2"}, GONE),
        ({"Command": "interrupt", "UserId": None}, WRONG),
        ({"Command": "ExternalTextToSpeech", "Message": "hi", "InterruptMode": 1}, WRONG),
        ({"Command": "ExternalTextToLLM", "Message": "hi", "InterruptMode": 1}, WRONG),
        ({"Command": "FinishSpeechRecognition"}, WRONG),
        ({"Command": "UpdateParameters", "Parameters": {"Config": {}}}, WRONG),
    ],
)
def test_the_first_version_has_two_commands(world: Any, change: dict[str, Any], code: str) -> None:
    task = {"AppId": KEYS.app_id, "RoomId": "room1", "UserId": "user1"}
    world.volcengine("StartVoiceChat", task | {"Config": {"BotName": "bot"}}, "2024-06-01")
    assert world.volcengine("UpdateVoiceChat", task | change, "2024-06-01")[1] == code


def test_sixty_of_one_action_in_any_second(world: Any) -> None:
    world.turn(volcengine_qps=60)
    start = world.volcengine_start()
    codes = [world.volcengine("StartVoiceChat", start)[:2] for _ in range(61)]
    assert codes == [(200, "")] * 60 + [(429, "FlowLimitExceeded.QPSOverLimit")]
    # Another action has a limit of its own.
    assert world.volcengine("StopVoiceChat", world.volcengine_task())[1] == ""
    world.clock.move(1)
    assert world.volcengine("StartVoiceChat", start)[0] == 200


@pytest.mark.parametrize("body", ["half {", "[]", "[" * 100_000])
def test_a_body_that_is_no_json_object(world: Any, body: str) -> None:
    assert world.volcengine("StartVoiceChat", body)[1] == "InvalidParameter.Unmarshal"
    assert world.live() == []
