import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.outcome import Done, Gone, Indefinite, NotSent, Outcome, Refused, Throttled
from orchestrator.providers.base import Reply, Response
from orchestrator.providers.reading import (
    MESSAGE_LIMIT,
    UNREADABLE,
    at_capacity,
    printable,
    read_object,
    started,
    unreadable,
)


def response(body: bytes, status: int = 200) -> Response:
    return Response(status=status, headers={}, body=body)


@given(st.dictionaries(st.text(), st.integers() | st.none() | st.text()))
def test_an_object_is_read(value: Any) -> None:
    assert read_object(response(json.dumps(value).encode())) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"<html><body>502 Bad Gateway</body></html>",
        b'{"Response": {"TaskId": "v2_',
        b'{"a": 1} trailing',
        b'{"a": "\xff"}',
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'{"a": ' + b"9" * 5_000 + b"}",
    ],
)
def test_what_is_no_object_is_unreadable(body: bytes) -> None:
    found = read_object(response(body))
    assert isinstance(found, Indefinite)
    assert found.code == UNREADABLE


@pytest.mark.parametrize("status", [100, 201, 204, 301, 400, 403, 404, 500, 503])
def test_only_200_is_read(status: int) -> None:
    assert read_object(response(b"{}", status)) == Indefinite(
        code=f"HTTP{status}", message=f"HTTP status {status}"
    )


@pytest.mark.parametrize("verdict", [NotSent(code="dns"), Indefinite(code="timeout")])
def test_where_there_is_no_response_the_transports_verdict_stands(verdict: Reply) -> None:
    assert read_object(verdict) is verdict


@given(st.text(max_size=2 * MESSAGE_LIMIT))
def test_text_is_bounded_and_fit_for_terminals_and_databases(text: str) -> None:
    shown = printable(text)
    assert len(shown) <= MESSAGE_LIMIT
    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("任务不存在", "任务不存在"),
        ("a\x00b\x1b[31m\nc\ud800", "a b [31m c "),
        (None, ""),
        (5, ""),
        ({"a": 1}, ""),
    ],
)
def test_printable(value: object, shown: str) -> None:
    assert printable(value) == shown


@pytest.mark.parametrize("outcome", [Done(handle="t"), Refused(code="c"), Throttled()])
def test_a_start_keeps_its_outcome(outcome: Outcome) -> None:
    assert started(outcome) is outcome


def test_a_start_is_never_gone() -> None:
    gone = Gone(code="c", message="m", request_id="r")
    assert started(gone) == Indefinite(code="c", message="m", request_id="r")


def test_too_many_agents_is_a_matter_of_capacity() -> None:
    assert at_capacity(code="c", message="m", request_id="r") == Throttled(
        code="c", message="m", request_id="r", capacity=True
    )


def test_unreadable_says_why() -> None:
    assert unreadable("why", "r") == Indefinite(code=UNREADABLE, message="why", request_id="r")
