import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.providers.chat_wire import TEXT_LIMIT, kept, read_object, write
from tests.providers.chat_payloads import wild


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        ('{"a": "你好"}'.encode(), {"a": "你好"}),
        (b' {"a": 0.7, "b": 1e2}\n', {"a": 0.7, "b": 100.0}),
        (rb'{"a": "\ud83d"}', {"a": "\ud83d"}),
    ],
)
def test_an_object_is_read(raw: bytes, value: Any) -> None:
    assert read_object(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"<html>502</html>",
        b'{"a": ',
        b'{"a": 1} {"b": 2}',
        b'{"a": "\xff"}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        "{}".encode("utf-16"),
    ],
)
def test_what_is_no_object_is_not_read(raw: bytes) -> None:
    assert read_object(raw) is None


@given(st.binary() | wild.map(lambda value: json.dumps(value).encode()))
def test_what_was_read_can_be_written_and_is_the_same(raw: bytes) -> None:
    value = read_object(raw)
    if value is None:
        return
    once = write(value)
    assert b"\n" not in once
    again = json.loads(once.decode())
    assert write(again) == once


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert write({"a": "x\ud83dy"}) == b'{"a":"x?y"}'


@given(st.text(st.characters(), max_size=50))
def test_kept_text_is_fit_for_any_database(text: str) -> None:
    shown = kept(text)
    shown.encode()
    assert "\0" not in shown
    assert len(shown) == len(text)


def test_kept_text_is_bounded() -> None:
    assert kept("a" * (TEXT_LIMIT + 1)) == "a" * TEXT_LIMIT
