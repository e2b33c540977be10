import base64
import json
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.caps import Recovery
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
from orchestrator.providers.base import (
    UNNAMED,
    Conversation,
    Provider,
    Reply,
    Request,
    Response,
    Stamp,
)
from orchestrator.providers.reading import UNREADABLE
from orchestrator.providers.signing import Unsigned, tc3_signature
from orchestrator.providers.tencent import Tencent
from orchestrator.providers.tokens import verify_user_sig

VECTORS = {
    vector["name"]: vector
    for vector in json.loads(
        (Path(__file__).parent / "vectors" / "tencent_signing.json").read_text("utf-8")
    )["vectors"]
}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = Stamp(signed_at=NOW, nonce=lambda: "0123456789abcdef")
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
    vendor_task_id="v2_20260102_task",
    announced_at=NOW,
)
LLM = {
    "LLMType": "openai",
    "Model": "gpt",
    "APIKey": "fake-key",
    "APIUrl": "https://llm.example/v1/chat/completions",
}
SPEC: dict[str, Any] = {
    "AgentConfig": {"WelcomeMessage": "你好"},
    "LLMConfig": LLM,
    "TTSConfig": {"TTSType": "flow", "VoiceId": "v-1"},
}


def tencent(**changes: Any) -> Tencent:
    given: dict[str, Any] = {
        "sdk_app_id": 1400000001,
        "secret_id": "AKIDFAKE",
        "secret_key": "fake-secret-key",
        "usersig_key": "fake-usersig-key",
        "region": "ap-singapore",
    }
    return Tencent(**given | changes)


def agent(**changes: Any) -> Agent:
    fields = {name: getattr(AGENT, name) for name in Agent.__dataclass_fields__}
    return Agent(**fields | changes)


def answered(response: Any, *, status: int = 200) -> Response:
    body = json.dumps({"Response": response}).encode()
    return Response(status=status, headers={"content-type": "text/html"}, body=body)


def failed(code: str, message: str = "no") -> Response:
    return answered({"Error": {"Code": code, "Message": message}, "RequestId": "r-1"})


def drive(conversation: Conversation, *replies: Reply) -> tuple[list[Request], Outcome]:
    requests = [next(conversation)]
    for reply in replies:
        try:
            requests.append(conversation.send(reply))
        except StopIteration as end:
            assert reply is replies[-1]
            return requests, end.value
    raise AssertionError("it asks for more")


def sent(request: Request) -> Any:
    return json.loads(request.body)


def outcome_of(verb: Verb, reply: Reply) -> Outcome:
    provider = tencent()
    conversation = {
        Verb.START: lambda: provider.start(AGENT, SPEC, STAMP),
        Verb.STOP: lambda: provider.stop(AGENT, STAMP),
        Verb.FIND: lambda: provider.find(AGENT, STAMP),
        Verb.POLL: lambda: provider.poll(AGENT, STAMP),
        Verb.KICK: lambda: provider.kick(AGENT, STAMP),
        Verb.UPDATE: lambda: provider.update(AGENT, SPEC, STAMP),
    }[verb]()
    return drive(conversation, reply)[1]


def paths(spec: Any, who: Agent = AGENT) -> list[str]:
    return [problem.path for problem in tencent().problems(who, spec)]


# --- requests ---


def test_stop_is_the_request_of_the_official_page() -> None:
    # StopAIConversation, "Example1 Stop AI conversation task".
    task = (
        "SV1FR+XTtvzAjRxZZ+aof1DfJF00VSBBNE0zR9W-PEpgCPBmt402BbnqMCdom79LtZO-VbLyV1nhVY1pFauWgrW1"
        "2BevPvJ5Zn010RnD6vj3hgfbVH0."
    )
    requests, outcome = drive(
        tencent().stop(agent(vendor_task_id=task), STAMP), answered({"RequestId": "abc"})
    )
    (request,) = requests
    assert request.method == "POST"
    assert request.url == "https://trtc.intl.tencentcloudapi.com/"
    assert request.action == request.headers["X-TC-Action"] == "StopAIConversation"
    assert request.headers["Host"] == "trtc.intl.tencentcloudapi.com"
    assert request.headers["Content-Type"] == "application/json"
    assert sent(request) == {"TaskId": task}
    assert outcome == Done(request_id="abc")


