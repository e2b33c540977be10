import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Agent
from orchestrator.providers.base import Problem
from orchestrator.providers.zego_spec import start_problems

LLM = {"Url": "https://llm.example/v1", "ApiKey": "fake-key", "Model": "gpt"}
SPEC: dict[str, Any] = {"AgentId": "template-1"}
FULL: dict[str, Any] = {
    "Agent": {
        "AgentId": "template 1 ~",
        "Name": "n" * 64,
        "LLM": LLM | {"Vendor": "OpenAIChat", "Temperature": 2, "TopP": 0.9, "AddAgentInfo": True},
        "TTS": {
            "Vendor": "ByteDanceV3",
            "Params": {"app": {}},
            "FilterText": [{"BeginCharacters": "(", "EndCharacters": ")"}],
            "TerminatorText": "####",
        },
        "ASR": {"Vendor": "Tencent", "Params": {}},
    },
    "UserId": "user_1",
    "RTC": {
        "RoomId": "room.1",
        "AgentUserId": "bot.1",
        "UserStreamId": "s" * 128,
        "StreamExtraInfo": "x" * 1024,
    },
    "LLM": LLM,
    "VAD": {
        "TurnDetectConfig": {"SilenceSegmentation": 200, "PauseInterval": 2000},
        "VoiceDetectConfig": {
            "SensitiveConfig": {"Level": 3, "MinSpeechDur": 1000, "EnergyThreshold": 1}
        },
    },
    "MessageHistory": {
        "SyncMode": 0,
        "Messages": [{"Role": "assistant", "Content": ""}] * 100,
        "WindowSize": 500,
        "ZIM": {"RobotId": "robot", "LoadMessageCount": 500},
    },
    "CallbackConfig": {"ASRResult": 1, "LLMResult": 0, "HostTag": "one"},
    "AdvancedConfig": {
        "InterruptMode": 1,
        "MaxIdleTime": 10,
        "DisableTTS": False,
        "CommunicationMode": 2,
        "Tomorrow": 1,
    },
    "Tomorrow": [],
}


