from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from orchestrator.providers.base import Problem
from orchestrator.providers.fields import IdRule, filled_problems, given, one_of, shape

RULE = IdRule(limit=4, characters=r"a-c_\-\]", alphabet="a to c, _, - and ]")


@pytest.mark.parametrize("value", ["a", "abc_", "-]"])
def test_legal(value: str) -> None:
    assert RULE.allows(value)
    assert RULE.check(value) == value
    assert RULE.problems(("user_id",), value) == ()


@pytest.mark.parametrize("value", ["", "abcab", "d", "a\n", "\uff41", "a b"])
def test_illegal(value: str) -> None:
    assert not RULE.allows(value)
    with pytest.raises(PydanticCustomError, match="1 to 4 characters out of a to c, _, - and"):
        RULE.check(value)
    (problem,) = RULE.problems(("user_id",), value)
    assert problem.path == "user_id"
    assert problem.expected == "1 to 4 characters out of a to c, _, - and ]"


@generated(st.text(alphabet="abc_-]", min_size=1, max_size=4))
def test_the_limit_is_in_bytes(value: str) -> None:
    assert RULE.allows(value)
    assert len(value.encode()) <= RULE.limit


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"RTC": None}, []),
        ({"RTC": 5}, []),
        ({"RTC": {"RoomId": "room"}}, []),
        ({"RTC": {"RoomId": None, "Stream": None}}, []),
        (
            {"RTC": {"RoomId": "other"}},
            [
                Problem(
                    path="spec.RTC.RoomId",
                    expected="nothing, since the daemon fills it in: room",
                    found='"other" (string)',
                )
            ],
        ),
        (
            {"RTC": {"Stream": "s"}},
            [
                Problem(
                    path="spec.RTC.Stream",
                    expected="nothing, since the daemon fills it in",
                    found='"s" (string)',
                )
            ],
        ),
    ],
)
def test_filled(spec: Any, expected: list[Problem]) -> None:
    filled: dict[Any, Any] = {("RTC", "RoomId"): "room", ("RTC", "Stream"): None}
    assert list(filled_problems(spec, filled)) == expected


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (None, {}),
        ({}, {}),
        ({"a": None, "b": 0, "c": False, "d": ""}, {"b": 0, "c": False, "d": ""}),
    ],
)
def test_null_says_nothing(fields: Any, said: Any) -> None:
    assert given(fields) == said


def test_a_choice_is_one_of_its_numbers() -> None:
    check = one_of(0, 1, 4)
    assert [check(number) for number in (0, 1, 4)] == [0, 1, 4]
    with pytest.raises(PydanticCustomError, match="one of 0, 1 or 4"):
        check(2)


def test_a_payload_is_told_of_as_such() -> None:
    (found,) = filled_problems({"TaskId": "t"}, {("TaskId",): None}, "payload")
    assert found.path == "payload.TaskId"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1}, {"a": "x"}, True),
        ({"a": [1]}, {"a": []}, True),
        ({"a": {"b": 1}}, {"a": {"b": False}}, True),
        ({"a": 1}, {"a": None}, False),
        ({"a": 1}, {"a": {}}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": {"b": 1}}, {"a": {"c": 1}}, False),
        ({}, None, False),
    ],
)
def test_a_shape_is_the_keys(one: Any, other: Any, same: bool) -> None:
    assert (shape(one) == shape(other)) is same
