"""The placeholder of a spec: where it may stand, and that nothing else of a spec changes."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.providers.llm import (
    PLACEHOLDER,
    asked_upstream,
    fill_in,
    payload_problems,
    read_id,
)
from orchestrator.providers.llm_form import LlmEndpoint, LlmForm
from orchestrator.providers.spec import MAX_DEPTH, MAX_PROBLEMS, ResolvedSecret
from orchestrator.providers.tencent_llm import FORM as TENCENT
from orchestrator.providers.volcengine_llm import FORM as VOLCENGINE
from orchestrator.providers.zego_llm import FORM as ZEGO

TOKEN = "llm-" + "F" * 43
ENDPOINT = LlmEndpoint(
    url="https://bots.example/llm/main/x/chat/completions", key=TOKEN, model="main", patience_s=8
)
FORMS = {"volcengine": VOLCENGINE, "tencent": TENCENT, "zego": ZEGO}
PLACES = {
    "volcengine": "spec.Config.LLMConfig",
    "tencent": "spec.LLMConfig",
    "zego": "spec.LLM",
}
every_vendor = pytest.mark.parametrize("vendor", FORMS)


def find(name: str) -> LlmEndpoint | None:
    return ENDPOINT if name == "main" else None


def spec_of(form: LlmForm, block: Any, **more: Any) -> dict[str, Any]:
    """Return a spec with this block of the model, and with more around it."""
    value = block
    for key in reversed(form.block):
        value = {key: value, "Beside": {"a": [1]}}
    return {**value, **more}


def block_of(form: LlmForm, spec: Any) -> Any:
    for key in form.block:
        spec = spec[key]
    return spec


def said(problems: tuple[Any, ...]) -> list[str]:
    return [str(problem) for problem in problems]


# --- filled in


@every_vendor
def test_the_placeholder_becomes_an_address_and_a_key(vendor: str) -> None:
    form = FORMS[vendor]
    spec = spec_of(form, {PLACEHOLDER: "main", "Temperature": 0.5})
    before = copy.deepcopy(spec)
    filled, problems = fill_in(form, spec, find)
    assert problems == ()
    block = block_of(form, filled)
    assert PLACEHOLDER not in block
    assert block["Temperature"] == 0.5
    assert ENDPOINT.url in block.values()
    assert TOKEN in block.values()
    assert spec == before


@every_vendor
def test_everything_around_the_block_stays(vendor: str) -> None:
    form = FORMS[vendor]
    spec = spec_of(form, {PLACEHOLDER: "main"}, Other={"x": None})
    filled, _ = fill_in(form, spec, find)
    emptied = spec_of(form, block_of(form, filled), Other={"x": None})
    assert filled == emptied


@every_vendor
def test_the_key_is_never_shown(vendor: str) -> None:
    form = FORMS[vendor]
    filled, _ = fill_in(form, spec_of(form, {PLACEHOLDER: "main"}), find)
    (key,) = [value for value in block_of(form, filled).values() if value == TOKEN]
    assert isinstance(key, ResolvedSecret)
    assert TOKEN not in repr(filled)
    assert TOKEN not in repr(ENDPOINT)
    assert TOKEN in json.dumps(filled)


@every_vendor
def test_what_the_spec_says_lies_over_the_defaults(vendor: str) -> None:
    form = FORMS[vendor]
    chosen = dict.fromkeys(form.defaults(ENDPOINT), "chosen")
    filled, problems = fill_in(form, spec_of(form, {PLACEHOLDER: "main", **chosen}), find)
    assert problems == ()
    assert block_of(form, filled).items() >= chosen.items()


@every_vendor
def test_null_says_nothing(vendor: str) -> None:
    form = FORMS[vendor]
    fields = (*form.own(ENDPOINT), *form.defaults(ENDPOINT), *form.required)
    nulls = spec_of(form, {PLACEHOLDER: "main", **dict.fromkeys(fields)})
    assert fill_in(form, nulls, find) == fill_in(form, spec_of(form, {PLACEHOLDER: "main"}), find)


@every_vendor
def test_a_block_in_a_string_of_json_is_one_too(vendor: str) -> None:
    form = FORMS[vendor]
    block = {PLACEHOLDER: "main", "History": 5}
    written = spec_of(form, json.dumps(block))
    assert asked_upstream(form, written) == "main"
    assert fill_in(form, written, find) == fill_in(form, spec_of(form, block), find)


# --- not there


@every_vendor
@pytest.mark.parametrize(
    "block", [None, 1, "", "no json", "[1]", '"text"', {}, {"Url": "https://x.example"}, "{}", []]
)
def test_a_spec_without_it_stays_the_same_object(vendor: str, block: Any) -> None:
    form = FORMS[vendor]
    spec = spec_of(form, block)
    filled, problems = fill_in(form, spec, find)
    assert filled is spec
    assert problems == ()
    assert asked_upstream(form, spec) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@every_vendor
@given(json_values)
def test_whatever_the_application_wrote_nothing_raises(vendor: str, value: Any) -> None:
    form = FORMS[vendor]
    for spec in (value, spec_of(form, value), spec_of(form, {PLACEHOLDER: value})):
        filled, problems = fill_in(form, spec, find)
        assert (filled is spec) or not problems
        asked_upstream(form, spec)
        assert payload_problems(spec) == () or PLACEHOLDER in str(spec)


def nested(depth: int, innermost: Any) -> Any:
    for number in range(depth):
        innermost = {"a": innermost} if number % 2 else [innermost]
    return innermost


@every_vendor
def test_the_work_is_bounded(vendor: str) -> None:
    form = FORMS[vendor]
    deep = {"x": nested(2 * MAX_DEPTH, {PLACEHOLDER: "main"})}
    assert fill_in(form, deep, find) == (deep, ())
    many = {"x": [{PLACEHOLDER: "main"} for _ in range(3 * MAX_PROBLEMS)]}
    assert len(fill_in(form, many, find)[1]) == MAX_PROBLEMS
    assert len(payload_problems(many)) == MAX_PROBLEMS


# --- refused


@every_vendor
def test_beside_it_nothing_else_says_where_to_ask(vendor: str) -> None:
    form = FORMS[vendor]
    for key in form.own(ENDPOINT):
        spec = spec_of(form, {PLACEHOLDER: "main", key: "https://elsewhere.example"})
        filled, problems = fill_in(form, spec, find)
        assert filled is spec
        (text,) = said(problems)
        assert text.startswith(f"{PLACES[vendor]}.{key}: expected nothing, since $llm_gateway")


REQUIRED = [
    (vendor, key, value) for vendor, form in FORMS.items() for key, value in form.required.items()
]


@pytest.mark.parametrize(("vendor", "key", "value"), REQUIRED)
def test_beside_it_stands_nothing_that_the_gateway_does_not_understand(
    vendor: str, key: str, value: Any
) -> None:
    form, word = FORMS[vendor], value if isinstance(value, str) else "true"
    spec = spec_of(form, {PLACEHOLDER: "main", key: "Another"})
    filled, problems = fill_in(form, spec, find)
    assert filled is spec
    assert said(problems) == [
        (
            f"{PLACES[vendor]}.{key}: expected {word}, since $llm_gateway needs it so, "
            'found "Another" (string)'
        )
    ]
    same = spec_of(form, {PLACEHOLDER: "main", key: value})
    assert fill_in(form, same, find) == fill_in(form, spec_of(form, {PLACEHOLDER: "main"}), find)


@every_vendor
def test_an_unknown_upstream_is_named(vendor: str) -> None:
    form = FORMS[vendor]
    spec = spec_of(form, {PLACEHOLDER: "dear"})
    assert asked_upstream(form, spec) == "dear"
    filled, problems = fill_in(form, spec, find)
    assert filled is spec
    assert said(problems) == [
        (
            f"{PLACES[vendor]}.$llm_gateway: expected the name of one of [llm_upstreams], and an "
            '[llm_gateway] that listens, found "dear" (string)'
        )
    ]


@every_vendor
@pytest.mark.parametrize("name", [None, 1, True, [], {}, {"$secret": "x"}, ResolvedSecret("main")])
def test_a_name_is_a_string_in_plain(vendor: str, name: Any) -> None:
    form = FORMS[vendor]
    spec = spec_of(form, {PLACEHOLDER: name})
    assert asked_upstream(form, spec) is None
    filled, problems = fill_in(form, spec, find)
    assert filled is spec
    (text,) = said(problems)
    assert text.startswith(f"{PLACES[vendor]}.$llm_gateway: expected the name of one of")
    assert "main" not in text


@every_vendor
@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({PLACEHOLDER: "main"}, "spec.$llm_gateway"),
        ({"Agent": {"LLM": {PLACEHOLDER: "main"}}}, "spec.Agent.LLM.$llm_gateway"),
        ({"Tools": [{"a": {PLACEHOLDER: 1}}]}, "spec.Tools[0].a.$llm_gateway"),
    ],
)
@pytest.mark.parametrize("block", [{PLACEHOLDER: "main"}, {"a": 1}])
def test_elsewhere_it_is_told_where_it_belongs(
    vendor: str, more: dict[str, Any], path: str, block: Any
) -> None:
    form = FORMS[vendor]
    spec = spec_of(form, block, **more)
    filled, problems = fill_in(form, spec, find)
    assert filled is spec
    (text,) = said(problems)
    expected = f"{path}: expected nothing, since $llm_gateway belongs into {PLACES[vendor]}"
    assert text.startswith(expected)


@every_vendor
def test_deeper_in_the_block_is_elsewhere_also_in_a_string(vendor: str) -> None:
    form = FORMS[vendor]
    block = {PLACEHOLDER: "main", "Custom": {PLACEHOLDER: "main"}}
    for spec in (spec_of(form, block), spec_of(form, json.dumps(block))):
        (text,) = said(fill_in(form, spec, find)[1])
        assert text.startswith(f"{PLACES[vendor]}.Custom.$llm_gateway: expected nothing")


def test_a_prefix_stands_before_every_path() -> None:
    _, problems = fill_in(ZEGO, {"LLM": {PLACEHOLDER: "dear"}}, find, "template")
    assert problems[0].path == "template.LLM.$llm_gateway"


def test_a_command_s_payload_has_none() -> None:
    assert payload_problems({"LLM": {"Url": "https://x.example"}}) == ()
    assert said(payload_problems({"LLM": {PLACEHOLDER: "main"}})) == [
        (
            "payload.LLM.$llm_gateway: expected nothing, since $llm_gateway belongs into "
            'agent_task.spec, found "main" (string)'
        )
    ]


# --- ids


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("round-1", "round-1"),
        (7, "7"),
        (0, "0"),
        (-1, "-1"),
        (2**63, str(2**63)),
        (2**64, None),
        (True, None),
        (1.5, None),
        (None, None),
        ("", None),
        ("a\nb", None),
        ("\ud800", None),
        ("x" * 512, "x" * 512),
        ("x" * 513, None),
        ({}, None),
    ],
)
def test_an_id_is_bounded_and_printable(value: Any, expected: str | None) -> None:
    assert read_id({"id": value}, "id") == expected
    assert read_id({}, "id") is None


def test_a_number_too_long_to_write_out_is_no_id() -> None:
    assert read_id({"id": 10**5000}, "id") is None
