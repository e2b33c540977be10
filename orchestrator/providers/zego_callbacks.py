"""What ZEGO posts about an agent instance.

Rule 1: the signature covers a time and a nonce, and nothing of the body. Whoever saw one callback
can write another for as long as the time counts as fresh, so none of it is evidence.
Rule 2: what was spoken is not read. Of the events of a turn only who and when are.

Sources: callbacks/receiving-callback and exception-codes under core_products/aiagent/en/server of
ZEGOCLOUD/docs_all. They say to decode the body; the vendor's sample takes it as it is. So both.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import EndReason
from orchestrator.providers.base import Forged, Garbled, Heard, Post
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
from orchestrator.providers.signing import zego_callback_signature

FRESH_FOR = timedelta(minutes=10)
"""How far a callback's time may be from ours. The vendor repeats one for 62 s, and does not say
whether it signs anew."""
STALE = Forged("it was signed too long ago, or in the future")

ENCODED_MAX = 16_384
"""Bytes of a body that is no JSON and is read all the same."""
FORM_FIELDS_MAX = 64

DELETED: Mapping[int, tuple[EndReason | None, str]] = MappingProxyType(
    {
        # Somebody asked for it, and that need not have been us.
        0: (None, "deleted on request"),
        1201: (EndReason.VENDOR_FAULT, "an error of the room service"),
        1202: (EndReason.IDLE, "the user was away from the room for too long"),
        1203: (EndReason.KICKED, "removed from the room, or evicted by a later agent"),
        1204: (EndReason.VENDOR_FAULT, "it could not enter the room"),
        1205: (EndReason.ROOM_CLOSED, "cut off from the room"),
        1206: (EndReason.VENDOR_FAULT, "it could not publish its stream"),
    }
)
"""Code of AgentInstanceDeleted: why it ended, and what that means."""

FAULTS: Mapping[int, str] = MappingProxyType(
    {
        1101: "the messaging service failed",
        1207: "the user's stream cannot be heard",
        1208: "messages to the room cannot be sent",
        2101: "speech recognition failed",
        2201: "the language model failed",
        2202: "the language model refused its parameters",
        2203: "the language model refused its key",
        2204: "the language model allows no more calls at a time",
        2205: "the account of the language model is in arrears",
        2206: "the language model's provider refused the content",
        2301: "speech synthesis failed",
        2302: "speech synthesis refused its parameters",
        2303: "speech synthesis refused its key",
        2304: "speech synthesis allows no more calls at a time",
        2305: "the account of speech synthesis is in arrears",
    }
)
"""Codes of Exception with which an instance lives on, and cannot hear or speak."""

FATAL = frozenset(DELETED) - {0}
"""Codes of Exception that AgentInstanceDeleted follows, which says the same with certainty."""


def hear(post: Post, *, app_id: int, secret: str | None) -> Heard:
    """Judge a callback of one AppId, and return what it tells of its agents."""
    if not secret:
        return NO_SECRET
    envelope = _read_body(post.body)
    if envelope is None:
        return NO_OBJECT
    timestamp, nonce = text_at(envelope, "Timestamp"), text_at(envelope, "Nonce")
    if timestamp is None or nonce is None:
        return WRONG_SIGNATURE
    expected = zego_callback_signature(callback_secret=secret, timestamp=timestamp, nonce=nonce)
    if not is_same(envelope.get("Signature"), expected):
        return WRONG_SIGNATURE
    posted_at = moment_at(envelope, "Timestamp")
    if posted_at is None or abs(posted_at - post.received_at) > FRESH_FOR:
        return STALE
    if envelope.get("AppId") != str(app_id):
        return OTHER_APP
    return _read_event(envelope, min(posted_at, post.received_at))


def _read_body(body: bytes) -> Fields | None:
    """Return the fields of a body: JSON, JSON percent-encoded, or a form.

    Nobody has signed it yet, so what costs much is tried on short ones alone.
    """
    fields = read_fields(body)
    if fields is not None or len(body) > ENCODED_MAX:
        return fields
    text = body.decode(errors="replace")
    fields = read_fields(unquote_plus(text))
    return fields if fields is not None else _read_form(text)


def _read_form(text: str) -> Fields | None:
    """Return the fields of a form; null if there are none. An object among them is JSON."""
    try:
        fields: dict[str, Any] = dict(parse_qsl(text, max_num_fields=FORM_FIELDS_MAX))
    except ValueError:
        return None
    return fields | {"Data": read_fields(fields.get("Data", ""))} if fields else None


def _read_event(envelope: Fields, posted_at: datetime) -> Heard:
    event = text_at(envelope, "Event")
    if event is None:
        return Garbled("it lacks Event")
    read = _READERS.get(event)
    if read is None:
        return ()
    handle, sequence = id_at(envelope, "AgentInstanceId"), number_at(envelope, "Sequence")
    if handle is None:
        return Garbled("the event lacks AgentInstanceId")
    if sequence is None and envelope.get("Sequence") is not None:
        return Garbled("Sequence is no whole number of 64 bits")
    order = envelope["Timestamp"] if sequence is None else sequence
    fact = Fact(
        key=f"{handle}:{order}:{event}",
        event=Event.ALIVE,
        event_at=posted_at,
        position=sequence or 0,
        vendor_task_id=handle,
        name=id_at(envelope, "AgentUserId"),
        room_id=id_at(envelope, "RoomId"),
    )
    return read(fact, object_at(envelope, "Data"))


def _read_created(fact: Fact, data: Fields) -> Heard:
    return (_at(replace(fact, event=Event.STARTED), data, "CreatedTimestamp"),)


def _read_deleted(fact: Fact, data: Fields) -> Heard:
    """Read an end. It is one whatever its Code is, and if there is none."""
    code = number_at(data, "Code")
    fact = _at(replace(fact, event=Event.ENDED), data, "DeletedTimestamp")
    if code is None:
        return (fact,)
    why, message = DELETED.get(code, (None, None))
    return (replace(fact, end_reason=why, code=str(code), message=message),)


def _read_exception(fact: Fact, data: Fields) -> Heard:
    code = number_at(data, "Code")
    if code is None:
        return Garbled("Exception lacks Code")
    if code in FATAL:
        return ()
    if code not in FAULTS:
        return (alive(fact),)
    return (replace(fact, event=Event.FAULT, code=str(code), message=FAULTS[code]),)


def _read_turn(fact: Fact, _: Fields) -> Heard:
    """Read something that only a living agent does."""
    return (alive(fact),)


def _at(fact: Fact, data: Fields, name: str) -> Fact:
    """Return the fact with the event's own time, where it is told and not later than its post."""
    moment = moment_at(data, name)
    return fact if moment is None else replace(fact, event_at=min(moment, fact.event_at))


_READERS: Mapping[str, Callable[[Fact, Fields], Heard]] = MappingProxyType(
    {
        "AgentInstanceCreated": _read_created,
        "AgentInstanceDeleted": _read_deleted,
        "Exception": _read_exception,
        **dict.fromkeys(("ASRResult", "LLMResult", "Interrupted", "UserSpeakAction"), _read_turn),
        **dict.fromkeys(("AgentInstanceStatus", "AgentInstanceMetaInfo"), _read_turn),
        **dict.fromkeys(("UserAudioData", "AgentSpeakAction"), _read_turn),
    }
)
"""The vendor says that more events will come."""
