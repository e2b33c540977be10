import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.providers import chat
from orchestrator.providers.base import Garbled
from orchestrator.providers.chat import ChatRequest, failure, read_chat, upstream_body
from orchestrator.providers.chat_wire import TEXT_LIMIT
from tests.providers.chat_payloads import SPOKEN, encoded, mostly, some, text, wild

USER = {"role": "user", "content": "hello"}
TURN = {"messages": [USER], "stream": True}


def request(**fields: Any) -> ChatRequest:
    found = read_chat(encoded({**TURN, **fields}))
    assert isinstance(found, ChatRequest)
    return found


def sent(
    asked: ChatRequest,
    *,
    model: str | None = None,
    pass_fields: tuple[str, ...] = (),
    counts_tokens: bool = False,
) -> dict[str, Any]:
    body = upstream_body(asked, model=model, pass_fields=pass_fields, counts_tokens=counts_tokens)
    value = json.loads(body.decode())
    assert isinstance(value, dict)
    return value


def nested(depth: int) -> bytes:
    """A turn whose body is so many containers deep."""
    inside = "[" * (depth - 1) + "]" * (depth - 1)
    return f'{{"messages": [{{"role": "user"}}], "metadata": {inside}}}'.encode()


# --- reading


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", chat.NO_OBJECT),
        (b"[]", chat.NO_OBJECT),
        (b"<html></html>", chat.NO_OBJECT),
        (b'{"messages": [{"role": "user"}], "temperature": 1e999}', chat.NO_OBJECT),
        (b'{"a":' * 100_000, chat.NO_OBJECT),
        (nested(chat.NESTING_LIMIT + 1), chat.TOO_DEEP),
        (encoded({}), chat.NO_MESSAGES),
        (encoded({"messages": None}), chat.NO_MESSAGES),
        (encoded({"messages": {}}), chat.MESSAGES_NO_LIST),
        (encoded({"messages": SPOKEN}), chat.MESSAGES_NO_LIST),
        (encoded({"messages": []}), chat.MESSAGES_EMPTY),
        (encoded({"messages": [SPOKEN]}), chat.NO_ROLE),
        (encoded({"messages": [USER, {"content": SPOKEN}]}), chat.NO_ROLE),
        (encoded({"messages": [{"role": None}]}), chat.NO_ROLE),
        (encoded({**TURN, "n": 2}), chat.SEVERAL_CHOICES),
        (encoded({**TURN, "n": 0}), chat.SEVERAL_CHOICES),
        (encoded({**TURN, "n": [1]}), chat.SEVERAL_CHOICES),
        (encoded({**TURN, "stream": "true"}), chat.STREAM_NO_BOOL),
        (encoded({**TURN, "stream": 1}), chat.STREAM_NO_BOOL),
    ],
)
def test_what_is_no_chat_completion_is_told_in_our_words(raw: bytes, why: Garbled) -> None:
    assert read_chat(raw) is why


@pytest.mark.parametrize(
    ("fields", "stream", "wants_usage"),
    [
        ({}, True, False),
        ({"stream": False}, False, False),
        ({"stream": None}, False, False),
        ({"n": 1}, True, False),
        ({"n": None}, True, False),
        ({"stream_options": {"include_usage": True}}, True, True),
        ({"stream_options": {"include_usage": False}}, True, False),
        ({"stream_options": {}}, True, False),
        ({"stream_options": None}, True, False),
        ({"stream_options": [True]}, True, False),
    ],
)
def test_how_the_answer_is_wanted(fields: Any, stream: bool, wants_usage: bool) -> None:
    asked = request(**fields)
    assert (asked.stream, asked.wants_usage) == (stream, wants_usage)


def test_whoever_says_nothing_of_streaming_does_not_stream() -> None:
    asked = read_chat(encoded({"messages": [USER]}))
    assert isinstance(asked, ChatRequest)
    assert not asked.stream


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"maxTokens": 256}, 256),
        ({"maxTokens": 256, "max_tokens": 128}, 128),
        ({"maxTokens": 256, "max_tokens": None}, 256),
        ({"maxTokens": None, "max_tokens": 128}, 128),
        ({"maxTokens": None}, None),
        ({}, None),
    ],
)
def test_the_old_name_of_a_limit_is_understood(fields: Any, limit: int | None) -> None:
    asked = request(**fields)
    assert "maxTokens" not in asked.fields
    assert asked.fields.get("max_tokens") == limit


def test_a_body_may_be_nested_as_deep_as_the_limit() -> None:
    asked = read_chat(nested(chat.NESTING_LIMIT))
    assert isinstance(asked, ChatRequest)
    assert sent(asked)["metadata"] is not None


