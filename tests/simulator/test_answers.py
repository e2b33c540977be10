"""Strict reading of an answer: each rule, and what breaks it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.answers import LONGEST_LINE, AnswerReader, Rule


def chunk(words: str | None = None, reason: str | None = None, **changes: Any) -> str:
    choice = {"index": 0, "delta": {} if words is None else {"content": words}}
    whole = {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1704355200,
        "model": "m",
        "choices": [choice | {"finish_reason": reason}],
    }
    return f"data: {json.dumps(whole | changes)}\n\n"


END = chunk(None, "stop") + "data: [DONE]\n\n"
USAGE = chunk(choices=[], usage={"total_tokens": 3})


def read(text: str, *, wants_usage: bool = False, size: int = 2**20) -> AnswerReader:
    reader, data = AnswerReader(wants_usage=wants_usage), text.encode()
    assert reader.begin(200, "text/event-stream; charset=utf-8")
    for start in range(0, len(data), size):
        for line in reader.lines(data[start : start + size]):
            reader.take(line)
    reader.end()
    return reader


GOOD = {
    "one chunk that is the last": (chunk("Hi", "stop") + "data: [DONE]\n\n", "Hi", 1),
    "words, and the end by itself": (chunk("") + chunk("Hel") + chunk("lo") + END, "Hello", 2),
    "lines that end with CR LF": ((chunk("Hi") + END).replace("\n", "\r\n"), "Hi", 1),
    "a role without words": (chunk(None) + chunk("Hi") + END, "Hi", 1),
    "nothing to say": (END, "", 0),
}


@pytest.mark.parametrize(("text", "words", "chunks"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("size", [1, 7, 2**20])
def test_a_good_answer_has_no_fault(text: str, words: str, chunks: int, size: int) -> None:
    reader = read(text, size=size)
    assert (reader.fault, reader.words, reader.chunks) == (None, words, chunks)
    assert reader.finish_reason == "stop"


BROKEN = {
    "a comment": (Rule.LINE, ": still here\n\n" + chunk("Hi") + END),
    "an event's name": (Rule.LINE, "event: message\n" + chunk("Hi") + END),
    "no space": (Rule.LINE, (chunk("Hi") + END).replace("data: ", "data:", 1)),
    "no empty line": (Rule.LINE, chunk("Hi").replace("\n\n", "\n") + END),
    "half a line": (Rule.LINE, chunk("Hi") + END.removesuffix("\n\n")),
    "a line without end": (Rule.LINE, "data: " + "x" * (LONGEST_LINE + 1)),
    "no JSON": (Rule.JSON, "data: {half\n\n" + END),
    "no object": (Rule.JSON, "data: [1]\n\n" + END),
    "another object": (Rule.OBJECT, chunk("Hi", object="chat.completion") + END),
    "a later second": (Rule.CREATED, chunk("Hi", created=1704355201) + END),
    "no second": (Rule.CREATED, chunk("Hi", created=None) + END),
    "a fraction": (Rule.CREATED, chunk("Hi", created=1704355200.5) + END),
    "no choices": (Rule.CHOICES, chunk("Hi", choices=None) + END),
    "usage that nobody asked for": (Rule.CHOICES, chunk("Hi") + USAGE + END),
    "words that are none": (Rule.CHOICES, chunk("Hi", choices=[{"delta": {"content": 5}}]) + END),
    "a number as the reason": (Rule.FINISH_REASON, chunk("Hi", choices=[{"finish_reason": 1}])),
    "no reason": (Rule.FINISH_REASON, chunk("Hi") + "data: [DONE]\n\n"),
    "words after the end": (Rule.FINISH_REASON, chunk("Hi", "stop") + chunk("more") + END),
    "no DONE": (Rule.DONE, chunk("Hi", "stop")),
    "something after DONE": (Rule.DONE, chunk("Hi") + END + chunk("more")),
    "nothing at all": (Rule.FINISH_REASON, ""),
}


@pytest.mark.parametrize(("rule", "text"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_the_fault(rule: Rule, text: str) -> None:
    assert str(read(text).fault).startswith(f"{rule}: ")


def test_usage_that_was_asked_for_comes_last() -> None:
    text = chunk("Hi") + chunk(None, "stop") + USAGE + "data: [DONE]\n\n"
    assert read(text, wants_usage=True).fault is None
    assert str(read(text).fault).startswith(Rule.CHOICES)


def test_the_first_broken_rule_is_the_fault_and_the_words_are_heard_all_the_same() -> None:
    reader = read(chunk("Hel", object="?") + chunk("lo", created=5))
    assert (reader.words, reader.chunks) == ("Hello", 2)
    assert str(reader.fault) == "object: ?"


@pytest.mark.parametrize(
    ("status", "content_type", "fault"),
    [
        (200, "text/event-stream", None),
        (200, "Text/Event-Stream;charset=UTF-8", None),
        (200, "text/html", "content_type: text/html"),
        (200, "", "content_type: none"),
        (201, "text/event-stream", "status: 201"),
        (500, "text/html", "status: 500"),
    ],
)
def test_the_head_is_judged_first(status: int, content_type: str, fault: str | None) -> None:
    reader = AnswerReader(wants_usage=False)
    assert reader.begin(status, content_type) is (fault is None)
    assert reader.fault == fault


def whole(**changes: Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    return json.dumps({"object": "chat.completion", "choices": [choice]} | changes).encode()


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (whole(), None),
        (b"<html>", Rule.JSON),
        (whole(object="chat.completion.chunk"), Rule.OBJECT),
        (whole(choices=[]), Rule.CHOICES),
        (whole(choices=[{"message": {"content": "Hi"}}]), Rule.FINISH_REASON),
    ],
)
def test_an_answer_that_is_no_stream(body: bytes, rule: Rule | None) -> None:
    reader = AnswerReader(wants_usage=False)
    reader.take_whole(body)
    assert (reader.fault or "").partition(":")[0] == (rule or "")
    assert reader.words in {"Hi", ""}


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"data: ", b"\n", b"\n\n", b"[DONE]"])))
def test_nothing_that_comes_in_raises_an_exception(pieces: list[bytes]) -> None:
    reader = AnswerReader(wants_usage=True)
    for piece in pieces:
        for line in reader.lines(piece):
            reader.take(line)
    reader.take_whole(b"".join(pieces))
    reader.end()
    assert reader.fault is not None
