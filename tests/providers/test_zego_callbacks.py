import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import EndReason
from orchestrator.providers.base import Forged, Garbled, Heard, Post
from orchestrator.providers.callbacks import NO_OBJECT, NO_SECRET, OTHER_APP, WRONG_SIGNATURE, alive
from orchestrator.providers.signing import zego_callback_signature
from orchestrator.providers.zego import Zego
from orchestrator.providers.zego_callbacks import DELETED, FAULTS, STALE

SIGNING = json.loads((Path(__file__).parent / "vectors" / "zego.json").read_text("utf-8"))[
    "callback_signing"
]
VECTOR = SIGNING["vectors"][0]
SECRET = VECTOR["callback_secret"]
APP_ID = 1234567890
AT_MS = VECTOR["timestamp"]
AT = datetime(2026, 1, 1, 0, 0, 5, 123000, tzinfo=UTC)
RECEIVED_AT = AT + timedelta(seconds=1)
HANDLE = "1912124734317838336"
SEQUENCE = 1_767_225_605_123_456_789
SPOKEN = "my card number is 1234"


def zego(**changes: Any) -> Zego:
    fields: dict[str, Any] = {
        "app_id": APP_ID,
        "server_secret": "fakefakefakefakefakefakefakefake",
        "callback_secret": SECRET,
    }
    return Zego(**fields | changes)


def hear(body: object, received_at: datetime = RECEIVED_AT, **changes: Any) -> Heard:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return zego(**changes).hear(Post(headers={}, body=raw, received_at=received_at))


def envelope(event: object, data: object = None, **changes: Any) -> dict[str, Any]:
    fields = {
        "AppId": APP_ID,
        "Event": event,
        "Nonce": VECTOR["nonce"],
        "Timestamp": AT_MS,
        "AgentInstanceId": HANDLE,
        "AgentUserId": "orc-agent",
        "RoomId": "room-1",
        "Sequence": SEQUENCE,
        "Data": {} if data is None else data,
    } | changes
    given_fields = {name: value for name, value in fields.items() if value is not None}
    signature = zego_callback_signature(
        callback_secret=SECRET,
        timestamp=str(fields["Timestamp"]),
        nonce=str(fields["Nonce"]),
    )
    return {"Signature": signature} | given_fields


def fact(called: str, **changes: Any) -> Fact:
    return replace(
        Fact(
            key=f"{HANDLE}:{SEQUENCE}:{called}",
            event=Event.STARTED,
            event_at=AT,
            position=SEQUENCE,
            vendor_task_id=HANDLE,
            name="orc-agent",
            room_id="room-1",
        ),
        **changes,
    )


CREATED = envelope("AgentInstanceCreated")


# --- who says so ---


def test_the_signature_of_the_vector_is_genuine() -> None:
    assert CREATED["Signature"] == VECTOR["signature"]
    assert hear(CREATED) == (fact("AgentInstanceCreated"),)


def test_the_documented_example_is_signed_and_long_ago() -> None:
    example = SIGNING["official_doc_example"]
    body = {
        "Nonce": example["nonce"],
        "Timestamp": example["timestamp"],
        "Signature": example["expected_signature"],
    }
    assert hear(body, callback_secret=example["callback_secret"]) == STALE
    assert hear(body, callback_secret="other") == WRONG_SIGNATURE


@pytest.mark.parametrize("secret", [None, ""])
def test_without_a_secret_nobody_is_believed(secret: str | None) -> None:
    assert hear(CREATED, callback_secret=secret) == NO_SECRET


@pytest.mark.parametrize(
    "signature", [None, "", 5, ["x"], VECTOR["signature"].upper(), SECRET, "\ud800"]
)
def test_a_wrong_signature_is_forged(signature: object) -> None:
    assert hear(CREATED | {"Signature": signature}) == WRONG_SIGNATURE


