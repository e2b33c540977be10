import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.command import Command, Kind
from orchestrator.core.model import Agent, Verb
from orchestrator.core.outcome import (
    Denied,
    Done,
    Expired,
    Gone,
    Indefinite,
    NotSent,
    Outcome,
    Refused,
    Throttled,
)
from orchestrator.providers.base import Conversation, Provider, Reply, Request, Response, Stamp
from orchestrator.providers.tencent import Tencent

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = Stamp(signed_at=NOW, nonce=lambda: "0123456789abcdef")
TASK = "v2_20260102_task"
AGENT = Agent(
    id="a1",
    incarnation=1,
    try_=1,
    account="acc",
    site="{}",
    room_id="room-42",
    user_id="user_1",
    name="orc-agent",
    session_name="orc-session",
    stream_id="orc-stream",
    vendor_task_id=TASK,
    announced_at=NOW,
)
TENCENT: Provider = Tencent(
    sdk_app_id=1400000001,
    secret_id="AKIDFAKE",
    secret_key="fake-secret-key",
    usersig_key="fake-usersig-key",
    region="ap-singapore",
)
CONTROL, UPDATE = "ControlAIConversation", "UpdateAIConversation"
ACTIONS = {Kind.SAY: CONTROL, Kind.PROMPT: CONTROL, Kind.UPDATE: UPDATE}
LLM = {
    "LLMType": "openai",
    "Model": "gpt",
    "APIKey": "fake-key",
    "APIUrl": "https://llm.example/v1/chat/completions",
}
TTS = {"TTSType": "flow", "VoiceId": "v-1"}
SMALLEST: dict[Kind, dict[str, Any]] = {
    Kind.SAY: {"ServerPushText": {"Text": "hi"}},
    Kind.PROMPT: {"InvokeLLM": {"Content": "hi"}},
    Kind.UPDATE: {"WelcomeMessage": "hello"},
}


def command(kind: Kind, payload: Mapping[str, Any] | None = None) -> Command:
    return Command(
        id="c1",
        position=1,
        task_id="t1",
        kind=kind,
        user_id="user_1",
        sequence=7 if kind.listens else None,
        payload=payload or {},
        created_at=NOW,
        expires_at=NOW + timedelta(seconds=5),
    )


def answered(response: Any, status: int = 200) -> Response:
    body = json.dumps({"Response": response}).encode()
    return Response(status=status, headers={}, body=body)


def failed(code: str) -> Response:
    return answered({"Error": {"Code": code, "Message": "no"}, "RequestId": "r-1"})


OK = answered({"RequestId": "r-1"})


def converse(conversation: Conversation, reply: Reply = OK) -> tuple[Request, Outcome]:
    request = next(conversation)
    with pytest.raises(StopIteration) as end:
        conversation.send(reply)
    outcome: Outcome = end.value.value
    return request, outcome


def ask(kind: Kind, payload: Mapping[str, Any] | None = None, reply: Reply = OK) -> Any:
    asked = command(kind, SMALLEST[kind] if payload is None else payload)
    return converse(TENCENT.command(AGENT, asked, STAMP), reply)


def sent(kind: Kind, payload: Mapping[str, Any]) -> Any:
    return json.loads(ask(kind, payload)[0].body)


def paths(kind: Kind, payload: Any) -> list[str]:
    return [one.path for one in TENCENT.command_problems(command(kind, payload))]


# --- which call, and what it holds ---


@pytest.mark.parametrize("kind", Kind)
def test_there_is_a_call_to_speak_to_prompt_and_to_update(kind: Kind) -> None:
    action = TENCENT.command_action(command(kind))
    assert action == ACTIONS.get(kind)
    assert action is None or TENCENT.limits[action] == 20


@pytest.mark.parametrize("kind", ACTIONS)
def test_the_request_is_the_call(kind: Kind) -> None:
    request, outcome = ask(kind)
    assert request.action == request.headers["X-TC-Action"] == ACTIONS[kind]
    assert json.loads(request.body)["TaskId"] == TASK
    assert outcome == Done(request_id="r-1")


TEXT = {"Text": "hi", "Interrupt": True, "DropMode": 1, "Priority": 0, "AddHistory": False}


@pytest.mark.parametrize(
    "payload",
    [
        {"ServerPushText": TEXT},
        TEXT,
        {"Command": "ServerPushText", "ServerPushText": TEXT},
        TEXT | {"Command": "ServerPushText", "TaskId": None},
        {"ServerPushText": TEXT | {"Audio": None}},
    ],
)
def test_what_is_said_stands_alone_or_under_its_name(payload: dict[str, Any]) -> None:
    assert paths(Kind.SAY, payload) == []
    body = {"TaskId": TASK, "Command": "ServerPushText", "ServerPushText": TEXT}
    assert sent(Kind.SAY, payload) == body


