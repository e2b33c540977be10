"""What an upstream's payloads are taken for. Seen through the collector: it changes nothing."""

import json
from typing import Any

import pytest

from orchestrator.providers.chat_answer import CALLS_LIMIT, UpstreamError, UpstreamFault
from orchestrator.providers.chat_chunks import Head
from orchestrator.providers.chat_completion import Collector
from orchestrator.providers.chat_wire import TEXT_LIMIT
from tests.providers.chat_payloads import SPOKEN, call, encoded, payload, tokens

HEAD = Head(id="ours", created=1_767_225_600, model="m")


def heard(*payloads: bytes) -> Collector:
    collector = Collector(HEAD, max_bytes=100_000)
    for each in payloads:
        collector.collect(each)
    return collector


def message(collector: Collector) -> Any:
    return json.loads(collector.completion())["choices"][0]["message"]


def calls(*payloads: bytes) -> list[tuple[str, str, str]]:
    """Id, name and arguments of the tool calls that came together."""
    return [
        (each["id"], each["function"]["name"], each["function"]["arguments"])
        for each in message(heard(*payloads)).get("tool_calls", [])
    ]


# --- content


@pytest.mark.parametrize(
    "silent",
    [
        b"",
        b" \n",
        b"{}",
        encoded({"choices": []}),
        encoded({"choices": [], "prompt_filter_results": []}),
        encoded({"choices": [None, SPOKEN]}),
        encoded({"choices": [{}]}),
        encoded({"choices": [{"index": 0, "delta": None}]}),
        encoded({"choices": [{"index": 1, "delta": {"content": SPOKEN}}]}),
        encoded({"choices": [{"index": 0, "message": {"content": SPOKEN}}]}),
        encoded({"usage": tokens(1, 2)}),
        encoded({"choices": None, "usage": None}),
        encoded({"choices": [], "error": None}),
        payload(role="assistant"),
        payload("", role="assistant"),
        payload(None, reasoning_content=SPOKEN),
        payload(None, refusal=SPOKEN),
        payload([{"type": "thinking", "thinking": SPOKEN}]),
        payload(5),
        payload(tool_calls=None),
        payload(tool_calls=SPOKEN),
        payload(tool_calls=[None, SPOKEN, 5]),
    ],
)
def test_what_says_nothing(silent: bytes) -> None:
    collector = heard(silent)
    assert not collector.has_spoken
    assert message(collector) == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    "spoken",
    [
        payload("hello"),
        payload("hello", role="assistant"),
        payload("hello", "stop", usage=tokens(1, 2)),
        payload("hello", reasoning_content="hm"),
        b" " + payload("hello") + b"\n",
        encoded({"choices": [{"delta": {"content": "hello"}}]}),
        encoded({"choices": [{"index": None, "delta": {"content": "hello"}}]}),
        encoded(
            {
                "choices": [
                    {"index": 1, "delta": {"content": "no"}},
                    {"index": 0, "delta": {"content": "hello"}},
                ]
            }
        ),
    ],
)
def test_what_is_said(spoken: bytes) -> None:
    collector = heard(spoken)
    assert collector.has_spoken
    assert message(collector)["content"] == "hello"


def test_nothing_is_heard_after_the_end() -> None:
    collector = heard(payload("a", "stop"), payload("b", "length"), payload(usage=tokens(1, 2)))
    assert message(collector)["content"] == "a"
    assert collector.finish_reason == "stop"
    assert collector.usage is not None


def test_nothing_at_all_is_heard_after_done() -> None:
    collector = heard(payload("a"), b"[DONE]", payload("b", usage=tokens(1, 2)), b"<html>")
    assert collector.is_done
    assert message(collector)["content"] == "a"
    assert collector.usage is None


# --- ends


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        (None, None),
        ("", None),
        ("null", None),
        (5, None),
        (["stop"], None),
    ],
)
def test_a_finish_reason_is_one_of_openais(said: Any, reason: str | None) -> None:
    assert heard(payload("a", said)).finish_reason == reason


@pytest.mark.parametrize(
    ("payloads", "ending"),
    [
        ([], "stop"),
        ([payload("a")], "stop"),
        ([payload("a", "length")], "length"),
        ([call(0, "{}", id="c", name="f")], "tool_calls"),
        ([call(0, "", id="c", name="f"), call(0, "{}")], "tool_calls"),
        ([call(0, "{}", id="c", name="f"), payload("a")], "stop"),
        ([payload("a"), call(0, "{}", id="c", name="f")], "tool_calls"),
        ([call(0, "", id="c", name="f"), payload("a"), call(0, "{}")], "tool_calls"),
        ([call(0, "{}", id="c", name="f"), payload(None, "stop")], "stop"),
        ([call(0, "{}", id="c", name="f"), payload("a", "tool_calls")], "tool_calls"),
        ([payload("a", "tool_calls")], "stop"),
    ],
)
def test_an_ending_is_never_owed(payloads: list[bytes], ending: str) -> None:
    assert heard(*payloads).ending == ending


# --- tokens


@pytest.mark.parametrize(
    ("usages", "known"),
    [
        ([], None),
        ([None], None),
        ([[1, 2]], None),
        ([tokens(7, 0)], (7, 0)),
        ([tokens(7, 1), tokens(7, 2)], (7, 2)),
        ([tokens(7, 2), None], (7, 2)),
        ([tokens(7, 2), {}], (7, 2)),
        ([tokens(7, None)], None),
        ([tokens(None, 2)], None),
        ([tokens(7, None), tokens(None, 2)], (7, 2)),
        ([tokens("7", 2.5)], None),
        ([tokens(True, False)], None),
        ([tokens(-1, 2)], None),
        ([tokens(2**31, 10**50)], None),
    ],
)
def test_tokens(usages: list[Any], known: tuple[int, int] | None) -> None:
    collector = heard(*(payload(usage=usage) for usage in usages))
    expected = known and {
        "prompt_tokens": known[0],
        "completion_tokens": known[1],
        "total_tokens": sum(known),
    }
    assert collector.usage == expected


