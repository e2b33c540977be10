import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

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
from orchestrator.providers.volcengine import API_VERSIONS, Volcengine

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = Stamp(signed_at=NOW, nonce=lambda: "00" * 8)
APP_ID = "661e000000000000000000ab"
AGENT = Agent(
    id="a1",
    incarnation=1,
    try_=1,
    account="acc",
    site="{}",
    room_id="room-1",
    user_id="user-1",
    name="bot-1",
    session_name="task-1",
    stream_id="",
    vendor_task_id="task-1",
    announced_at=NOW,
)
TASK = {"AppId": APP_ID, "RoomId": "room-1", "TaskId": "task-1"}
FIRST, SECOND, THIRD = API_VERSIONS
SPOKEN = [Kind.INTERRUPT, Kind.SAY, Kind.PROMPT, Kind.FUNCTION_RESULT]
KINDS: dict[str, list[Kind]] = {
    FIRST: [Kind.INTERRUPT, Kind.FUNCTION_RESULT],
    SECOND: SPOKEN,
    THIRD: [*SPOKEN, Kind.UPDATE],
}
SMALLEST: dict[Kind, dict[str, Any]] = {
    Kind.INTERRUPT: {},
    Kind.SAY: {"Message": "hi", "InterruptMode": 1},
    Kind.PROMPT: {"Message": "hi", "InterruptMode": 2},
    Kind.FUNCTION_RESULT: {"Message": {"ToolCallID": "call-1", "Content": "sunny"}},
    Kind.UPDATE: {"Parameters": {"Config": {"InterruptMode": 1}}},
}


def account(version: str = THIRD) -> Provider:
    return Volcengine(
        app_id=APP_ID,
        access_key_id="AKLTFAKE",
        secret_access_key="fake-secret",
        api_version=version,
    )


def command(kind: Kind, payload: Mapping[str, Any] | None = None) -> Command:
    return Command(
        id="c1",
        position=1,
        task_id="t1",
        kind=kind,
        user_id="user-1",
        sequence=7 if kind.listens else None,
        payload=payload or {},
        created_at=NOW,
        expires_at=NOW + timedelta(seconds=5),
    )


def answer(body: Any, status: int = 200) -> Response:
    return Response(status=status, headers={}, body=json.dumps(body).encode())


def failed(code: str, status: int = 400) -> Response:
    error = {"Code": code, "Message": "no"}
    return answer({"ResponseMetadata": {"RequestId": "r-1", "Error": error}}, status)


OK = answer({"ResponseMetadata": {"RequestId": "r-1"}, "Result": "ok"})


def converse(conversation: Conversation, reply: Reply = OK) -> tuple[Request, Outcome]:
    request = next(conversation)
    with pytest.raises(StopIteration) as end:
        conversation.send(reply)
    outcome: Outcome = end.value.value
    return request, outcome


def ask(kind: Kind, payload: Mapping[str, Any] | None = None, reply: Reply = OK) -> Any:
    asked = command(kind, SMALLEST[kind] if payload is None else payload)
    return converse(account().command(AGENT, asked, STAMP), reply)


def sent(kind: Kind, payload: Mapping[str, Any]) -> Any:
    return json.loads(ask(kind, payload)[0].body)


def paths(kind: Kind, payload: Any) -> list[str]:
    return [one.path for one in account().command_problems(command(kind, payload))]


# --- which command, and what it holds ---


@pytest.mark.parametrize("version", API_VERSIONS)
@pytest.mark.parametrize("kind", Kind)
def test_what_each_version_can_do(version: str, kind: Kind) -> None:
    expected = "UpdateVoiceChat" if kind in KINDS[version] else None
    assert account(version).command_action(command(kind)) == expected


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.INTERRUPT, "interrupt"),
        (Kind.SAY, "ExternalTextToSpeech"),
        (Kind.PROMPT, "ExternalTextToLLM"),
        (Kind.UPDATE, "UpdateParameters"),
    ],
)
def test_a_command_is_an_update_of_its_task(kind: Kind, name: str) -> None:
    request, outcome = ask(kind)
    query = parse_qs(urlsplit(request.url).query)
    assert query == {"Action": ["UpdateVoiceChat"], "Version": [THIRD]}
    assert request.action == "UpdateVoiceChat"
    assert json.loads(request.body) == TASK | {"Command": name} | SMALLEST[kind]
    assert outcome == Done(request_id="r-1")


