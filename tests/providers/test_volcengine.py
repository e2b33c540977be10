import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.core.caps import Recovery
from orchestrator.core.model import Agent, Verb
from orchestrator.core.outcome import Done, Gone, NotSent, Outcome, Refused
from orchestrator.providers.base import (
    UNNAMED,
    Conversation,
    Provider,
    Reply,
    Request,
    Response,
    Stamp,
)
from orchestrator.providers.volcengine import (
    API_VERSIONS,
    IDLE_TIMEOUT,
    LIMITS,
    ONLINE_USERS,
    START,
    STOP,
    Volcengine,
)
from orchestrator.providers.volcengine_commands import UPDATE

VECTORS = Path(__file__).parent / "vectors"
EXAMPLES = json.loads((VECTORS / "volcengine_examples.json").read_text(encoding="utf-8"))
SIGNED = {
    vector["name"]: vector
    for vector in json.loads((VECTORS / "volcengine_signing.json").read_text(encoding="utf-8"))[
        "vectors"
    ]
}
APP_ID = "661e000000000000000000ab"
BY_TASK = [version for version in API_VERSIONS if version != "2024-06-01"]


def account(**changes: Any) -> Volcengine:
    fields: dict[str, Any] = {
        "app_id": APP_ID,
        "access_key_id": "AKLTFAKE",
        "secret_access_key": "fake-secret",
    }
    return Volcengine(**(fields | changes))


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