# --- tool calls


def test_tool_calls_come_together_by_their_index() -> None:
    assert calls(
        call(0, "", id="c0", type="function", name="f"),
        call(0, '{"a"'),
        call(1, "", id="c1", type="function", name="g"),
        call(1, "[]"),
        call(0, ": 1}"),
    ) == [("c0", "f", '{"a": 1}'), ("c1", "g", "[]")]


@pytest.mark.parametrize(
    ("payloads", "expected"),
    [
        # Whole calls without an index, as some upstreams send them.
        ([call(None, "1", id="a", name="f"), call(None, "2", id="b", name="g")], ["a1", "b2"]),
        ([call(None, "1", id="a", name="f"), call(None, "2")], ["a12"]),
        ([call(None, "1", name="f")], ["call_01"]),
        (
            [
                call(0, "1", id="a", name="f"),
                call(1, "2", id="b", name="g"),
                call(0, "3"),
                call(None, "4"),
            ],
            ["a134", "b2"],
        ),
        # Ids and names again and again.
        ([call(0, "1", id="a", name="f"), call(0, "2", id="a", name="f")], ["a12"]),
        # An index or a part that is none.
        ([call(True, "1", id="a", name="f")], ["a1"]),
        ([call("0", "1", id="a", name="f")], ["a1"]),
        ([call(-1, "1", id="a", name="f")], []),
        ([call(CALLS_LIMIT, "1", id="a", name="f")], []),
        ([call(CALLS_LIMIT - 1, "1", id="a", name="f")], ["a1"]),
        ([call(0, {"x": 1}, id="a", name="f")], ["a"]),
        ([call(0, id="a", name="f")], ["a"]),
        ([call(0, "1", id=5, name="f")], ["call_01"]),
        ([call(0, "1", id="", name="f")], ["call_01"]),
        ([call(0, "1", id="a")], []),
        ([call(0, "1", id="a", name="")], []),
        ([call(0, "1", id="a", name=5)], []),
        ([payload(tool_calls=[{"index": 0, "id": "a", "function": "f"}])], []),
        ([payload(tool_calls=[{"index": 0, "id": "a"}])], []),
    ],
)
def test_tool_calls_in_other_forms(payloads: list[bytes], expected: list[str]) -> None:
    assert [identity + arguments for identity, _, arguments in calls(*payloads)] == expected


def test_a_tool_call_speaks() -> None:
    assert heard(call(0, "", id="a", name="f")).has_spoken


# --- text


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([], ""),
        (["Hello", ", ", "you\0"], "Hello, you "),
        (["a" * (TEXT_LIMIT - 1), "bc", "d"], "a" * (TEXT_LIMIT - 1) + "b"),
        (["a" * TEXT_LIMIT, "b"], "a" * TEXT_LIMIT),
        (["\ud83d", "\ude00"], "??"),
    ],
)
def test_text_is_kept_only_where_that_is_asked(pieces: list[str], text: str) -> None:
    keeping = Collector(HEAD, max_bytes=100_000, keep_text=True)
    silent = Collector(HEAD, max_bytes=100_000)
    for piece in pieces:
        keeping.collect(payload(piece))
        silent.collect(payload(piece))
    assert keeping.text == text
    assert sum(map(len, keeping._kept)) <= TEXT_LIMIT
    assert silent.text == ""
    assert silent._kept == []


# --- what is no chunk


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (f"<html>{SPOKEN}</html>".encode(), UpstreamFault.GARBLED),
        (payload(SPOKEN)[:-5], UpstreamFault.GARBLED),
        (payload(SPOKEN) + b"}", UpstreamFault.GARBLED),
        (b'"' + SPOKEN.encode() + b'"', UpstreamFault.GARBLED),
        (b"[DONE", UpstreamFault.GARBLED),
        (b"[" * 100_000, UpstreamFault.GARBLED),
        (b'{"choices": "' + SPOKEN.encode() + b'\xff"}', UpstreamFault.GARBLED),
        (encoded({"choices": SPOKEN}), UpstreamFault.GARBLED),
        (encoded({"choices": {"0": SPOKEN}}), UpstreamFault.GARBLED),
        (encoded({"object": "error", "message": SPOKEN}), UpstreamFault.GARBLED),
        (encoded({"choices": None, "message": SPOKEN}), UpstreamFault.GARBLED),
        (encoded({"error": {"message": SPOKEN, "code": 429}}), UpstreamFault.ERROR),
        (encoded({"error": SPOKEN}), UpstreamFault.ERROR),
        (encoded({"error": {}, "choices": []}), UpstreamFault.ERROR),
    ],
)
def test_what_is_no_chunk_is_told_in_our_words(wrong: bytes, reason: UpstreamFault) -> None:
    collector = heard(payload("a"))
    with pytest.raises(UpstreamError) as caught:
        collector.collect(wrong)
    error = caught.value
    assert error.reason is reason
    assert error.args == (f"the upstream sent no chunk: {reason}",)
    # Not even what tracebacks and debuggers show leads to it.
    assert error.__cause__ is None
    assert error.__context__ is None
    assert message(collector)["content"] == "a"
