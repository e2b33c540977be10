import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

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
from orchestrator.providers.signing import zego_signature
from orchestrator.providers.zego import PAGE_LIMIT, Zego

VECTOR = json.loads((Path(__file__).parent / "vectors" / "zego.json").read_text("utf-8"))[
    "request_signing"
]["vectors"][0]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRET = "fakefakefakefakefakefakefakefake"
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
    vendor_task_id="1912124734317838336",
    announced_at=NOW,
)
SPEC: dict[str, Any] = {"AgentId": "template-1"}
TEMPLATE = {
    "AgentId": "template-1",
    "Name": "Bot",
    "LLM": {"Url": "https://llm.example/v1", "ApiKey": "fake-key", "Model": "gpt"},
}


def zego(**changes: Any) -> Zego:
    given: dict[str, Any] = {"app_id": 1234567890, "server_secret": SECRET}
    return Zego(**given | changes)


def stamp() -> Stamp:
    numbers = itertools.count(1)
    return Stamp(signed_at=NOW, nonce=lambda: f"{next(numbers):016x}")


def agent(**changes: Any) -> Agent:
    fields = {name: getattr(AGENT, name) for name in Agent.__dataclass_fields__}
    return Agent(**fields | changes)


def answered(code: object, data: object = None, *, status: int = 200) -> Response:
    envelope = {"Code": code, "Message": "said\tso", "RequestId": "77", "Data": data}
    return Response(status=status, headers={}, body=json.dumps(envelope).encode())


def drive(conversation: Conversation, *replies: Reply) -> tuple[list[Request], Outcome]:
    requests = [next(conversation)]
    for reply in replies:
        try:
            requests.append(conversation.send(reply))
        except StopIteration as end:
            assert reply is replies[-1]
            return requests, end.value
    raise AssertionError("it asks for more")


def conversation_of(verb: Verb, provider: Provider, who: Agent = AGENT) -> Conversation:
    return {
        Verb.START: lambda: provider.start(who, SPEC, stamp()),
        Verb.STOP: lambda: provider.stop(who, stamp()),
        Verb.FIND: lambda: provider.find(who, stamp()),
        Verb.POLL: lambda: provider.poll(who, stamp()),
        Verb.KICK: lambda: provider.kick(who, stamp()),
        Verb.UPDATE: lambda: provider.update(who, SPEC, stamp()),
    }[verb]()


def outcome_of(verb: Verb, reply: Reply) -> Outcome:
    return drive(conversation_of(verb, zego()), reply)[1]


def query_of(request: Request) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request.url).query, strict_parsing=True)


def sent(request: Request) -> Any:
    return json.loads(request.body)


# --- requests ---


def test_create_is_signed_like_the_vector() -> None:
    provider = zego(app_id=VECTOR["app_id"], server_secret=VECTOR["server_secret"])
    at = datetime.fromtimestamp(VECTOR["timestamp"], UTC)
    signed = Stamp(signed_at=at, nonce=lambda: str(VECTOR["nonce"]))
    request = next(provider.start(AGENT, SPEC, signed))
    assert request.url == VECTOR["url"]
    assert request.method == "POST"
    assert request.headers == {"Content-Type": "application/json"}


def test_create_fills_in_what_the_daemon_knows() -> None:
    (request,), outcome = drive(
        zego().start(AGENT, SPEC, stamp()), answered(0, {"AgentInstanceId": "1912"})
    )
    assert outcome == Done(handle="1912", request_id="77")
    assert sent(request) == {
        "AgentId": "template-1",
        "UserId": "user_1",
        "RTC": {
            "RoomId": "room-42",
            "AgentStreamId": "orc-agent_s1",
            "AgentUserId": "orc-agent",
            "UserStreamId": "user_1",
        },
        "MessageHistory": {"SyncMode": 1},
        "AdvancedConfig": {"MaxIdleTime": 60},
    }


