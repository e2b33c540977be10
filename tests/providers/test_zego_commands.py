import itertools
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
from orchestrator.providers.spec import ResolvedSecret
from orchestrator.providers.zego import Zego

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
INSTANCE = "1912124734317838336"
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
    stream_id="orc-agent_s1",
    vendor_task_id=INSTANCE,
    announced_at=NOW,
)
ZEGO: Provider = Zego(app_id=1234567890, server_secret="fakefakefakefakefakefakefakefake")
ACTIONS: dict[Kind, str | None] = {
    Kind.START_LISTENING: "StartListening",
    Kind.STOP_LISTENING: "StopListening",
    Kind.INTERRUPT: "InterruptAgentInstance",
    Kind.SAY: "SendAgentInstanceTTS",
    Kind.PROMPT: "SendAgentInstanceLLM",
    Kind.FUNCTION_RESULT: None,
    Kind.UPDATE: "UpdateAgentInstance",
}
KINDS = [kind for kind, action in ACTIONS.items() if action]
LLM = {"Url": "https://llm.example/v1", "ApiKey": "fake-key", "Model": "gpt"}
TTS = {"Vendor": "MiniMax", "Params": {"app": {"token": "fake"}, "voice": "a"}}


def command(kind: Kind, payload: Mapping[str, Any] | None = None, **changes: Any) -> Command:
    fields: dict[str, Any] = {
        "id": "c1",
        "position": 1,
        "task_id": "t1",
        "kind": kind,
        "user_id": "user_2",
        "sequence": 7 if kind.listens else None,
        "payload": payload or {},
        "created_at": NOW,
        "expires_at": NOW + timedelta(seconds=5),
    }
    return Command(**fields | changes)


def stamp() -> Stamp:
    numbers = itertools.count(1)
    return Stamp(signed_at=NOW, nonce=lambda: f"{next(numbers):016x}")


def answered(code: object, data: object = None) -> Response:
    envelope = {"Code": code, "Message": "said\tso", "RequestId": "77", "Data": data}
    return Response(status=200, headers={}, body=json.dumps(envelope).encode())


def converse(conversation: Conversation, reply: Reply) -> tuple[Request, Outcome]:
    request = next(conversation)
    with pytest.raises(StopIteration) as end:
        conversation.send(reply)
    outcome: Outcome = end.value.value
    return request, outcome


def outcome_of(kind: Kind, reply: Reply) -> Outcome:
    return converse(ZEGO.command(AGENT, command(kind), stamp()), reply)[1]


def sent(conversation: Conversation) -> Any:
    return json.loads(next(conversation).body)


def paths(kind: Kind, payload: Any, **changes: Any) -> list[str]:
    return [one.path for one in ZEGO.command_problems(command(kind, payload, **changes))]


# --- which call, and what it holds ---


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_has_its_call(kind: Kind) -> None:
    action = ZEGO.command_action(command(kind))
    assert action == ACTIONS[kind]
    assert action is None or ZEGO.limits[action] == 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_request_is_the_call(kind: Kind) -> None:
    request = next(ZEGO.command(AGENT, command(kind), stamp()))
    assert request.method == "POST"
    assert request.url.startswith("https://aigc-aiagent-api.zegotech.cn/?")
    assert parse_qs(urlsplit(request.url).query)["Action"] == [request.action] == [ACTIONS[kind]]
    assert json.loads(request.body)["AgentInstanceId"] == INSTANCE


@pytest.mark.parametrize("kind", [Kind.START_LISTENING, Kind.STOP_LISTENING])
def test_a_press_names_its_user_and_number(kind: Kind) -> None:
    assert sent(ZEGO.command(AGENT, command(kind), stamp())) == {
        "AgentInstanceId": INSTANCE,
        "UserId": "user_2",
        "Sequence": 7,
    }


