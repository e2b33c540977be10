"""Each vendor's request to the customer's own LLM, to the letter; no I/O."""

import json
from typing import Any

import pytest

from orchestrator.simulator.questions import Request, Unheard, Utterance
from orchestrator.simulator.turns import Turn
from orchestrator.simulator.world import Agent, Exchange

# conftest is no module that could be imported: its World comes as a fixture.
World = Any

URL = "https://llm.test/chat/completions"
VOLCENGINE_LLM = {
    "Mode": "CustomLLM",
    "Url": URL,
    "APIKey": "fake-key",
    "ModelName": "qwen-flash",
    "Temperature": 0.7,
    "TopP": 0.9,
    "MaxTokens": 256,
    "EnableRoundId": True,
    "Custom": '{"device_id": "d-1", "stream": false}',
    "SystemMessages": ["Be brief.", "Be kind."],
    "UserPrompts": [{"Role": "assistant", "Content": "Hello!"}],
    "HistoryLength": 1,
    "Prefill": True,
    "ExtraHeader": {"X-Trace": 7},
}
TENCENT_LLM = {
    "LLMType": "openai",
    "APIUrl": URL,
    "APIKey": "fake-key",
    "Model": "m-1",
    "Streaming": True,
    "SystemPrompt": "Be brief.",
    "UserMessages": [{"Role": "user", "Content": "I am Ann."}],
    "History": 1,
    "Timeout": 7,
    "Temperature": 0.5,
    "MetaInfo": {"tenant": "t-1"},
    "ExtraBody": {"top_k": 5, "model": "another"},
}
ZEGO_LLM = {
    "Vendor": "OpenAIChat",
    "Url": URL,
    "ApiKey": "fake-key",
    "Model": "m-1",
    "SystemPrompt": "Be brief.",
    "AddAgentInfo": True,
    "AgentExtraInfo": {"tenant": "t-1"},
    "Params": {"seed": 5},
}
PAST = (Exchange("One?", "1."), Exchange("Two?", "2."))


def started(world: World, vendor: str, llm: dict[str, Any], **more: Any) -> Agent:
    """Start an agent whose LLM is this, and which has been spoken to twice."""
    match vendor:
        case "volcengine":
            config = {"Config": {"LLMConfig": llm}}
            assert world.volcengine("StartVoiceChat", world.volcengine_start() | config)[1] == ""
        case "tencent":
            body = world.tencent_start() | {"LLMConfig": json.dumps(llm)} | more
            assert world.tencent("StartAIConversation", body)[1] == ""
        case _:
            body = world.zego_create() | {"LLM": llm} | more
            assert world.zego("CreateAgentInstance", body)[2]["Code"] == 0
    agent: Agent = world.simulator.world.agents[-1]
    agent.exchanges = PAST
    return agent


def asked(world: World, agent: Agent, text: str = "Three?") -> tuple[Turn, Request, Any]:
    turn, request = world.simulator.begin_turn(agent, Utterance(text=text), zombie=False)
    return turn, request, json.loads(request.body)


def test_volcengine_sends_the_customer_s_keys_at_the_top_level(world: World) -> None:
    turn, request, body = asked(world, started(world, "volcengine", VOLCENGINE_LLM))
    assert body == {
        "device_id": "d-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "Be kind."},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "2."},
            {"role": "user", "content": "Three?"},
        ],
        "stream": True,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 256,
        "model": "qwen-flash",
        "round_id": turn.round,
    }
    assert request.headers == {
        "Content-Type": "application/json",
        "Authorization": "Bearer fake-key",
        "X-Trace": "7",
    }
    assert (request.url, request.answer_within_s) == (URL, 10)


def test_tencent_says_in_its_headers_what_it_is_about(world: World) -> None:
    agent = started(world, "tencent", TENCENT_LLM)
    turn, request, body = asked(world, agent)
    assert body == {
        "top_k": 5,
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "I am Ann."},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "2."},
            {"role": "user", "content": "Three?"},
        ],
        "stream": True,
        "temperature": 0.5,
        "MetaInfo": {"tenant": "t-1"},
    }
    assert request.headers == {
        "Content-Type": "application/json",
        "Authorization": "Bearer fake-key",
        "X-Task-Id": agent.handle,
        "X-Request-Id": turn.request_id,
        "X-Sdk-App-Id": "1400000001",
        "X-User-Id": "user1",
        "X-Room-Id": "room1",
        "X-Room-Id-Type": "1",
    }
    assert request.answer_within_s == 7