def account_of(vector: Any) -> Tencent:
    inputs = vector["inputs"]
    return tencent(
        secret_id=inputs["secret_id"],
        secret_key=inputs["secret_key"],
        session_token=inputs["token"],
        region=inputs["region"],
        endpoint=f"https://{inputs['host']}",
    )


def assert_headers_of(vector: Any, request: Request) -> None:
    """Compare with what the SDK sent; our bytes of the body differ, so the signature is redone."""
    inputs = vector["inputs"]
    ours = {"X-TC-TraceId", "X-TC-RequestClient", "X-TC-Language", "Authorization"}
    expected = {name: text for name, text in vector["headers"].items() if name not in ours}
    assert {n: t for n, t in request.headers.items() if n != "Authorization"} == expected
    signature = tc3_signature(
        Unsigned(
            method="POST", host=inputs["host"], headers=dict(request.headers), body=request.body
        ),
        secret_key=inputs["secret_key"],
        scope=vector["intermediate"]["credential_scope"],
        signed_headers=("content-type", "host"),
    )
    theirs = vector["headers"]["Authorization"].rpartition("Signature=")[0]
    assert request.headers["Authorization"] == f"{theirs}Signature={signature}"


def test_stop_sends_what_the_sdk_sends() -> None:
    vector = VECTORS["stop_cn_no_token"]
    inputs = vector["inputs"]
    stamp = Stamp(signed_at=datetime.fromtimestamp(inputs["timestamp"], UTC), nonce=str)
    who = agent(vendor_task_id=inputs["params"]["TaskId"])
    request = next(account_of(vector).stop(who, stamp))
    assert sent(request) == inputs["params"]
    assert_headers_of(vector, request)


def test_start_sends_what_the_sdk_sends() -> None:
    vector = VECTORS["start_intl_with_token_unicode"]
    inputs = vector["inputs"]
    params = inputs["params"]
    config = params["AgentConfig"]
    spec = {
        "AgentConfig": {k: v for k, v in config.items() if k not in {"UserSig", "TargetUserId"}},
        **{name: params[name] for name in ("STTConfig", "LLMConfig", "TTSConfig")},
    }
    who = agent(
        room_id=params["RoomId"], user_id=config["TargetUserId"], session_name=params["SessionId"]
    )
    stamp = Stamp(signed_at=datetime.fromtimestamp(inputs["timestamp"], UTC), nonce=str)
    provider = account_of(vector)
    assert provider.problems(who, spec) == ()
    request = next(provider.start(who, spec, stamp))
    fields = sent(request)
    user_sig = verify_user_sig(fields["AgentConfig"].pop("UserSig"), key="fake-usersig-key")
    assert user_sig is not None
    assert (user_sig.sdk_app_id, user_sig.user_id) == (1400000001, config["UserId"])
    assert user_sig.is_valid_at(stamp.signed_at + timedelta(hours=23))
    del config["UserSig"]
    assert fields == params
    assert_headers_of(vector, request)


def test_start_fills_in_what_the_daemon_knows() -> None:
    fields = sent(next(tencent().start(AGENT, SPEC, STAMP)))
    user_sig = fields["AgentConfig"].pop("UserSig")
    packed = base64.b64decode(user_sig.replace("*", "+").replace("-", "/").replace("_", "="))
    assert json.loads(zlib.decompress(packed))["TLS.identifier"] == "orc-agent"
    texts = {name: json.loads(fields.pop(name)) for name in ("LLMConfig", "TTSConfig")}
    assert texts == {"LLMConfig": LLM, "TTSConfig": SPEC["TTSConfig"]}
    assert fields == {
        "SdkAppId": 1400000001,
        "RoomId": "room-42",
        "RoomIdType": 1,
        "SessionId": "orc-session",
        "AgentConfig": {
            "UserId": "orc-agent",
            "TargetUserId": "user_1",
            "MaxIdleTime": 60,
            "WelcomeMessage": "你好",
        },
    }