def agent(room_id: str = "room.1", user_id: str = "user_1") -> Agent:
    return Agent(
        id="a1",
        incarnation=1,
        try_=1,
        account="acc",
        site="{}",
        room_id=room_id,
        user_id=user_id,
        name="orc-agent",
        session_name="",
        stream_id="orc-agent_s1",
        announced_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


def problems(spec: Any, who: Agent | None = None) -> tuple[Problem, ...]:
    return start_problems(who or agent(), spec)


def at(path: str, value: Any) -> Any:
    """Return the smallest legal spec with one value put at a path."""
    spec = json.loads(json.dumps(SPEC))
    *above, last = path.split(".")
    place = spec
    for key in above:
        place = place.setdefault(key, {})
    place[last] = value
    return spec


@pytest.mark.parametrize("spec", [SPEC, FULL, {"Agent": {"AgentId": "t"}}])
def test_legal(spec: Any) -> None:
    assert problems(spec) == ()


ID = "1 to 32 characters out of letters, digits, _, - and ."
STREAM = "1 to 128 characters out of letters, digits, _, - and ."


@pytest.mark.parametrize(
    ("path", "value", "expected", "found"),
    [
        ("AgentId", "a" * 129, "1 to 128 characters out of letters, digits, spaces", "aaa"),
        ("AgentId", "a/b", "1 to 128 characters out of letters, digits, spaces", '"a/b" (string)'),
        ("AgentId", 5, "a string", "5"),
        ("UserId", "x", "nothing, since the daemon fills it in: user_1", '"x" (string)'),
        ("RTC.RoomId", "x", "nothing, since the daemon fills it in: room.1", '"x" (string)'),
        ("RTC.AgentStreamId", "x", "nothing, since the daemon fills it in", '"x" (string)'),
        ("RTC.AgentUserId", "user_1", "another id than the user's", '"user_1" (string)'),
        ("RTC.AgentUserId", "b" * 33, ID, '"bbb'),
        ("RTC.UserStreamId", "a b", STREAM, '"a b" (string)'),
        ("RTC.StreamExtraInfo", "ö" * 513, "at most 1024 bytes", "ööö"),
        ("RTC", [], "an object", "a list of 0"),
        ("LLM.Temperature", 2.1, "a number of at most 2", "2.1"),
        ("LLM.TopP", 1.1, "a number of at most 1", "1.1"),
        ("LLM.AddAgentInfo", 1, "true or false", "1"),
        ("LLM.ApiKey", 5, "a string", "a number, true or false"),
        ("TTS.Params", "x", "an object", '"x" (string)'),
        ("TTS.TerminatorText", "12345", "at most 4 characters", '"12345" (string)'),
        ("Agent.Name", "n" * 65, "at most 64 bytes, since UpdateAgent takes no more", "nnn"),
        ("VAD.TurnDetectConfig.SilenceSegmentation", 199, "a number of at least 200", "199"),
        ("VAD.TurnDetectConfig.PauseInterval", 2001, "a number of at most 2000", "2001"),
        ("VAD.VoiceDetectConfig.SensitiveConfig.Level", 4, "one of 0, 1, 2 or 3", "4"),
        (
            "VAD.VoiceDetectConfig.SensitiveConfig.MinSpeechDur",
            1001,
            "a number of at most 1000",
            "1001",
        ),
        (
            "VAD.VoiceDetectConfig.SensitiveConfig.EnergyThreshold",
            1.5,
            "a number of at most 1",
            "1.5",
        ),
        ("MessageHistory.SyncMode", 2, "one of 0 or 1", "2"),
        (
            "MessageHistory.Messages",
            [{"Role": "user", "Content": ""}] * 101,
            "at most 100 items",
            "a list of 101",
        ),
        ("MessageHistory.WindowSize", 501, "a number of at most 500", "501"),
        ("MessageHistory.ZIM.LoadMessageCount", -1, "a number of at least 0", "-1"),
        ("CallbackConfig.ASRResult", True, "a whole number", "true"),
        ("CallbackConfig.UserAudioData", 2, "one of 0 or 1", "2"),
        ("AdvancedConfig.InterruptMode", 2, "one of 0 or 1", "2"),
        ("AdvancedConfig.MaxIdleTime", 9, "a number of at least 10", "9"),
        ("AdvancedConfig.MaxIdleTime", 1801, "a number of at most 1800", "1801"),
        ("AdvancedConfig.MaxIdleTime", 60.0, "a whole number", "60.0"),
        ("AdvancedConfig.CommunicationMode", 3, "one of 0, 1 or 2", "3"),
        ("AdvancedConfig.CommunicationMode", "2", "a whole number", '"2" (string)'),
        ("DigitalHuman", {}, "nothing, since only voice agents are run", "an object"),
    ],
)
def test_illegal(path: str, value: Any, expected: str, found: str) -> None:
    every = [problem for problem in problems(at(path, value)) if problem.path == f"spec.{path}"]
    assert any(problem.expected.startswith(expected) for problem in every), every
    assert any(found in problem.found for problem in every), every


def test_a_message_has_a_role() -> None:
    spec = SPEC | {"MessageHistory": {"Messages": [{"Role": "system", "Content": ""}]}}
    assert [problem.path for problem in problems(spec)] == ["spec.MessageHistory.Messages[0].Role"]


@pytest.mark.parametrize("name", ["Url", "ApiKey", "Model"])
@pytest.mark.parametrize("place", ["LLM", "Agent"])
def test_a_language_model_is_whole(place: str, name: str) -> None:
    fields = {key: value for key, value in LLM.items() if key != name}
    if place == "LLM":
        found = problems(SPEC | {"LLM": fields})
        assert [problem.path for problem in found] == [f"spec.LLM.{name}"]
    else:
        found = problems({"Agent": {"AgentId": "t", "LLM": fields}})
        assert [problem.path for problem in found] == [f"spec.Agent.LLM.{name}"]


@pytest.mark.parametrize("name", ["Vendor", "Params"])
def test_a_voice_has_a_vendor_and_params(name: str) -> None:
    fields = {key: value for key, value in {"Vendor": "x", "Params": {}}.items() if key != name}
    assert [problem.path for problem in problems(SPEC | {"TTS": fields})] == [f"spec.TTS.{name}"]


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ({}, ["spec.AgentId"]),
        ({"Agent": None, "AgentId": None}, ["spec.AgentId"]),
        ({"Agent": {"AgentId": "t"}, "AgentId": "t"}, []),
        ({"Agent": {"AgentId": "t"}, "AgentId": "u"}, ["spec.AgentId"]),
        ({"Agent": {}}, ["spec.Agent.AgentId"]),
        ({"Agent": {}, "AgentId": "t"}, ["spec.Agent.AgentId"]),
        ({"Agent": 5}, ["spec.Agent"]),
    ],
)
def test_an_instance_has_one_template(spec: Any, paths: list[str]) -> None:
    assert [problem.path for problem in problems(spec)] == paths


@pytest.mark.parametrize(
    ("who", "paths"),
    [
        (agent(room_id="r" * 128), []),
        (agent(room_id="r" * 129), ["room_id"]),
        (agent(room_id=""), ["room_id"]),
        (agent(room_id="a b"), ["room_id"]),
        (agent(user_id="u" * 32), []),
        (agent(user_id="u" * 33), ["user_id"]),
        (agent(user_id="a.b"), ["user_id"]),
        (agent(room_id="ö", user_id="ö"), ["room_id", "user_id"]),
    ],
)
def test_the_rows_ids(who: Agent, paths: list[str]) -> None:
    assert [problem.path for problem in problems(SPEC, who)] == paths


def test_no_secret_is_shown() -> None:
    found = problems({"Agent": {"LLM": LLM | {"ApiKey": ["fake-key"], "Url": 5}}})
    assert "fake-key" not in "".join(map(str, found))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(spec=st.dictionaries(st.sampled_from([*FULL, "AgentId", "DigitalHuman"]), JSON, max_size=6))
def test_nothing_that_is_json_raises(spec: Any) -> None:
    assert all(problem.path and problem.expected for problem in problems(spec))