def test_zego_says_in_agent_info_what_it_is_about(world: World) -> None:
    history = {"Messages": [{"Role": "user", "Content": "Zero?"}], "WindowSize": 3}
    agent = started(world, "zego", ZEGO_LLM, MessageHistory=history)
    turn, request, body = asked(world, agent)
    assert body == {
        "seed": 5,
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "assistant", "content": "1."},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "2."},
            {"role": "user", "content": "Three?"},
        ],
        "stream": True,
        "temperature": 0.7,
        "top_p": 0.9,
        "agent_info": {
            "room_id": "room1",
            "agent_instance_id": agent.handle,
            "agent_user_id": "agent1",
            "user_id": "user1",
            "round_id": turn.round,
            "time_stamp": int(world.clock().timestamp() * 1000),
        },
        "agent_extra_info": {"tenant": "t-1"},
    }
    assert request.headers["Authorization"] == "Bearer fake-key"


def test_without_asking_for_it_a_vendor_says_nothing_of_itself(world: World) -> None:
    quiet = {"Mode": "CustomLLM", "Url": URL}
    _, request, body = asked(world, started(world, "volcengine", quiet))
    assert set(body) == {"messages", "stream", "temperature", "top_p", "max_tokens"}
    assert len(body["messages"]) == len(PAST) * 2 + 1
    assert set(request.headers) == {"Content-Type"}
    _, _, body = asked(world, started(world, "zego", {"Url": URL}))
    assert "agent_info" not in body
    _, request, body = asked(world, started(world, "tencent", {"APIUrl": URL}))
    assert body["messages"] == [{"role": "user", "content": "Three?"}]
    assert request.answer_within_s == 3


@pytest.mark.parametrize(
    ("vendor", "llm", "wants", "streams"),
    [
        ("volcengine", {"Mode": "CustomLLM", "Url": URL}, False, True),
        (
            "volcengine",
            {
                "Mode": "CustomLLM",
                "Url": URL,
                "Custom": '{"stream_options": {"include_usage": true}}',
            },
            True,
            True,
        ),
        ("tencent", {"APIUrl": URL, "Streaming": False}, False, False),
        ("tencent", {"APIUrl": URL}, False, True),
    ],
)
def test_what_is_asked_for_is_what_the_answer_is_judged_by(
    world: World, vendor: str, llm: dict[str, Any], *, wants: bool, streams: bool
) -> None:
    _, request, body = asked(world, started(world, vendor, llm))
    assert (request.wants_usage, request.streams, body["stream"]) == (wants, streams, streams)


@pytest.mark.parametrize(
    ("vendor", "llm"),
    [
        ("volcengine", {"Mode": "ArkV3", "Url": URL}),
        ("volcengine", {"Mode": "CustomLLM"}),
        ("volcengine", {"Mode": "CustomLLM", "Url": "llm.test"}),
        ("tencent", {"LLMType": "openai"}),
        ("zego", {"Vendor": "OpenAIChat", "Url": 5}),
    ],
)
def test_an_agent_without_an_llm_of_the_customer_s_asks_nobody(
    world: World, vendor: str, llm: dict[str, Any]
) -> None:
    agent = started(world, vendor, llm)
    with pytest.raises(Unheard, match="no LLM"):
        asked(world, agent)
    assert world.simulator.turns.since(0) == []


@pytest.mark.parametrize(
    ("feature", "heard"),
    [
        (None, False),
        ('{"Http": false}', False),
        ({"Http": True}, False),
        ("no JSON", False),
        ('{"Http": true}', True),
    ],
)
def test_volcengine_asks_plain_http_only_where_feature_allows_it(
    world: World, feature: Any, *, heard: bool
) -> None:
    llm = {"Mode": "CustomLLM", "Url": "http://llm.test", "Feature": feature}
    agent = started(world, "volcengine", llm)
    if heard:
        assert asked(world, agent)[1].url == "http://llm.test"
    else:
        with pytest.raises(Unheard, match="Feature"):
            asked(world, agent)


