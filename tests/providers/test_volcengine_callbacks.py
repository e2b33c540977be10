import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fact import Event, Fact
from orchestrator.providers.base import Forged, Garbled, Heard, Post
from orchestrator.providers.callbacks import NO_OBJECT, NO_SECRET, OTHER_APP, WRONG_SIGNATURE, alive
from orchestrator.providers.signing import volcengine_notification_signature
from orchestrator.providers.volcengine import API_VERSIONS, Volcengine
from orchestrator.providers.volcengine_callbacks import FAULTS

VECTORS = json.loads(
    (Path(__file__).parent / "vectors" / "volcengine_signing.json").read_text(encoding="utf-8")
)
NOTIFICATION = VECTORS["rtc_notification_signature"][0]
FRAMES = {frame["magic"]: frame for frame in VECTORS["rts_frames"]["frames"]}
APP_ID = "661e000000000000000000ab"
SECRET = "cb-secret-1"
AT_MS = 1767323045123
AT = datetime(2026, 1, 2, 3, 4, 5, 123000, tzinfo=UTC)
RECEIVED_AT = AT + timedelta(seconds=1)
SPOKEN = "my card number is 1234"


def volcengine(**changes: Any) -> Volcengine:
    fields: dict[str, Any] = {
        "app_id": APP_ID,
        "access_key_id": "AKLTFAKE",
        "secret_access_key": "fake-secret",
        "callback_secret": SECRET,
    }
    return Volcengine(**fields | changes)


def hear(body: object, **changes: Any) -> Heard:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return volcengine(**changes).hear(Post(headers={}, body=raw, received_at=RECEIVED_AT))


