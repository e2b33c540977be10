"""ZEGO's rules, each as the vendor's pages or a switch state it."""

from typing import Any

import pytest

from orchestrator.simulator.world import Vendor

GONE = "410001002"
ROOM = {"RoomId": "room1"}
PTT = {"CommunicationMode": 2}


def create(world: Any, *args: Any, **advanced: Any) -> str:
    status, code, answer = world.zego("CreateAgentInstance", world.zego_create(*args, **advanced))
    assert (status, code, answer["Code"]) == (200, "", 0)
    return str(answer["Data"]["AgentInstanceId"])


def press(world: Any, action: str, instance: str, sequence: int | None, **more: Any) -> str:
    body = {"AgentInstanceId": instance} | more
    body |= {} if sequence is None else {"Sequence": sequence}
    return str(world.zego(f"{action}Listening", body)[1])


def status(world: Any, instance: str) -> str:
    answer = world.zego("QueryAgentInstanceStatus", {"AgentInstanceId": instance})[2]
    return str(answer["Data"]["Status"])


def users(world: Any, **query: str) -> Any:
    answer = world.zego("DescribeUserList", ROOM | query)[2]
    return [u["UserId"] for u in answer["Data"]["UserList"]], answer["Data"]["Marker"]


def test_an_instance_lives_until_it_is_deleted(world: Any) -> None:
    instance = create(world)
    assert (len(instance), instance.isdecimal()) == (19, True)
    assert status(world, instance) == "IDLE"
    assert users(world) == (["user1", "agent1"], "")
    assert world.zego("DeleteAgentInstance", {"AgentInstanceId": instance})[1] == ""
    assert world.ended() == {"agent1": "requested"}
    for action in ("DeleteAgentInstance", "QueryAgentInstanceStatus", "InterruptAgentInstance"):
        assert world.zego(action, {"AgentInstanceId": instance})[1] == GONE


def test_a_later_instance_evicts_the_earlier_when_it_has_joined(world: Any) -> None:
    world.turn(join_delay_ms=1000)
    create(world, "agent1", "stream1")
    world.clock.move(1)
    create(world, "agent1", "stream2")
    assert len(world.live()) == 2
    world.clock.move(1)
    assert len(world.live()) == 1
    assert [a.why for a in world.simulator.world.agents] == ["evicted", None]


def test_a_stream_in_use_ends_the_later_instance(world: Any) -> None:
    create(world, "agent1", "stream1")
    create(world, "agent2", "stream1")
    assert world.live() == ["agent1"]
    assert world.ended() == {"agent2": "stream_clash"}
    create(world, "agent3", "stream3")
    assert world.live() == ["agent1", "agent3"]


def test_ten_at_a_time(world: Any) -> None:
    instances = [create(world, f"agent{n}", f"stream{n}") for n in range(10)]
    eleventh = world.zego_create("agent10", "stream10")
    assert world.zego("CreateAgentInstance", eleventh)[1] == "410000011"
    assert len(world.live()) == 10
    world.zego("DeleteAgentInstance", {"AgentInstanceId": instances[3]})
    assert world.zego("CreateAgentInstance", eleventh)[1] == ""


def test_idle_means_that_the_creating_user_is_away(world: Any) -> None:
    create(world)
    world.move_user(Vendor.ZEGO, present=True, publishing=False)
    world.clock.move(10_000)
    assert world.live() == ["agent1"]
    world.move_user(Vendor.ZEGO, present=False, publishing=False)
    world.clock.move(30)
    assert world.ended() == {"agent1": "idle"}


@pytest.mark.parametrize(("ends", "live"), [(True, []), (False, ["agent1"])])
def test_a_kick_ends_the_instance_by_switch(world: Any, ends: bool, live: list[str]) -> None:
    world.turn(zego_kick_ends=ends)
    create(world)
    assert world.zego("KickoutUser", ROOM | {"UserId[]": "agent1"})[1] == ""
    assert world.live() == live
    assert users(world) == (["user1"], "")


def test_kicks_of_nobody_nowhere_and_of_too_many(world: Any) -> None:
    assert world.zego("KickoutUser", ROOM | {"UserId[]": "a"})[1] == "104"
    create(world)
    assert world.zego("KickoutUser", ROOM | {"UserId[]": ["a", "b"]})[1] == ""
    assert world.zego("KickoutUser", ROOM)[1] == "2"
    assert world.zego("KickoutUser", ROOM | {"UserId[]": list("abcdef")})[1] == "2"
    world.turn(zego_kick_unknown_room_code=0)
    assert world.zego("KickoutUser", {"RoomId": "empty", "UserId[]": "a"})[1] == ""