def test_the_number_on_the_wire_is_the_rows() -> None:
    payload = {"Sequence": 7, "UserId": None, "CancelFlag": True}
    press = command(Kind.STOP_LISTENING, payload)
    assert ZEGO.command_problems(press) == ()
    jumped = command(Kind.STOP_LISTENING, payload, sequence=1_767_323_045_000)
    body = sent(ZEGO.command(AGENT, jumped, stamp()))
    assert (body["Sequence"], body["CancelFlag"]) == (1_767_323_045_000, True)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Kind.START_LISTENING, {"UserId": "user_2", "Sequence": 7}),
        (Kind.STOP_LISTENING, {"CancelFlag": False}),
        (Kind.INTERRUPT, {"Brand": "new"}),
        (Kind.SAY, {"Text": "é" * 300, "AddHistory": False, "InterruptMode": 1}),
        (Kind.SAY, {"Text": "😀" * 300}),
        (Kind.SAY, {"Text": ResolvedSecret("x"), "Priority": None, "SamePriorityOption": None}),
        (Kind.SAY, {"Text": "hi", "Priority": "High", "SamePriorityOption": "Enqueue"}),
        (Kind.PROMPT, {"Text": "x" * 5000, "SystemPrompt": "be brief"}),
        (Kind.PROMPT, {"Text": "x", "AddQuestionToHistory": True, "AddAnswerToHistory": False}),
        (Kind.UPDATE, {}),
        (Kind.UPDATE, {"LLM": LLM, "TTS": TTS, "ASR": {"Params": {}}}),
        (Kind.UPDATE, {"RTC": {"UserStreamId": "s"}, "AdvancedConfig": {"CommunicationMode": 1}}),
    ],
)
def test_what_the_vendor_takes_is_sent_as_it_is(kind: Kind, payload: dict[str, Any]) -> None:
    assert paths(kind, payload) == []
    body = sent(ZEGO.command(AGENT, command(kind, payload), stamp()))
    said = {name: value for name, value in payload.items() if value is not None}
    filled: dict[str, Any] = {"AgentInstanceId": INSTANCE}
    if kind.listens:
        filled |= {"UserId": "user_2", "Sequence": 7}
    assert body == said | filled


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (Kind.START_LISTENING, {"UserId": "user_1"}, ["payload.UserId"]),
        (Kind.START_LISTENING, {"Sequence": 8}, ["payload.Sequence"]),
        (Kind.START_LISTENING, {"Sequence": "7"}, ["payload.Sequence"]),
        (Kind.STOP_LISTENING, {"CancelFlag": 1}, ["payload.CancelFlag"]),
        (Kind.INTERRUPT, {"AgentInstanceId": INSTANCE}, ["payload.AgentInstanceId"]),
        (Kind.SAY, {}, ["payload.Text"]),
        (Kind.SAY, {"Text": ""}, ["payload.Text"]),
        (Kind.SAY, {"Text": 5}, ["payload.Text"]),
        (Kind.SAY, {"Text": "x" * 301}, ["payload.Text"]),
        (Kind.SAY, {"Text": "hi", "Priority": ""}, ["payload.Priority"]),
        (Kind.SAY, {"Text": "hi", "Priority": "Urgent"}, ["payload.Priority"]),
        (Kind.SAY, {"Text": "hi", "SamePriorityOption": "Drop"}, ["payload.SamePriorityOption"]),
        (Kind.SAY, {"Text": "hi", "AddHistory": "yes"}, ["payload.AddHistory"]),
        (Kind.SAY, {"Text": "hi", "InterruptMode": 2}, ["payload.InterruptMode"]),
        (Kind.PROMPT, {"Text": None}, ["payload.Text"]),
        (Kind.PROMPT, {"Text": "hi", "SystemPrompt": []}, ["payload.SystemPrompt"]),
        (Kind.UPDATE, {"LLM": {"Url": "u"}}, ["payload.LLM.ApiKey", "payload.LLM.Model"]),
        (Kind.UPDATE, {"TTS": {"Params": {}}}, ["payload.TTS.Vendor"]),
        (Kind.UPDATE, {"RTC": {"UserStreamId": "no stream"}}, ["payload.RTC.UserStreamId"]),
        (
            Kind.UPDATE,
            {"AdvancedConfig": {"CommunicationMode": 2}},
            ["payload.AdvancedConfig.CommunicationMode"],
        ),
        (Kind.UPDATE, {"ASR": "fast"}, ["payload.ASR"]),
        (Kind.PROMPT, {"Text": "half \ud800"}, ["payload.Text"]),
    ],
)
def test_what_the_vendor_would_refuse_is_told_where(
    kind: Kind, payload: dict[str, Any], expected: list[str]
) -> None:
    assert paths(kind, payload) == expected