def data(**changes: Any) -> dict[str, Any]:
    fields = {
        "AppId": APP_ID,
        "BusinessId": "",
        "RoomId": "room-1",
        "TaskId": "task-1",
        "UserID": "bot-1",
        "RoundID": 0,
        "EventTime": AT_MS,
        "EventType": 0,
        "RunStage": "taskStart",
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def notification(event_data: object, **changes: Any) -> dict[str, Any]:
    text = event_data if isinstance(event_data, str) else json.dumps(event_data)
    body = {
        "EventType": "VoiceChat",
        "EventData": text,
        "EventTime": "2026-01-02T11:04:05+08:00",
        "EventId": "evt-1",
        "AppId": APP_ID,
        "Version": "2020-12-01",
        "Nonce": "4711",
    } | changes
    signed = {name: str(value) for name, value in body.items()}
    return body | {"Signature": volcengine_notification_signature(signed, secret_key=SECRET)}


def fact(**changes: Any) -> Fact:
    return replace(
        Fact(
            key="evt-1",
            event=Event.STARTED,
            event_at=AT,
            vendor_task_id="task-1",
            name="task-1",
            room_id="room-1",
            is_signed=True,
        ),
        **changes,
    )


def sign_of_life(**changes: Any) -> Fact:
    return alive(fact(**changes))


# --- who says so ---


def test_the_notification_of_the_vector_is_genuine() -> None:
    assert hear(NOTIFICATION["body"], callback_secret=NOTIFICATION["secret_key"]) == (
        fact(key="evt-0001"),
    )


GENUINE = json.dumps(NOTIFICATION["body"]).encode()
FRAME = {"message": FRAMES["conv"]["frame_base64"], "signature": SECRET}
FUNCTION = {
    "Type": "tool_calls",
    "Message": SPOKEN,
    "RoomID": "room-1",
    "TaskID": "task-1",
    "AppID": APP_ID,
    "Signature": SECRET,
}
FORMS = {"notification": NOTIFICATION["body"], "frame": FRAME, "function": FUNCTION}


@pytest.mark.parametrize("secret", [None, ""])
@pytest.mark.parametrize("form", FORMS)
def test_without_a_secret_nobody_is_believed(form: str, secret: str | None) -> None:
    assert hear(FORMS[form], callback_secret=secret) == NO_SECRET


@pytest.mark.parametrize("form", FORMS)
def test_with_another_secret_it_is_forged(form: str) -> None:
    assert isinstance(hear(FORMS[form]), tuple)
    assert hear(FORMS[form], callback_secret="cb-secret-2") == WRONG_SIGNATURE


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given_signature", [None, "", 5, ["x"], "cb-secret-", "\ud800"])
def test_a_wrong_signature_is_forged(form: str, given_signature: object) -> None:
    name = "signature" if form == "frame" else "Signature"
    assert hear(FORMS[form] | {name: given_signature}) == WRONG_SIGNATURE


def test_the_secret_is_no_signature_of_a_notification() -> None:
    assert hear(NOTIFICATION["body"] | {"Signature": SECRET}) == WRONG_SIGNATURE


def test_the_digits_may_be_of_either_case() -> None:
    loud = NOTIFICATION["body"] | {"Signature": NOTIFICATION["body"]["Signature"].upper()}
    assert hear(loud) == (fact(key="evt-0001"),)


@pytest.mark.parametrize("form", ["notification", "function"])
def test_another_app_is_not_ours(form: str) -> None:
    assert hear(FORMS[form], app_id="661e000000000000000000ac") == OTHER_APP


def test_an_event_about_another_app_is_not_ours() -> None:
    assert hear(notification(data(AppId="661e000000000000000000ac"))) == OTHER_APP
    assert hear(notification(data(AppId=None))) == (fact(),)


def test_a_function_call_names_its_app() -> None:
    assert hear({**FUNCTION, "AppID": None}) == OTHER_APP


@given(st.integers(0, 8 * len(GENUINE) - 1))
def test_one_flipped_bit_changes_no_fact(bit: int) -> None:
    flipped = bytearray(GENUINE)
    flipped[bit // 8] ^= 1 << bit % 8
    # A digit of the signature may change its case, and nothing else may change.
    assert hear(bytes(flipped)) in (WRONG_SIGNATURE, NO_OBJECT, UNKNOWN_FORM, hear(GENUINE))


UNKNOWN_FORM = Garbled("it has none of the three documented forms")


@given(
    st.sampled_from(["EventType", "EventTime", "EventId", "AppId", "Version", "Nonce"]),
    st.text(max_size=30),
)
def test_every_part_is_signed(name: str, value: str) -> None:
    body = NOTIFICATION["body"]
    heard = hear(body | {name: value})
    assert heard == (hear(body) if value == body[name] else WRONG_SIGNATURE)


@pytest.mark.parametrize("name", [n for n in NOTIFICATION["body"] if n != "EventData"])
@pytest.mark.parametrize("value", [None, True, ["x"], {"x": "y"}, "\ud800"])
def test_what_cannot_have_been_signed_is_forged(name: str, value: object) -> None:
    assert hear(NOTIFICATION["body"] | {name: value}) == WRONG_SIGNATURE


# --- message notification ---


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("taskStart", fact()),
        ("taskStop", fact(event=Event.ENDED)),
        ("beginAsking", sign_of_life()),
        ("answerFinish", sign_of_life()),
        ("whatComesNext", sign_of_life()),
    ],
)
@pytest.mark.parametrize("event_type", [0, "0", None])
def test_a_stage(stage: str, expected: Fact, event_type: object) -> None:
    assert hear(notification(data(RunStage=stage, EventType=event_type, New=1))) == (expected,)


ANY_FAULT = "the vendor reports an error of the conversation"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"Errorcode": 1003006, "Reason": SPOKEN}, "1003006", FAULTS["1003006"]),
        ({"ErrorCode": "1004002"}, "1004002", "the language model refused the request"),
        ({"ErrorCode": 1005003}, "1005003", "speech synthesis failed"),
        ({"ErrorCode": 1000001}, "1000001", "the task could not be set up"),
        ({"ErrorCode": 7}, "7", ANY_FAULT),
        ({"ErrorCode": SPOKEN}, "VoiceChatError", ANY_FAULT),
        (None, "VoiceChatError", ANY_FAULT),
        ([1], "VoiceChatError", ANY_FAULT),
    ],
)
@pytest.mark.parametrize("event_type", [1, "1"])
def test_an_error(error: object, code: str, message: str, event_type: object) -> None:
    heard = hear(notification(data(RunStage="llm", EventType=event_type, ErrorInfo=error)))
    assert heard == (fact(event=Event.FAULT, code=code, message=message),)


