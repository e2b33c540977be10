import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from orchestrator.providers.base import Response
from orchestrator.providers.reading import UNREADABLE
from orchestrator.providers.volcengine_answers import (
    CODES,
    UNKNOWN_RESULT,
    read_presence,
    read_start,
    read_stop,
)

EXAMPLES = json.loads(
    (Path(__file__).parent / "vectors" / "volcengine_examples.json").read_text(encoding="utf-8")
)
STARTED_BEFORE = (
    "The task has been started. Please do not call the startup task interface repeatedly."
)


def raw(body: bytes, status: int = 200, **headers: str) -> Response:
    return Response(status=status, headers=headers, body=body)


def answer(body: Any, status: int = 200) -> Response:
    return raw(json.dumps(body).encode(), status)


def success(result: Any) -> Response:
    return answer({"ResponseMetadata": {"RequestId": "r"}, "Result": result})


def failure(code: Any, status: int = 400, message: Any = "m") -> Response:
    error = {"Code": code, "Message": message}
    return answer({"ResponseMetadata": {"RequestId": "r", "Error": error}}, status)


def start(response: Response) -> Outcome:
    return read_start(response, "task")


ROWS: list[tuple[str, int, type[Outcome]]] = [
    ("MissingParameter", 400, Refused),
    ("MissingAuthenticationToken", 401, Denied),
    ("MissingRequestInfo", 400, Refused),
    ("MissingSignature", 401, Denied),
    ("InvalidTimestamp", 400, Expired),
    ("ServiceNotFound", 404, Denied),
    ("InvalidActionOrVersion", 404, Denied),
    ("InvalidAccessKey", 401, Denied),
    ("SignatureDoesNotMatch", 401, Denied),
    ("LackPolicy", 403, Denied),
    ("AccessDenied", 403, Denied),
    ("AccessDenied.NoPermissionForApp", 403, Denied),
    ("AccessDenied.ServiceNotEnabled", 403, Denied),
    ("InvalidAuthorization", 400, Denied),
    ("InvalidCredential", 400, Denied),
    ("InvalidSecretToken", 401, Denied),
    ("InvalidToken", 400, Denied),
    ("FlowLimitExceeded", 429, Throttled),
    ("FlowLimitExceeded", 400, Throttled),
    ("FlowLimitExceeded.QPSOverLimit", 429, Throttled),
    ("InvalidParameter", 400, Refused),
    ("InvalidParameter", 200, Refused),
    ("InvalidParameter.BodyIsEmpty", 400, Refused),
    ("InvalidParameter.IllegalRoomID", 400, Refused),
    ("InvalidParameter.NotExistAppId", 400, Denied),
    ("InvalidParameter.IllegalAppId", 400, Denied),
    ("InvalidParameter.EmptyAccountId", 400, Denied),
    ("InvalidParameter.ErrorActiveTaskNotFound", 400, Gone),
    ("InvalidParameter.ErrorActiveTaskNotFound", 200, Gone),
    ("TaskNotExist", 400, Gone),
    ("RoomNotExist", 400, Gone),
    ("InternalError", 500, Indefinite),
    ("InternalError.GenerateTokenFailed", 400, Indefinite),
    ("InternalServiceError", 502, Indefinite),
    ("ServiceUnavailableTemp", 503, Indefinite),
    ("InternalServiceTimeout", 504, Indefinite),
    ("InvalidParameter", 500, Indefinite),
    ("InvalidParameter.ErrorActiveTaskNotFound", 500, Indefinite),
    ("InvalidParameter.TaskAlreadyExists", 400, Indefinite),
    ("SomethingNew", 400, Indefinite),
    ("SomethingNew.InvalidParameter", 400, Indefinite),
]


@pytest.mark.parametrize(("code", "status", "kind"), ROWS)
def test_each_code_of_a_stop_has_its_outcome(code: str, status: int, kind: type[Outcome]) -> None:
    assert read_stop(failure(code, status)) == kind(code=code, message="m", request_id="r")


def test_the_table_of_codes_is_tested_whole() -> None:
    tested = {code for code, _, _ in ROWS} | {"FlowLimitExceeded.TaskNumberOverLimit"}
    assert set(CODES) <= tested


@pytest.mark.parametrize("status", [400, 429])
def test_too_many_agents_are_no_matter_of_pace(status: int) -> None:
    outcome = start(failure("FlowLimitExceeded.TaskNumberOverLimit", status))
    assert isinstance(outcome, Throttled)
    assert outcome.capacity


@pytest.mark.parametrize(
    "response",
    [
        success(STARTED_BEFORE),
        failure("InvalidParameter.TaskAlreadyExists", 400),
        failure("InvalidParameter.TaskAlreadyExists", 200),
        failure("InvalidParameter", 400, STARTED_BEFORE),
        failure("SomethingNew", 400, STARTED_BEFORE.upper()),
    ],
)
def test_a_start_that_has_happened_is_done(response: Response) -> None:
    outcome = start(response)
    assert isinstance(outcome, Done)
    assert outcome.handle == "task"


