import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from orchestrator.providers.spec import (
    MAX_DEPTH,
    MAX_PROBLEMS,
    ResolvedSecret,
    SpecModel,
    as_json_string,
    canonical_json,
    decoded,
    json_text,
    merge,
    mistake,
    problems,
    resolve_secrets,
    with_json_strings,
)


class VoiceConfig(SpecModel):
    APIKey: str = ""
    Pin: Annotated[int, Field(ge=1000)] = 1000
    Speed: Annotated[float, Field(gt=0, le=2)] = 1.0
    Words: list[str] = Field(default_factory=list)


class Body(SpecModel):
    Name: Annotated[str, Field(min_length=1, max_length=8)]
    Mode: Literal["a", "b"] = "a"
    Count: Annotated[int, Field(ge=1, lt=10)] = 1
    On: bool = False
    Voice: VoiceConfig | None = None
    Custom: Annotated[Any, AfterValidator(json_text)] = None
    Pair: Annotated[list[int], Field(min_length=1, max_length=2)] = Field(
        default_factory=lambda: [1]
    )
    Table: dict[str, str] = Field(default_factory=dict)
    Even: Annotated[int, Field(multiple_of=2)] = 2
    Kind: Annotated[str, Field(pattern="^x$")] = "x"

    @field_validator("Mode")
    @classmethod
    def _not_b(cls, value: str) -> str:
        if value == "b":
            raise mistake("no b today")
        return value


def said(value: Any) -> list[str]:
    return [str(problem) for problem in problems(Body, value)]


GOOD: dict[str, Any] = {"Name": "n"}


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"New": {"Field": [None, 1.5]}},
        {"Voice": {"Speed": 2, "Other": 1}},
        {"Voice": None},
        {"Custom": {"a": 1}},
        {"Custom": '{"a": 1}'},
        {"Name": ResolvedSecret("n")},
    ],
)
def test_good_bodies_have_no_problem(extra: dict[str, Any]) -> None:
    assert said(GOOD | extra) == []


JSON_TEXT = "an object, or a string that holds a JSON object"


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"Name": 5}, "spec.Name: expected a string, found 5"),
        ({"Name": ""}, 'spec.Name: expected at least 1 characters, found "" (string)'),
        ({"Name": "n" * 9}, 'spec.Name: expected at most 8 characters, found "nnnnnnnnn" (string)'),
        ({"Name": None}, "spec.Name: expected a string, found nothing"),
        (
            {"Name": "n" * 99},
            f'spec.Name: expected at most 8 characters, found "{"n" * 40}…" (string)',
        ),
        ({"Mode": "c"}, "spec.Mode: expected one of 'a' or 'b', found \"c\" (string)"),
        ({"Mode": "b"}, 'spec.Mode: expected no b today, found "b" (string)'),
        ({"Count": "5"}, 'spec.Count: expected a whole number, found "5" (string)'),
        ({"Count": True}, "spec.Count: expected a whole number, found true"),
        ({"Count": False}, "spec.Count: expected a whole number, found false"),
        ({"Count": 0}, "spec.Count: expected a number of at least 1, found 0"),
        ({"Count": 10}, "spec.Count: expected a number below 10, found 10"),
        ({"On": 10**99}, f"spec.On: expected true or false, found 1{'0' * 39}…"),
        ({"On": 1}, "spec.On: expected true or false, found 1"),
        ({"Voice": []}, "spec.Voice: expected an object, found a list of 0"),
        ({"Voice": {"Speed": 0}}, "spec.Voice.Speed: expected a number above 0, found 0"),
        ({"Voice": {"Speed": 2.5}}, "spec.Voice.Speed: expected a number of at most 2, found 2.5"),
        ({"Voice": {"Speed": "x"}}, 'spec.Voice.Speed: expected a number, found "x" (string)'),
        ({"Voice": {"Words": "x"}}, 'spec.Voice.Words: expected a list, found "x" (string)'),
        ({"Voice": {"Words": ["x", 1]}}, "spec.Voice.Words[1]: expected a string, found 1"),
        ({"Custom": 1}, f"spec.Custom: expected {JSON_TEXT}, found 1"),
        (
            {"Custom": "[]"},
            f"spec.Custom: expected {JSON_TEXT}, found a string that looks like JSON",
        ),
        ({"Custom": "no"}, f'spec.Custom: expected {JSON_TEXT}, found "no" (string)'),
        ({"Pair": []}, "spec.Pair: expected at least 1 items, found a list of 0"),
        ({"Pair": [1, 2, 3]}, "spec.Pair: expected at most 2 items, found a list of 3"),
        ({"Table": 1}, "spec.Table: expected an object, found 1"),
        ({"Name": {}}, "spec.Name: expected a string, found an object"),
        (
            {"Kind": "y"},
            'spec.Kind: expected a string that matches ^x$, found "y" (string)',
        ),
        ({"Even": 3}, "spec.Even: expected a multiple of 2, found 3"),
        ({"x": float("nan")}, "spec.x: expected a finite number, found nan"),
        ({"x": ["\ud800"]}, 'spec.x[0]: expected valid Unicode text, found "\\\\ud800" (string)'),
        ({"\ud800": 1}, "spec.\\ud800: expected a key of valid Unicode text, found 1"),
    ],
)
def test_each_problem_is_a_sentence(extra: dict[str, Any], sentence: str) -> None:
    assert said(GOOD | extra) == [sentence]