_messages = some(
    role=mostly(st.sampled_from(["user", "system"])),
    content=mostly(text | st.lists(some(type=text, text=mostly(text)), max_size=2)),
)
_bodies = some(
    messages=mostly(st.lists(_messages, max_size=3)),
    stream=mostly(st.booleans()),
    stream_options=mostly(some(include_usage=wild)),
    n=mostly(st.just(1)),
    maxTokens=wild,
    round_id=wild,
)


@given(_bodies.map(encoded) | wild.map(encoded) | st.binary(), st.booleans())
def test_whatever_is_posted_is_read_or_refused(raw: bytes, counts_tokens: bool) -> None:
    found = read_chat(raw)
    if isinstance(found, Garbled):
        return
    found.last_user_text.encode()
    body = sent(found, pass_fields=("*",), counts_tokens=counts_tokens)
    assert body["stream"] is True
    assert body["messages"]


# --- what the user said


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([USER], "hello"),
        ([USER, {"role": "user", "content": "bye"}], "bye"),
        ([USER, {"role": "assistant", "content": "hi"}], "hello"),
        ([{"role": "system", "content": "be kind"}], ""),
        ([{"role": "user"}], ""),
        ([{"role": "user", "content": None}], ""),
        ([USER, {"role": "user", "content": {"text": "no"}}], ""),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "what is "},
                        {"type": "image_url", "image_url": {"url": "https://example.org"}},
                        "this",
                        {"type": "text", "text": 5},
                        {"type": "text", "text": "that?"},
                    ],
                }
            ],
            "what is that?",
        ),
        ([{"role": "user", "content": "a\0b\ud800"}], "a b?"),
        ([{"role": "user", "content": "a" * 5_000}], "a" * TEXT_LIMIT),
    ],
)
def test_what_the_user_said_last(messages: Any, said: str) -> None:
    assert request(messages=messages).last_user_text == said


def test_a_request_shows_nothing_of_the_conversation() -> None:
    asked = request(messages=[{"role": "user", "content": SPOKEN}])
    assert SPOKEN not in f"{asked!r} {asked}"


# --- going upstream

VENDORS = {
    "round_id": 3,
    "device_id": "d-1",
    "agent_info": {"room_id": "r", "agent_instance_id": "i"},
}


@pytest.mark.parametrize(
    ("pass_fields", "gone"),
    [
        ((), set()),
        (("round_id",), {"round_id"}),
        (("device_id", "agent_info", "absent"), {"device_id", "agent_info"}),
        (("*",), {"round_id", "device_id", "agent_info"}),
    ],
)
def test_a_vendors_own_fields_go_along_where_that_is_configured(
    pass_fields: tuple[str, ...], gone: set[str]
) -> None:
    body = sent(request(**VENDORS), pass_fields=pass_fields)
    assert set(body) - {"messages", "stream"} == gone
    assert all(body[name] == VENDORS[name] for name in gone)


def test_openais_own_fields_go_along() -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    own = {"temperature": 0.7, "max_tokens": 256, "tools": tools, "stop": ["."], "top_p": 1}
    assert sent(request(**own)) == {**TURN, **own}


def test_what_is_null_stays_behind() -> None:
    asked = request(tools=None, temperature=None, round_id=None)
    assert sent(asked, pass_fields=("*",)) == TURN


@pytest.mark.parametrize(
    ("asked_model", "own", "model"),
    [("theirs", None, "theirs"), ("theirs", "ours", "ours"), (None, "ours", "ours")],
)
def test_the_model(asked_model: str | None, own: str | None, model: str) -> None:
    assert sent(request(model=asked_model), model=own)["model"] == model


def test_without_any_model_none_is_named() -> None:
    assert "model" not in sent(request())


@pytest.mark.parametrize("stream", [True, False, None])
@pytest.mark.parametrize("options", [None, {"include_usage": True}, {"include_obfuscation": True}])
@pytest.mark.parametrize("pass_fields", [(), ("*",), ("stream", "stream_options")])
def test_streaming_upstream_is_our_own_business(
    stream: bool | None, options: Any, pass_fields: tuple[str, ...]
) -> None:
    asked = request(stream=stream, stream_options=options)
    assert sent(asked, pass_fields=pass_fields) == TURN
    counting = sent(asked, pass_fields=pass_fields, counts_tokens=True)
    assert counting == {**TURN, "stream_options": {"include_usage": True}}


def test_asking_leaves_the_request_as_it_was() -> None:
    asked = request(model="theirs", **VENDORS)
    before = encoded(asked.fields)
    sent(asked, model="ours", counts_tokens=True)
    assert encoded(asked.fields) == before


def test_what_no_encoding_carries_does_not_stop_a_turn() -> None:
    asked = request(messages=[{"role": "user", "content": "a\ud83db"}])
    assert sent(asked)["messages"] == [{"role": "user", "content": "a?b"}]


# --- failures


def test_a_failure_is_told_as_openai_does() -> None:
    assert json.loads(failure("invalid_request_error", "messages is missing")) == {
        "error": {
            "message": "messages is missing",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    }
