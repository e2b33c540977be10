import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Agent
from orchestrator.providers.spec import ResolvedSecret, merge
from orchestrator.providers.volcengine import API_VERSIONS, Volcengine
from orchestrator.providers.volcengine_spec import asked_user_id, start_problems

EXAMPLES = json.loads(
    (Path(__file__).parent / "vectors" / "volcengine_examples.json").read_text(encoding="utf-8")
)
APP_ID = "661e000000000000000000ab"
VERSION = "2024-12-01"
ARK = {"Mode": "ArkV3", "EndPointId": "ep-1"}
CUSTOM = {"Mode": "CustomLLM", "Url": "https://llm.example/chat"}
ID_RULE = "1 to 128 characters out of letters, digits, _ - . and @"
WEB_URL = "a URL that begins with https:// or http:// and a domain"
CUSTOM_URL = (
    "a URL that begins with https://, since Mode is CustomLLM "
    '(http:// only with Feature {"Http":true})'
)
OBJECT_TEXT = "an object, or a string that holds a JSON object"


def agent(**changes: Any) -> Agent:
    fields: dict[str, Any] = {
        "id": "1",
        "incarnation": 1,
        "try_": 1,
        "account": "main",
        "site": "",
        "room_id": "room-1",
        "user_id": "user-1",
        "name": "bot-1",
        "session_name": "task-1",
        "stream_id": "",
        "announced_at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return Agent(**(fields | changes))


def said(spec: Any) -> list[str]:
    return [str(problem) for problem in start_problems(VERSION, APP_ID, agent(), spec)]


def config(**parts: Any) -> dict[str, Any]:
    return {"Config": parts}


def agent_config(**fields: Any) -> dict[str, Any]:
    return {"Config": {}, "AgentConfig": fields}


def asr(**changes: Any) -> dict[str, Any]:
    return config(ASRConfig=merge(EXAMPLES["asr"], changes))


def llm(**fields: Any) -> dict[str, Any]:
    return config(LLMConfig=fields)


RTS = {"ServerMessageURLForRTS": "https://cb.example/rts", "ServerMessageSignatureForRTS": "fake"}


@pytest.mark.parametrize(
    "spec",
    [
        config(),
        config(S2SConfig={"Provider": "volcano"}),
        config(ASRConfig=EXAMPLES["asr"]),
        config(TTSConfig=EXAMPLES["tts"]),
        config(LLMConfig=EXAMPLES["llm_custom"]),
        config(LLMConfig=EXAMPLES["llm_ark"]),
        config(SomethingNew={"a": [1]}),
        asr(VADConfig={"SilenceTime": 500}),
        asr(VADConfig={"SilenceTime": 2999, "AIVAD": True}),
        asr(InterruptConfig={"InterruptSpeechDuration": 0}),
        asr(InterruptConfig={"InterruptSpeechDuration": 200}),
        asr(InterruptConfig={"InterruptSpeechDuration": 3000}),
        asr(Provider="ai_gateway", VolumeGain=1, TurnDetectionMode=1),
        llm(Mode="ArkV3", ModelName="doubao"),
        llm(**ARK, Temperature=1, TopP=0, ThinkingType="disabled", Tools=[{"type": "function"}]),
        llm(**CUSTOM, Temperature=0, Custom={"a": 1}),
        llm(**CUSTOM, Custom='{"a": 1}', APIKey=ResolvedSecret("fake")),
        llm(Mode="CustomLLM", Url="http://llm.example", Feature='{"Http":true}'),
        llm(Mode="CozeBot", CozeBotConfig={"BotId": "b"}),
        config(FunctionCallingConfig=EXAMPLES["asr"] | {
            "ServerMessageUrl": "https://cb.example", "ServerMessageSignature": "fake"}),
        agent_config(TargetUserId=["user-1"], UserId="a@b.c_d-e", IdleTimeout=1),
        agent_config(**RTS, EnableConversationStateCallback=True),
        agent_config(Burst={"Enable": True, "BufferSize": 10, "Interval": 600}, AnsMode=3),
        agent_config(VoicePrint={"Mode": 1, "IdList": ["v"]}, UseLicense=True),
        config(SubtitleConfig={"ServerMessageUrl": RTS["ServerMessageURLForRTS"]})
        | {"AgentConfig": RTS},
        config() | {"AppId": APP_ID, "RoomId": "room-1", "BusinessId": ""},
    ],
)  # fmt: skip
def test_good_specs_have_no_problem(spec: Any) -> None:
    assert said(spec) == []


@pytest.mark.parametrize(
    ("spec", "path", "expected", "found"),
    [
        ({}, "spec.Config", "a value, since it is required", "nothing"),
        ([], "spec", "an object", "a list of 0"),
        ({"Config": "x"}, "spec.Config", "an object", '"x" (string)'),
        ({"Config": {}, "AgentConfig": []}, "spec.AgentConfig", "an object", "a list of 0"),
        (config(InterruptMode=True), "spec.Config.InterruptMode", "a whole number", "true"),
        (config(InterruptMode=2), "spec.Config.InterruptMode", "one of 0 or 1", "2"),
        (config(TTSConfig={"ProviderParams": {}}), "spec.Config.TTSConfig.Provider",
         "a value, since it is required", "nothing"),
        (
            config(TTSConfig={**EXAMPLES["tts"], "IgnoreBracketText": [6]}),
            "spec.Config.TTSConfig.IgnoreBracketText[0]",
            "one of 1, 2, 3, 4 or 5",
            "6",
        ),
        (config(ASRConfig={"Provider": "volcano"}), "spec.Config.ASRConfig.ProviderParams",
         "a value, since it is required", "nothing"),
        (asr(VADConfig={"SilenceTime": 499}), "spec.Config.ASRConfig.VADConfig.SilenceTime",
         "a number of at least 500", "499"),
        (asr(VADConfig={"SilenceTime": 3000}), "spec.Config.ASRConfig.VADConfig.SilenceTime",
         "a number below 3000", "3000"),
        (
            asr(InterruptConfig={"InterruptSpeechDuration": 199}),
            "spec.Config.ASRConfig.InterruptConfig.InterruptSpeechDuration",
            "0, or 200 to 3000 ms",
            "199",
        ),
        (
            asr(InterruptConfig={"InterruptSpeechDuration": 3001}),
            "spec.Config.ASRConfig.InterruptConfig.InterruptSpeechDuration",
            "0, or 200 to 3000 ms",
            "3001",
        ),
        (asr(ProviderParams={"Mode": "hugemodel"}), "spec.Config.ASRConfig.ProviderParams.Mode",
         "one of 'smallmodel' or 'bigmodel'", '"hugemodel" (string)'),
        (asr(VolumeGain=1.5), "spec.Config.ASRConfig.VolumeGain", "a number of at most 1", "1.5"),
        (llm(EndPointId="e"), "spec.Config.LLMConfig.Mode",
         "a value, since it is required", "nothing"),
        (llm(Mode="GPT"), "spec.Config.LLMConfig.Mode",
         "one of 'ArkV3', 'CozeBot' or 'CustomLLM'", '"GPT" (string)'),
        (llm(Mode="ArkV3"), "spec.Config.LLMConfig.EndPointId",
         "an Ark endpoint's id (or a ModelName), since Mode is ArkV3", "nothing"),
        (llm(Mode="ArkV3", EndPointId=""), "spec.Config.LLMConfig.EndPointId",
         "an Ark endpoint's id (or a ModelName), since Mode is ArkV3", '"" (string)'),
        (llm(**ARK, Temperature=0), "spec.Config.LLMConfig.Temperature",
         "a number above 0, since Mode is ArkV3", "0"),
        (llm(**ARK, Temperature=1.1), "spec.Config.LLMConfig.Temperature",
         "a number of at most 1", "1.1"),
        (llm(**ARK, MaxTokens="5"), "spec.Config.LLMConfig.MaxTokens",
         "a whole number", '"5" (string)'),
        (llm(**ARK, HistoryLength=-1), "spec.Config.LLMConfig.HistoryLength",
         "a number of at least 0", "-1"),
        (llm(**ARK, UserPrompts=[{"Role": "user"}]), "spec.Config.LLMConfig.UserPrompts[0].Content",
         "a value, since it is required", "nothing"),
        (llm(Mode="CustomLLM"), "spec.Config.LLMConfig.Url", CUSTOM_URL, "nothing"),
        (llm(Mode="CustomLLM", Url="http://llm.example"), "spec.Config.LLMConfig.Url",
         CUSTOM_URL, '"http://llm.example" (string)'),
        (
            llm(Mode="CustomLLM", Url="http://llm.example", Feature='{"Http":false}'),
            "spec.Config.LLMConfig.Url",
            CUSTOM_URL,
            '"http://llm.example" (string)',
        ),
        (
            llm(Mode="CustomLLM", Url="https://[", Feature={"Http": True}),
            "spec.Config.LLMConfig.Url",
            CUSTOM_URL,
            '"https://[" (string)',
        ),
        (llm(Mode="CozeBot"), "spec.Config.LLMConfig.CozeBotConfig",
         "an object, since Mode is CozeBot", "nothing"),
        (llm(**CUSTOM, Custom="[]"), "spec.Config.LLMConfig.Custom", OBJECT_TEXT,
         "a string that looks like JSON"),
        (llm(**ARK, APIKey=12345), "spec.Config.LLMConfig.APIKey", "a string",
         "a number, true or false"),
        (agent_config(TargetUserId=[]), "spec.AgentConfig.TargetUserId",
         "nothing, since the daemon fills it in: ['user-1']", "a list of 0"),
        (agent_config(UserId="a b"), "spec.AgentConfig.UserId", ID_RULE, '"a b" (string)'),
        (agent_config(UserId="user-1"), "spec.AgentConfig.UserId",
         "another id than the row's user_id", '"user-1" (string)'),
        (agent_config(TargetUserId=["user-2"]), "spec.AgentConfig.TargetUserId",
         "nothing, since the daemon fills it in: ['user-1']", "a list of 1"),
        (agent_config(TargetUserId=["user-1", "user-2"]), "spec.AgentConfig.TargetUserId",
         "nothing, since the daemon fills it in: ['user-1']", "a list of 2"),
        (agent_config(IdleTimeout=0), "spec.AgentConfig.IdleTimeout", "a number above 0", "0"),
        (
            agent_config(ServerMessageURLForRTS="https://cb.example"),
            "spec.AgentConfig.ServerMessageSignatureForRTS",
            "a shared secret, since there is a ServerMessageURLForRTS",
            "nothing",
        ),
        (
            agent_config(ServerMessageURLForRTS="cb.example/rts"),
            "spec.AgentConfig.ServerMessageURLForRTS",
            WEB_URL,
            '"cb.example/rts" (string)',
        ),
        (agent_config(Burst={"BufferSize": 9}), "spec.AgentConfig.Burst.BufferSize",
         "a number of at least 10", "9"),
        (agent_config(Burst={"Interval": 601}), "spec.AgentConfig.Burst.Interval",
         "a number of at most 600", "601"),
        (agent_config(VoicePrint={"IdList": ["a", "b"]}), "spec.AgentConfig.VoicePrint.IdList",
         "at most 1 items", "a list of 2"),
        (agent_config(AnsMode=4), "spec.AgentConfig.AnsMode", "one of 0, 1, 2 or 3", "4"),
        (
            config(SubtitleConfig={"ServerMessageUrl": "https://other.example"})
            | {"AgentConfig": RTS},
            "spec.Config.SubtitleConfig.ServerMessageUrl",
            "the same URL as ServerMessageURLForRTS",
            '"https://other.example" (string)',
        ),
        (
            config(FunctionCallingConfig={"ServerMessageUrl": "https://cb.example"}),
            "spec.Config.FunctionCallingConfig.ServerMessageSignature",
            "a value, since it is required",
            "nothing",
        ),
        (config() | {"TaskId": "mine"}, "spec.TaskId",
         "nothing, since the daemon fills it in", '"mine" (string)'),
        (config() | {"AppId": "other"}, "spec.AppId",
         f"nothing, since the daemon fills it in: {APP_ID}", '"other" (string)'),
    ],
)  # fmt: skip
def test_each_rule_speaks_for_itself(spec: Any, path: str, expected: str, found: str) -> None:
    assert said(spec) == [f"{path}: expected {expected}, found {found}"]


def test_several_mistakes_are_told_at_once() -> None:
    spec = llm(Mode="ArkV3", MaxTokens=0) | {"AgentConfig": {"IdleTimeout": -1}}
    assert len(said(spec)) == 3


@pytest.mark.parametrize(
    ("spec", "path", "expected"),
    [
        (
            config() | {"UserId": "user-2"},
            "spec.UserId",
            "nothing, since the daemon fills it in: user-1",
        ),
        (config(BotName="user-1"), "spec.Config.BotName", "another id than the row's user_id"),
        ({}, "spec.Config", "a value, since it is required"),
    ],
)
def test_the_first_generation_has_its_own_rules(spec: Any, path: str, expected: str) -> None:
    (found,) = start_problems("2024-06-01", APP_ID, agent(), spec)
    assert (found.path, found.expected) == (path, expected)


@pytest.mark.parametrize("value", ["", "a b", "ä", "x" * 129, "a\n"])
@pytest.mark.parametrize("column", ["room_id", "user_id"])
def test_ids_of_the_row_are_checked_too(column: str, value: str) -> None:
    found = start_problems(VERSION, APP_ID, agent(**{column: value}), config())
    assert [problem.path for problem in found] == [column]
    assert found[0].expected == ID_RULE


def test_a_drawn_name_that_is_the_user_is_found() -> None:
    (found,) = start_problems(VERSION, APP_ID, agent(name="user-1"), config())
    assert found.path == "spec.AgentConfig.UserId"


def test_an_id_that_is_a_secret_is_refused_and_never_handed_on() -> None:
    spec = agent_config(UserId=ResolvedSecret("fake"))
    assert asked_user_id(VERSION, spec) is None
    (found,) = start_problems(VERSION, APP_ID, agent(), spec)
    assert found.expected == "an id in plain, since it is written to the database"
    assert found.found == "a secret"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
PATHS = st.sampled_from(
    [
        ("AppId",),
        ("Config",),
        ("AgentConfig",),
        ("AgentConfig", "UserId"),
        ("AgentConfig", "TargetUserId"),
        ("Config", "LLMConfig"),
        ("Config", "LLMConfig", "Custom"),
        ("Config", "LLMConfig", "Feature"),
        ("Config", "LLMConfig", "Url"),
        ("Config", "SubtitleConfig"),
    ]
)


@pytest.mark.parametrize("version", API_VERSIONS)
@given(path=PATHS, value=JSON)
def test_whatever_stands_there_what_passes_makes_a_body(
    version: str, path: tuple[str, ...], value: Any
) -> None:
    spec: Any = value
    for key in reversed(path):
        spec = {key: spec}
    spec = merge({"Config": {"LLMConfig": CUSTOM}, "AgentConfig": RTS}, spec)
    vendor = Volcengine(
        app_id=APP_ID, access_key_id="AK", secret_access_key="fake", api_version=version
    )
    if not vendor.problems(agent(), spec):
        assert isinstance(json.loads(vendor.body(agent(), spec)), dict)
