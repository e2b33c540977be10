"""What Tencent posts about a conversation: the events of group 9.

Rule 1: the signature covers the raw body, so nothing is parsed before it is right.
Rule 2: 903 and 905 carry what was spoken. Of them only the TaskId and the time are read.
Rule 3: no name of ours is in an event; what belongs to whom is known by the TaskId alone.

Sources: trtc.io 68331 (events, Sign), 647/51586 (headers, retries), 647/115505 (codes of 908).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import EndReason
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
    moment,
    number_at,
    object_at,
    read_fields,
)
from orchestrator.providers.signing import tencent_callback_sign

AI_GROUP = 9
STARTED = 901
STOPPED = 902
MESSAGE = 903
SPEECH_STARTED = 904
SPEECH_FINISHED = 905
METRIC = 906
ERROR = 908
SESSION_STATUS = 909

LEAVES: Mapping[int, tuple[EndReason | None, str]] = MappingProxyType(
    {
        # Somebody asked for it, and that need not have been us.
        0: (None, "stopped on request"),
        1: (EndReason.KICKED, "removed from the room"),
        2: (EndReason.ROOM_CLOSED, "the room was dismissed"),
        3: (EndReason.KICKED, "removed from the room by the vendor"),
        4: (EndReason.ROOM_CLOSED, "the room was dissolved by the vendor"),
        98: (EndReason.VENDOR_FAULT, "a fault inside the vendor"),
        99: (EndReason.IDLE, "nobody published a stream"),
    }
)
"""LeaveCode: why it ended, and what that means."""

FAULTS: Mapping[int, str] = MappingProxyType(
    {
        30100: "speech recognition timed out",
        30102: "speech recognition failed",
        30200: "the language model timed out",
        30201: "the language model allows no more calls",
        30202: "the language model failed",
        30300: "speech synthesis timed out",
        30301: "speech synthesis allows no more calls",
        30302: "speech synthesis failed",
    }
)
_METRICS: Mapping[str, str] = MappingProxyType(
    {
        "asr_error": "speech recognition has an error",
        "llm_error": "the language model has an error",
        "tts_error": "speech synthesis has an error",
    }
)
_ANY_FAULT = "the vendor reports an error of the conversation"

_TIMES = ("CallbackTs", "CallbackMsTs")
"""When it was posted: the samples spell it in one way, the table in another."""


def hear(post: Post, *, sdk_app_id: int, key: str | None) -> Heard:
    """Judge a callback of one SdkAppId, and return what it tells of its agents."""
    if not key:
        return NO_SECRET
    if not is_same(post.headers.get("sign"), tencent_callback_sign(post.body, key=key)):
        return WRONG_SIGNATURE
    # The header is not signed; but two applications may have been given one key.
    if post.headers.get("sdkappid", str(sdk_app_id)) != str(sdk_app_id):
        return OTHER_APP
    envelope = read_fields(post.body)
    if envelope is None:
        return NO_OBJECT
    group, event = number_at(envelope, "EventGroupId"), number_at(envelope, "EventType")
    if group is None or event is None:
        return Garbled("it lacks EventGroupId or EventType")
    read = _READERS.get(event)
    if group != AI_GROUP or read is None:
        return ()
    info = object_at(envelope, "EventInfo")
    fact = _begin(event, info, envelope, post.received_at)
    if fact is None:
        return Garbled("an AI event lacks TaskId or a time")
    return read(fact, object_at(info, "Payload"))


def _begin(event: int, info: Fields, envelope: Fields, received_at: datetime) -> Fact | None:
    """Return what all AI events tell; null if this one does not."""
    task_id = id_at(info, "TaskId")
    times = (number_at(info, "EventMsTs"), *(number_at(envelope, name) for name in _TIMES))
    milliseconds = next((number for number in times if number is not None), None)
    event_at = None if milliseconds is None else moment(milliseconds)
    if task_id is None or event_at is None:
        return None
    return Fact(
        key=f"{task_id}:{event}:{milliseconds}",
        event=Event.ALIVE,
        event_at=min(event_at, received_at),
        vendor_task_id=task_id,
        room_id=id_at(info, "RoomId"),
        is_signed=True,
    )


def _read_started(fact: Fact, payload: Fields) -> Heard:
    match number_at(payload, "Status"):
        case 0:
            return (replace(fact, event=Event.STARTED),)
        case 1:
            why, code = EndReason.VENDOR_FAULT, str(STARTED)
            message = "the conversation could not begin"
            return (replace(fact, event=Event.ENDED, end_reason=why, code=code, message=message),)
        case None:
            return Garbled("901 lacks Status")
        case _:
            return ()


def _read_stopped(fact: Fact, payload: Fields) -> Heard:
    """Read an end. It is one whatever its LeaveCode is, and if there is none."""
    code = number_at(payload, "LeaveCode")
    if code is None:
        return (replace(fact, event=Event.ENDED),)
    why, message = LEAVES.get(code, (None, None))
    return (replace(fact, event=Event.ENDED, end_reason=why, code=str(code), message=message),)


def _read_error(fact: Fact, payload: Fields) -> Heard:
    """Read an error that the conversation survives, and goes on to be billed with."""
    tag = object_at(payload, "Tag")
    code, round_id = number_at(tag, "Code"), id_at(tag, "RoundId")
    metric = _METRICS.get(id_at(payload, "Metric") or "", _ANY_FAULT)
    return (
        replace(
            fact,
            key=fact.key if round_id is None else f"{fact.key}:{round_id}",
            event=Event.FAULT,
            code=str(ERROR if code is None else code),
            message=metric if code is None else FAULTS.get(code, metric),
        ),
    )


def _read_turn(fact: Fact, _: Fields) -> Heard:
    """Read something that only a living agent does."""
    return (alive(fact),)


_READERS: Mapping[int, Callable[[Fact, Fields], Heard]] = MappingProxyType(
    {
        STARTED: _read_started,
        STOPPED: _read_stopped,
        ERROR: _read_error,
        **dict.fromkeys((MESSAGE, SPEECH_STARTED, SPEECH_FINISHED), _read_turn),
        **dict.fromkeys((METRIC, SESSION_STATUS), _read_turn),
    }
)
"""907 is not documented, and the vendor says that more will come."""
