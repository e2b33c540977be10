"""What Tencent's answers mean: the one table of its codes, and the reading of its envelope.

Rule 1: an error is recognised by `Response.Error` alone. The vendor sends it under HTTP 200, with
whatever Content-Type.
Rule 2: a code is looked up whole, then by its family: what stands before the dot.

Sources: the error lists of StartAIConversation, StopAIConversation, DescribeAIConversation,
UpdateAIConversation and ControlAIConversation, RemoveUser and RemoveUserByStrRoomId of API
2019-07-22, and the common error codes (trtc.io 34270).
"""

from collections.abc import Callable, Mapping
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
from orchestrator.providers.base import Reply
from orchestrator.providers.reading import (
    Verdict,
    at_capacity,
    printable,
    read_object,
    unreadable,
)

CODES: Mapping[str, Verdict] = MappingProxyType(
    {
        "AuthFailure.SignatureExpire": Expired,
        "FailedOperation.RequestOutdated": Expired,
        "FailedOperation.TaskNotExist": Gone,
        "FailedOperation.TaskFinished": Gone,
        "FailedOperation.RoomNotExist": Gone,
        # An earlier send was taken. Nobody told its TaskId, so it has to be looked for.
        "FailedOperation.TaskExist": Indefinite,
        "FailedOperation.NotAbility": Denied,
        "FailedOperation.NotAllowed": Denied,
        "FailedOperation.SdkAppIdNotExist": Denied,
        "FailedOperation.SdkAppIdNotUnderAppId": Denied,
        "FailedOperation.RestrictedFrequency": Throttled,
        "FailedOperation.RestrictedConcurrency": at_capacity,
        "OperationDenied.FreqOverLimit": Throttled,
        "ResourceInsufficient.RequestRejection": at_capacity,
        "UnsupportedOperation.TaskLimit": at_capacity,
        "LimitExceeded.ConcurrencyLimit": at_capacity,
        # Both come from the account's configuration: no change of a row would help.
        "InvalidParameter.SdkAppId": Denied,
        "InvalidParameter.UserSig": Denied,
    }
)
"""Codes by their full name."""

FAMILIES: Mapping[str, Verdict] = MappingProxyType(
    {
        "AuthFailure": Denied,
        "UnauthorizedOperation": Denied,
        "IpInBlacklist": Denied,
        "IpNotInWhitelist": Denied,
        "RequestLimitExceeded": Throttled,
        "ActionOffline": Refused,
        "InvalidAction": Refused,
        "InvalidParameter": Refused,
        "InvalidParameterValue": Refused,
        "InvalidRequest": Refused,
        "MissingParameter": Refused,
        "NoSuchProduct": Refused,
        "NoSuchVersion": Refused,
        "RequestSizeLimitExceeded": Refused,
        "UnknownParameter": Refused,
        "UnsupportedOperation": Refused,
        "UnsupportedProtocol": Refused,
        "UnsupportedRegion": Refused,
    }
)
"""Codes by what stands before the dot. What is in neither table (InternalError, ServiceUnavailable,
ResourceUnavailable, what the vendor adds tomorrow) may have had an effect: `Indefinite`."""

Fields = Mapping[str, Any]
"""The object under `Response` of an answer without an error."""


def read_answer(reply: Reply, read: Callable[[Fields], Outcome]) -> Outcome:
    """Return what a reply means: the transport's verdict, the vendor's error, or its answer."""
    envelope = read_object(reply)
    if not isinstance(envelope, dict):
        return envelope
    fields = envelope.get("Response")
    if not isinstance(fields, dict):
        return unreadable("there is no object under Response")
    if fields.get("Error") is not None:
        return _read_error(fields)
    return read(fields)


def _read_error(fields: Fields) -> Outcome:
    """Return the verdict on `Response.Error`: by its whole code, else by its family."""
    error = fields["Error"]
    code = printable(error.get("Code")) if isinstance(error, Mapping) else ""
    if not code:
        return unreadable("there is no code under Response.Error", _request_id(fields))
    family, _, _ = code.partition(".")
    verdict = CODES.get(code) or FAMILIES.get(family, Indefinite)
    return verdict(
        code=code, message=printable(error.get("Message")), request_id=_request_id(fields)
    )


def read_started(fields: Fields) -> Outcome:
    """Read the answer to a start: without a TaskId something may run that nobody can stop."""
    handle = _task_id(fields)
    if handle is None:
        return Indefinite(
            code="EmptyTaskId",
            message="the start succeeded without a TaskId",
            request_id=_request_id(fields),
        )
    return Done(handle=handle, request_id=_request_id(fields))


def read_acknowledgement(fields: Fields) -> Outcome:
    """Read a success that consists of its RequestId alone; without one nobody acknowledged."""
    request_id = _request_id(fields)
    return Done(request_id=request_id) if request_id else unreadable("there is no RequestId")


def read_description(fields: Fields) -> Outcome:
    """Read the answer of Describe. The official example has neither TaskId nor SessionId.

    `Done.name` is the SessionId: a name of ours, if we started it.
    """
    request_id = _request_id(fields)
    match fields.get("Status"):
        case "Idle" | "Preparing" | "InProgress":
            name = printable(fields.get("SessionId")) or None
            return Done(handle=_task_id(fields), name=name, request_id=request_id)
        case "Stopped":
            return Gone(code="Stopped", request_id=request_id)
        case status:
            return Indefinite(
                code="UnknownStatus",
                message=f"the status is {printable(status) or 'no text'}",
                request_id=request_id,
            )


def _task_id(fields: Fields) -> str | None:
    """Return the TaskId as the vendor wrote it: it is opaque, and compared exactly."""
    given = fields.get("TaskId")
    return given if isinstance(given, str) and given else None


def _request_id(fields: Fields) -> str:
    return printable(fields.get("RequestId"))