@pytest.mark.parametrize("payload", [{"InvokeLLM": {"Content": "hi"}}, {"Content": "hi"}])
def test_what_is_asked_stands_alone_or_under_its_name(payload: dict[str, Any]) -> None:
    assert paths(Kind.PROMPT, payload) == []
    body = {"TaskId": TASK, "Command": "InvokeLLM", "InvokeLLM": {"Content": "hi"}}
    assert sent(Kind.PROMPT, payload) == body


def test_what_stands_beside_what_is_said_is_sent_too() -> None:
    payload = {"ServerPushText": TEXT, "Brand": "new", "InvokeLLM": None}
    assert paths(Kind.SAY, payload) == []
    body = {"TaskId": TASK, "Command": "ServerPushText", "ServerPushText": TEXT, "Brand": "new"}
    assert sent(Kind.SAY, payload) == body


def test_objects_become_the_strings_that_hold_them() -> None:
    said = sent(Kind.SAY, {"Text": "bye", "StopAfterPlay": True, "MetaInfo": {"b": 1, "a": "é"}})
    assert said["ServerPushText"]["MetaInfo"] == '{"a":"é","b":1}'
    update = sent(Kind.UPDATE, {"LLMConfig": LLM, "TTSConfig": json.dumps(TTS)})
    assert json.loads(update["LLMConfig"]) == LLM
    assert update == {"TaskId": TASK} | {
        "LLMConfig": update["LLMConfig"],
        "TTSConfig": json.dumps(TTS),
    }


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Kind.SAY, {"Audio": "UklGRg=="}),
        (Kind.SAY, {"Text": "x" * 5000, "MetaInfo": '{"a":1}', "Brand": "new"}),
        (Kind.PROMPT, {"Content": "hi", "Interrupt": False, "ExperimentalParams": "{}"}),
        (Kind.UPDATE, {}),
        (Kind.UPDATE, {"LLMConfig": None, "TTSConfig": None}),
        (Kind.UPDATE, {"InterruptMode": 1, "InterruptSpeechDuration": 300}),
        (Kind.UPDATE, {"LLMConfig": LLM, "TTSConfig": TTS}),
        (Kind.UPDATE, {"TTSConfig": {"TTSType": "brand-new", "Speed": 99}}),
    ],
)
def test_what_the_vendor_takes(kind: Kind, payload: dict[str, Any]) -> None:
    assert paths(kind, payload) == []


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (Kind.SAY, {}, ["payload"]),
        (Kind.SAY, {"ServerPushText": {}}, ["payload.ServerPushText"]),
        (Kind.SAY, {"ServerPushText": "hi"}, ["payload.ServerPushText"]),
        (Kind.SAY, {"ServerPushText": None, "Text": "hi"}, ["payload.ServerPushText"]),
        (Kind.SAY, {"Text": 5}, ["payload.Text"]),
        (Kind.SAY, {"ServerPushText": {"Text": 5}}, ["payload.ServerPushText.Text"]),
        (Kind.SAY, {"Text": "hi", "Interrupt": 1}, ["payload.Interrupt"]),
        (Kind.SAY, {"Text": "hi", "DropMode": 2}, ["payload.DropMode"]),
        (Kind.SAY, {"Text": "hi", "Priority": True}, ["payload.Priority"]),
        (Kind.SAY, {"Text": "hi", "MetaInfo": "no json"}, ["payload.MetaInfo"]),
        (Kind.SAY, {"Text": "hi", "TaskId": TASK}, ["payload.TaskId"]),
        (Kind.SAY, {"Text": "hi", "Command": "InvokeLLM"}, ["payload.Command"]),
        (Kind.PROMPT, {"InvokeLLM": {"Content": ""}}, ["payload.InvokeLLM.Content"]),
        (Kind.PROMPT, {"Text": "hi"}, ["payload.Content"]),
        (Kind.UPDATE, {"InterruptMode": 2}, ["payload.InterruptMode"]),
        (Kind.UPDATE, {"InterruptSpeechDuration": -1}, ["payload.InterruptSpeechDuration"]),
        (Kind.UPDATE, {"LLMConfig": "{"}, ["payload.LLMConfig"]),
        (Kind.UPDATE, {"LLMConfig": LLM | {"APIUrl": "ftp"}}, ["payload.LLMConfig.APIUrl"]),
        (Kind.UPDATE, {"TTSConfig": TTS | {"Speed": 9}}, ["payload.TTSConfig.Speed"]),
        (Kind.UPDATE, {"TTSConfig": {"VoiceId": "v"}}, ["payload.TTSConfig.TTSType"]),
        (Kind.UPDATE, {"TaskId": TASK}, ["payload.TaskId"]),
        (Kind.UPDATE, {"Command": "InvokeLLM"}, ["payload.Command"]),
    ],
)
def test_what_the_vendor_would_refuse_is_told_where(
    kind: Kind, payload: dict[str, Any], expected: list[str]
) -> None:
    assert paths(kind, payload) == expected


