import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Agent
from orchestrator.providers.base import Problem
from orchestrator.providers.spec import ResolvedSecret
from orchestrator.providers.tencent_spec import is_numeric_room, start_problems

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LLM = {
    "LLMType": "openai",
    "Model": "gpt",
    "APIKey": "fake-key",
    "APIUrl": "https://llm.example/v1/chat/completions",
}
TTS = {"TTSType": "flow", "VoiceId": "v-1"}
SPEC = {"AgentConfig": {}, "LLMConfig": LLM, "TTSConfig": TTS}


def agent(room_id: str = "room", user_id: str = "user_1") -> Agent:
    return Agent(
        id="a1",
        incarnation=1,
        try_=1,
        account="acc",
        site="{}",
        room_id=room_id,
        user_id=user_id,
        name="orc-agent",
        session_name="orc-session",
        stream_id="",
        announced_at=NOW,
    )


def problems(spec: Any, who: Agent | None = None) -> tuple[Problem, ...]:
    return start_problems(1400000001, who or agent(), spec)


FULL = {
    "SdkAppId": 1400000001,
    "RoomId": "room",
    "RoomIdType": 1,
    "AgentConfig": {
        "UserId": "bot",
        "TargetUserId": "user_1",
        "MaxIdleTime": 1,
        "WelcomeMessage": "hi",
        "WelcomeMessagePriority": 1,
        "InterruptMode": 1,
        "InterruptSpeechDuration": 0,
        "InterruptWordList": ["stop"],
        "TurnDetectionMode": 3,
        "TurnDetection": {"SemanticEagerness": "high"},
        "FilterOneWord": False,
        "FilterBracketsContent": 5,
        "SubtitleMode": 1,
        "AmbientSound": {"Scene": "busy_office", "Volume": 2},
        "VoicePrint": {"Mode": 1, "IdList": ["x"]},
        "Tomorrow": {"any": ["thing"]},
    },
    "STTConfig": {
        "Language": "bigmodel_zh",
        "AlternativeLanguage": ["en"],
        "VadSilenceTime": 240,
        "VadLevel": 5,
        "HotWordList": "one|1,two|11,three|100",
        "CustomParam": "x",
    },
    "LLMConfig": json.dumps(
        LLM
        | {
            "Streaming": True,
            "Timeout": 50,
            "History": 50,
            "HistoryMode": 1,
            "MaxTokens": 100,
            "Temperature": 0.5,
            "TopP": 1,
            "UserMessages": [{"Role": "user", "Content": ""}],
            "MetaInfo": {"a": 1},
            "ExtraBody": {},
        }
    ),
    "TTSConfig": TTS | {"Speed": 2.0, "Volume": 10, "Pitch": -12, "Language": "zh"},
    "AvatarConfig": '{"AvatarType": "x"}',
    "ExperimentalParams": "",
    "Tomorrow": None,
}


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        FULL,
        SPEC | {"TTSConfig": {"TTSType": "dummy", "Speed": "any"}},
        SPEC | {"TTSConfig": json.dumps({"TTSType": "tencent", "AppId": 1, "SecretKey": "fake"})},
    ],
)
def test_legal(spec: Any) -> None:
    assert problems(spec) == ()


@pytest.mark.parametrize("name", ["APIKey", "APIUrl", "LLMType"])
def test_a_resolved_secret_is_a_string_and_never_shown(name: str) -> None:
    secret = ResolvedSecret("https://fake-secret.example")
    assert problems(SPEC | {"LLMConfig": LLM | {name: secret}}) == ()
    wrong = problems(SPEC | {"LLMConfig": LLM | {"Streaming": secret}})
    assert [problem.found for problem in wrong] == ["a secret"]


def at(path: str, value: Any) -> Any:
    """Return the smallest legal spec with one value put at a path."""
    spec = json.loads(json.dumps(SPEC))
    *above, last = path.split(".")
    place = spec
    for key in above:
        place = place.setdefault(key, {})
    place[last] = value
    return spec