def test_the_specs_own_word_counts_where_it_has_one() -> None:
    spec = SPEC | {
        "RoomIdType": 0,
        "AgentConfig": {"UserId": "bot", "MaxIdleTime": 300},
        "AvatarConfig": {"AvatarType": "x"},
    }
    provider = tencent()
    fields = sent(next(provider.start(agent(room_id="42"), spec, STAMP)))
    assert provider.problems(agent(room_id="42"), spec) == ()
    assert provider.agent_user_id(spec) == fields["AgentConfig"]["UserId"] == "bot"
    assert fields["AgentConfig"]["MaxIdleTime"] == 300
    assert (fields["RoomId"], fields["RoomIdType"]) == ("42", 0)
    assert json.loads(fields["AvatarConfig"]) == {"AvatarType": "x"}


@pytest.mark.parametrize("config", [{"AgentConfig": None}, {"AgentConfig": {"UserId": None}}, {}])
def test_null_says_nothing(config: Any) -> None:
    spec = {"LLMConfig": LLM, "TTSConfig": {"TTSType": "flow"}, "STTConfig": None} | config
    assert paths(spec) == []
    fields = json.loads(tencent().body(AGENT, spec))
    assert fields["AgentConfig"] == {
        "UserId": "orc-agent",
        "TargetUserId": "user_1",
        "MaxIdleTime": 60,
    }
    assert "STTConfig" not in fields
    assert tencent().agent_user_id(spec) is None


def test_find_asks_by_session_and_poll_by_task() -> None:
    provider = tencent()
    assert sent(next(provider.find(AGENT, STAMP))) == {
        "SdkAppId": 1400000001,
        "SessionId": "orc-session",
    }
    assert sent(next(provider.poll(AGENT, STAMP))) == {"TaskId": "v2_20260102_task"}


@pytest.mark.parametrize(
    ("verb", "known", "fields"),
    [
        (Verb.STOP, {"session_name": ""}, {"TaskId": "v2_20260102_task"}),
        (Verb.POLL, {"session_name": ""}, {"TaskId": "v2_20260102_task"}),
        (Verb.FIND, {"session_name": ""}, {"TaskId": "v2_20260102_task"}),
        (Verb.STOP, {"vendor_task_id": None}, None),
        (Verb.POLL, {"vendor_task_id": None}, None),
        (Verb.FIND, {"session_name": "", "vendor_task_id": None}, None),
        (Verb.KICK, {"name": ""}, None),
        (Verb.KICK, {"room_id": ""}, None),
    ],
)
def test_an_orphan_is_asked_about_by_what_is_known(
    verb: Verb, known: dict[str, Any], fields: dict[str, Any] | None
) -> None:
    ask = {
        Verb.STOP: tencent().stop,
        Verb.POLL: tencent().poll,
        Verb.FIND: tencent().find,
        Verb.KICK: tencent().kick,
    }[verb]
    conversation = ask(agent(**known), STAMP)
    if fields is not None:
        assert sent(next(conversation)) == fields
        return
    with pytest.raises(StopIteration) as end:
        next(conversation)
    assert end.value.value == UNNAMED


@pytest.mark.parametrize(
    ("known", "missing"),
    [
        ({}, ()),
        ({"session_name": "", "name": "", "room_id": ""}, ()),
        ({"vendor_task_id": None}, ("vendor_task_id",)),
        ({"vendor_task_id": ""}, ("vendor_task_id",)),
    ],
)
def test_only_a_task_id_stops(known: dict[str, Any], missing: tuple[str, ...]) -> None:
    assert tencent().missing(agent(**known)) == missing