def test_the_specs_own_word_counts_where_it_has_one() -> None:
    spec = {
        "AgentId": "template-1",
        "RTC": {"AgentUserId": "bot", "UserStreamId": "stream", "StreamExtraInfo": "x"},
        "MessageHistory": {"SyncMode": 0, "WindowSize": 5},
        "AdvancedConfig": {"MaxIdleTime": 1800, "CommunicationMode": 2},
        "VAD": {"TurnDetectConfig": {"SilenceSegmentation": 200}},
    }
    provider = zego()
    assert provider.problems(AGENT, spec) == ()
    assert provider.agent_user_id(spec) == "bot"
    fields = sent(next(provider.start(AGENT, spec, stamp())))
    assert fields["RTC"] == {
        "RoomId": "room-42",
        "AgentStreamId": "orc-agent_s1",
        "AgentUserId": "bot",
        "UserStreamId": "stream",
        "StreamExtraInfo": "x",
    }
    for name in ("MessageHistory", "AdvancedConfig", "VAD"):
        assert fields[name] == spec[name]


@pytest.mark.parametrize(
    "spec",
    [
        SPEC | {"RTC": None, "MessageHistory": None, "AdvancedConfig": None, "VAD": None},
        SPEC | {"RTC": {"AgentUserId": None}, "MessageHistory": {"SyncMode": None}},
        {"AgentId": None, "Agent": {"AgentId": "template-1"}},
        SPEC | {"Agent": None},
    ],
)
def test_null_says_nothing(spec: Any) -> None:
    provider = zego()
    assert provider.problems(AGENT, spec) == ()
    assert provider.agent_user_id(spec) is None
    body = json.loads(provider.body(AGENT, spec))["CreateAgentInstance"]
    assert body == json.loads(provider.body(AGENT, SPEC))["CreateAgentInstance"]


@pytest.mark.parametrize(
    ("verb", "action"),
    [(Verb.STOP, "DeleteAgentInstance"), (Verb.POLL, "QueryAgentInstanceStatus")],
)
def test_stop_and_poll_go_by_the_instance(verb: Verb, action: str) -> None:
    request = next(conversation_of(verb, zego()))
    assert request.method == "POST"
    assert sent(request) == {"AgentInstanceId": "1912124734317838336"}
    assert query_of(request)["Action"] == [action]


def test_kick_names_the_agents_user() -> None:
    request = next(conversation_of(Verb.KICK, zego()))
    query = query_of(request)
    assert (request.method, request.body) == ("GET", b"")
    assert request.url.startswith("https://rtc-api.zego.im/?")
    assert query["Action"] == ["KickoutUser"]
    assert (query["RoomId"], query["UserId[]"]) == (["room-42"], ["orc-agent"])


@pytest.mark.parametrize("verb", Verb)
def test_every_request_is_signed(verb: Verb) -> None:
    provider: Provider = zego(endpoint="http://127.0.0.1:1", rtc_endpoint="http://127.0.0.1:2")
    request = next(conversation_of(verb, provider))
    query = query_of(request)
    assert [provider.action(verb)] == [request.action] == query["Action"]
    assert request.action in provider.limits
    assert query["AppId"] == ["1234567890"]
    assert query["SignatureVersion"] == ["2.0"]
    signature = zego_signature(
        app_id=1234567890,
        server_secret=SECRET,
        nonce=query["SignatureNonce"][0],
        timestamp=int(NOW.timestamp()),
    )
    assert query["Signature"] == [signature]
    port = 2 if request.method == "GET" else 1
    assert request.url.startswith(f"http://127.0.0.1:{port}/?")


def test_caps_and_limits_are_those_of_the_documents() -> None:
    provider = zego()
    assert provider.caps.recovery is Recovery.EVICT
    assert provider.caps.agent_user_scope == "account"
    assert provider.caps.signature_window == timedelta(minutes=10)
    assert provider.limits["CreateAgentInstance"] == 10
    assert (provider.limits["DescribeUserList"], provider.limits["KickoutUser"]) == (200, 50)


# --- the template before the create ---

WITH_TEMPLATE = {"Agent": TEMPLATE}
CREATED = answered(0, {"AgentInstanceId": "1912"})
OK = answered(0)
EXISTS = answered(410001008)


@pytest.mark.parametrize(
    ("replies", "actions"),
    [
        ([OK, CREATED], ["RegisterAgent", "CreateAgentInstance"]),
        ([EXISTS, OK, CREATED], ["RegisterAgent", "UpdateAgent", "CreateAgentInstance"]),
    ],
)
def test_a_template_is_registered_or_updated_first(
    replies: list[Reply], actions: list[str]
) -> None:
    assert zego().problems(AGENT, WITH_TEMPLATE) == ()
    requests, outcome = drive(zego().start(AGENT, WITH_TEMPLATE, stamp()), *replies)
    assert [request.action for request in requests] == actions
    assert [query_of(request)["Action"] for request in requests] == [[name] for name in actions]
    assert all(sent(request) == TEMPLATE for request in requests[:-1])
    assert sent(requests[-1])["AgentId"] == "template-1"
    assert "Agent" not in sent(requests[-1])
    nonces = {query_of(request)["SignatureNonce"][0] for request in requests}
    assert len(nonces) == len(requests)
    assert outcome == Done(handle="1912", request_id="77")