@pytest.mark.parametrize(
    ("path", "value", "expected", "found"),
    [
        ("RoomIdType", 2, "one of 0 or 1", "2"),
        ("RoomIdType", "1", "a whole number", '"1" (string)'),
        ("SdkAppId", 7, "nothing, since the daemon fills it in: 1400000001", "7"),
        ("RoomId", "x", "nothing, since the daemon fills it in: room", '"x" (string)'),
        ("SessionId", "x", "nothing, since the daemon fills it in", '"x" (string)'),
        ("AgentConfig", 5, "an object", "5"),
        ("AgentConfig.UserSig", "x", "nothing, since the daemon fills it in", "a string"),
        (
            "AgentConfig.TargetUserId",
            "x",
            "nothing, since the daemon fills it in: user_1",
            '"x" (string)',
        ),
        ("AgentConfig.UserId", "user_1", "another id than the user's", '"user_1" (string)'),
        (
            "AgentConfig.UserId",
            "a b",
            "1 to 32 characters out of letters, digits, _ and -",
            '"a b" (string)',
        ),
        ("AgentConfig.MaxIdleTime", 0, "a number of at least 1", "0"),
        ("AgentConfig.MaxIdleTime", 86401, "a number of at most 86400", "86401"),
        ("AgentConfig.MaxIdleTime", "60", "a whole number", '"60" (string)'),
        ("AgentConfig.MaxIdleTime", True, "a whole number", "true"),
        ("AgentConfig.WelcomeMessagePriority", 2, "one of 0 or 1", "2"),
        ("AgentConfig.MaxIdleTime", None, "a whole number", "nothing"),
        ("AgentConfig.InterruptMode", True, "a whole number", "true"),
        ("AgentConfig.AmbientSound.Volume", True, "a number", "true"),
        ("AgentConfig.InterruptMode", 2, "one of 0 or 1", "2"),
        ("AgentConfig.InterruptSpeechDuration", -1, "a number of at least 0", "-1"),
        ("AgentConfig.InterruptWordList", "x", "a list", '"x" (string)'),
        ("AgentConfig.TurnDetectionMode", 4, "one of 0, 1, 2 or 3", "4"),
        ("AgentConfig.FilterOneWord", 1, "true or false", "1"),
        ("AgentConfig.FilterBracketsContent", 6, "one of 0, 1, 2, 3, 4 or 5", "6"),
        ("AgentConfig.AmbientSound.Volume", 2.5, "a number of at most 2", "2.5"),
        ("STTConfig.VadSilenceTime", 239, "a number of at least 240", "239"),
        ("STTConfig.VadSilenceTime", 2001, "a number of at most 2000", "2001"),
        ("STTConfig.VadLevel", 6, "a number of at most 5", "6"),
        ("LLMConfig.APIKey", None, "a string", "nothing"),
        ("LLMConfig.APIKey", "", "at least 1 characters", "a string"),
        ("LLMConfig.APIUrl", "llm", "a URL that begins with http:// or https://", '"llm" (string)'),
        ("LLMConfig.Timeout", 51, "a number of at most 50", "51"),
        ("LLMConfig.Timeout", 0.5, "a number of at least 1", "0.5"),
        ("LLMConfig.History", 51, "a number of at most 50", "51"),
        ("LLMConfig.HistoryMode", 2, "one of 0 or 1", "2"),
        ("TTSConfig.Speed", 2.1, "a number of at most 2", "2.1"),
        ("TTSConfig.Volume", 11, "a number of at most 10", "11"),
        ("TTSConfig.Pitch", -13, "a number of at least -12", "-13"),
        (
            "LLMConfig",
            "{",
            "an object, or a string that holds a JSON object",
            "a string that looks like JSON",
        ),
        ("TTSConfig", 5, "an object, or a string that holds a JSON object", "5"),
        ("AvatarConfig", "[]", "an object, or a string that holds a JSON object", "JSON"),
    ],
)
def test_illegal(path: str, value: Any, expected: str, found: str) -> None:
    every = [problem for problem in problems(at(path, value)) if problem.path == f"spec.{path}"]
    assert any(problem.expected == expected for problem in every), every
    assert any(found in problem.found for problem in every), every