def test_a_missing_field_is_found_as_nothing() -> None:
    assert said({}) == ["spec.Name: expected a value, since it is required, found nothing"]


def test_a_body_that_is_no_object() -> None:
    assert said([]) == ["spec: expected an object, found a list of 0"]


def test_another_prefix() -> None:
    (problem,) = problems(Body, {}, prefix="payload")
    assert problem.path == "payload.Name"


def test_all_problems_at_once_but_no_flood() -> None:
    assert len(said({"Count": 0, "On": 1})) == 3
    assert len(said(GOOD | {"Voice": {"Words": [1] * 1000}})) == MAX_PROBLEMS
    assert len(said(GOOD | {"x": [float("inf")] * 1000})) == MAX_PROBLEMS


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_depth_is_bounded() -> None:
    assert said(GOOD | {"x": nested(MAX_DEPTH - 2)}) == []
    assert said(GOOD | {"x": nested(MAX_DEPTH - 1)}) == [
        f'spec.x[0][0]: expected at most {MAX_DEPTH} levels of nesting, found "more" (string)'
    ]
    deep = nested(5000)
    resolved, unknown = resolve_secrets(deep, {})
    assert not unknown
    assert len(problems(Body, resolved)) == 1
    assert said(GOOD | {"Custom": "[" * 100_000})


@pytest.mark.parametrize(
    "extra",
    [
        {"Voice": {"APIKey": 12345}},
        {"Voice": {"APIKey": {"value": "12345"}}},
        {"Voice": {"Pin": ResolvedSecret("12345")}},
        {"Voice": '{"APIKey": "12345"}'},
        {"Voice": "https://user:12345@example.com"},
        {"Voice": "https://example.com?key=12345"},
        {"Table": {"access_token": 12345}},
        {"Table": {"X-Api-Key": 12345}},
        {"Table": {"UserSig": True}},
        {"secretValue": float("nan")},
        {"Signature": "12345\ud800"},
    ],
)
def test_no_sentence_shows_a_secret(extra: dict[str, Any]) -> None:
    (sentence,) = said(GOOD | extra)
    assert "12345" not in sentence
    assert "nan" not in sentence


def test_words_that_only_resemble_a_secret_are_shown() -> None:
    class Limits(SpecModel):
        MaxTokens: int

    (problem,) = problems(Limits, {"MaxTokens": "5"})
    assert problem.found == '"5" (string)'


def test_secrets_are_resolved_anywhere() -> None:
    spec = {"a": {"$secret": "one"}, "b": [{"c": {"$secret": "two"}}, 1], "d": "e"}
    resolved, unknown = resolve_secrets(spec, {"one": "fake-1", "two": "fake-2"})
    assert resolved == {"a": "fake-1", "b": [{"c": "fake-2"}, 1], "d": "e"}
    assert unknown == ()
    assert "fake" not in repr(resolved)
    assert canonical_json(resolved) == b'{"a":"fake-1","b":[{"c":"fake-2"},1],"d":"e"}'


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ({"$secret": "nope"}, '"nope" (string)'),
        ({"$secret": 5}, "an object"),
        ({"$secret": "one", "more": 1}, "an object"),
    ],
)
def test_a_secret_that_cannot_be_resolved(reference: Any, found: str) -> None:
    resolved, unknown = resolve_secrets({"LLM": {"APIKey": reference}}, {"one": "fake"})
    (problem,) = unknown
    assert problem.path == "spec.LLM.APIKey"
    assert problem.expected == "a secret that the configuration has under [secrets]"
    assert problem.found == found
    assert resolved == {"LLM": {"APIKey": reference}}


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1, "y": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": 1}}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
    ],
)
def test_merge(base: Any, over: Any, merged: Any) -> None:
    before = json.dumps(base)
    assert merge(base, over) == merged
    assert json.dumps(base) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_whatever_stands_there_nothing_raises_and_what_passes_can_be_sent(value: Any) -> None:
    body = GOOD | {"Extra": value}
    resolved, unknown = resolve_secrets(body, {})
    if not unknown and not problems(Body, resolved):
        assert json.loads(canonical_json(resolved)) == body
    problems(Body, value)


def test_canonical_json_is_compact_utf8_and_independent_of_order() -> None:
    assert canonical_json({"b": "你好", "a": [1, None]}) == '{"a":[1,null],"b":"你好"}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_as_json_string() -> None:
    assert as_json_string('{ "a": 1 }') == '{ "a": 1 }'
    assert as_json_string({"a": "你"}) == '{"a":"你"}'


def test_only_what_is_named_becomes_a_string() -> None:
    fields = {"LLM": {"a": 1}, "TTS": '{"b":2}', "STT": {"c": 3}}
    strings = {"LLM": '{"a":1}', "TTS": '{"b":2}', "STT": {"c": 3}}
    assert with_json_strings(fields, {"LLM", "TTS", "Avatar"}) == strings


@pytest.mark.parametrize("value", [{"a": [1]}, '{"a": [1]}'])
def test_decoded_is_the_object_either_way(value: Any) -> None:
    assert decoded(value) == {"a": [1]}


@pytest.mark.parametrize("value", ["[1]", "{", 5, None])
def test_what_holds_no_object_cannot_be_decoded(value: Any) -> None:
    with pytest.raises(PydanticCustomError):
        decoded(value)