@pytest.mark.parametrize("verb", Verb)
def test_the_action_of_a_verb_is_the_first_request(verb: Verb) -> None:
    provider: Provider = tencent()
    conversation = {
        Verb.START: lambda: provider.start(AGENT, SPEC, STAMP),
        Verb.STOP: lambda: provider.stop(AGENT, STAMP),
        Verb.FIND: lambda: provider.find(AGENT, STAMP),
        Verb.POLL: lambda: provider.poll(AGENT, STAMP),
        Verb.KICK: lambda: provider.kick(AGENT, STAMP),
        Verb.UPDATE: lambda: provider.update(AGENT, SPEC, STAMP),
    }[verb]()
    request = next(conversation)
    assert provider.action(verb) == request.action == request.headers["X-TC-Action"]
    assert provider.limits[request.action] == 20


def test_caps_are_those_of_the_design() -> None:
    caps = tencent().caps
    assert caps.recovery is Recovery.FIND
    assert not caps.names_handle
    assert caps.poll_proves_absence
    assert caps.signature_window == timedelta(minutes=5)


# --- kick: string room, numeric room, or both ---

OK = answered({"RequestId": "r"})
NO_ROOM = failed("FailedOperation.RoomNotExist")
DOWN = failed("InternalError")


@pytest.mark.parametrize(
    ("room", "replies", "rooms", "kind"),
    [
        ("room-42", [OK], ["room-42"], Done),
        ("room-42", [NO_ROOM], ["room-42"], Gone),
        ("007", [OK], ["007"], Done),  # no number is written like that
        ("4294967296", [OK], ["4294967296"], Done),  # nor is any as large
        ("42", [DOWN], ["42"], Indefinite),
        ("42", [OK, OK], ["42", 42], Done),
        ("42", [OK, NO_ROOM], ["42", 42], Done),
        ("42", [NO_ROOM, OK], ["42", 42], Done),
        ("42", [NO_ROOM, NO_ROOM], ["42", 42], Gone),
        ("42", [OK, DOWN], ["42", 42], Indefinite),
    ],
)
def test_kick(room: str, replies: Sequence[Reply], rooms: list[Any], kind: type[Outcome]) -> None:
    requests, outcome = drive(tencent().kick(agent(room_id=room), STAMP), *replies)
    assert [sent(request)["RoomId"] for request in requests] == rooms
    assert {request.action for request in requests} <= {"RemoveUserByStrRoomId", "RemoveUser"}
    assert all(
        sent(request) | {"RoomId": 0}
        == {"SdkAppId": 1400000001, "RoomId": 0, "UserIds": ["orc-agent"]}
        for request in requests
    )
    assert type(outcome) is kind


# --- answers ---


@pytest.mark.parametrize(
    ("verb", "response", "expected"),
    [
        (Verb.START, {"TaskId": "t-1", "RequestId": "r"}, Done(handle="t-1", request_id="r")),
        (Verb.START, {"TaskId": "t-1"}, Done(handle="t-1")),
        (Verb.FIND, {"Status": "InProgress", "TaskId": "t-1"}, Done(handle="t-1")),
        (Verb.FIND, {"Status": "Preparing", "TaskId": ""}, Done(handle=None)),
        (Verb.FIND, {"Status": "Idle"}, Done(handle=None)),
        (
            Verb.FIND,
            {"Status": "Idle", "TaskId": "t-1", "SessionId": "s-1"},
            Done(handle="t-1", name="s-1"),
        ),
        (Verb.POLL, {"Status": "Idle", "SessionId": "s-1"}, Done(name="s-1")),
        (Verb.POLL, {"Status": "Idle", "SessionId": ""}, Done(name=None)),
        (Verb.POLL, {"Status": "Idle", "SessionId": 5}, Done(name=None)),
        (Verb.FIND, {"Status": "Stopped", "TaskId": "t-1"}, Gone(code="Stopped")),
        (Verb.POLL, {"Status": "InProgress", "RequestId": "r"}, Done(request_id="r")),
        (Verb.POLL, {"Status": "Stopped"}, Gone(code="Stopped")),
    ],
)
def test_success(verb: Verb, response: Any, expected: Outcome) -> None:
    assert outcome_of(verb, answered(response)) == expected