# --- what came of it ---


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("FailedOperation.TaskNotExist", Gone),
        ("FailedOperation.TaskFinished", Gone),
        ("InvalidParameter.TaskId", Refused),
        ("UnknownParameter", Refused),
        ("RequestLimitExceeded", Throttled),
        ("AuthFailure.SignatureExpire", Expired),
        ("AuthFailure.TokenFailure", Denied),
        ("FailedOperation", Indefinite),
        ("InternalError", Indefinite),
    ],
)
@pytest.mark.parametrize("kind", ACTIONS)
def test_error(kind: Kind, code: str, expected: type[Outcome]) -> None:
    _, outcome = ask(kind, reply=failed(code))
    assert type(outcome) is expected
    assert (outcome.code, outcome.request_id) == (code, "r-1")


@pytest.mark.parametrize("reply", [NotSent(code="dns"), Indefinite(code="timeout")])
def test_the_transports_verdict_stands(reply: Reply) -> None:
    assert ask(Kind.SAY, reply=reply)[1] is reply


@given(body=st.binary(max_size=200), kind=st.sampled_from(sorted(ACTIONS)))
def test_no_garbage_is_a_success(body: bytes, kind: Kind) -> None:
    reply = Response(status=200, headers={}, body=body)
    assert isinstance(ask(kind, reply=reply)[1], Indefinite)


# --- a spec that changes while the agent runs ---

SPEC: dict[str, Any] = {
    "AgentConfig": {"WelcomeMessage": "hello", "InterruptMode": 0, "MaxIdleTime": 60},
    "LLMConfig": LLM | {"SystemPrompt": "be kind"},
    "TTSConfig": TTS,
}


def config(**changes: Any) -> dict[str, Any]:
    return SPEC | {"AgentConfig": SPEC["AgentConfig"] | changes}


def llm(**changes: Any) -> dict[str, Any]:
    return SPEC | {"LLMConfig": SPEC["LLMConfig"] | changes}


IN_PLACE = [
    config(WelcomeMessage="hi"),
    config(InterruptMode=1),
    llm(SystemPrompt="be brief"),
    llm(APIKey="fake-rotated"),
    SPEC | {"LLMConfig": json.dumps(SPEC["LLMConfig"])},
    SPEC | {"TTSConfig": TTS | {"VoiceId": "v-2"}},
    SPEC | {"TTSConfig": TTS | {"TTSType": "another"}},
]
ANEW = [
    config(WelcomeMessage=None),
    config(InterruptSpeechDuration=300),
    config(MaxIdleTime=30),
    config(UserId="bot"),
    config(TurnDetectionMode=3),
    llm(Temperature=0.5),
    llm(SystemPrompt=None),
    SPEC | {"STTConfig": {"Language": "en"}},
    SPEC | {"TTSConfig": TTS | {"Speed": 2}},
    SPEC | {"RoomIdType": 1, "ExperimentalParams": "x"},
]


@pytest.mark.parametrize("spec", IN_PLACE)
def test_a_running_agent_takes_it(spec: dict[str, Any]) -> None:
    assert TENCENT.problems(AGENT, spec) == ()
    assert TENCENT.body(AGENT, spec) != TENCENT.body(AGENT, SPEC)
    assert TENCENT.fixed_body(AGENT, spec) == TENCENT.fixed_body(AGENT, SPEC)
    request, outcome = converse(TENCENT.update(AGENT, spec, STAMP))
    body = json.loads(request.body)
    start = json.loads(TENCENT.body(AGENT, spec))
    assert outcome == Done(request_id="r-1")
    assert request.action == TENCENT.action(Verb.UPDATE) == UPDATE
    assert body == {
        "TaskId": TASK,
        "WelcomeMessage": spec["AgentConfig"]["WelcomeMessage"],
        "InterruptMode": spec["AgentConfig"]["InterruptMode"],
        "LLMConfig": start["LLMConfig"],
        "TTSConfig": start["TTSConfig"],
    }


@pytest.mark.parametrize("spec", ANEW)
def test_a_running_agent_cannot_take_it(spec: dict[str, Any]) -> None:
    assert TENCENT.fixed_body(AGENT, spec) != TENCENT.fixed_body(AGENT, SPEC)


def test_a_spec_without_an_agent_config_has_nothing_of_it_to_change() -> None:
    spec = {"LLMConfig": LLM, "TTSConfig": TTS}
    body = json.loads(converse(TENCENT.update(AGENT, spec, STAMP))[0].body)
    assert body.keys() == {"TaskId", "LLMConfig", "TTSConfig"}
    assert b"AgentConfig" in TENCENT.fixed_body(AGENT, spec)


def test_an_agent_that_ended_cannot_be_updated() -> None:
    reply = failed("FailedOperation.TaskNotExist")
    assert isinstance(converse(TENCENT.update(AGENT, SPEC, STAMP), reply)[1], Gone)