@given(
    st.sampled_from(["Signature", "Nonce", "Timestamp"]),
    st.integers(min_value=0),
    st.integers(0, 6),
)
def test_one_flipped_bit_of_what_is_signed_is_forged(name: str, place: int, bit: int) -> None:
    flipped = bytearray(str(CREATED[name]).encode())
    flipped[place % len(flipped)] ^= 1 << bit
    assert hear(CREATED | {name: flipped.decode()}) == WRONG_SIGNATURE


@pytest.mark.parametrize("name", ["Nonce", "Timestamp"])
@pytest.mark.parametrize("value", [None, True, ["x"], {"x": "y"}, "\ud800"])
def test_what_cannot_have_been_signed_is_forged(name: str, value: object) -> None:
    assert hear(CREATED | {name: value}) == WRONG_SIGNATURE


@pytest.mark.parametrize("nonce", ["7450395512627324902", 7450395512627324902, "a1b2", 10**30])
@pytest.mark.parametrize("timestamp", [AT_MS, str(AT_MS)])
def test_numbers_are_signed_as_they_were_sent(nonce: object, timestamp: object) -> None:
    body = envelope("AgentInstanceCreated", Nonce=nonce, Timestamp=timestamp)
    assert hear(body) == (fact("AgentInstanceCreated"),)


@pytest.mark.parametrize("app_id", [APP_ID + 1, "other", None, True, ["1234567890"]])
def test_another_app_is_not_ours(app_id: object) -> None:
    assert hear(envelope("AgentInstanceCreated", AppId=app_id)) == OTHER_APP


def test_an_app_may_be_told_as_text() -> None:
    assert hear(envelope("AgentInstanceCreated", AppId=str(APP_ID))) == hear(CREATED)


@pytest.mark.parametrize(
    ("age_s", "is_fresh"), [(0, True), (62, True), (600, True), (-600, True), (601, False),
                            (-601, False), (86_400, False)]
)  # fmt: skip
def test_a_signature_counts_for_ten_minutes(age_s: int, is_fresh: bool) -> None:
    heard = hear(CREATED, received_at=AT + timedelta(seconds=age_s))
    assert (heard != STALE) is is_fresh


@pytest.mark.parametrize("timestamp", ["soon", 2**63 - 1, 10**30, "", 1.5, AT_MS // 1000, -AT_MS])
def test_a_time_that_is_none_is_stale(timestamp: object) -> None:
    assert hear(envelope("AgentInstanceCreated", Timestamp=timestamp)) == STALE


# --- forms of the body ---

TEXT = json.dumps(CREATED | {"Name": "a b+c%d 你好"}, ensure_ascii=False)


@pytest.mark.parametrize(
    "body",
    [
        TEXT.encode(),
        quote(TEXT).encode(),
        quote_plus(TEXT).encode(),
        quote(TEXT, safe="").encode(),
        urlencode({**CREATED, "Data": json.dumps(CREATED["Data"])}).encode(),
    ],
    ids=["json", "percent", "plus", "all", "form"],
)
def test_a_body_may_be_encoded(body: bytes) -> None:
    assert hear(body) == (fact("AgentInstanceCreated"),)


def test_a_form_holds_its_object_as_text() -> None:
    body = envelope("AgentInstanceDeleted", {"Code": 1202})
    form = urlencode({**body, "Data": json.dumps(body["Data"])}).encode()
    assert hear(form) == hear(body)
    assert hear(urlencode({**body, "Data": "no JSON"}).encode()) == (
        fact("AgentInstanceDeleted", event=Event.ENDED),
    )


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[]", b"null", b"5", b"%5B%5D", b"[" * 100_000, b"a=b&" * 1_000]
)
def test_what_holds_no_fields_is_garbled(body: bytes) -> None:
    assert hear(body) == NO_OBJECT


# --- what is said ---


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (AT_MS - 5_000, AT - timedelta(seconds=5)),
        (str(AT_MS - 5_000), AT - timedelta(seconds=5)),
        (AT_MS + 5_000, AT),
        ("soon", AT),
        (None, AT),
    ],
)
def test_an_event_has_a_time_of_its_own(told: object, expected: datetime) -> None:
    assert hear(envelope("AgentInstanceCreated", {"CreatedTimestamp": told})) == (
        fact("AgentInstanceCreated", event_at=expected),
    )
    (ended,) = facts(hear(envelope("AgentInstanceDeleted", {"DeletedTimestamp": told})))
    assert ended.event_at == expected


