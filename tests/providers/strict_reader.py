"""A reader of chat completion streams that takes nothing but what vendors insist on."""

import json
from dataclasses import dataclass, field
from typing import Any

REASONS = {"stop", "length", "tool_calls", "content_filter"}
HEAD = {"id", "object", "created", "model"}


@dataclass
class Heard:
    """A stream, put together again."""

    content: str = ""
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish_reason: str | None = None
    usage: dict[str, int] | None = None


def read_stream(stream: bytes) -> Heard:
    """Put a whole stream together; fails on the first thing that a vendor might not take."""
    *chunks, done, rest = stream.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    heard = Heard()
    shared = None
    for number, chunk in enumerate(map(loaded, chunks)):
        head = {name: chunk[name] for name in HEAD}
        assert head == (shared or head)
        shared = head
        assert head["object"] == "chat.completion.chunk"
        assert type(head["created"]) is int
        if heard.finish_reason is None:
            take_choice(heard, chunk, is_first=number == 0)
        else:
            take_usage(heard, chunk)
    assert heard.finish_reason is not None
    assert heard.calls or heard.finish_reason != "tool_calls"
    return heard


def loaded(event: str) -> dict[str, Any]:
    assert event.startswith("data: {")
    assert "\n" not in event
    assert "\r" not in event
    value = json.loads(event.removeprefix("data: "))
    assert isinstance(value, dict)
    return value


def take_choice(heard: Heard, chunk: dict[str, Any], *, is_first: bool) -> None:
    assert set(chunk) == HEAD | {"choices"}
    [choice] = chunk["choices"]
    assert set(choice) == {"index", "delta", "finish_reason"}
    assert choice["index"] == 0
    delta, heard.finish_reason = choice["delta"], choice["finish_reason"]
    if heard.finish_reason is not None:
        assert heard.finish_reason in REASONS
        assert not is_first
        assert delta == {}
        return
    assert delta.pop("role", None) == ("assistant" if is_first else None)
    assert delta
    content = delta.pop("content", "")
    assert type(content) is str
    heard.content += content
    for call in delta.pop("tool_calls", []):
        take_call(heard, call)
    assert delta == {}


def take_call(heard: Heard, call: dict[str, Any]) -> None:
    index, function = call["index"], call["function"]
    assert type(index) is int
    assert index >= 0
    assert type(function["arguments"]) is str
    if index not in heard.calls:
        assert set(call) == {"index", "id", "type", "function"}
        assert set(function) == {"name", "arguments"}
        assert call["id"]
        assert call["type"] == "function"
        assert function["name"]
        heard.calls[index] = {
            "id": call["id"],
            "type": call["type"],
            "function": dict(function),
        }
        return
    assert set(call) == {"index", "function"}
    assert set(function) == {"arguments"}
    heard.calls[index]["function"]["arguments"] += function["arguments"]


def take_usage(heard: Heard, chunk: dict[str, Any]) -> None:
    """After the end of the only choice nothing may come but one chunk with the tokens."""
    assert set(chunk) == HEAD | {"choices", "usage"}
    assert chunk["choices"] == []
    assert heard.usage is None
    usage = chunk["usage"]
    assert set(usage) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    heard.usage = usage