@pytest.mark.parametrize("kind", KINDS[FIRST])
def test_the_first_version_tells_an_agent_by_its_user(kind: Kind) -> None:
    vendor, asked = account(FIRST), command(kind, SMALLEST[kind])
    assert vendor.command_problems(asked) == ()
    request, outcome = converse(vendor.command(AGENT, asked, STAMP))
    later = json.loads(ask(kind)[0].body)
    del later["TaskId"]
    assert json.loads(request.body) == later | {"UserId": "user-1"}
    assert parse_qs(urlsplit(request.url).query)["Version"] == [FIRST]
    assert outcome == Done(request_id="r-1")


def test_who_is_meant_is_not_the_payloads_to_say() -> None:
    payload = {"UserId": "user-1", "TaskId": "task-1"}
    asked = command(Kind.INTERRUPT, payload)
    first = [one.path for one in account(FIRST).command_problems(asked)]
    assert (first, paths(Kind.INTERRUPT, payload)) == (["payload.UserId"], ["payload.TaskId"])


def test_a_task_whose_handle_nobody_told_goes_by_its_name() -> None:
    fields = {name: getattr(AGENT, name) for name in Agent.__dataclass_fields__}
    unseen = Agent(**fields | {"vendor_task_id": None})
    request = next(account().command(unseen, command(Kind.INTERRUPT), STAMP))
    assert json.loads(request.body) == TASK | {"Command": "interrupt"}


@pytest.mark.parametrize(
    "message",
    [
        {"Content": "sunny", "ToolCallID": "call-1", "response_id": "r"},
        '{"Content":"sunny","ToolCallID":"call-1","response_id":"r"}',
    ],
)
def test_what_a_tool_answered_is_sent_as_a_string(message: Any) -> None:
    assert paths(Kind.FUNCTION_RESULT, {"Message": message}) == []
    assert sent(Kind.FUNCTION_RESULT, {"Message": message}) == TASK | {
        "Command": "function",
        "Message": '{"Content":"sunny","ToolCallID":"call-1","response_id":"r"}',
    }