@pytest.mark.parametrize("name", ["LLMType", "Model", "APIKey", "APIUrl"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_language_model_needs_all_four(name: str, as_text: bool) -> None:
    fields = {key: value for key, value in LLM.items() if key != name}
    found = problems(SPEC | {"LLMConfig": json.dumps(fields) if as_text else fields})
    assert [str(problem) for problem in found] == [
        f"spec.LLMConfig.{name}: expected a value, since it is required, found nothing"
    ]


@pytest.mark.parametrize("fields", [{}, {"TTSType": ""}, {"TTSType": 5}])
def test_a_voice_needs_a_type(fields: Any) -> None:
    assert [problem.path for problem in problems(SPEC | {"TTSConfig": fields})] == [
        "spec.TTSConfig.TTSType"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AppId", "1"),
        ("AppId", 0),
        ("SecretId", ""),
        ("VoiceType", "x"),
        ("Speed", 7),
        ("Speed", -2.5),
        ("PrimaryLanguage", 4),
        ("EmotionIntensity", 49),
        ("EmotionIntensity", 201),
    ],
)
def test_a_tencent_voice(name: str, value: Any) -> None:
    found = problems(SPEC | {"TTSConfig": {"TTSType": "tencent", name: value}})
    assert [problem.path for problem in found] == [f"spec.TTSConfig.{name}"]


@pytest.mark.parametrize("words", ["", "word", "word|0", "word|12", "word|99", "a|1,,b|1", "|1"])
def test_hot_words(words: str) -> None:
    found = problems(SPEC | {"STTConfig": {"HotWordList": words}})
    assert [problem.path for problem in found] == ["spec.STTConfig.HotWordList"]


def test_there_are_at_most_128_hot_words() -> None:
    assert problems(SPEC | {"STTConfig": {"HotWordList": ",".join(["w|1"] * 128)}}) == ()
    assert problems(SPEC | {"STTConfig": {"HotWordList": ",".join(["w|1"] * 129)}})


@pytest.mark.parametrize("scene", ["coffee_shops", "street_traffic", "evening_mountain"])
def test_a_scene_is_one_of_four(scene: str) -> None:
    assert problems(SPEC | {"AgentConfig": {"AmbientSound": {"Scene": scene}}}) == ()
    found = problems(SPEC | {"AgentConfig": {"AmbientSound": {"Scene": scene + "!"}}})
    assert [problem.path for problem in found] == ["spec.AgentConfig.AmbientSound.Scene"]


@pytest.mark.parametrize(
    ("room", "kind", "is_legal"),
    [
        ("r" * 64, 1, True),
        ("a b!~", 1, True),
        ("r" * 65, 1, False),
        ("", 1, False),
        ("ö", 1, False),
        ("r/1", 1, False),
        ("1", 0, True),
        ("4294967295", 0, True),
        ("4294967296", 0, False),
        ("0", 0, False),
        ("01", 0, False),
        ("\uff11", 0, False),
        ("room", 0, False),
    ],
)
def test_rooms(room: str, kind: int, is_legal: bool) -> None:
    found = problems(SPEC | {"RoomIdType": kind}, agent(room_id=room))
    assert [problem.path for problem in found] == ([] if is_legal else ["room_id"])


@pytest.mark.parametrize("user", ["", "u" * 33, "a.b", "ö", "a\n"])
def test_users(user: str) -> None:
    assert [problem.path for problem in problems(SPEC, agent(user_id=user))] == ["user_id"]


@given(number=st.integers(min_value=-1, max_value=2**33))
def test_a_numeric_room_is_32_bits_and_not_zero(number: int) -> None:
    assert is_numeric_room(str(number)) == (0 < number < 2**32)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*FULL, "Agent"])


@given(spec=st.dictionaries(NAMES, JSON, max_size=6))
def test_nothing_that_is_json_raises(spec: Any) -> None:
    assert all(problem.path and problem.expected for problem in problems(spec))