def test_a_text_that_is_too_long_is_told_by_how_much_it_may_be() -> None:
    (problem,) = ZEGO.command_problems(command(Kind.SAY, {"Text": "x" * 301}))
    assert problem.expected == "at most 300 characters"


@pytest.mark.parametrize("user_id", ["a b", "u" * 33, "é", ""])
def test_a_user_id_that_the_vendor_does_not_take(user_id: str) -> None:
    assert paths(Kind.START_LISTENING, {}, user_id=user_id) == ["user_id"]
    assert paths(Kind.INTERRUPT, {}, user_id=user_id) == []


def test_a_number_that_is_yet_to_be_drawn_cannot_be_given() -> None:
    assert paths(Kind.START_LISTENING, {"Sequence": 7}, sequence=None) == ["payload.Sequence"]


# --- what came of it ---


@pytest.mark.parametrize(
    ("data", "result"),
    [
        ({"Round": 323045001}, {"Round": 323045001}),
        ({"Round": 5, "Text": "what was said"}, {"Round": 5}),
        ({"Round": "5"}, None),
        ({"Round": True}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_success_tells_its_round(kind: Kind, data: object, result: dict[str, Any] | None) -> None:
    assert outcome_of(kind, answered(0, data)) == Done(result=result, request_id="77")


ERRORS: list[tuple[type[Outcome], list[int]]] = [
    (Gone, [410001002, 410001041]),
    (Refused, [410001043, 410001046, 410001016]),
    (Refused, [410001042, 410001049, 410000003, 410000004]),
    (Refused, [410001006, 410001007, 410001004, 410001011]),
    (NotSent, [410001013]),
    (Throttled, [410000018, 410000010]),
    (Expired, [100000004]),
    (Denied, [100000005, 410000006]),
    (Indefinite, [410001044, 410001045, 410001024, 410000001, 410000009, 5]),
]


@pytest.mark.parametrize(
    ("kind", "code"), [(kind, code) for kind, codes in ERRORS for code in codes]
)
@pytest.mark.parametrize("asked", KINDS)
def test_error(asked: Kind, kind: type[Outcome], code: int) -> None:
    outcome = outcome_of(asked, answered(code, {"Round": 5}))
    assert type(outcome) is kind
    assert (outcome.code, outcome.message, outcome.request_id) == (str(code), "said so", "77")


def test_the_core_knows_which_codes_are_about_the_number_and_which_about_the_user() -> None:
    assert ZEGO.caps.stale_codes == {"410001043"}
    assert ZEGO.caps.not_ready_codes == {"410001046", "410001016"}


@pytest.mark.parametrize("reply", [NotSent(code="dns"), Indefinite(code="timeout")])
def test_the_transports_verdict_stands(reply: Reply) -> None:
    assert outcome_of(Kind.SAY, reply) is reply


@given(body=st.binary(max_size=200), kind=st.sampled_from(KINDS))
def test_no_garbage_is_a_success(body: bytes, kind: Kind) -> None:
    reply = Response(status=200, headers={}, body=body)
    assert isinstance(outcome_of(kind, reply), Indefinite)


# --- a spec that changes while the agent runs ---

SPEC: dict[str, Any] = {
    "AgentId": "template-1",
    "RTC": {"UserStreamId": "mic"},
    "LLM": LLM | {"SystemPrompt": "be kind"},
    "TTS": TTS | {"TerminatorText": "#"},
    "ASR": {"Params": {"HotWord": "a|5"}},
    "AdvancedConfig": {"CommunicationMode": 0, "MaxIdleTime": 60},
}


def changed(*path: str, to: Any) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(json.dumps(SPEC))
    place = spec
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return spec


IN_PLACE = [
    changed("LLM", "SystemPrompt", to="be brief"),
    changed("LLM", "Model", to="another"),
    changed("TTS", "Params", "voice", to="b"),
    changed("TTS", "Params", "app", "token", to="rotated"),
    changed("ASR", "Params", "HotWord", to="b|5"),
    changed("RTC", "UserStreamId", to="mic2"),
    changed("AdvancedConfig", "CommunicationMode", to=1),
]
ANEW = [
    changed("AgentId", to="template-2"),
    changed("Agent", to={"AgentId": "template-1"}),
    changed("LLM", to=None),
    changed("LLM", "Temperature", to=1),
    changed("LLM", "SystemPrompt", to=None),
    changed("TTS", "Vendor", to="Aliyun"),
    changed("TTS", "TerminatorText", to="$"),
    changed("TTS", "FilterText", to=[]),
    changed("ASR", to=None),
    changed("VAD", to={"TurnDetectConfig": {"PauseInterval": 300}}),
    changed("RTC", "AgentUserId", to="bot"),
    changed("RTC", "StreamExtraInfo", to="x"),
    changed("AdvancedConfig", "CommunicationMode", to=2),
    changed("AdvancedConfig", "CommunicationMode", to=None),
    changed("AdvancedConfig", "MaxIdleTime", to=30),
    changed("CallbackConfig", to={"ASRResult": 1}),
]


@pytest.mark.parametrize("spec", IN_PLACE)
def test_a_running_instance_takes_it(spec: dict[str, Any]) -> None:
    assert ZEGO.problems(AGENT, spec) == ()
    assert ZEGO.body(AGENT, spec) != ZEGO.body(AGENT, SPEC)
    assert ZEGO.fixed_body(AGENT, spec) == ZEGO.fixed_body(AGENT, SPEC)
    assert sent(ZEGO.update(AGENT, spec, stamp())) == {
        "AgentInstanceId": INSTANCE,
        "LLM": spec["LLM"],
        "TTS": spec["TTS"],
        "ASR": spec["ASR"],
        "RTC": {"UserStreamId": spec["RTC"]["UserStreamId"]},
        "AdvancedConfig": {"CommunicationMode": spec["AdvancedConfig"]["CommunicationMode"]},
    }


@pytest.mark.parametrize("spec", ANEW)
def test_a_running_instance_cannot_take_it(spec: dict[str, Any]) -> None:
    assert ZEGO.problems(AGENT, spec) == ()
    assert ZEGO.fixed_body(AGENT, spec) != ZEGO.fixed_body(AGENT, SPEC)


def test_walkie_talkie_is_neither_entered_nor_left() -> None:
    spec = changed("AdvancedConfig", "CommunicationMode", to=2)
    other = spec | {"LLM": spec["LLM"] | {"Model": "another"}}
    assert ZEGO.fixed_body(AGENT, spec) == ZEGO.fixed_body(AGENT, other)
    assert "AdvancedConfig" not in sent(ZEGO.update(AGENT, spec, stamp()))


def test_a_spec_that_says_little_is_brought_about_all_the_same() -> None:
    spec = {"AgentId": "template-1"}
    body = sent(ZEGO.update(AGENT, spec, stamp()))
    assert body == {"AgentInstanceId": INSTANCE, "RTC": {"UserStreamId": "user_1"}}
    assert ZEGO.fixed_body(AGENT, spec) != ZEGO.fixed_body(AGENT, SPEC)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0, Done),
        (410001002, Gone),
        (410001004, Refused),
        (410001011, Refused),
        (410001047, Refused),
        # It ends soon, and has not: nothing may take it for gone.
        (410001041, Indefinite),
        (410000001, Indefinite),
    ],
)
def test_what_an_update_comes_to(code: int, kind: type[Outcome]) -> None:
    request, outcome = converse(ZEGO.update(AGENT, SPEC, stamp()), answered(code))
    assert request.action == ZEGO.action(Verb.UPDATE) == "UpdateAgentInstance"
    assert type(outcome) is kind