def facts(heard: Heard) -> tuple[Fact, ...]:
    assert isinstance(heard, tuple)
    return heard


def test_nothing_is_heard_before_it_happened() -> None:
    early = AT - timedelta(minutes=5)
    assert hear(CREATED, received_at=early) == (fact("AgentInstanceCreated", event_at=early),)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (0, None),
        (1201, EndReason.VENDOR_FAULT),
        (1202, EndReason.IDLE),
        (1203, EndReason.KICKED),
        (1204, EndReason.VENDOR_FAULT),
        (1205, EndReason.ROOM_CLOSED),
        (1206, EndReason.VENDOR_FAULT),
        (1299, None),
    ],
)
def test_an_agent_ended(code: int, why: EndReason | None) -> None:
    message = DELETED[code][1] if code in DELETED else None
    expected = fact(
        "AgentInstanceDeleted", event=Event.ENDED, end_reason=why, code=str(code), message=message
    )
    assert hear(envelope("AgentInstanceDeleted", {"Code": code})) == (expected,)
    assert hear(envelope("AgentInstanceDeleted", {"Code": str(code), "New": 1})) == (expected,)


@pytest.mark.parametrize("data", [{}, {"Code": None}, {"Code": SPOKEN}, [1], "x", 5])
def test_an_end_is_one_without_its_code(data: object) -> None:
    assert hear(envelope("AgentInstanceDeleted", data)) == (
        fact("AgentInstanceDeleted", event=Event.ENDED),
    )


DEAF_OR_DUMB = [1101, 1207, 1208, 2101, *range(2201, 2207), *range(2301, 2306)]


@pytest.mark.parametrize("code", DEAF_OR_DUMB)
def test_an_agent_that_cannot_hear_or_speak(code: int) -> None:
    heard = hear(envelope("Exception", {"Code": code, "Message": SPOKEN, "Round": 1}))
    expected = fact("Exception", event=Event.FAULT, code=str(code), message=FAULTS[code])
    assert heard == (expected,)


@pytest.mark.parametrize("code", [1201, 1202, 1203, 1204, 1205, 1206])
def test_an_exception_that_an_end_follows_says_nothing(code: int) -> None:
    assert hear(envelope("Exception", {"Code": code})) == ()


ALIVE = alive(fact(""))


@pytest.mark.parametrize("code", [1001, 1004, 1, 2207, 2**62])
def test_any_other_exception_is_a_sign_of_life(code: int) -> None:
    assert hear(envelope("Exception", {"Code": code, "Message": SPOKEN})) == (ALIVE,)


TURN = [
    *("ASRResult", "LLMResult", "Interrupted", "UserSpeakAction", "AgentInstanceStatus"),
    *("UserAudioData", "AgentInstanceMetaInfo", "AgentSpeakAction"),
]


@pytest.mark.parametrize("event", TURN)
def test_a_turn_is_a_sign_of_life_and_nothing_of_it_is_kept(event: str) -> None:
    heard = hear(envelope(event, {"Round": 1, "Text": SPOKEN, "Status": "IDLE"}))
    assert heard == (ALIVE,)
    assert SPOKEN not in repr(heard)


@pytest.mark.parametrize("event", ["WhatComesNext", "", "agentinstancecreated", 5])
def test_an_unknown_event_says_nothing(event: object) -> None:
    assert hear(envelope(event, AgentInstanceId=None)) == ()