@pytest.mark.parametrize(
    ("verb", "response", "code"),
    [
        (Verb.START, {"RequestId": "r"}, "EmptyTaskId"),
        (Verb.START, {"TaskId": "", "RequestId": "r"}, "EmptyTaskId"),
        (Verb.START, {"TaskId": 7, "RequestId": "r"}, "EmptyTaskId"),
        (Verb.STOP, {}, UNREADABLE),
        (Verb.STOP, None, UNREADABLE),
        (Verb.STOP, [], UNREADABLE),
        (Verb.STOP, {"Error": "no", "RequestId": "r"}, UNREADABLE),
        (Verb.STOP, {"Error": {"Message": "no"}, "RequestId": "r"}, UNREADABLE),
        (Verb.STOP, {"Error": {"Code": 5}, "RequestId": "r"}, UNREADABLE),
        (Verb.FIND, {"RequestId": "r"}, "UnknownStatus"),
        (Verb.POLL, {"Status": "stopped"}, "UnknownStatus"),
        (Verb.POLL, {"Status": ["Stopped"]}, "UnknownStatus"),
    ],
)
def test_what_is_not_documented_is_indefinite(verb: Verb, response: Any, code: str) -> None:
    outcome = outcome_of(verb, answered(response))
    assert isinstance(outcome, Indefinite)
    assert outcome.code == code
    assert outcome.message


ERRORS: list[tuple[str, type[Outcome]]] = [
    ("FailedOperation.TaskNotExist", Gone),
    ("FailedOperation.TaskFinished", Gone),
    ("FailedOperation.TaskExist", Indefinite),
    ("FailedOperation.NotAbility", Denied),
    ("FailedOperation.NotAllowed", Denied),
    ("FailedOperation.SdkAppIdNotExist", Denied),
    ("FailedOperation.RestrictedFrequency", Throttled),
    ("FailedOperation.RequestOutdated", Expired),
    ("FailedOperation", Indefinite),
    ("FailedOperation.New", Indefinite),
    ("OperationDenied.FreqOverLimit", Throttled),
    ("RequestLimitExceeded", Throttled),
    ("RequestLimitExceeded.UinLimitExceeded", Throttled),
    ("RequestLimitExceeded.IPLimitExceeded", Throttled),
    ("AuthFailure.SignatureExpire", Expired),
    ("AuthFailure.SignatureFailure", Denied),
    ("AuthFailure.SecretIdNotFound", Denied),
    ("AuthFailure.TokenFailure", Denied),
    ("UnauthorizedOperation.SdkAppId", Denied),
    ("IpNotInWhitelist", Denied),
    ("IpInBlacklist", Denied),
    ("InvalidParameter", Refused),
    ("InvalidParameter.TaskId", Refused),
    ("InvalidParameter.UserSig", Denied),
    ("InvalidParameter.SdkAppId", Denied),
    ("InvalidParameterValue.RoomId", Refused),
    ("MissingParameter.UserIds", Refused),
    ("UnknownParameter", Refused),
    ("UnsupportedRegion", Refused),
    ("NoSuchVersion", Refused),
    ("InternalError", Indefinite),
    ("InternalError.DBError", Indefinite),
    ("ServiceUnavailable", Indefinite),
    ("ResourceUnavailable", Indefinite),
    ("ResourceInsufficient", Indefinite),
    ("LimitExceeded", Indefinite),
    ("Brand.New", Indefinite),
]


@pytest.mark.parametrize(("code", "kind"), ERRORS)
@pytest.mark.parametrize("verb", Verb)
def test_error(verb: Verb, code: str, kind: type[Outcome]) -> None:
    outcome = outcome_of(verb, failed(code, "it\nfailed"))
    # A start has no target that could be absent.
    assert type(outcome) is (Indefinite if (verb, kind) == (Verb.START, Gone) else kind)
    assert (outcome.code, outcome.message, outcome.request_id) == (code, "it failed", "r-1")
    assert not (isinstance(outcome, Throttled) and outcome.capacity)


