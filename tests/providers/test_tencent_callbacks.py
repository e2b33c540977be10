import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import EndReason
from orchestrator.providers.base import Forged, Garbled, Heard, Post
from orchestrator.providers.callbacks import NO_OBJECT, NO_SECRET, OTHER_APP, WRONG_SIGNATURE
from orchestrator.providers.signing import tencent_callback_sign
from orchestrator.providers.tencent import Tencent
from orchestrator.providers.tencent_callbacks import FAULTS, LEAVES

VECTORS = json.loads(
    (Path(__file__).parent / "vectors" / "tencent_callback.json").read_text(encoding="utf-8")
)["vectors"]
KEY = "FakeCallbackKey01"
APP_ID = 1400000001
AT_MS = 1767323045123
AT = datetime(2026, 1, 2, 3, 4, 5, 123000, tzinfo=UTC)
RECEIVED_AT = AT + timedelta(seconds=1)
SPOKEN = "my card number is 1234"


def tencent(**changes: Any) -> Tencent:
    fields: dict[str, Any] = {
        "sdk_app_id": APP_ID,
        "secret_id": "AKIDFAKE",
        "secret_key": "fake-secret-key",
        "usersig_key": "fake-usersig-key",
        "region": "ap-singapore",
        "callback_key": KEY,
    }
    return Tencent(**fields | changes)


def post(body: bytes, *, sign: str | None = None, **headers: str) -> Post:
    signed = {"sign": tencent_callback_sign(body, key=KEY) if sign is None else sign}
    return Post(headers=signed | headers, body=body, received_at=RECEIVED_AT)


def event(number: object, payload: object = None, **changes: Any) -> dict[str, Any]:
    info = {
        "EventMsTs": AT_MS,
        "TaskId": "v2_task",
        "RoomId": "room-1",
        "RoomIdType": 1,
        "Payload": {} if payload is None else payload,
    }
    given_info = {name: value for name, value in (info | changes).items() if value is not None}
    return {
        "EventGroupId": 9,
        "EventType": number,
        "CallbackTs": AT_MS + 7,
        "EventInfo": given_info,
    }


def hear(envelope: object) -> Heard:
    return tencent().hear(post(json.dumps(envelope, indent="\t").encode()))


def fact(number: int, **changes: Any) -> Fact:
    return replace(
        Fact(
            key=f"v2_task:{number}:{AT_MS}",
            event=Event.STARTED,
            event_at=AT,
            vendor_task_id="v2_task",
            room_id="room-1",
            is_signed=True,
        ),
        **changes,
    )


# --- who says so ---


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_documented_samples_are_genuine(vector: Any) -> None:
    sample = post(vector["body"].encode(), sign=vector["sign"])
    heard = tencent(callback_key=vector["key"]).hear(sample)
    expected = (
        ()
        if "204" in vector["name"]  # a stream of somebody's, and no agent's life
        else (
            Fact(
                key="task-1:901:1760000000100",
                event=Event.STARTED,
                event_at=datetime(2025, 10, 9, 8, 53, 20, 100000, tzinfo=UTC),
                vendor_task_id="task-1",
                room_id="room-42",
                is_signed=True,
            ),
        )
    )
    assert heard == expected


GENUINE = json.dumps(event(902, {"LeaveCode": 99}), indent="\t").encode()


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_nobody_is_believed(key: str | None) -> None:
    assert tencent(callback_key=key).hear(post(GENUINE)) == NO_SECRET


@pytest.mark.parametrize(
    "sign", ["", "AAAA", tencent_callback_sign(GENUINE, key="other"), "\udcff", KEY]
)
def test_a_wrong_sign_is_forged(sign: str) -> None:
    assert tencent().hear(post(GENUINE, sign=sign)) == WRONG_SIGNATURE


def test_no_sign_is_forged() -> None:
    unsigned = Post(headers={}, body=GENUINE, received_at=RECEIVED_AT)
    assert tencent().hear(unsigned) == WRONG_SIGNATURE


def test_the_bytes_are_signed_and_not_what_they_mean() -> None:
    said_again = json.dumps(json.loads(GENUINE)).encode()
    sign = tencent_callback_sign(GENUINE, key=KEY)
    assert tencent().hear(post(said_again, sign=sign)) == WRONG_SIGNATURE