@pytest.mark.parametrize(
    ("sequence", "position", "key"),
    [
        (0, 0, "0"),
        (str(SEQUENCE), SEQUENCE, str(SEQUENCE)),
        (2**63 - 1, 2**63 - 1, str(2**63 - 1)),
        (None, 0, str(AT_MS)),
    ],
)
def test_events_have_an_order(sequence: object, position: int, key: str) -> None:
    body = envelope("AgentInstanceCreated", Sequence=sequence)
    expected = fact(
        "AgentInstanceCreated", position=position, key=f"{HANDLE}:{key}:AgentInstanceCreated"
    )
    assert hear(body) == (expected,)


def test_names_may_be_left_out() -> None:
    body = envelope("AgentInstanceCreated", AgentUserId=None, RoomId=None)
    assert hear(body) == (fact("AgentInstanceCreated", name=None, room_id=None),)


NO_HANDLE = Garbled("the event lacks AgentInstanceId")
NO_ORDER = Garbled("Sequence is no whole number of 64 bits")


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (envelope(None), Garbled("it lacks Event")),
        (envelope(["AgentInstanceCreated"]), Garbled("it lacks Event")),
        (envelope("AgentInstanceCreated", AgentInstanceId=None), NO_HANDLE),
        (envelope("AgentInstanceCreated", AgentInstanceId=""), NO_HANDLE),
        (envelope("ASRResult", AgentInstanceId={"a": 1}), NO_HANDLE),
        (envelope("Exception", {"Code": 1}, AgentInstanceId="a\x00b"), NO_HANDLE),
        (envelope("AgentInstanceCreated", Sequence=2**63), NO_ORDER),
        (envelope("AgentInstanceCreated", Sequence=10**30), NO_ORDER),
        (envelope("AgentInstanceCreated", Sequence=1.9e18), NO_ORDER),
        (envelope("AgentInstanceCreated", Sequence=True), NO_ORDER),
        (envelope("Exception"), Garbled("Exception lacks Code")),
        (envelope("Exception", {"Code": SPOKEN}), Garbled("Exception lacks Code")),
    ],
)
def test_what_is_not_documented_is_garbled(body: object, verdict: Garbled) -> None:
    assert hear(body) == verdict


def test_nothing_is_evidence() -> None:
    told = [*TURN, "AgentInstanceCreated", "AgentInstanceDeleted"]
    assert not any(each.is_signed for event in told for each in facts(hear(envelope(event))))


# --- everything else ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
BODY_FIELDS = ["Event", "AgentInstanceId", "AgentUserId", "RoomId", "Sequence", "Data"]


@given(st.binary(max_size=200))
def test_bytes_of_whatever_kind_never_raise(body: bytes) -> None:
    assert isinstance(hear(body), Forged | Garbled)


@given(st.dictionaries(st.sampled_from([*CREATED]), JSON))
def test_nonsense_is_not_believed(body: dict[str, Any]) -> None:
    assert isinstance(hear(body), Forged | Garbled)


@given(
    st.sampled_from([*TURN, "AgentInstanceCreated", "AgentInstanceDeleted", "Exception"]),
    st.dictionaries(st.sampled_from(BODY_FIELDS[1:]), JSON),
    st.dictionaries(st.sampled_from(["Code", "CreatedTimestamp", "DeletedTimestamp"]), JSON),
)
def test_nonsense_beside_a_signature_never_raises(
    event: str, changes: dict[str, Any], data: dict[str, Any]
) -> None:
    heard = hear(envelope(event, data) | changes)
    assert isinstance(heard, tuple | Garbled)
    for each in heard if isinstance(heard, tuple) else ():
        assert each.vendor_task_id
        assert each.vendor_task_id.isprintable()
        assert -(2**63) <= each.position < 2**63
        assert each.event_at <= RECEIVED_AT