@pytest.mark.parametrize("before", [[], [EXISTS]], ids=["register", "update"])
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answered(410000003), Refused),
        (answered(410000006), Denied),
        (answered(410000018), Throttled),
        (answered(100000004), Expired),
        (answered(410000001), NotSent),
        (answered(410001002), NotSent),
        (answered(5), NotSent),
        (Response(status=502, headers={}, body=b"<html>"), NotSent),
        (Indefinite(code="timeout", message="late"), NotSent),
        (NotSent(code="dns", message="away"), NotSent),
    ],
)
def test_without_its_template_nothing_is_created(
    before: list[Reply], reply: Reply, kind: type[Outcome]
) -> None:
    conversation = zego().start(AGENT, WITH_TEMPLATE, stamp())
    requests, outcome = drive(conversation, *before, reply)
    assert "CreateAgentInstance" not in {request.action for request in requests}
    assert type(outcome) is kind
    assert outcome.code


def test_why_there_is_no_template_is_told() -> None:
    conversation = zego().start(AGENT, WITH_TEMPLATE, stamp())
    _, outcome = drive(conversation, Indefinite(code="timeout", message="late"))
    assert outcome == NotSent(code="timeout", message="the template was not registered: late")


def test_a_new_template_may_not_be_known_yet() -> None:
    unknown = answered(410001009)
    _, fresh = drive(zego().start(AGENT, WITH_TEMPLATE, stamp()), OK, unknown)
    assert isinstance(fresh, NotSent)
    assert isinstance(outcome_of(Verb.START, unknown), Refused)


# --- looking into the room ---


def page(*users: str, marker: object = "") -> Response:
    return answered(0, {"UserList": [{"UserId": user} for user in users], "Marker": marker})


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        (
            [page("user_1", "orc-agent")],
            Done(request_id="77", seen=("user_1", "orc-agent")),
        ),
        ([page("user_1")], Gone(code="NotInRoom", request_id="77", seen=("user_1",))),
        ([page()], Gone(code="NotInRoom", request_id="77")),
        ([page(marker="m")], Gone(code="NotInRoom", request_id="77")),
        (
            [page("a", marker="m1"), page("orc-agent", marker="m2")],
            Done(request_id="77", seen=("a", "orc-agent")),
        ),
        (
            [page("a", marker="m1"), page("b", marker=None)],
            Gone(code="NotInRoom", request_id="77", seen=("a", "b")),
        ),
        ([page("a", marker="m1"), Indefinite(code="timeout")], Indefinite(code="timeout")),
        ([answered(100000005)], Denied(code="100000005", message="said so", request_id="77")),
    ],
)
def test_find_reads_the_room(pages: list[Reply], expected: Outcome) -> None:
    requests, outcome = drive(conversation_of(Verb.FIND, zego()), *pages)
    assert outcome == expected
    queries = [query_of(request) for request in requests]
    assert all(query["RoomId"] == ["room-42"] for query in queries)
    assert all(query["Limit"] == ["200"] for query in queries)
    assert [query.get("Marker") for query in queries] == [None, ["m1"]][: len(queries)]
    assert len({query["SignatureNonce"][0] for query in queries}) == len(queries)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"UserList": None},
        {"UserList": {"UserId": "orc-agent"}},
        {"UserList": ["orc-agent"]},
        {"UserList": [{"UserId": 5}]},
        {"UserList": [{}]},
        {"UserList": [], "Marker": 5},
    ],
)
def test_an_absence_needs_pages_that_can_be_read(data: object) -> None:
    outcome = outcome_of(Verb.FIND, answered(0, data))
    assert isinstance(outcome, Indefinite)
    assert outcome.code == UNREADABLE


def test_a_room_without_end_is_given_up() -> None:
    replies = [page("a", marker=f"m{number}") for number in range(PAGE_LIMIT)]
    requests, outcome = drive(conversation_of(Verb.FIND, zego()), *replies)
    assert len(requests) == PAGE_LIMIT
    assert isinstance(outcome, Indefinite)
    assert outcome.code == "RoomTooLarge"