@pytest.mark.parametrize(
    "event_type", ["UserJoinRoom", "UserLeaveRoom", "RoomDestroy", "RecordStarted", "", "voicechat"]
)
def test_other_notifications_say_nothing(event_type: str) -> None:
    assert hear(notification("no JSON", EventType=event_type)) == ()


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (AT_MS, "2026-01-01T00:00:00Z", AT),
        (str(AT_MS), "soon", AT),
        (None, "2026-01-02T11:04:05.123+08:00", AT),
        ("soon", "2026-01-02T03:04:05.123Z", AT),
        (2**63 - 1, "2026-01-02T03:04:05.123+00:00", AT),
        (AT_MS + 3_600_000, "", RECEIVED_AT),
        (None, "2026-01-02T05:04:05Z", RECEIVED_AT),
    ],
)
def test_when_it_happened(inner: object, outer: str, expected: datetime) -> None:
    heard = hear(notification(data(EventTime=inner), EventTime=outer))
    assert heard == (fact(event_at=expected),)


LACKING = Garbled("VoiceChat lacks TaskId, RunStage, EventId or a time")


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (notification("no JSON"), Garbled("EventData is not a JSON object")),
        (notification("[]"), Garbled("EventData is not a JSON object")),
        (notification("[" * 100_000), Garbled("EventData is not a JSON object")),
        (notification({}), LACKING),
        (notification(data(TaskId=None)), LACKING),
        (notification(data(TaskId="")), LACKING),
        (notification(data(TaskId={"a": 1})), LACKING),
        (notification(data(TaskId="a\x00b")), LACKING),
        (notification(data(RunStage=None)), LACKING),
        (notification(data(), EventId=""), LACKING),
        (notification(data(), EventId="x" * 1_000), LACKING),
        (notification(data(EventTime=None), EventTime="soon"), LACKING),
        (notification(data(EventTime=None), EventTime="2026-01-02T03:04:05"), LACKING),
        (notification(data(EventTime=None), EventTime="9999-12-31T23:59:59-23:00"), LACKING),
    ],
)
def test_what_is_not_documented_is_garbled(body: object, verdict: Garbled) -> None:
    assert hear(body) == verdict


def test_a_number_is_signed_as_its_text() -> None:
    body = notification(data(), Nonce=4711)
    assert json.loads(json.dumps(body))["Nonce"] == 4711
    assert hear(body) == (fact(),)


def test_a_room_is_told_if_it_can_be() -> None:
    for room, told in ((8489, "8489"), (None, None), ("a\nb", None)):
        assert hear(notification(data(RoomId=room))) == (fact(room_id=told),)


# --- the agent's own posts ---


def frame(magic: bytes, payload: bytes, length: int | None = None) -> dict[str, Any]:
    size = (len(payload) if length is None else length).to_bytes(4, "big")
    return {
        "message": base64.b64encode(magic + size + payload).decode(),
        "signature": SECRET,
        "binary": True,
    }


def conv(**changes: Any) -> bytes:
    state = {"TaskId": "task-1", "EventTime": AT_MS, "Stage": {"Code": 2}} | changes
    return json.dumps(state).encode()


@pytest.mark.parametrize("magic", ["conv", "subv", "tool"])
def test_frames_of_the_vectors(magic: str) -> None:
    body = FRAMES[magic]["http_body"]
    is_state = magic == "conv"
    expected = (sign_of_life(room_id=None, is_signed=False),) if is_state else ()
    assert hear(body, callback_secret=body["signature"]) == expected


def test_other_frames_say_nothing() -> None:
    assert hear(frame(b"next", b"\xff" + SPOKEN.encode())) == ()


def test_a_state_comes_from_no_later_than_now() -> None:
    heard = hear(frame(b"conv", conv(EventTime=AT_MS + 10**9)))
    assert heard == (sign_of_life(event_at=RECEIVED_AT, room_id=None, is_signed=False),)


