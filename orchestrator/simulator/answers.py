"""The answer of a customer's LLM, read as strictly as the vendors say that they read it. No I/O.

Sources: Volcengine docs/6348/1399966 (200, `text/event-stream`, `data: ` lines, `object`, one
`created`, `[DONE]`), ZEGO configuring-llm (finish_reason, `[DONE]`), OpenAI's format for the rest.
Rule 1: the first rule that is broken is the fault; reading goes on, so that the words are known.
Rule 2: nothing that comes in raises an exception.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from orchestrator.simulator.wire import parse_object

EVENT_STREAM = "text/event-stream"
LONGEST_LINE = 2**20
"""Bytes of one line that are kept; the rest of a longer one is not read."""
SHOWN = 80
"""Characters of a wrong value that a fault shows."""

_PREFIX = b"data: "


class Rule(StrEnum):
    """What can be wrong with an answer; a fault begins with one of these words."""

    CONNECTION = "connection"  # no connection, or it ended in the middle
    LATE = "late"  # the vendor did not wait any longer
    STATUS = "status"  # another HTTP status than 200
    CONTENT_TYPE = "content_type"
    LINE = "line"  # a line that is no `data: `, or no empty line after one
    JSON = "json"
    OBJECT = "object"
    CREATED = "created"
    CHOICES = "choices"
    FINISH_REASON = "finish_reason"
    DONE = "done"  # no `[DONE]`, or something after it


class AnswerReader:
    """Reads one answer; what it has learned so far stands in its attributes."""

    def __init__(self, *, wants_usage: bool) -> None:
        self.words = ""
        self.chunks = 0
        """Those with words."""
        self.events = 0
        self.finish_reason: str | None = None
        self.fault: str | None = None
        self._wants_usage = wants_usage
        self._rest = b""
        self._created: object = None
        self._event_open = False
        self._done = False

    def break_rule(self, rule: Rule, found: object) -> None:
        """Note that a rule is broken, unless one was before."""
        if self.fault is None:
            self.fault = f"{rule}: {str(found)[:SHOWN]}"

    def begin(self, status: int, content_type: str, expected: str = EVENT_STREAM) -> bool:
        """Judge the answer's head; return whether its body is worth reading."""
        if status != 200:
            self.break_rule(Rule.STATUS, status)
        elif content_type.partition(";")[0].strip().lower() != expected:
            self.break_rule(Rule.CONTENT_TYPE, content_type or "none")
        return self.fault is None

    def lines(self, data: bytes) -> Iterator[bytes]:
        """Return the lines that are complete with this data, without their ends."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            self.break_rule(Rule.LINE, f"longer than {LONGEST_LINE} bytes")
            self._rest = b""
        return (line.removesuffix(b"\r") for line in complete)

    def take(self, line: bytes) -> None:
        """Read one line of the stream."""
        if not line:
            self._event_open = False
        elif self._done:
            self.break_rule(Rule.DONE, "something comes after [DONE]")
        elif not line.startswith(_PREFIX):
            self.break_rule(Rule.LINE, f"{_text(line)!r} does not begin with 'data: '")
        elif self._event_open:
            self.break_rule(Rule.LINE, "no empty line between two events")
        else:
            self._event_open = True
            self._take_event(line.removeprefix(_PREFIX))

    def end(self) -> None:
        """Judge how the stream ended."""
        if self._rest:
            self.break_rule(Rule.LINE, "the stream ends within a line")
        if self.finish_reason is None:
            self.break_rule(Rule.FINISH_REASON, "the stream ends without one")
        if not self._done:
            self.break_rule(Rule.DONE, "the stream ends without [DONE]")

    def take_whole(self, body: bytes) -> None:
        """Read an answer that is no stream."""
        answer = parse_object(body)
        if answer is None:
            self.break_rule(Rule.JSON, _text(body))
            return
        if answer.get("object") != "chat.completion":
            self.break_rule(Rule.OBJECT, answer.get("object"))
        choice = self._choice(answer)
        self._take_words(choice.get("message"))
        self._take_finish(choice.get("finish_reason"))
        if self.finish_reason is None:
            self.break_rule(Rule.FINISH_REASON, "there is none")

    def _take_event(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self._done = True
            return
        self.events += 1
        chunk = parse_object(payload)
        if chunk is None:
            self.break_rule(Rule.JSON, _text(payload))
            return
        if chunk.get("object") != "chat.completion.chunk":
            self.break_rule(Rule.OBJECT, chunk.get("object"))
        self._take_created(chunk.get("created"))
        if chunk.get("choices") == [] and self._wants_usage and "usage" in chunk:
            return
        choice = self._choice(chunk)
        if self.finish_reason is not None:
            self.break_rule(Rule.FINISH_REASON, "a chunk comes after the one that has it")
        self._take_words(choice.get("delta"))
        self._take_finish(choice.get("finish_reason"))

    def _take_created(self, created: object) -> None:
        if type(created) is not int:
            self.break_rule(Rule.CREATED, f"{created!r} is no number of seconds")
        elif self._created is None:
            self._created = created
        elif created != self._created:
            self.break_rule(Rule.CREATED, f"{created} after {self._created}")

    def _choice(self, chunk: Mapping[str, Any]) -> Mapping[str, Any]:
        choices = chunk.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            return choices[0]
        self.break_rule(Rule.CHOICES, choices)
        return {}

    def _take_words(self, message: object) -> None:
        content = message.get("content") if isinstance(message, dict) else None
        if content is not None and not isinstance(content, str):
            self.break_rule(Rule.CHOICES, f"content is {content!r}")
        elif content:
            self.words += content
            self.chunks += 1

    def _take_finish(self, reason: object) -> None:
        if reason is None:
            return
        if not isinstance(reason, str):
            self.break_rule(Rule.FINISH_REASON, repr(reason))
            return
        self.finish_reason = reason


def _text(data: bytes) -> str:
    return data[:SHOWN].decode(errors="replace")