def test_a_prompt_may_wait_for_the_users_next_turn() -> None:
    payload = {"Command": "ExternalPromptsForLLM", "Message": "it rains"}
    assert paths(Kind.PROMPT, payload) == []
    assert sent(Kind.PROMPT, payload) == TASK | payload


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Kind.INTERRUPT, {"AppId": APP_ID, "Command": "interrupt", "TaskId": None}),
        (Kind.SAY, {"Message": "é" * 200, "InterruptMode": 3, "Brand": "new"}),
        # Each is two units of UTF-16 and four bytes.
        (Kind.SAY, {"Message": "😀" * 200, "InterruptMode": 2}),
        (Kind.PROMPT, {"Message": "x" * 5000, "InterruptMode": 1, "Command": None}),
        (
            Kind.PROMPT,
            {
                "Message": "look",
                "InterruptMode": 1,
                "Command": "ExternalTextToLLM",
                "ImageConfig": {"Action": "insert", "GroupID": 1, "Images": ["https://i.test/1"]},
            },
        ),
        (Kind.UPDATE, {"Parameters": {"Config": {}}}),
        (
            Kind.UPDATE,
            {
                "Parameters": {
                    "Config": {
                        "LLMConfig": {"SystemMessages": ["be brief"], "Tools": []},
                        "TTSConfig": {"ProviderParams": {}},
                    }
                }
            },
        ),
    ],
)
def test_what_the_vendor_takes(kind: Kind, payload: dict[str, Any]) -> None:
    assert paths(kind, payload) == []


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (Kind.INTERRUPT, {"Command": "function"}, ["payload.Command"]),
        (Kind.INTERRUPT, {"AppId": "another"}, ["payload.AppId"]),
        (Kind.INTERRUPT, {"RoomId": "room-1"}, ["payload.RoomId"]),
        (Kind.INTERRUPT, {"TaskId": "task-1"}, ["payload.TaskId"]),
        (Kind.SAY, {}, ["payload.Message", "payload.InterruptMode"]),
        (Kind.SAY, {"Message": "hi"}, ["payload.InterruptMode"]),
        (Kind.SAY, {"Message": "", "InterruptMode": 1}, ["payload.Message"]),
        (Kind.SAY, {"Message": "x" * 201, "InterruptMode": 1}, ["payload.Message"]),
        (Kind.SAY, {"Message": {"a": 1}, "InterruptMode": 1}, ["payload.Message"]),
        (Kind.SAY, {"Message": "hi", "InterruptMode": 0}, ["payload.InterruptMode"]),
        (Kind.SAY, {"Message": "hi", "InterruptMode": 4}, ["payload.InterruptMode"]),
        (Kind.SAY, {"Message": "hi", "InterruptMode": "1"}, ["payload.InterruptMode"]),
        (Kind.SAY, {"Message": "hi", "InterruptMode": True}, ["payload.InterruptMode"]),
        (Kind.PROMPT, {"Message": "hi"}, ["payload.InterruptMode"]),
        (Kind.PROMPT, SMALLEST[Kind.PROMPT] | {"Command": "interrupt"}, ["payload.Command"]),
        (Kind.PROMPT, {"Command": "ExternalPromptsForLLM"}, ["payload.Message"]),
        (
            Kind.PROMPT,
            SMALLEST[Kind.PROMPT] | {"ImageConfig": {"Action": "show"}},
            ["payload.ImageConfig.Action"],
        ),
        (Kind.FUNCTION_RESULT, {}, ["payload.Message"]),
        (Kind.FUNCTION_RESULT, {"Message": "sunny"}, ["payload.Message"]),
        (Kind.FUNCTION_RESULT, {"Message": "[]"}, ["payload.Message"]),
        (
            Kind.FUNCTION_RESULT,
            {"Message": '{"ToolCallID": "c"}'},
            ["payload.Message.Content"],
        ),
        (
            Kind.FUNCTION_RESULT,
            {"Message": {"ToolCallID": "", "Content": "sunny"}},
            ["payload.Message.ToolCallID"],
        ),
        (Kind.UPDATE, {}, ["payload.Parameters"]),
        (Kind.UPDATE, {"Config": {}}, ["payload.Parameters"]),
        (Kind.UPDATE, {"Parameters": {}}, ["payload.Parameters.Config"]),
        (
            Kind.UPDATE,
            {"Parameters": {"Config": {"LLMConfig": {"SystemMessages": "be brief"}}}},
            ["payload.Parameters.Config.LLMConfig.SystemMessages"],
        ),
        (
            Kind.UPDATE,
            {"Parameters": {"Config": {"InterruptMode": 3}}},
            ["payload.Parameters.Config.InterruptMode"],
        ),
    ],
)
def test_what_the_vendor_would_refuse_is_told_where(
    kind: Kind, payload: dict[str, Any], expected: list[str]
) -> None:
    assert paths(kind, payload) == expected


def test_a_text_that_is_too_long_is_told_by_how_much_it_may_be() -> None:
    payload = {"Message": "x" * 201, "InterruptMode": 1}
    (problem,) = account().command_problems(command(Kind.SAY, payload))
    assert problem.expected == "at most 200 characters"


# --- what came of it ---


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InvalidParameter.ErrorActiveTaskNotFound", Gone),
        ("TaskNotExist", Gone),
        ("InvalidParameter", Refused),
        ("FlowLimitExceeded.QPSOverLimit", Throttled),
        ("InvalidTimestamp", Expired),
        ("LackPolicy", Denied),
        ("InternalError", Indefinite),
    ],
)
@pytest.mark.parametrize("kind", KINDS[THIRD])
def test_error(kind: Kind, code: str, expected: type[Outcome]) -> None:
    _, outcome = ask(kind, reply=failed(code))
    assert type(outcome) is expected
    assert (outcome.code, outcome.request_id) == (code, "r-1")


def test_a_success_that_says_something_else_is_none() -> None:
    reply = answer({"ResponseMetadata": {"RequestId": "r-1"}, "Result": "busy"})
    assert isinstance(ask(Kind.SAY, reply=reply)[1], Indefinite)


@pytest.mark.parametrize("reply", [NotSent(code="dns"), Indefinite(code="timeout")])
def test_the_transports_verdict_stands(reply: Reply) -> None:
    assert ask(Kind.SAY, reply=reply)[1] is reply


@given(body=st.binary(max_size=200), kind=st.sampled_from(KINDS[THIRD]))
def test_no_garbage_is_a_success(body: bytes, kind: Kind) -> None:
    reply = Response(status=200, headers={}, body=body)
    assert isinstance(ask(kind, reply=reply)[1], Indefinite)


