"""What Volcengine posts about a conversation: three forms, told apart by their fields.

Rule 1: only the message notification is signed as a whole. The other two carry the shared secret
itself, so whoever saw one can write another: what they tell is no evidence.
Rule 2: what was said is not read. Subtitles and calls of tools are genuine, and tell us nothing.

Sources: RTC message notification (docs/6348/69820, 75124), its VoiceChat event (1928198, 1798101),
the agent's own posts (1415216, 1337284, 1359441), and, for the server form of function calling,
third-party receivers. No page says why a task stopped.
"""

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from orchestrator.core.fact import Event, Fact
from orchestrator.providers.base import Garbled, Heard, Post
from orchestrator.providers.callbacks import (
    NO_OBJECT,
    NO_SECRET,
    OTHER_APP,
    WRONG_SIGNATURE,
    Fields,
    alive,
    id_at,
    is_same,
    moment_at,
    number_at,
    object_at,
    read_fields,
    text_at,
)
from orchestrator.providers.signing import (
    VOLCENGINE_NOTIFICATION_FIELDS,
    volcengine_notification_signature,
)

VOICE_CHAT = "VoiceChat"

FAULT = "VoiceChatError"
"""Our own code for an error that came without one."""

FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "1000001": "the task could not be set up",
        "1000002": "a parameter is unknown",
        "1003001": "speech recognition could not be created",
        "1003002": "speech recognition refused the request",
        "1003003": "speech recognition could not be read",
        "1003004": "speech recognition answered something unreadable",
        "1003005": "speech recognition was connected to too often",
        "1003006": "speech recognition cannot be reached",
        "1004001": "the language model could not be created",
        "1004002": "the language model refused the request",
        "1004003": "the language model could not be read",
        "1004004": "the language model's answer could not be processed",
        "1004005": "the language model cannot be reached",
        "1004006": "a function call could not be sent",
        "1004007": "a function call was not answered well",
        "1004008": "filler words failed",
        "1004009": "the tools of an MCP server could not be listed",
        "1004010": "a tool of an MCP server could not be called",
        "1006001": "the avatar cannot be reached",
        "1006002": "the avatar failed",
    }
)
"""What the error codes mean. The five of speech synthesis are documented as a range alone."""

_FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "1003": "speech recognition failed",
        "1004": "the language model failed",
        "1005": "speech synthesis failed",
        "1006": "the avatar failed",
    }
)
_ANY_FAULT = "the vendor reports an error of the conversation"

_FRAME_HEADER = 8
"""Bytes: four letters that say what the frame is, and the length of its JSON."""


def hear(post: Post, *, app_id: str, secret: str | None) -> Heard:
    """Judge a callback of one RTC app, and return what it tells of its agents."""
    if not secret:
        return NO_SECRET
    body = read_fields(post.body)
    match body:
        case None:
            return NO_OBJECT
        case {"EventData": _}:
            return _hear_notification(body, post.received_at, app_id, secret)
        case {"message": message}:
            return _hear_frame(body, message, post.received_at, secret)
        case {"TaskID": _}:
            return _hear_function_call(body, post.received_at, app_id, secret)
        case _:
            return Garbled("it has none of the three documented forms")


# --- message notification ---


def _hear_notification(body: Fields, received_at: datetime, app_id: str, secret: str) -> Heard:
    parts = {name: text_at(body, name) for name in VOLCENGINE_NOTIFICATION_FIELDS}
    signed = {name: text for name, text in parts.items() if text is not None}
    if len(signed) < len(parts):
        return WRONG_SIGNATURE
    expected = volcengine_notification_signature(signed, secret_key=secret)
    # No page says in which case the digits are.
    if not is_same(str(body.get("Signature")).lower(), expected):
        return WRONG_SIGNATURE
    if signed["AppId"] != app_id:
        return OTHER_APP
    if signed["EventType"] != VOICE_CHAT:
        return ()
    data = read_fields(signed["EventData"])
    if data is None:
        return Garbled("EventData is not a JSON object")
    if data.get("AppId", app_id) != app_id:
        return OTHER_APP
    return _read_voice_chat(data, signed, received_at)


def _read_voice_chat(data: Fields, outer: Fields, received_at: datetime) -> Heard:
    event_at = moment_at(data, "EventTime") or _read_iso_8601(outer["EventTime"])
    task_id, stage, key = id_at(data, "TaskId"), id_at(data, "RunStage"), id_at(outer, "EventId")
    if event_at is None or task_id is None or stage is None or key is None:
        return Garbled("VoiceChat lacks TaskId, RunStage, EventId or a time")
    fact = Fact(
        key=key,
        event=Event.ALIVE,
        event_at=min(event_at, received_at),
        vendor_task_id=task_id,
        name=task_id,
        room_id=id_at(data, "RoomId"),
        is_signed=True,
    )
    if number_at(data, "EventType") == 1:
        return (_fault(fact, object_at(data, "ErrorInfo")),)
    match stage:
        case "taskStart":
            return (replace(fact, event=Event.STARTED),)
        case "taskStop":
            return (replace(fact, event=Event.ENDED),)
        case _:
            return (alive(fact),)


def _fault(fact: Fact, error: Fields) -> Fact:
    """Return the fact of an error. The table spells the code in one way, receivers in another."""
    found = (number_at(error, name) for name in ("ErrorCode", "Errorcode"))
    code = next((str(number) for number in found if number is not None), FAULT)
    meaning = FAULTS.get(code) or _FAMILIES.get(code[:4], _ANY_FAULT)
    return replace(fact, event=Event.FAULT, code=code, message=meaning)


def _read_iso_8601(text: str) -> datetime | None:
    """Return the instant; null without a zone, since a guess could make an old end a new one."""
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# --- the agent's own posts ---


def _hear_frame(body: Fields, message: Any, received_at: datetime, secret: str) -> Heard:
    """Hear what the agent also sends into its room: states, subtitles, calls of tools."""
    if not is_same(body.get("signature"), secret):
        return WRONG_SIGNATURE
    frame = _decode(message)
    payload = frame[_FRAME_HEADER:]
    if len(frame) < _FRAME_HEADER or len(payload) != int.from_bytes(frame[4:_FRAME_HEADER], "big"):
        return Garbled("the message is no frame")
    if frame[:4] != b"conv":
        return ()
    state = read_fields(payload) or {}
    event_at, task_id = moment_at(state, "EventTime"), id_at(state, "TaskId")
    if event_at is None or task_id is None:
        return Garbled("the state of a conversation lacks TaskId or EventTime")
    return (_sign_of_life(task_id, min(event_at, received_at)),)


def _decode(message: Any) -> bytes:
    """Return what stands in base64; nothing if it is none."""
    if not isinstance(message, str):
        return b""
    try:
        return base64.b64decode(message, validate=True)
    except ValueError:
        return b""


def _hear_function_call(body: Fields, received_at: datetime, app_id: str, secret: str) -> Heard:
    """Hear that the agent wants a tool called. The post has no time of its own."""
    given = body.get("Signature", body.get("signature"))
    if not is_same(given, secret):
        return WRONG_SIGNATURE
    if body.get("AppID") != app_id:
        return OTHER_APP
    task_id = id_at(body, "TaskID")
    if task_id is None:
        return Garbled("a function call lacks TaskID")
    return (replace(_sign_of_life(task_id, received_at), room_id=id_at(body, "RoomID")),)


def _sign_of_life(task_id: str, at: datetime) -> Fact:
    return alive(Fact(key="", event=Event.ALIVE, event_at=at, vendor_task_id=task_id, name=task_id))