# --- orphans: what was never announced has no names of ours ---


@pytest.mark.parametrize(
    ("known", "missing"),
    [
        ({"session_name": "", "stream_id": ""}, ()),
        ({"room_id": "", "name": ""}, ()),
        ({"vendor_task_id": None}, ()),
        ({"vendor_task_id": None, "room_id": ""}, ("vendor_task_id",)),
        ({"vendor_task_id": "", "name": ""}, ("vendor_task_id",)),
    ],
)
def test_what_a_stop_lacks(known: dict[str, Any], missing: tuple[str, ...]) -> None:
    assert zego().missing(agent(**known)) == missing


@pytest.mark.parametrize(
    ("known", "verb", "action"),
    [
        ({"room_id": ""}, Verb.FIND, "QueryAgentInstanceStatus"),
        ({"name": ""}, Verb.FIND, "QueryAgentInstanceStatus"),
        ({"room_id": "", "name": ""}, Verb.STOP, "DeleteAgentInstance"),
        ({"vendor_task_id": None}, Verb.FIND, "DescribeUserList"),
        ({"vendor_task_id": None}, Verb.KICK, "KickoutUser"),
        ({"vendor_task_id": None}, Verb.STOP, None),
        ({"vendor_task_id": None}, Verb.POLL, None),
        ({"vendor_task_id": None, "name": ""}, Verb.FIND, None),
        ({"room_id": ""}, Verb.KICK, None),
        ({"name": ""}, Verb.KICK, None),
    ],
)
def test_an_orphan_is_asked_about_by_what_is_known(
    known: dict[str, Any], verb: Verb, action: str | None
) -> None:
    conversation = conversation_of(verb, zego(), agent(**known))
    if action is not None:
        assert next(conversation).action == action
        return
    with pytest.raises(StopIteration) as end:
        next(conversation)
    assert end.value.value == UNNAMED


# --- answers ---


@pytest.mark.parametrize("status", ["IDLE", "LISTENING", "THINKING", "SPEAKING"])
def test_an_instance_with_a_status_is_there(status: str) -> None:
    assert outcome_of(Verb.POLL, answered(0, {"Status": status})) == Done(request_id="77")


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.KICK])
def test_a_code_of_zero_is_enough(verb: Verb) -> None:
    assert outcome_of(verb, answered(0)) == Done(request_id="77")


@pytest.mark.parametrize(
    ("verb", "data"),
    [
        (Verb.START, None),
        (Verb.START, []),
        (Verb.START, {}),
        (Verb.START, {"AgentInstanceId": ""}),
        (Verb.START, {"AgentInstanceId": 1912}),
        (Verb.POLL, None),
        (Verb.POLL, {"Status": "idle"}),
        (Verb.POLL, {"Status": ["IDLE"]}),
        (Verb.POLL, {"Status": {}}),
    ],
)
def test_what_is_not_documented_is_indefinite(verb: Verb, data: object) -> None:
    outcome = outcome_of(verb, answered(0, data))
    assert isinstance(outcome, Indefinite)
    assert (outcome.code, outcome.request_id) == (UNREADABLE, "77")


ERRORS: list[tuple[type[Outcome], list[int]]] = [
    (Expired, [100000004]),
    (Gone, [410001002]),
    (Denied, [100000000, 100000001, 100000005, 100000010, 100000011, 100000016, 100000017]),
    (Denied, [410000002, 410000005, 410000006, 410001033, 410001034, 410001035]),
    (Throttled, [410000010, 410000018, 410001029]),
    (Refused, [100000002, 100000003, 100000006, 100000007, 100000008, 100000009, 100000012]),
    (Refused, [100000013, 100000014, 410000003, 410000004, 410000014, 410001009, 410001010]),
    (Refused, [410001026, 410001027, 410001048, 410001042, 410001047, 410001049]),
    (Indefinite, [100000015, 410000001, 410000009, 410001003, 410001005, 410001008]),
    (Indefinite, [410001028, 410001030, 410001032, 410001041, 1, -1, 999999999]),
]


