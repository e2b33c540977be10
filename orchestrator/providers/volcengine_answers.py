"""What Volcengine's answers mean: the one table of its codes, and the reading of its envelope.

Rule 1: an error is what `ResponseMetadata.Error` says, under whatever HTTP status; a success is an
HTTP 200 without one whose `Result` is as documented. Everything else is `Indefinite`.
Rule 2: a start that the vendor calls already started has happened: an earlier send of the same
TaskId was taken.

Sources: the envelope and common codes (docs/6348/1178322, docs/6369/68677), the business codes of
all RTC APIs (docs/6348/70426), the FAQ of the vendor's rtc-aigc-demo, and EMQX's API reference.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from orchestrator.core.outcome import (
    Denied,
    Done,
    Expired,
    Gone,
    Indefinite,
    Outcome,
    Refused,
    Throttled,
)
from orchestrator.providers.base import Reply, Response
from orchestrator.providers.reading import (
    Verdict,
    at_capacity,
    printable,
    read_object,
    started,
    unreadable,
)

MAX_RETRY_AFTER_S = 3600
"""A Retry-After above this is no answer of a rate limiter."""

UNKNOWN_RESULT = "UnknownResult"
"""Our own code for a `Result` that says something other than success."""

ALREADY_STARTED = "has been started"
"""Part of the text that answers a repeated start, by the FAQ of the vendor's demo. It comes as
`Result`, or, with some versions, as the message of an error."""

CODES: Mapping[str, Verdict] = MappingProxyType(
    {
        "InvalidTimestamp": Expired,
        "InvalidParameter.ErrorActiveTaskNotFound": Gone,
        "TaskNotExist": Gone,
        # An agent cannot be in a room that is not there.
        "RoomNotExist": Gone,
        # Only a start can be told so, and reads it itself.
        "InvalidParameter.TaskAlreadyExists": Indefinite,
        "FlowLimitExceeded.TaskNumberOverLimit": at_capacity,
        # All that comes from the account's configuration: no change of a row would help.
        "InvalidParameter.NotExistAppId": Denied,
        "InvalidParameter.IllegalAppId": Denied,
        "InvalidParameter.EmptyAccountId": Denied,
        "InvalidActionOrVersion": Denied,
        "ServiceNotFound": Denied,
        "InvalidAccessKey": Denied,
        "InvalidAuthorization": Denied,
        "InvalidCredential": Denied,
        "InvalidSecretToken": Denied,
        "InvalidToken": Denied,
        "LackPolicy": Denied,
        "MissingAuthenticationToken": Denied,
        "MissingSignature": Denied,
        "SignatureDoesNotMatch": Denied,
    }
)
"""Codes by their full name."""

FAMILIES: Mapping[str, Verdict] = MappingProxyType(
    {
        "AccessDenied": Denied,
        "FlowLimitExceeded": Throttled,
        "InvalidParameter": Refused,
        "MissingParameter": Refused,
        "MissingRequestInfo": Refused,
    }
)
"""Codes by what stands before the dot. What is in neither table (InternalError, what the vendor
adds tomorrow) may have had an effect: `Indefinite`."""

ReadResult = Callable[[Any, str], Outcome]
"""Judges the `Result` of an answer without an error, given the RequestId."""


def read_start(reply: Reply, handle: str) -> Outcome:
    """Return what the answer to StartVoiceChat means; `handle` is what stops the agent."""
    outcome = read_answer(reply, _read_ok)
    match outcome:
        case Done():
            return replace(outcome, handle=handle)
        case Refused() | Indefinite() if _was_started_before(outcome):
            return Done(
                handle=handle,
                code=outcome.code,
                message=outcome.message,
                request_id=outcome.request_id,
            )
        case _:
            return started(outcome)


def read_stop(reply: Reply) -> Outcome:
    """Return what the answer to StopVoiceChat means."""
    return read_answer(reply, _read_ok)


def read_update(reply: Reply) -> Outcome:
    """Return what the answer to UpdateVoiceChat means. It tells nothing but its success."""
    return read_answer(reply, _read_ok)


def read_presence(reply: Reply, agent_user_id: str) -> Outcome:
    """Return what the answer to GetRoomOnlineUsers says of one user: `Done` if there, or `Gone`.

    `seen` is everybody in the room.
    """

    def read(result: Any, request_id: str) -> Outcome:
        users = _online_users(result)
        if users is None:
            return unreadable("Result is not a list of users", request_id)
        if agent_user_id in users:
            return Done(request_id=request_id, seen=users)
        return Gone(message="not in the room", request_id=request_id, seen=users)

    return read_answer(reply, read)


def read_answer(reply: Reply, read: ReadResult) -> Outcome:
    """Return what a reply means: the transport's verdict, the vendor's error, or its result."""
    if not isinstance(reply, Response):
        return reply
    told = _read_envelope(reply, read)
    if reply.status == 429:
        return _throttled(reply, told)
    if reply.status >= 500:
        return Indefinite(
            code=told.code or f"HTTP{reply.status}",
            message=told.message,
            request_id=told.request_id,
        )
    return told


def _read_envelope(response: Response, read: ReadResult) -> Outcome:
    # The envelope comes under every status, so it is read as if the status were good.
    envelope = read_object(replace(response, status=200))
    if not isinstance(envelope, dict):
        return envelope if response.status == 200 else _only_a_status(response)
    metadata = envelope.get("ResponseMetadata")
    if not isinstance(metadata, dict):
        return unreadable("there is no object under ResponseMetadata")
    request_id = printable(metadata.get("RequestId"))
    if metadata.get("Error") is not None:
        return _read_error(metadata["Error"], request_id)
    if response.status != 200:
        return replace(_only_a_status(response), request_id=request_id)
    return read(envelope.get("Result"), request_id)


def _only_a_status(response: Response) -> Indefinite:
    return Indefinite(code=f"HTTP{response.status}", message=f"HTTP status {response.status}")


def _read_error(error: Any, request_id: str) -> Outcome:
    """Return the verdict on an error: by its whole code, else by its family."""
    code = printable(error.get("Code")) if isinstance(error, dict) else ""
    if not code:
        return unreadable("there is no code under ResponseMetadata.Error", request_id)
    family, _, _ = code.partition(".")
    verdict = CODES.get(code) or FAMILIES.get(family, Indefinite)
    return verdict(code=code, message=printable(error.get("Message")), request_id=request_id)


def _read_ok(result: Any, request_id: str) -> Outcome:
    """Read a result that carries nothing: "ok" officially, an object at EMQX, both are success."""
    match result:
        case None | "ok" | "" | dict():
            return Done(request_id=request_id)
        case str():
            return Indefinite(code=UNKNOWN_RESULT, message=printable(result), request_id=request_id)
        case _:
            return unreadable("Result is neither text nor an object", request_id)


def _was_started_before(outcome: Refused | Indefinite) -> bool:
    told_by_code = outcome.code == "InvalidParameter.TaskAlreadyExists"
    return told_by_code or ALREADY_STARTED in outcome.message.lower()


def _online_users(result: Any) -> tuple[str, ...] | None:
    """Return who is in the room, visible or not; None if the result does not say."""
    match result:
        case {"RoomExists": False}:
            return ()  # the other fields are absent then
        case {"RoomExists": True}:
            lists = [result.get("VisibleUserList"), result.get("InvisibleUserList")]
        case _:
            return None
    if not all(users is None or isinstance(users, list) for users in lists):
        return None
    return tuple(user for users in lists for user in users or [] if isinstance(user, str))


def _throttled(response: Response, told: Outcome) -> Throttled:
    """Return the verdict on HTTP 429, which means the same whatever the body says."""
    return Throttled(
        code=told.code,
        message=told.message,
        request_id=told.request_id,
        after=_retry_after(response),
        capacity=isinstance(told, Throttled) and told.capacity,
    )


def _retry_after(response: Response) -> timedelta | None:
    """Return the Retry-After in seconds, if it is one that can be believed."""
    text = response.headers.get("retry-after", "").strip()
    # At most five digits, so a hostile header costs nothing.
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    seconds = int(text)
    return timedelta(seconds=seconds) if seconds <= MAX_RETRY_AFTER_S else None