@given(st.integers(0, 8 * len(GENUINE) - 1))
def test_one_flipped_bit_of_the_body_is_forged(bit: int) -> None:
    flipped = bytearray(GENUINE)
    flipped[bit // 8] ^= 1 << bit % 8
    sign = tencent_callback_sign(GENUINE, key=KEY)
    assert tencent().hear(post(bytes(flipped), sign=sign)) == WRONG_SIGNATURE


@given(st.integers(0, 8 * 44 - 1))
def test_one_flipped_bit_of_the_sign_is_forged(bit: int) -> None:
    flipped = bytearray(tencent_callback_sign(GENUINE, key=KEY).encode())
    flipped[bit // 8] ^= 1 << bit % 8
    sign = flipped.decode("latin-1")
    assert tencent().hear(post(GENUINE, sign=sign)) == WRONG_SIGNATURE


@pytest.mark.parametrize(
    ("header", "is_ours"),
    [("1400000001", True), ("1400000002", False), ("", False), ("01400000001", False)],
)
def test_another_app_is_not_ours(header: str, is_ours: bool) -> None:
    heard = tencent().hear(post(GENUINE, sdkappid=header))
    assert (heard != OTHER_APP) is is_ours


# --- what is said ---


def test_an_agent_began() -> None:
    assert hear(event(901, {"Status": 0})) == (fact(901),)


def test_an_agent_could_not_begin() -> None:
    assert hear(event(901, {"Status": 1})) == (
        fact(
            901,
            event=Event.ENDED,
            end_reason=EndReason.VENDOR_FAULT,
            code="901",
            message="the conversation could not begin",
        ),
    )


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (0, None),
        (1, EndReason.KICKED),
        (2, EndReason.ROOM_CLOSED),
        (3, EndReason.KICKED),
        (4, EndReason.ROOM_CLOSED),
        (98, EndReason.VENDOR_FAULT),
        (99, EndReason.IDLE),
        (5, None),
        (-1, None),
    ],
)
def test_an_agent_ended(code: int, why: EndReason | None) -> None:
    message = LEAVES[code][1] if code in LEAVES else None
    expected = fact(902, event=Event.ENDED, end_reason=why, code=str(code), message=message)
    assert hear(event(902, {"LeaveCode": code})) == (expected,)
    assert hear(event("902", {"LeaveCode": str(code), "New": "field"})) == (expected,)


@pytest.mark.parametrize("payload", [{}, {"LeaveCode": None}, {"LeaveCode": "x"}, "x", [1], 5])
def test_an_end_is_one_without_its_code(payload: object) -> None:
    assert hear(event(902, payload)) == (fact(902, event=Event.ENDED),)


@pytest.mark.parametrize(
    ("payload", "code", "message", "round_id"),
    [
        (
            {"Metric": "asr_error", "Tag": {"RoundId": "r1", "Code": 30100, "Message": SPOKEN}},
            "30100",
            "speech recognition timed out",
            ":r1",
        ),
        ({"Metric": "llm_error", "Tag": {"Code": "30201"}}, "30201", FAULTS[30201], ""),
        (
            {"Metric": "tts_error", "Tag": {"Code": 39999, "RoundId": 7}},
            "39999",
            "speech synthesis has an error",
            ":7",
        ),
        ({"Metric": "tts_error"}, "908", "speech synthesis has an error", ""),
        (
            {"Metric": SPOKEN, "Tag": {"Code": SPOKEN}},
            "908",
            "the vendor reports an error of the conversation",
            "",
        ),
        ({}, "908", "the vendor reports an error of the conversation", ""),
    ],
)
def test_an_agent_that_cannot_hear_or_speak(
    payload: dict[str, Any], code: str, message: str, round_id: str
) -> None:
    key = f"v2_task:908:{AT_MS}{round_id}"
    assert hear(event(908, payload)) == (
        fact(908, key=key, event=Event.FAULT, code=code, message=message),
    )


@pytest.mark.parametrize("number", [903, 904, 905, 906, 909])
def test_a_turn_is_a_sign_of_life_and_nothing_of_it_is_kept(number: int) -> None:
    payload = {"UserId": "u", "Text": SPOKEN, "RoundId": "r", "Status": "session_ready"}
    expected = fact(number, key="alive:v2_task:2026-01-02T03:04", event=Event.ALIVE)
    assert hear(event(number, payload)) == (expected,)
    assert SPOKEN not in repr(expected)


@pytest.mark.parametrize("number", [900, 907, 910, 0, -1, 2**62])
def test_an_unknown_event_says_nothing(number: int) -> None:
    assert hear(event(number, {"Status": 0})) == ()
    assert hear({"EventGroupId": 9, "EventType": number}) == ()


@pytest.mark.parametrize("group", [1, 2, 3, 8, 10, "1"])
def test_other_groups_say_nothing(group: object) -> None:
    assert hear(event(901, {"Status": 0}) | {"EventGroupId": group}) == ()


def test_a_start_with_another_status_says_nothing() -> None:
    assert hear(event(901, {"Status": 2})) == ()