# --- a spec that changes while the agent runs ---

LLM: dict[str, Any] = {
    "Mode": "ArkV3",
    "EndPointId": "ep-1",
    "SystemMessages": ["be kind"],
    "VisionConfig": {"Enable": True, "SnapshotConfig": {"StreamType": 0}},
}
TTS: dict[str, Any] = {"Provider": "volcano", "ProviderParams": {"audio": {"voice_type": "a"}}}


def spec(**config: Any) -> dict[str, Any]:
    given = {"LLMConfig": LLM, "TTSConfig": TTS, "InterruptMode": 0} | config
    return {"Config": given, "AgentConfig": {"WelcomeMessage": "hello"}}


IN_PLACE = [
    spec(InterruptMode=1),
    spec(LLMConfig=LLM | {"SystemMessages": ["be brief", "be true"]}),
    spec(
        LLMConfig=LLM | {"VisionConfig": {"Enable": False, "SnapshotConfig": {"StreamType": 1}}},
        TTSConfig=TTS | {"ProviderParams": {"audio": {"voice_type": "b"}}},
    ),
]
ANEW = [
    spec(InterruptMode=None),
    spec(LLMConfig=LLM | {"EndPointId": "ep-2"}),
    spec(LLMConfig=LLM | {"Temperature": 0.5}),
    spec(LLMConfig=LLM | {"Tools": []}),
    spec(LLMConfig=LLM | {"VisionConfig": {"Enable": True}}),
    spec(TTSConfig=TTS | {"Provider": "minimax"}),
    spec(TTSConfig=TTS | {"ProviderParams": {"audio": {"voice_type": "a", "speed": 2}}}),
    spec(SubtitleConfig={"SubtitleMode": 1}),
    spec() | {"AgentConfig": {"WelcomeMessage": "hi"}},
]


@pytest.mark.parametrize("changed", IN_PLACE)
def test_a_running_agent_takes_it_since_2025(changed: dict[str, Any]) -> None:
    vendor, config = account(THIRD), changed["Config"]
    assert vendor.problems(AGENT, changed) == ()
    assert vendor.body(AGENT, changed) != vendor.body(AGENT, spec())
    assert vendor.fixed_body(AGENT, changed) == vendor.fixed_body(AGENT, spec())
    request, outcome = converse(vendor.update(AGENT, changed, STAMP))
    assert outcome == Done(request_id="r-1")
    assert request.action == vendor.action(Verb.UPDATE)
    llm = {name: config["LLMConfig"][name] for name in ("SystemMessages", "VisionConfig")}
    parts = {"LLMConfig": llm, "TTSConfig": config["TTSConfig"]}
    assert json.loads(request.body) == TASK | {
        "Command": "UpdateParameters",
        "Parameters": {"Config": parts | {"InterruptMode": config["InterruptMode"]}},
    }


@pytest.mark.parametrize("changed", ANEW)
def test_a_running_agent_cannot_take_it(changed: dict[str, Any]) -> None:
    vendor = account(THIRD)
    assert vendor.problems(AGENT, changed) == ()
    assert vendor.fixed_body(AGENT, changed) != vendor.fixed_body(AGENT, spec())


@pytest.mark.parametrize("version", [FIRST, SECOND])
def test_before_2025_nothing_changes_in_place(version: str) -> None:
    vendor = account(version)
    assert vendor.fixed_body(AGENT, spec()) == vendor.body(AGENT, spec())
    assert outcome_without_asking(vendor, spec()) == Done()


@pytest.mark.parametrize(
    "config",
    [
        {"LLMConfig": {"Mode": "ArkV3", "EndPointId": "ep-1"}},
        {"S2SConfig": {}, "LLMConfig": None},
    ],
)
def test_a_spec_with_nothing_to_change_is_there_already(config: dict[str, Any]) -> None:
    plain = {"Config": config}
    assert account().fixed_body(AGENT, plain) == account().body(AGENT, plain)
    assert outcome_without_asking(account(), plain) == Done()


def outcome_without_asking(vendor: Provider, wanted: dict[str, Any]) -> Outcome:
    with pytest.raises(StopIteration) as end:
        next(vendor.update(AGENT, wanted, STAMP))
    outcome: Outcome = end.value.value
    return outcome