def test_the_user_list_comes_in_pages_and_in_both_orders(world: Any) -> None:
    for n in range(5):
        create(world, f"agent{n}", f"stream{n}")
    everybody = ["user1", *(f"agent{n}" for n in range(5))]
    first, marker = users(world, Limit="4")
    second, end = users(world, Limit="4", Marker=marker)
    assert (first + second, end) == (everybody, "")
    assert users(world, Mode="1")[0] == everybody[::-1]
    assert world.zego("DescribeUserList", {"RoomId": "empty"})[2]["Data"]["UserList"] == []


def test_one_look_per_second_and_room(world: Any) -> None:
    world.turn(zego_list_room_qps=1)
    look = "DescribeUserList"
    assert [world.zego(look, ROOM)[1] for _ in range(2)] == ["", "7"]
    assert world.zego(look, {"RoomId": "room2"})[1] == ""
    world.clock.move(1)
    assert world.zego(look, ROOM)[1] == ""


def test_ten_of_one_action_in_any_second(world: Any) -> None:
    world.turn(zego_qps=10)
    query = {"AgentInstanceId": "1"}
    codes = [world.zego("DeleteAgentInstance", query)[1] for _ in range(11)]
    assert codes == [GONE] * 10 + ["410000018"]
    assert world.zego("QueryAgentInstanceStatus", query)[1] == GONE


def test_templates(world: Any) -> None:
    world.turn(zego_agents_registered=False)
    template = {"AgentId": "template1", "Name": "n", "LLM": {"Url": "u"}, "TTS": {"Vendor": "v"}}
    assert world.zego("CreateAgentInstance", world.zego_create())[1] == "410001009"
    assert world.zego("UpdateAgent", template)[1] == "410001009"
    assert world.zego("RegisterAgent", template)[1] == ""
    assert world.zego("RegisterAgent", template)[1] == "410001008"
    assert world.zego("UpdateAgent", {"AgentId": "template1", "LLM": {"Url": "w"}})[1] == ""
    found = world.zego("QueryAgents", {"AgentIds": ["template1", "none"]})[2]["Data"]["Agents"]
    assert found == [template | {"LLM": {"Url": "w"}}]
    assert world.zego("CreateAgentInstance", world.zego_create())[1] == ""
    assert world.zego("UnregisterAgent", {"AgentId": "template1"})[1] == ""
    assert world.zego("QueryAgents", {"AgentIds": ["template1"]})[2]["Data"]["Agents"] is None


def test_templates_are_listed_five_at_a_time(world: Any) -> None:
    for n in range(7):
        world.zego("RegisterAgent", {"AgentId": f"t{n}"})
    first = world.zego("ListAgents", {})[2]["Data"]
    second = world.zego("ListAgents", {"Cursor": first["Cursor"]})[2]["Data"]
    listed = [a["AgentId"] for a in first["Agents"] + second["Agents"]]
    assert (first["Total"], second["Cursor"]) == (7, "")
    assert listed == [f"t{n}" for n in range(7)]
    assert world.zego("ListAgents", {"Limit": 11})[1] == "410000003"


def test_a_walkie_talkie_turn(world: Any) -> None:
    world.turn(zego_answer_ms=1000)
    instance = create(world, **PTT)
    assert press(world, "Start", instance, 1) == ""
    assert status(world, instance) == "LISTENING"
    assert world.zego("SendAgentInstanceTTS", {"AgentInstanceId": instance, "Text": "hi"})[1] == (
        "410001013"
    )
    assert press(world, "Stop", instance, 2) == ""
    assert status(world, instance) == "SPEAKING"
    world.clock.move(1)
    assert status(world, instance) == "IDLE"
    assert press(world, "Start", instance, 3) == press(world, "Stop", instance, 4) == ""


def test_a_cancelled_press_is_not_answered(world: Any) -> None:
    world.turn(zego_answer_ms=1000)
    instance = create(world, **PTT)
    press(world, "Start", instance, 1)
    assert press(world, "Stop", instance, 2, CancelFlag=True) == ""
    assert status(world, instance) == "IDLE"


def test_a_start_that_comes_after_its_stop_is_stale(world: Any) -> None:
    instance = create(world, **PTT)
    assert press(world, "Stop", instance, 2) == "410001045"
    assert press(world, "Start", instance, 1) == "410001043"
    assert status(world, instance) == "IDLE"


