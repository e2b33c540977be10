import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.providers.chat_answer import UpstreamError
from orchestrator.providers.chat_chunks import Head, Shaper, farewell
from tests.providers.chat_payloads import call, encoded, payload, payloads, text, tokens
from tests.providers.strict_reader import Heard, read_stream

HEAD = Head(id="ours", created=1_767_225_600, model="m")


def shaper(*, wants_usage: bool = False) -> Shaper:
    return Shaper(HEAD, wants_usage=wants_usage)


def stream_of(*given_payloads: bytes, wants_usage: bool = False) -> bytes:
    shaping = shaper(wants_usage=wants_usage)
    return b"".join(shaping.shape(each) for each in given_payloads) + shaping.end()


def chunks(stream: bytes) -> list[tuple[object, object]]:
    """Delta and finish reason of each chunk of a part of a stream."""
    events = [json.loads(event[6:]) for event in stream.decode().split("\n\n")[:-1]]
    return [(e["choices"][0]["delta"], e["choices"][0]["finish_reason"]) for e in events]


# --- the stream


def test_a_chunk_to_the_letter() -> None:
    assert (
        shaper().shape(payload("你好"))
        == (
            'data: {"id":"ours","object":"chat.completion.chunk","created":1767225600,"model":"m",'
            '"choices":[{"index":0,"delta":{"role":"assistant","content":"你好"},'
            '"finish_reason":null}]}\n\n'
        ).encode()
    )


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        # As OpenAI sends it.
        (
            [payload("", role="assistant"), payload("a"), payload("b"), payload(None, "stop")],
            Heard(content="ab", finish_reason="stop"),
        ),
        # The last content with the finish reason.
        ([payload("a"), payload("b", "stop")], Heard(content="ab", finish_reason="stop")),
        # Cut off.
        ([payload("a")], Heard(content="a", finish_reason="stop")),
        ([], Heard(finish_reason="stop")),
        # An end without a word.
        ([payload(None, "content_filter")], Heard(finish_reason="content_filter")),
        # A role in each chunk, a finish reason in several.
        (
            [
                payload("a", role="assistant"),
                payload("b", "length", role="assistant"),
                payload(None, "length"),
            ],
            Heard(content="ab", finish_reason="length"),
        ),
    ],
)
@pytest.mark.parametrize("done", [[], [b"[DONE]"]])
def test_streams(sent: list[bytes], expected: Heard, done: list[bytes]) -> None:
    assert read_stream(stream_of(*sent, *done)) == expected


def test_tool_calls() -> None:
    shaping = shaper()
    first = shaping.shape(call(0, "", id="c0", type="function", name="f"))
    more = shaping.shape(call(0, "{}", id="c0", name="f"))
    function = {"index": 0, "id": "c0", "type": "function"}
    assert chunks(first + more) == [
        (
            {
                "role": "assistant",
                "tool_calls": [{**function, "function": {"name": "f", "arguments": ""}}],
            },
            None,
        ),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}, None),
    ]
    assert read_stream(first + more + shaping.end()).finish_reason == "tool_calls"


def test_content_and_tool_calls_in_one_chunk() -> None:
    calls = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]
    heard = read_stream(stream_of(payload("one moment", tool_calls=calls)))
    assert heard.content == "one moment"
    assert heard.calls[0]["function"] == {"name": "f", "arguments": "{}"}
    assert heard.finish_reason == "tool_calls"


def test_nothing_is_sent_before_something_is_said() -> None:
    shaping = shaper()
    for silent in (payload("", role="assistant"), payload(None, reasoning_content="hm"), b""):
        assert shaping.shape(silent) == b""
        assert not shaping.has_spoken
    assert chunks(shaping.shape(payload("a"))) == [({"role": "assistant", "content": "a"}, None)]
    assert shaping.has_spoken


def test_the_end_goes_as_soon_as_it_is_known_and_once() -> None:
    shaping = shaper()
    shaping.shape(payload("a"))
    assert chunks(shaping.shape(payload("b", "stop"))) == [({"content": "b"}, None), ({}, "stop")]
    assert shaping.shape(payload("c", "stop", usage=tokens(1, 2))) == b""
    assert shaping.shape(b"[DONE]") == b""
    assert shaping.is_done
    assert shaping.end() == b"data: [DONE]\n\n"


@pytest.mark.parametrize("wants_usage", [True, False])
@pytest.mark.parametrize("usage", [tokens(7, 2), tokens(7, None), None])
@pytest.mark.parametrize("place", ["each", "last", "apart"])
def test_tokens_are_told_to_who_asks(wants_usage: bool, usage: object, place: str) -> None:
    sent = {
        "each": [payload("a", usage=usage), payload(None, "stop", usage=usage)],
        "last": [payload("a"), payload(None, "stop", usage=usage)],
        "apart": [payload("a", "stop"), encoded({"choices": [], "usage": usage})],
    }[place]
    told = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    heard = read_stream(stream_of(*sent, b"[DONE]", wants_usage=wants_usage))
    assert heard.usage == (told if wants_usage and usage == tokens(7, 2) else None)


@given(st.lists(payloads, max_size=8), st.booleans())
def test_whatever_comes_is_a_stream_that_a_strict_reader_takes(
    given_payloads: list[bytes], wants_usage: bool
) -> None:
    shaping = shaper(wants_usage=wants_usage)
    stream = b""
    for each in given_payloads:
        try:
            stream += shaping.shape(each)
        except UpstreamError:
            # Whoever goes on all the same gets a valid stream too.
            continue
        assert bool(stream) == shaping.has_spoken
    heard = read_stream(stream + shaping.end())
    assert bool(heard.content or heard.calls) == shaping.has_spoken


@given(st.lists(payloads, max_size=4), st.lists(payloads, max_size=4))
def test_who_has_not_spoken_can_be_replaced(first: list[bytes], second: list[bytes]) -> None:
    shaping = shaper()
    stream = until_error(shaping, first)
    if not shaping.has_spoken:
        shaping = shaper()
        stream += until_error(shaping, second)
    read_stream(stream + shaping.end())


def until_error(shaping: Shaper, sent: list[bytes]) -> bytes:
    stream = b""
    try:
        for each in sent:
            stream += shaping.shape(each)
    except UpstreamError:
        pass
    return stream


# --- farewells


@given(text)
def test_a_farewell_is_a_stream_of_its_own(words: str) -> None:
    spoken = words.encode(errors="replace").decode()
    expected = Heard(content=spoken, finish_reason="stop")
    assert read_stream(farewell(HEAD, words)) == expected


def test_a_farewell_need_not_say_anything() -> None:
    assert read_stream(farewell(HEAD)) == Heard(finish_reason="stop")


# --- the reader that judges


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"data: [DONE]\n\n",
        farewell(HEAD)[:-1],
        farewell(HEAD) + b"data: [DONE]\n\n",
        farewell(HEAD).replace(b"data: {", b"data:{", 1),
        farewell(HEAD).replace(b"chat.completion.chunk", b"chat.completion", 1),
        farewell(HEAD).replace(b'"created":1767225600', b'"created":1767225601', 1),
        farewell(HEAD).replace(b'"role":"assistant",', b"", 1),
        farewell(HEAD).replace(b'"stop"', b"null"),
        farewell(HEAD).replace(b'"stop"', b'"tool_calls"'),
        farewell(HEAD).replace(b'"index":0', b'"index":1', 1),
    ],
)
def test_the_strict_reader_is_strict(wrong: bytes) -> None:
    with pytest.raises((AssertionError, ValueError)):
        read_stream(wrong)
