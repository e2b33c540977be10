"""Payloads of upstreams: one that is right, and everything that may come instead."""

import json
from typing import Any

from hypothesis import strategies as st

SPOKEN = "Your PIN is 4711"
"""What no error may repeat."""


def payload(
    content: Any = None, finish_reason: Any = None, *, usage: Any = None, **delta: Any
) -> bytes:
    """A chunk as OpenAI sends it."""
    if content is not None:
        delta["content"] = content
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return encoded({"id": "up-1", "choices": [choice], "usage": usage})


def tokens(prompt: Any, completion: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 99}


def call(index: Any = None, arguments: Any = None, **more: Any) -> bytes:
    """A chunk with a piece of one tool call; null is left out."""
    function = {"name": more.pop("name", None), "arguments": arguments}
    given = {"index": index, **more, "function": without_nulls(function)}
    return payload(tool_calls=[without_nulls(given)])


def without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


# Lone surrogates among them: JSON can spell these.
text = st.text(st.characters(), max_size=8)
wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The usual two times of three, else anything."""
    return st.one_of(usual, usual, wild)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object in which each of these fields may be."""
    return st.fixed_dictionaries({}, optional=fields)


_calls = some(
    index=mostly(st.integers(0, 3)),
    id=mostly(text),
    type=mostly(st.just("function")),
    function=mostly(some(name=mostly(text), arguments=mostly(text))),
)
_deltas = some(
    role=mostly(st.just("assistant")),
    content=mostly(text),
    reasoning_content=mostly(text),
    tool_calls=mostly(st.lists(_calls, max_size=3)),
)
_reasons = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "eos", "", "null"])
_choices = some(
    index=mostly(st.integers(0, 1)), delta=mostly(_deltas), finish_reason=st.none() | _reasons
)
_usages = some(prompt_tokens=mostly(st.integers(0)), completion_tokens=mostly(st.integers(0)))
_chunks = some(choices=mostly(st.lists(_choices, max_size=2)), usage=mostly(_usages), error=wild)

payloads = st.one_of(
    _chunks.map(encoded),
    _choices.map(lambda choice: encoded({"choices": [choice]})),
    st.builds(payload, text),
    st.just(b"[DONE]"),
    wild.map(encoded),
    st.binary(max_size=20),
)
"""Whatever an upstream may send in one event."""