def test_sequences_count_for_each_user_and_instance(world: Any) -> None:
    first, second = create(world, "agent1", "s1", **PTT), create(world, "agent2", "s2", **PTT)
    assert press(world, "Start", first, 1_700_000_000_000_000_000) == ""
    assert press(world, "Start", second, 1) == ""
    assert press(world, "Stop", first, 5) == "410001043"
    assert press(world, "Start", first, 1, UserId="user2") == "410001044"
    assert press(world, "Stop", first, 2, UserId="user2") == "410001045"
    # Without a Sequence it is taken as it comes.
    assert press(world, "Stop", first, None) == ""


@pytest.mark.parametrize(
    ("policy", "stop", "start_again"),
    [
        ("reject", "410001043", "410001043"),
        ("accept", "", ""),
        ("legacy_pairing", "", "410001043"),
    ],
)
def test_equal_sequences_by_switch(world: Any, policy: str, stop: str, start_again: str) -> None:
    world.turn(zego_equal_sequence=policy)
    instance = create(world, **PTT)
    assert press(world, "Start", instance, 1) == ""
    assert press(world, "Stop", instance, 1) == stop
    assert press(world, "Start", instance, 1) == start_again


@pytest.mark.parametrize(
    ("present", "publishing", "code"),
    [(False, False, "410001016"), (True, False, "410001046"), (True, True, "")],
)
@pytest.mark.parametrize("counts", [True, False])
def test_who_does_not_publish_is_not_heard(
    world: Any, present: bool, publishing: bool, code: str, counts: bool
) -> None:
    world.turn(zego_refused_start_counts=counts)
    instance = create(world, **PTT)
    world.move_user(Vendor.ZEGO, present=present, publishing=publishing)
    assert press(world, "Start", instance, 1) == code
    world.move_user(Vendor.ZEGO, present=True, publishing=True)
    stale = counts or code == ""
    assert press(world, "Start", instance, 1) == ("410001043" if stale else "")


def test_listening_needs_the_walkie_talkie_mode(world: Any) -> None:
    instance = create(world)
    assert press(world, "Start", instance, 1) == "410001042"
    advanced = {"AdvancedConfig": {"CommunicationMode": 2}}
    update = {"AgentInstanceId": instance} | advanced
    assert world.zego("UpdateAgentInstance", update)[1] == "410000003"


def test_rounds_rise(world: Any) -> None:
    instance = {"AgentInstanceId": create(world)}
    rounds = [
        world.zego("SendAgentInstanceLLM", instance | {"Text": "hi"})[2]["Data"]["Round"]
        for _ in range(3)
    ]
    assert rounds == sorted(set(rounds))
    bad = world.zego("SendAgentInstanceTTS", instance | {"Text": "hi", "Priority": ""})
    assert (bad[1], bad[2]["Message"]) == ("410000003", "Priority is invalid")


@pytest.mark.parametrize(
    ("action", "change", "code"),
    [
        ("TTS", {"Text": "x" * 300}, ""),
        ("TTS", {"Text": "x" * 301}, "410000003"),
        ("LLM", {"Text": "x" * 301}, ""),
        ("LLM", {"Text": 5}, "410000003"),
        ("TTS", {"Text": None}, "410000003"),
        ("TTS", {"Priority": "Low", "SamePriorityOption": "Enqueue"}, ""),
        ("LLM", {"Priority": ["Low"]}, "410000003"),
        ("LLM", {"SamePriorityOption": ""}, "410000003"),
        ("TTS", {"AddHistory": False, "InterruptMode": 1}, ""),
        ("TTS", {"AddHistory": 0}, "410000003"),
        ("TTS", {"InterruptMode": 2}, "410000003"),
        ("TTS", {"InterruptMode": True}, "410000003"),
        ("LLM", {"SystemPrompt": "be brief", "AddQuestionToHistory": True}, ""),
        ("LLM", {"SystemPrompt": []}, "410000003"),
        ("LLM", {"AddAnswerToHistory": "yes"}, "410000003"),
    ],
)
def test_what_it_can_be_made_to_say(
    world: Any, action: str, change: dict[str, Any], code: str
) -> None:
    body = {"AgentInstanceId": create(world), "Text": "hi"} | change
    assert world.zego(f"SendAgentInstance{action}", body)[1] == code


@pytest.mark.parametrize(
    ("character", "most"), [("code_point", 300), ("utf16_unit", 150), ("byte", 75)]
)
def test_what_counts_as_a_character_by_switch(world: Any, character: str, most: int) -> None:
    world.turn(character=character)
    body = {"AgentInstanceId": create(world)}
    codes = [
        world.zego("SendAgentInstanceTTS", body | {"Text": "😀" * n})[1] for n in (most, most + 1)
    ]
    assert codes == ["", "410000003"]


