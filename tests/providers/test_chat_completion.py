import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.providers.chat_answer import UpstreamError
from orchestrator.providers.chat_chunks import Head, Shaper
from orchestrator.providers.chat_completion import Collector, whole_farewell
from orchestrator.providers.chat_events import TooLong
from tests.providers.chat_payloads import SPOKEN, call, payload, payloads, text, tokens
from tests.providers.strict_reader import read_stream

HEAD = Head(id="ours", created=1_767_225_600, model="m")


def completion_of(*given_payloads: bytes, max_bytes: int = 1_000) -> Any:
    collector = Collector(HEAD, max_bytes=max_bytes)
    for each in given_payloads:
        collector.collect(each)
    return json.loads(collector.completion().decode())


def completion(message: dict[str, Any], finish_reason: str, **more: Any) -> Any:
    return {
        "id": "ours",
        "object": "chat.completion",
        "created": 1_767_225_600,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", **message},
                "finish_reason": finish_reason,
            }
        ],
        **more,
    }


def test_content() -> None:
    told = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    sent = [payload("Hel", role="assistant"), payload("lo"), payload(None, "length")]
    assert completion_of(*sent) == completion({"content": "Hello"}, "length")
    assert completion_of(*sent, payload(usage=tokens(7, 2)), b"[DONE]") == completion(
        {"content": "Hello"}, "length", usage=told
    )


def test_nothing() -> None:
    assert completion_of() == completion({"content": ""}, "stop")


@pytest.mark.parametrize(("said", "content"), [([], None), ([payload("wait")], "wait")])
def test_tool_calls_in_the_order_of_their_index(said: list[bytes], content: str | None) -> None:
    found = completion_of(
        *said,
        call(1, "[]", id="c1", name="g"),
        call(0, "{", id="c0", name="f"),
        call(0, "}"),
    )
    tool_calls = [
        {"id": "c0", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c1", "type": "function", "function": {"name": "g", "arguments": "[]"}},
    ]
    assert found == completion({"content": content, "tool_calls": tool_calls}, "tool_calls")


@pytest.mark.parametrize(
    ("sent", "size"),
    [
        ([payload("a" * 10)], 10),
        ([payload("a" * 5)] * 2, 10),
        ([payload("你好")], 6),
        ([payload("\ud83d")], 1),
        ([call(0, "12", id="c0", name="f")], 5),
        ([call(0, "12", id="c0", name="f"), call(0, "3")], 6),
    ],
)
def test_what_is_collected_is_bounded_to_the_byte(sent: list[bytes], size: int) -> None:
    assert completion_of(*sent, max_bytes=size)
    with pytest.raises(TooLong):
        completion_of(*sent, max_bytes=size - 1)


def test_too_long_says_nothing_of_what_came() -> None:
    with pytest.raises(TooLong) as caught:
        Collector(HEAD, max_bytes=3).collect(payload(SPOKEN))
    assert str(caught.value) == "the answer is too long to be collected"


@given(st.lists(payloads, max_size=8))
def test_who_streams_and_who_does_not_hear_the_same(given_payloads: list[bytes]) -> None:
    shaper = Shaper(HEAD, wants_usage=True)
    collector = Collector(HEAD, max_bytes=10_000)
    stream = b""
    try:
        for each in given_payloads:
            stream += shaper.shape(each)
            collector.collect(each)
    except UpstreamError:
        pass
    heard = read_stream(stream + shaper.end())
    found = json.loads(collector.completion().decode())
    [choice] = found["choices"]
    assert (choice["message"]["content"] or "") == heard.content
    in_order = [heard.calls[index] for index in sorted(heard.calls)]
    assert choice["message"].get("tool_calls", []) == in_order
    assert choice["finish_reason"] == heard.finish_reason
    assert found.get("usage") == heard.usage


@given(text)
def test_a_farewell_for_who_does_not_stream(words: str) -> None:
    spoken = words.encode(errors="replace").decode()
    expected = completion({"content": spoken}, "stop")
    assert json.loads(whole_farewell(HEAD, words).decode()) == expected


def test_a_farewell_need_not_say_anything() -> None:
    assert json.loads(whole_farewell(HEAD)) == completion({"content": ""}, "stop")