# --- times ---


@pytest.mark.parametrize(
    ("info_time", "outer", "expected"),
    [
        (AT_MS, {}, AT_MS),
        (str(AT_MS), {}, AT_MS),
        (None, {"CallbackTs": AT_MS - 5}, AT_MS - 5),
        (None, {"CallbackMsTs": str(AT_MS - 6), "CallbackTs": None}, AT_MS - 6),
        ("soon", {"CallbackTs": AT_MS - 5}, AT_MS - 5),
    ],
)
def test_when_it_happened(info_time: object, outer: dict[str, Any], expected: int) -> None:
    at = AT + timedelta(milliseconds=expected - AT_MS)
    heard = hear(event(901, {"Status": 0}, EventMsTs=info_time) | outer)
    assert heard == (fact(901, key=f"v2_task:901:{expected}", event_at=at),)


def test_nothing_is_heard_before_it_happened() -> None:
    late = AT_MS + 3_600_000
    heard = hear(event(901, {"Status": 0}, EventMsTs=late))
    assert heard == (fact(901, key=f"v2_task:901:{late}", event_at=RECEIVED_AT),)


# --- what is not documented ---

NO_TIME = {"CallbackTs": None}


@pytest.mark.parametrize(
    ("envelope", "verdict"),
    [
        ([], NO_OBJECT),
        ([event(901)], NO_OBJECT),
        ("text", NO_OBJECT),
        (None, NO_OBJECT),
        ({}, Garbled("it lacks EventGroupId or EventType")),
        ({"EventGroupId": 9}, Garbled("it lacks EventGroupId or EventType")),
        (event("start"), Garbled("it lacks EventGroupId or EventType")),
        (event(True), Garbled("it lacks EventGroupId or EventType")),
        (event(10**30), Garbled("it lacks EventGroupId or EventType")),
        (event(901), Garbled("901 lacks Status")),
        (event(901, {"Status": "ok"}), Garbled("901 lacks Status")),
        (event(902) | {"EventInfo": None}, Garbled("an AI event lacks TaskId or a time")),
        (event(902) | {"EventInfo": [5]}, Garbled("an AI event lacks TaskId or a time")),
        (event(902, TaskId=""), Garbled("an AI event lacks TaskId or a time")),
        (event(902, TaskId="a\x00b"), Garbled("an AI event lacks TaskId or a time")),
        (event(902, TaskId=["t"]), Garbled("an AI event lacks TaskId or a time")),
        (event(902, TaskId="\ud800"), Garbled("an AI event lacks TaskId or a time")),
        (event(902, EventMsTs=2**63 - 1), Garbled("an AI event lacks TaskId or a time")),
        (event(902, EventMsTs="x") | NO_TIME, Garbled("an AI event lacks TaskId or a time")),
    ],
)
def test_what_is_not_documented_is_garbled(envelope: object, verdict: Garbled) -> None:
    assert hear(envelope) == verdict


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"EventGroupId=9", b"[" * 100_000])
def test_what_is_no_json_is_garbled(body: bytes) -> None:
    assert tencent().hear(post(body)) == NO_OBJECT


def test_a_room_is_told_if_it_can_be() -> None:
    for room, told in ((8489, "8489"), (None, None), ("a\nb", None), ({}, None)):
        assert hear(event(901, {"Status": 0}, RoomId=room)) == (fact(901, room_id=told),)


# --- everything else ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["EventMsTs", "TaskId", "RoomId", "Payload"])


@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(["sign", "sdkappid"]), st.text()))
def test_bytes_of_whatever_kind_are_forged(body: bytes, headers: dict[str, str]) -> None:
    heard = tencent().hear(Post(headers=headers, body=body, received_at=RECEIVED_AT))
    assert isinstance(heard, Forged)


@given(st.binary(max_size=200))
def test_bytes_that_are_signed_never_raise(body: bytes) -> None:
    assert isinstance(tencent().hear(post(body)), Garbled)


@given(
    st.sampled_from([901, 902, 903, 908, 909, 907]),
    st.dictionaries(FIELDS, JSON),
    st.dictionaries(st.sampled_from(["EventGroupId", "EventType", "EventInfo"]), JSON, max_size=1),
)
def test_nonsense_that_is_signed_never_raises(
    number: int, info: dict[str, Any], outer: dict[str, Any]
) -> None:
    heard = hear(event(number, **({"payload": info.pop("Payload", None)} | info)) | outer)
    assert isinstance(heard, tuple | Garbled)
    for each in heard if isinstance(heard, tuple) else ():
        assert each.vendor_task_id
        assert each.vendor_task_id.isprintable()
        assert each.event_at <= RECEIVED_AT