@pytest.mark.parametrize(
    "change",
    [{"UserId": "a b"}, {"UserId": "u" * 33}, {"UserId": 5}, {"Sequence": "1"}, {"CancelFlag": 1}],
)
def test_a_release_that_cannot_be_read(world: Any, change: dict[str, Any]) -> None:
    instance = create(world, **PTT)
    assert press(world, "Start", instance, 1) == ""
    body = {"AgentInstanceId": instance, "Sequence": 2} | change
    assert world.zego("StopListening", body)[1] == "410000003"
    # It used up no number.
    assert press(world, "Stop", instance, 2) == ""


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, ""),
        ({"LLM": {"SystemPrompt": "be brief"}, "RTC": {"UserStreamId": "s2"}}, ""),
        ({"AdvancedConfig": {"CommunicationMode": 1}}, ""),
        ({"RTC": {"UserStreamId": "no stream"}}, "410000003"),
        ({"TTS": "loud"}, "410000003"),
    ],
)
def test_what_can_change_while_it_runs(world: Any, change: dict[str, Any], code: str) -> None:
    body = {"AgentInstanceId": create(world)} | change
    assert world.zego("UpdateAgentInstance", body)[1] == code


def test_a_graceful_delete_waits_for_the_last_words(world: Any) -> None:
    world.turn(zego_answer_ms=5000)
    instance = {"AgentInstanceId": create(world)}
    world.zego("SendAgentInstanceTTS", instance | {"Text": "bye"})
    assert world.zego("DeleteAgentInstance", instance | {"GracefulShutdown": True})[1] == ""
    assert world.live() == ["agent1"]
    for action in ("QueryAgentInstanceStatus", "DeleteAgentInstance"):
        assert world.zego(action, instance)[1] == "410001041"
    world.clock.move(5)
    assert world.ended() == {"agent1": "requested"}
    assert world.zego("DeleteAgentInstance", instance)[1] == GONE


def test_a_graceful_delete_waits_no_longer_than_it_may(world: Any) -> None:
    instance = create(world, **PTT)
    press(world, "Start", instance, 1)
    drain = {"GracefulShutdown": True, "GracefulShutdownTimeout": 2}
    assert world.zego("DeleteAgentInstance", {"AgentInstanceId": instance} | drain)[1] == ""
    world.clock.move(1.9)
    assert world.live() == ["agent1"]
    world.clock.move(0.1)
    assert world.live() == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"secret": "wrong"}, "100000005"),
        ({"app_id": 4}, "100000010"),
        ({"app_id": 2**32}, "100000001"),
        ({"signed_ago_s": 601}, "100000004"),
        ({"signed_ago_s": -601}, "100000004"),
        ({"signed_ago_s": 599}, ""),
        ({"without": "Action"}, "100000006"),
        ({"without": "AppId"}, "100000001"),
        ({"without": "Timestamp"}, "100000002"),
        ({"without": "SignatureNonce"}, "100000008"),
        ({"without": "Signature"}, "100000009"),
        ({"without": "SignatureVersion"}, "100000013"),
    ],
)
def test_the_gateway(world: Any, changes: dict[str, Any], code: str) -> None:
    status_, found, answer = world.zego("CreateAgentInstance", world.zego_create(), **changes)
    assert (status_, found, answer["Code"]) == (200, code, int(code or 0))
    assert bool(world.live()) == (code == "")


def test_an_action_nobody_knows(world: Any) -> None:
    assert world.zego("ListAgentInstances", {})[1] == "100000007"


@pytest.mark.parametrize(
    ("block", "change"),
    [
        ("RTC", {"RoomId": ""}),
        ("RTC", {"AgentUserId": "user1"}),
        ("RTC", {"AgentUserId": "x" * 33}),
        ("RTC", {"AgentStreamId": None}),
        ("AdvancedConfig", {"MaxIdleTime": 9}),
        ("AdvancedConfig", {"MaxIdleTime": 1801}),
        ("AdvancedConfig", {"CommunicationMode": 3}),
        ("RTC", None),
    ],
)
def test_bodies_it_refuses(world: Any, block: str, change: dict[str, Any] | None) -> None:
    body = world.zego_create()
    body[block] = None if change is None else body[block] | change
    assert world.zego("CreateAgentInstance", body)[1] == "410000003"
    assert world.live() == []


@pytest.mark.parametrize("body", ["half {", "[]", "[" * 100_000])
def test_a_body_that_is_no_json_object(world: Any, body: str) -> None:
    assert world.zego("CreateAgentInstance", body)[1] == "410000004"
    assert world.live() == []