def stamp(at: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> Stamp:
    return Stamp(signed_at=at, nonce=lambda: "00" * 8)


def answer(body: Any, status: int = 200) -> Response:
    return Response(status=status, headers={}, body=json.dumps(body).encode())


OK = answer({"ResponseMetadata": {"RequestId": "r-1"}, "Result": "ok"})


def converse(conversation: Conversation, reply: Reply = OK) -> tuple[Request, Outcome]:
    request = next(conversation)
    with pytest.raises(StopIteration) as end:
        conversation.send(reply)
    outcome: Outcome = end.value.value
    return request, outcome


def spec(llm: str = "llm_custom", **agent_config: Any) -> dict[str, Any]:
    return {
        "Config": {
            "ASRConfig": EXAMPLES["asr"],
            "TTSConfig": EXAMPLES["tts"],
            "LLMConfig": EXAMPLES[llm],
            "InterruptMode": 0,
        },
        "AgentConfig": agent_config,
    }


def test_is_a_provider() -> None:
    provider: Provider = account()
    assert provider.limits == {START: 60, STOP: 60, UPDATE: 60, ONLINE_USERS: 40}


@pytest.mark.parametrize("llm", ["llm_custom", "llm_ark"])
@pytest.mark.parametrize("version", BY_TASK)
def test_start_sends_the_documented_example(llm: str, version: str) -> None:
    given = spec(llm, UserId="assistant", WelcomeMessage="Hello", AnsMode=3, IdleTimeout=30)
    vendor = account(api_version=version)
    assert vendor.problems(agent(), given) == ()
    request, outcome = converse(vendor.start(agent(), given, stamp()), answer(EXAMPLES["started"]))
    assert json.loads(request.body) == {
        "AppId": APP_ID,
        "RoomId": "room-1",
        "TaskId": "task-1",
        "AgentConfig": {
            "TargetUserId": ["user-1"],
            "UserId": "assistant",
            "WelcomeMessage": "Hello",
            "AnsMode": 3,
            "IdleTimeout": 30,
        },
        "Config": {
            "ASRConfig": EXAMPLES["asr"],
            "TTSConfig": EXAMPLES["tts"],
            "LLMConfig": EXAMPLES[llm],
            "InterruptMode": 0,
        },
    }
    assert (request.action, request.method) == (START, "POST")
    assert request.url == f"https://rtc.volcengineapi.com/?Action=StartVoiceChat&Version={version}"
    assert request.body == vendor.body(agent(), given)
    assert outcome == Done(handle="task-1", request_id="20250104123456789abcdef01234567")


def test_start_sends_the_signed_vectors_body() -> None:
    body = json.loads(SIGNED["start_post_json"]["input"]["body"])
    given = {"Config": body["Config"], "AgentConfig": body["AgentConfig"]}
    assert account().problems(agent(), given) == ()
    request, _ = converse(account().start(agent(), given, stamp()))
    assert json.loads(request.body) == body
    assert "你好".encode() in request.body


def test_start_fills_in_what_the_spec_leaves_out() -> None:
    body = json.loads(account().body(agent(), {"Config": {}, "AgentConfig": None}))
    assert body["AgentConfig"] == {
        "IdleTimeout": IDLE_TIMEOUT,
        "TargetUserId": ["user-1"],
        "UserId": "bot-1",
    }


def test_a_null_in_the_spec_counts_as_nothing() -> None:
    given = {"Config": {"LLMConfig": None}, "AgentConfig": {"UserId": None}, "TaskId": None}
    assert account().problems(agent(), given) == ()
    body = json.loads(account().body(agent(), given))
    assert (body["TaskId"], body["AgentConfig"]["UserId"]) == ("task-1", "bot-1")


def test_objects_become_strings_that_hold_json() -> None:
    llm = {"Mode": "CustomLLM", "Url": "http://llm.example", "Feature": {"Http": True}}
    given = {"Config": {"LLMConfig": {**llm, "Custom": {"b": 1, "a": "你"}}}}
    assert account().problems(agent(), given) == ()
    sent = json.loads(account().body(agent(), given))["Config"]["LLMConfig"]
    assert sent["Feature"] == '{"Http":true}'
    assert sent["Custom"] == '{"a":"你","b":1}'
    assert given["Config"]["LLMConfig"]["Custom"] == {"b": 1, "a": "你"}


def test_equal_specs_make_equal_bodies_whatever_the_order() -> None:
    given = spec()
    backwards = dict(reversed(given.items()))
    assert account().body(agent(), given) == account().body(agent(), backwards)
    assert account().body(agent(), given) != account().body(agent(), spec(IdleTimeout=9))


def test_first_generation_starts_by_user() -> None:
    vendor = account(api_version="2024-06-01")
    given = {"Config": {"LLMConfig": EXAMPLES["llm_ark"] | {"WelcomeSpeech": "Hello"}}}
    assert vendor.problems(agent(), given) == ()
    request, outcome = converse(vendor.start(agent(), given, stamp()))
    assert json.loads(request.body) == {
        "AppId": APP_ID,
        "RoomId": "room-1",
        "UserId": "user-1",
        "Config": {"BotName": "bot-1", **given["Config"]},
    }
    assert isinstance(outcome, Done)
    assert outcome.handle == "task-1"


def test_first_generation_stops_by_user_as_documented() -> None:
    vendor = account(app_id="661e****543cf", api_version="2024-06-01")
    row = agent(room_id="Room1", user_id="user1", vendor_task_id="task-1")
    request, outcome = converse(vendor.stop(row, stamp()), answer(EXAMPLES["stopped"]))
    assert json.loads(request.body) == EXAMPLES["stop_by_user"]
    assert request.url.endswith("?Action=StopVoiceChat&Version=2024-06-01")
    assert outcome == Done(request_id="Your_Re20230****10420questId")


@pytest.mark.parametrize(
    ("handle", "task"), [(None, "task-1"), ("task-1", "task-1"), ("from-a-bill", "from-a-bill")]
)
def test_stop_goes_by_the_handle_or_else_by_the_name(handle: str | None, task: str) -> None:
    request, _ = converse(account().stop(agent(vendor_task_id=handle), stamp()))
    assert json.loads(request.body) == {"AppId": APP_ID, "RoomId": "room-1", "TaskId": task}


def signed_account(given: Any, **changes: Any) -> Volcengine:
    return account(
        access_key_id=given["access_key_id"],
        secret_access_key=given["secret_access_key"],
        session_token=given["session_token"],
        region=given["region"],
        **changes,
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("stop_post_sts", {"api_version": "2024-12-01"}),
        (
            "host_with_443",
            {"api_version": "2025-06-01", "endpoint": "https://rtc.volcengineapi.com:443"},
        ),
    ],
)
def test_stop_is_signed_as_the_vendors_sdk_signs_it(name: str, changes: dict[str, str]) -> None:
    given = SIGNED[name]["input"]
    at = datetime.strptime(given["x_date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    request, _ = converse(signed_account(given, **changes).stop(agent(), stamp(at)))
    assert request.body == given["body"].encode()
    assert request.headers == SIGNED[name]["headers_after"]


def test_poll_is_signed_as_the_vendors_sdk_signs_it() -> None:
    given = SIGNED["online_users_get"]["input"]
    row = agent(room_id=given["query"]["RoomId"])
    request, outcome = converse(
        signed_account(given).poll(row, stamp()),
        answer(
            {
                "ResponseMetadata": {},
                "Result": {
                    "RoomExists": True,
                    "VisibleUserList": ["user-1"],
                    "InvisibleUserList": ["bot-1"],
                },
            }
        ),
    )
    assert request.headers == SIGNED["online_users_get"]["headers_after"]
    assert (request.method, request.action, request.body) == ("GET", ONLINE_USERS, b"")
    sent = parse_qs(urlsplit(request.url).query)
    assert sent == {key: [value] for key, value in given["query"].items()}
    assert outcome == Done(seen=("user-1", "bot-1"))


def test_poll_sees_who_else_is_in_the_room() -> None:
    others = {"RoomExists": True, "VisibleUserList": ["bot-2", "user-1"]}
    reply = answer({"ResponseMetadata": {"RequestId": "r"}, "Result": others})
    _, outcome = converse(account().poll(agent(), stamp()), reply)
    assert outcome == Gone(message="not in the room", request_id="r", seen=("bot-2", "user-1"))


def test_poll_of_an_empty_room() -> None:
    nobody = answer({"ResponseMetadata": {"RequestId": "r"}, "Result": {"RoomExists": False}})
    _, outcome = converse(account().poll(agent(), stamp()), nobody)
    assert outcome == Gone(message="not in the room", request_id="r")


def test_what_the_transport_says_is_the_outcome() -> None:
    for conversation in (
        account().start(agent(), spec(), stamp()),
        account().stop(agent(), stamp()),
        account().poll(agent(), stamp()),
    ):
        _, outcome = converse(conversation, NotSent(code="Refused"))
        assert outcome == NotSent(code="Refused")


@pytest.mark.parametrize("verb", ["find", "kick"])
def test_what_the_vendor_cannot_do_sends_nothing(verb: str) -> None:
    with pytest.raises(StopIteration) as end:
        next(getattr(account(), verb)(agent(), stamp()))
    assert isinstance(end.value.value, Refused)
    assert end.value.value.code == "Unsupported"


@pytest.mark.parametrize(
    ("version", "known", "missing"),
    [
        ("2024-12-01", {}, ()),
        ("2024-12-01", {"session_name": "", "vendor_task_id": "t"}, ()),
        ("2024-12-01", {"session_name": "", "vendor_task_id": "t", "user_id": "", "name": ""}, ()),
        ("2024-12-01", {"session_name": ""}, ("vendor_task_id",)),
        ("2024-12-01", {"vendor_task_id": "t", "room_id": ""}, ("room_id",)),
        ("2025-06-01", {"session_name": "", "room_id": ""}, ("room_id", "vendor_task_id")),
        ("2024-06-01", {"session_name": ""}, ()),
        ("2024-06-01", {"vendor_task_id": "t", "user_id": ""}, ("user_id",)),
        ("2024-06-01", {"user_id": "", "room_id": ""}, ("room_id", "user_id")),
    ],
)
def test_a_stop_that_lacks_something_is_not_sent(
    version: str, known: dict[str, Any], missing: tuple[str, ...]
) -> None:
    vendor, orphan = account(api_version=version), agent(**known)
    assert vendor.missing(orphan) == missing
    conversation = vendor.stop(orphan, stamp())
    if not missing:
        assert next(conversation).action == STOP
        return
    with pytest.raises(StopIteration) as end:
        next(conversation)
    assert end.value.value == UNNAMED


def test_an_orphan_is_stopped_by_its_handle() -> None:
    request, _ = converse(account().stop(agent(session_name="", vendor_task_id="theirs"), stamp()))
    assert json.loads(request.body) == {"AppId": APP_ID, "RoomId": "room-1", "TaskId": "theirs"}


@pytest.mark.parametrize("version", API_VERSIONS)
def test_caps_follow_the_version(version: str) -> None:
    caps = account(api_version=version).caps
    by_user = version == "2024-06-01"
    assert caps.recovery == (Recovery.STOP_FIRST if by_user else Recovery.SAME_NAME)
    assert caps.one_per_user is by_user
    assert caps.signature_window == timedelta(seconds=900)
    assert caps.names_handle
    assert not caps.poll_proves_absence


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(ValueError, match="2020-01-01"):
        account(api_version="2020-01-01")


def test_a_site_leads_back_to_where_the_agent_lives() -> None:
    old = account(app_id="0" * 24, api_version="2024-06-01", endpoint="http://127.0.0.1:9")
    new = account(secret_access_key="fake-rotated")
    there = new.at(old.site)
    assert there.site == old.site
    assert there.caps == old.caps
    assert there.secret_access_key == "fake-rotated"
    assert json.loads(old.site) == {
        "provider": "volcengine",
        "endpoint": "http://127.0.0.1:9",
        "region": "cn-north-1",
        "app_id": "0" * 24,
        "api_version": "2024-06-01",
    }


def test_nothing_shows_a_secret() -> None:
    vendor = account(session_token="fake-token")
    assert "fake" not in repr(vendor)
    assert "fake" not in vendor.site
    request, _ = converse(vendor.start(agent(), spec(), stamp()))
    assert "fake-secret" not in repr(request)


@pytest.mark.parametrize("verb", list(Verb))
def test_each_verb_has_a_limited_action(verb: Verb) -> None:
    assert account().action(verb) in LIMITS


@pytest.mark.parametrize(
    ("version", "given", "user_id"),
    [
        ("2024-12-01", {"AgentConfig": {"UserId": "a"}}, "a"),
        ("2024-12-01", {"AgentConfig": {"UserId": 5}}, None),
        ("2024-12-01", {"AgentConfig": []}, None),
        ("2024-12-01", {"Config": {"BotName": "a"}}, None),
        ("2024-06-01", {"Config": {"BotName": "a"}}, "a"),
        ("2024-06-01", {}, None),
    ],
)
def test_agent_user_id(version: str, given: Any, user_id: str | None) -> None:
    assert account(api_version=version).agent_user_id(given) == user_id