@pytest.mark.parametrize("code", ["TaskNotExist", "RoomNotExist"])
def test_a_start_has_no_target_that_could_be_gone(code: str) -> None:
    assert start(failure(code)) == Indefinite(code=code, message="m", request_id="r")


def test_a_start_refused_stays_refused() -> None:
    assert start(answer(EXAMPLES["refused"], 400)) == Refused(
        code="InvalidParameter", message="Parameter AppId must not be empty", request_id="xxx"
    )


def test_a_stop_told_of_a_start_is_not_done() -> None:
    assert read_stop(success(STARTED_BEFORE)) == Indefinite(
        code=UNKNOWN_RESULT, message=STARTED_BEFORE, request_id="r"
    )


@pytest.mark.parametrize("result", ["ok", "", None, {}, {"any": 1}])
def test_success_comes_in_several_forms(result: Any) -> None:
    assert read_stop(success(result)) == Done(request_id="r")
    assert start(success(result)) == Done(handle="task", request_id="r")


def test_a_null_error_is_none() -> None:
    body = {"ResponseMetadata": {"RequestId": "r", "Error": None}}
    assert read_stop(answer(body)) == Done(request_id="r")


@pytest.mark.parametrize("result", [5, True, ["ok"]])
def test_a_result_of_another_kind_is_unreadable(result: Any) -> None:
    assert read_stop(success(result)) == Indefinite(
        code=UNREADABLE, message="Result is neither text nor an object", request_id="r"
    )


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (raw(b""), UNREADABLE),
        (raw(b"<html>busy</html>"), UNREADABLE),
        (raw(b'{"ResponseMetadata": {"Req'), UNREADABLE),
        (raw(b"\xff\xfe"), UNREADABLE),
        (raw(b"[]"), UNREADABLE),
        (raw(b"[" * 100_000), UNREADABLE),
        (answer({}), UNREADABLE),
        (answer({"ResponseMetadata": "ok", "Result": "ok"}), UNREADABLE),
        (answer({"ResponseMetadata": {"Error": {}}}), UNREADABLE),
        (answer({"ResponseMetadata": {"Error": "InvalidParameter"}}), UNREADABLE),
        (failure(5), UNREADABLE),
        (raw(b"<html>", 403), "HTTP403"),
        (raw(b"", 302), "HTTP302"),
        (raw(b"<html>", 502), "HTTP502"),
        (answer({"ResponseMetadata": {}, "Result": "ok"}, 404), "HTTP404"),
        (answer({"ResponseMetadata": {}, "Result": "ok"}, 500), "HTTP500"),
    ],
)
def test_what_is_no_answer_says_nothing(response: Response, code: str) -> None:
    for outcome in (start(response), read_stop(response), read_presence(response, "bot")):
        assert isinstance(outcome, Indefinite)
        assert outcome.code == code


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1", 1),
        (" 3600 ", 3600),
        ("3601", None),
        ("0", 0),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 5000, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"ResponseMetadata": {"Result": "ok"}}'])
def test_429_is_throttled_whatever_it_says(header: str, seconds: int | None, body: bytes) -> None:
    outcome = read_stop(raw(body, 429, **{"retry-after": header}))
    assert isinstance(outcome, Throttled)
    assert outcome.after == (None if seconds is None else timedelta(seconds=seconds))
    assert not outcome.capacity


def test_the_transports_verdict_stands() -> None:
    assert read_start(NotSent(code="x"), "task") == NotSent(code="x")
    assert read_stop(Indefinite(code="Timeout")) == Indefinite(code="Timeout")


def test_messages_are_cut_and_scrubbed() -> None:
    outcome = read_stop(failure("InvalidParameter", message="a\x1b[31m\n\ud800" + "x" * 1000))
    assert outcome.message.startswith("a [31m  x")
    assert len(outcome.message) == 500


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ({"RoomExists": True, "VisibleUserList": ["user", "bot"]}, Done),
        ({"RoomExists": True, "VisibleUserList": [], "InvisibleUserList": ["bot"]}, Done),
        ({"RoomExists": True, "VisibleUserList": ["user"], "InvisibleUserList": []}, Gone),
        ({"RoomExists": True, "VisibleUserList": None}, Gone),
        ({"RoomExists": True, "VisibleUserList": [5, ["bot"]]}, Gone),
        ({"RoomExists": True}, Gone),
        ({"RoomExists": False}, Gone),
        ({"RoomExists": False, "VisibleUserList": ["bot"]}, Gone),
        ({"RoomExists": True, "VisibleUserList": "bot"}, Indefinite),
        ({"VisibleUserList": ["bot"]}, Indefinite),
        ({"RoomExists": "yes", "VisibleUserList": ["bot"]}, Indefinite),
        ("ok", Indefinite),
        (None, Indefinite),
    ],
)
def test_presence(result: Any, kind: type[Outcome]) -> None:
    assert isinstance(read_presence(success(result), "bot"), kind)


@given(body=st.binary(max_size=200), status=st.integers(100, 599))
def test_noise_never_raises_and_never_proves(body: bytes, status: int) -> None:
    for outcome in (start(raw(body, status)), read_stop(raw(body, status))):
        assert isinstance(outcome, Throttled if status == 429 else Indefinite)