NO_FRAME = Garbled("the message is no frame")
NO_STATE = Garbled("the state of a conversation lacks TaskId or EventTime")


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ({"message": "", "signature": SECRET}, NO_FRAME),
        ({"message": None, "signature": SECRET}, NO_FRAME),
        ({"message": {"a": 1}, "signature": SECRET}, NO_FRAME),
        ({"message": "Y29u*nY=", "signature": SECRET}, NO_FRAME),
        ({"message": "Y29udgA", "signature": SECRET}, NO_FRAME),
        ({"message": "任务", "signature": SECRET}, NO_FRAME),
        ({"message": base64.b64encode(b"conv\x00\x00").decode(), "signature": SECRET}, NO_FRAME),
        (frame(b"conv", conv(), length=5), NO_FRAME),
        (frame(b"conv", conv(), length=2**32 - 1), NO_FRAME),
        (frame(b"conv", b""), NO_STATE),
        (frame(b"conv", b"[]"), NO_STATE),
        (frame(b"conv", b"\xff"), NO_STATE),
        (frame(b"conv", conv(TaskId=None)), NO_STATE),
        (frame(b"conv", conv(EventTime="soon")), NO_STATE),
    ],
)
def test_what_is_no_frame_is_garbled(body: object, verdict: Garbled) -> None:
    assert hear(body) == verdict


@pytest.mark.parametrize("name", ["Signature", "signature"])
@pytest.mark.parametrize("kind", ["information", "tool_calls"])
def test_a_function_call_is_a_sign_of_life(name: str, kind: str) -> None:
    body = {key: value for key, value in FUNCTION.items() if key != "Signature"}
    heard = hear(body | {name: SECRET, "Type": kind})
    assert heard == (sign_of_life(event_at=RECEIVED_AT, is_signed=False),)
    assert SPOKEN not in repr(heard)


@pytest.mark.parametrize("task_id", [None, "", ["t"]])
def test_a_function_call_of_nobody_is_garbled(task_id: object) -> None:
    assert hear(FUNCTION | {"TaskID": task_id}) == Garbled("a function call lacks TaskID")


# --- versions ---


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("version", API_VERSIONS)
def test_a_task_of_the_first_generation_is_nobody_s(version: str, form: str) -> None:
    heard = hear(FORMS[form], api_version=version)
    assert heard == (() if version == "2024-06-01" else hear(FORMS[form]))
    assert hear(FORMS[form], api_version=version, callback_secret="x") == WRONG_SIGNATURE


# --- everything else ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"null", b'"{}"', b"[" * 100_000])
def test_what_is_no_json_object_is_garbled(body: bytes) -> None:
    assert hear(body) == NO_OBJECT


@given(st.binary(max_size=200))
def test_bytes_of_whatever_kind_never_raise(body: bytes) -> None:
    assert isinstance(hear(body), Forged | Garbled)


@given(st.dictionaries(st.sampled_from([*NOTIFICATION["body"], *FUNCTION, *FRAME]), JSON))
def test_nonsense_is_not_believed(body: dict[str, Any]) -> None:
    assert isinstance(hear(body), Forged | Garbled)


@given(st.dictionaries(st.sampled_from([*data(), "ErrorInfo"]), JSON))
def test_nonsense_that_is_signed_never_raises(changes: dict[str, Any]) -> None:
    heard = hear(notification(data() | changes))
    assert isinstance(heard, tuple | Garbled) or heard == OTHER_APP
    for each in heard if isinstance(heard, tuple) else ():
        assert each.vendor_task_id
        assert each.vendor_task_id.isprintable()
        assert each.event_at <= RECEIVED_AT
        assert len(each.message or "") < 100


@given(st.sampled_from([b"conv", b"subv", b"tool"]), st.binary(max_size=100) | JSON)
def test_frames_of_nonsense_never_raise(magic: bytes, payload: Any) -> None:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    assert hear(frame(magic, raw)) == (NO_STATE if magic == b"conv" else ())
