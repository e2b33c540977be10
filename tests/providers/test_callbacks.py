import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fact import Event, Fact
from orchestrator.providers.callbacks import (
    ID_LIMIT,
    alive,
    id_at,
    is_same,
    moment,
    moment_at,
    number_at,
    object_at,
    read_fields,
    text_at,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@given(st.text(), st.text())
def test_only_the_same_text_is_the_same(given_text: str, expected: str) -> None:
    assert is_same(given_text, expected) == (given_text == expected)


@pytest.mark.parametrize("value", [None, 5, b"secret", ["secret"], "secre", "secret\ud800", ""])
def test_what_is_no_such_text_is_not_the_same(value: object) -> None:
    assert not is_same(value, "secret")


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        ('{"a": 1767225605123}', {"a": "1767225605123"}),
        ('{"a": 9223372036854775808123}', {"a": "9223372036854775808123"}),
        ('{"a": 1.50e3, "b": "1.50e3"}', {"a": "1.50e3", "b": "1.50e3"}),
        ('{"a": {"b": [1, true, null]}}', {"a": {"b": ["1", True, None]}}),
        ('{"a": %s}' % ("9" * 5_000), {"a": "9" * 5_000}),
        ("[]", None),
        ('"{}"', None),
        ("5", None),
        ("", None),
        ('{"a": 1', None),
        ("[" * 100_000, None),
        ('{"a":' * 100_000, None),
        (b"\xff\xfe{", None),
        (b'{"a": "\xff"}', None),
    ],
)
def test_numbers_stay_the_text_that_was_sent(raw: bytes | str, fields: Any) -> None:
    assert read_fields(raw) == fields


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("0", 0),
        ("-7", -7),
        ("007", 7),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        (str(-(2**63)), -(2**63)),
        (str(-(2**63) - 1), None),
        ("9" * 5_000, None),
        ("1.0", None),
        ("1e3", None),
        ("1_000", None),
        (" 1", None),
        ("+1", None),
        ("\u0661", None),
        ("", None),
        (True, None),
        (5, None),
        (None, None),
        (["1"], None),
    ],
)
def test_a_number_is_whole_and_fits_the_column(value: object, number: int | None) -> None:
    assert number_at({"n": value}, "n") == number
    assert number_at({}, "n") is None


@given(st.integers())
def test_every_whole_number_is_read_or_refused(number: int) -> None:
    fields = read_fields(json.dumps({"bare": number, "quoted": str(number)}))
    assert fields is not None
    fits = -(2**63) <= number < 2**63
    expected = number if fits else None
    assert number_at(fields, "bare") == number_at(fields, "quoted") == expected


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ("946684800000", datetime(2000, 1, 1, tzinfo=UTC)),
        ("946684799999", None),
        ("4102444799999", datetime(2099, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
        ("4102444800000", None),
        ("-62135596800000", None),
        ("1767323045123", NOW + timedelta(milliseconds=123)),
        (str(2**63 - 1), None),
        (str(-(2**63)), None),
        ("soon", None),
    ],
)
def test_a_moment_is_milliseconds(milliseconds: str, expected: datetime | None) -> None:
    assert moment_at({"t": milliseconds}, "t") == expected


@given(st.integers(946_684_800_000, 4_102_444_799_999))
def test_a_moment_is_exact(milliseconds: int) -> None:
    found = moment(milliseconds)
    assert found is not None
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert (found - epoch) // timedelta(milliseconds=1) == milliseconds


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("SV1FR+XTtvzAjRxZZ+aof1DfJF00.", "SV1FR+XTtvzAjRxZZ+aof1DfJF00."),
        ("任务", "任务"),
        ("x" * ID_LIMIT, "x" * ID_LIMIT),
        ("x" * (ID_LIMIT + 1), None),
        ("任" * ID_LIMIT, None),
        ("a\x00b", None),
        ("a\nb", None),
        ("a\ud800", None),
        ("", None),
        (None, None),
        (True, None),
        ({"a": "b"}, None),
    ],
)
def test_an_id_is_what_a_database_and_a_terminal_can_take(value: object, found: str | None) -> None:
    assert id_at({"id": value}, "id") == found


@pytest.mark.parametrize(
    ("value", "found"), [("a\n\tb", "a\n\tb"), ("", ""), ("\ud800", None), (5, None), (None, None)]
)
def test_text_is_unicode(value: object, found: str | None) -> None:
    assert text_at({"t": value}, "t") == found


@pytest.mark.parametrize("value", [None, "text", ["a"], True])
def test_what_is_no_object_is_an_empty_one(value: object) -> None:
    assert object_at({"o": value}, "o") == {}
    assert object_at({}, "o") == {}
    assert object_at({"o": {"a": value}}, "o") == {"a": value}


def test_all_signs_of_life_of_an_agent_in_a_minute_are_one_fact() -> None:
    facts = [
        Fact(key=key, event=Event.STARTED, event_at=NOW + later, vendor_task_id="t1")
        for key, later in (("a", timedelta(0)), ("b", timedelta(seconds=54)))
    ]
    assert {alive(fact).key for fact in facts} == {"alive:t1:2026-01-02T03:04"}
    an_hour = replace(facts[0], event_at=NOW + timedelta(hours=1))
    assert alive(an_hour).key == "alive:t1:2026-01-02T04:04"
    assert {alive(fact).event for fact in facts} == {Event.ALIVE}