def test_what_a_running_agent_is_told_counts_from_its_next_turn(world: World) -> None:
    agent = started(world, "volcengine", VOLCENGINE_LLM)
    changes = {"SystemMessages": ["Sing."], "Url": "https://elsewhere.test"}
    parameters = {"Config": {"LLMConfig": changes}}
    update = {"Command": "UpdateParameters", "Parameters": parameters}
    task = world.volcengine_task() | update
    assert world.volcengine("UpdateVoiceChat", task, "2025-06-01")[1] == ""
    _, request, body = asked(world, agent)
    assert (body["messages"][0]["content"], request.url) == ("Sing.", URL)

    agent = started(world, "tencent", TENCENT_LLM)
    update = {"TaskId": agent.handle, "LLMConfig": json.dumps({"APIUrl": URL, "Model": "m-2"})}
    assert world.tencent("UpdateAIConversation", update)[1] == ""
    assert asked(world, agent)[2]["model"] == "m-2"

    agent = started(world, "zego", ZEGO_LLM)
    update = {"AgentInstanceId": agent.handle, "LLM": {"Url": URL, "Model": "m-3"}}
    assert world.zego("UpdateAgentInstance", update)[2]["Code"] == 0
    assert asked(world, agent)[2]["model"] == "m-3"


def test_an_instance_without_an_llm_has_that_of_its_template(world: World) -> None:
    template = {"AgentId": "template1", "LLM": {"Url": URL, "Model": "of-the-template"}}
    assert world.zego("RegisterAgent", template)[2]["Code"] == 0
    assert world.zego("CreateAgentInstance", world.zego_create())[2]["Code"] == 0
    assert asked(world, world.simulator.world.agents[-1])[2]["model"] == "of-the-template"


def test_rounds_ascend(world: World) -> None:
    for vendor, llm in (("volcengine", VOLCENGINE_LLM), ("tencent", TENCENT_LLM)):
        agent = started(world, vendor, llm)
        assert [asked(world, agent)[0].round for _ in range(3)] == [1, 2, 3]
    agent = started(world, "zego", ZEGO_LLM)
    first, second = (asked(world, agent)[0].round for _ in range(2))
    assert (second, first > 1) == (first + 1, True)


def test_a_walkie_talkie_hears_its_user_while_the_button_is_pressed(world: World) -> None:
    agent = started(world, "zego", ZEGO_LLM, AdvancedConfig={"CommunicationMode": 2})
    instance = {"AgentInstanceId": agent.handle}
    with pytest.raises(Unheard, match="StartListening"):
        asked(world, agent)
    press = world.zego("StartListening", instance | {"Sequence": 1})[2]
    assert press["Code"] == 0
    assert asked(world, agent)[0].round == press["Data"]["Round"]
    assert world.zego("StopListening", instance | {"Sequence": 2})[2]["Code"] == 0
    with pytest.raises(Unheard, match="StartListening"):
        asked(world, agent)


def test_who_is_away_or_silent_is_not_heard(world: World) -> None:
    agent = started(world, "volcengine", VOLCENGINE_LLM)
    for present, publishing in ((False, False), (True, False)):
        world.move_user(agent.vendor, present=present, publishing=publishing)
        with pytest.raises(Unheard, match="user"):
            asked(world, agent)
    world.move_user(agent.vendor, present=True, publishing=True)
    assert asked(world, agent)[0].said == "Three?"


def test_an_agent_hears_nothing_before_it_is_in_the_room(world: World) -> None:
    world.turn(join_delay_ms=500)
    agent = started(world, "volcengine", VOLCENGINE_LLM)
    with pytest.raises(Unheard, match="not in the room"):
        asked(world, agent)


@pytest.mark.parametrize("vendor", ["volcengine", "tencent", "zego"])
def test_only_a_zombie_speaks_after_its_end(world: World, vendor: str) -> None:
    llms = {"volcengine": VOLCENGINE_LLM, "tencent": TENCENT_LLM, "zego": ZEGO_LLM}
    agent = started(world, vendor, llms[vendor])
    before = agent.round
    world.simulator.world.dismiss(agent.room, world.clock())
    with pytest.raises(Unheard, match="ended"):
        asked(world, agent)
    turn, request = world.simulator.begin_turn(agent, Utterance(text="Hm?"), zombie=True)
    assert (turn.zombie, turn.round, request.url) == (True, before + 1, URL)


def test_half_a_surrogate_pair_is_passed_on(world: World) -> None:
    _, _, body = asked(world, started(world, "volcengine", VOLCENGINE_LLM), "\ud83d")
    assert body["messages"][-1]["content"] == "\ud83d"


def test_no_key_is_shown(world: World) -> None:
    agent = started(world, "tencent", TENCENT_LLM)
    turn, request, _ = asked(world, agent)
    assert "fake-key" not in f"{agent!r} {request!r} {turn!r} {turn.shown()!r}"