@pytest.mark.parametrize(
    "code",
    [
        "ResourceInsufficient.RequestRejection",
        "UnsupportedOperation.TaskLimit",
        "LimitExceeded.ConcurrencyLimit",
        "FailedOperation.RestrictedConcurrency",
    ],
)
def test_too_many_agents(code: str) -> None:
    assert outcome_of(Verb.START, failed(code)) == Throttled(
        code=code, message="no", request_id="r-1", capacity=True
    )


@pytest.mark.parametrize("reply", [NotSent(code="dns"), Indefinite(code="timeout")])
@pytest.mark.parametrize("verb", Verb)
def test_the_transports_verdict_stands(verb: Verb, reply: Reply) -> None:
    assert outcome_of(verb, reply) is reply


@pytest.mark.parametrize("verb", Verb)
@pytest.mark.parametrize("status", [204, 302, 401, 429, 502])
def test_only_http_200_is_believed(verb: Verb, status: int) -> None:
    reply = answered({"TaskId": "t", "RequestId": "r", "Status": "Stopped"}, status=status)
    outcome = outcome_of(verb, reply)
    assert isinstance(outcome, Indefinite)
    assert outcome.code == f"HTTP{status}"


@given(body=st.binary(max_size=200), verb=st.sampled_from(Verb))
def test_no_garbage_is_a_success(body: bytes, verb: Verb) -> None:
    outcome = outcome_of(verb, Response(status=200, headers={}, body=body))
    assert isinstance(outcome, Indefinite)
    assert outcome.code == UNREADABLE


# --- one start, one body ---


def test_equal_starts_have_equal_bodies() -> None:
    provider = tencent()
    turned = dict(reversed(SPEC.items()))
    assert provider.body(AGENT, SPEC) == provider.body(AGENT, turned)
    assert b"UserSig" not in provider.body(AGENT, SPEC)
    sends = [
        sent(next(provider.start(AGENT, SPEC, Stamp(signed_at=NOW + late, nonce=str))))
        for late in (timedelta(0), timedelta(hours=1))
    ]
    sigs = {fields["AgentConfig"].pop("UserSig") for fields in sends}
    assert len(sigs) == 2
    assert sends[0] == sends[1] == json.loads(provider.body(AGENT, SPEC))


@pytest.mark.parametrize(
    ("who", "spec"),
    [
        (AGENT, SPEC | {"LLMConfig": LLM | {"APIKey": "another-fake"}}),
        (agent(session_name="other"), SPEC),
        (agent(name="other"), SPEC),
        (AGENT, SPEC | {"Unknown": 1}),
    ],
)
def test_other_starts_have_other_bodies(who: Agent, spec: Any) -> None:
    assert tencent().body(who, spec) != tencent().body(AGENT, SPEC)


# --- the account ---


def test_the_site_leads_back_to_where_it_was() -> None:
    old = tencent(region="ap-tokyo", endpoint="https://trtc.tencentcloudapi.com", sdk_app_id=7)
    today = tencent(secret_key="rotated-fake")
    there = today.at(old.site)
    assert there.site == old.site
    assert there.secret_key == "rotated-fake"
    assert today.at(today.site).site == today.site
    assert json.loads(old.site) == {
        "provider": "tencent",
        "endpoint": "https://trtc.tencentcloudapi.com",
        "region": "ap-tokyo",
        "app_id": 7,
        "api_version": "2019-07-22",
    }


def test_no_secret_is_shown() -> None:
    provider = tencent(session_token="fake-token")
    for secret in ("fake-secret-key", "fake-usersig-key", "fake-token"):
        assert secret not in repr(provider)
        assert secret not in provider.site


def test_the_host_is_signed_with_its_port() -> None:
    request = next(tencent(endpoint="http://127.0.0.1:8443").stop(AGENT, STAMP))
    assert request.url == "http://127.0.0.1:8443/"
    assert request.headers["Host"] == "127.0.0.1:8443"


def test_problems_are_those_of_the_spec() -> None:
    assert paths(SPEC) == []
    assert paths({}) == ["spec.LLMConfig", "spec.TTSConfig"]