@pytest.mark.parametrize(
    ("kind", "code"), [(kind, code) for kind, codes in ERRORS for code in codes]
)
@pytest.mark.parametrize("verb", Verb)
def test_error(verb: Verb, kind: type[Outcome], code: int) -> None:
    outcome = outcome_of(verb, answered(code))
    # A create has no target that could be absent.
    assert type(outcome) is (Indefinite if (verb, kind) == (Verb.START, Gone) else kind)
    assert (outcome.code, outcome.message, outcome.request_id) == (str(code), "said so", "77")
    assert not (isinstance(outcome, Throttled) and outcome.capacity)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (104, Gone),
        (5024, Gone),
        (50001, Gone),
        (50002, Gone),
        (7, Throttled),
        (206, Throttled),
        (2, Refused),
        (3, Denied),
        (1, Indefinite),
        (5018, Indefinite),
    ],
)
def test_the_rooms_have_codes_of_their_own(code: int, kind: type[Outcome]) -> None:
    for verb in Verb:
        is_about_a_room = verb in {Verb.FIND, Verb.KICK}
        assert type(outcome_of(verb, answered(code))) is (kind if is_about_a_room else Indefinite)


@pytest.mark.parametrize("code", [410000011, 410001025, 410001031])
def test_too_many_agents(code: int) -> None:
    outcome = outcome_of(Verb.START, answered(code))
    assert isinstance(outcome, Throttled)
    assert outcome.capacity


def test_the_transient_failure_is_one_of_creates_only() -> None:
    assert isinstance(outcome_of(Verb.START, answered(410004014)), NotSent)
    assert isinstance(outcome_of(Verb.STOP, answered(410004014)), Indefinite)


@pytest.mark.parametrize("verb", Verb)
@pytest.mark.parametrize("code", [None, "0", 0.0, False, [0], {}])
def test_a_code_is_an_integer(verb: Verb, code: object) -> None:
    outcome = outcome_of(verb, answered(code, {"AgentInstanceId": "1", "Status": "IDLE"}))
    assert isinstance(outcome, Indefinite)
    assert outcome.code == UNREADABLE


@pytest.mark.parametrize("verb", Verb)
def test_only_http_200_is_believed(verb: Verb) -> None:
    for status in (204, 301, 400, 500, 503):
        outcome = outcome_of(verb, answered(0, {"AgentInstanceId": "1"}, status=status))
        assert isinstance(outcome, Indefinite)
        assert outcome.code == f"HTTP{status}"
    assert type(outcome_of(verb, answered(0, status=429))) is Throttled


@pytest.mark.parametrize("reply", [NotSent(code="dns"), Indefinite(code="timeout")])
@pytest.mark.parametrize("verb", Verb)
def test_the_transports_verdict_stands(verb: Verb, reply: Reply) -> None:
    assert outcome_of(verb, reply) is reply


@given(body=st.binary(max_size=200), verb=st.sampled_from(Verb))
def test_no_garbage_is_a_success(body: bytes, verb: Verb) -> None:
    outcome = outcome_of(verb, Response(status=200, headers={}, body=body))
    assert isinstance(outcome, Indefinite)
    assert outcome.code == UNREADABLE


# --- one start, one body ---


@pytest.mark.parametrize(
    ("who", "spec"),
    [
        (AGENT, SPEC | {"Agent": TEMPLATE}),
        (AGENT, SPEC | {"Agent": TEMPLATE | {"Name": "Other"}}),
        (agent(stream_id="orc-agent_s2"), SPEC),
        (agent(name="other"), SPEC),
    ],
)
def test_other_starts_have_other_bodies(who: Agent, spec: Any) -> None:
    assert zego().body(who, spec) != zego().body(AGENT, SPEC)
    assert zego().body(who, spec) == zego().body(who, dict(reversed(spec.items())))


# --- the account ---


def test_the_site_leads_back_to_where_it_was() -> None:
    old = zego(endpoint="https://aigc-aiagent-api-sgp.zegotech.cn", app_id=7)
    there = zego(server_secret="rotated-fake").at(old.site)
    assert there.site == old.site
    assert there.server_secret == "rotated-fake"
    assert json.loads(old.site) == {
        "provider": "zego",
        "endpoint": "https://aigc-aiagent-api-sgp.zegotech.cn",
        "app_id": 7,
    }


def test_no_secret_is_shown() -> None:
    provider = zego()
    assert SECRET not in repr(provider)
    assert SECRET not in provider.site
    assert all(SECRET not in next(conversation_of(verb, provider)).url for verb in Verb)
