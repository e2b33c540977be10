"""The stream that a vendor gets: an upstream's payloads as chunks that all three vendors take.

Rule 1: `object` is exactly "chat.completion.chunk"; `id`, `created` and `model` are ours and the
same in all chunks; the first has the role; `finish_reason` is null but in the last; `[DONE]` ends.
Rule 2: nothing is sent before something is said. So whoever has not spoken can still be replaced,
and a second answer goes on under the same head.
Rule 3: a finish reason goes alone, as OpenAI sends it: a reader that skips the content of the last
chunk loses no word.

Sources: Volcengine 6348/1399966; ZEGO configuring-llm; platform.openai.com chat-streaming.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.providers.chat_answer import Answer
from orchestrator.providers.chat_wire import write

_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What all chunks of one answer share."""

    id: str
    created: int
    """Whole seconds since 1970."""
    model: str


class Shaper(Answer):
    """Makes a vendor's stream of one upstream's answer."""

    def __init__(self, head: Head, *, wants_usage: bool, keep_text: bool = False) -> None:
        super().__init__(keep_text=keep_text)
        self._head = head
        self._wants_usage = wants_usage
        self._has_role = False
        self._has_finish = False

    def shape(self, payload: bytes) -> bytes:
        """Return what goes to the vendor for one data payload; empty if there is nothing to say.

        Raises `UpstreamError` for what is no chunk.
        """
        said = self._hear(payload)
        out = b""
        if said:
            out = self._say(_delta(said.content, said.calls))
        if self.has_spoken and self.finish_reason is not None:
            out += self._finish()
        return out

    def end(self) -> bytes:
        """Return what is missing to a valid end, whatever has come so far. Call it once, last."""
        out = self._finish()
        usage = self.usage
        if self._wants_usage and usage is not None:
            out += _event({**_shared(self._head), "choices": [], "usage": usage})
        return out + _DONE

    def _say(self, delta: Mapping[str, Any]) -> bytes:
        if not self._has_role:
            self._has_role = True
            delta = {"role": "assistant", **delta}
        return _chunk(self._head, delta, None)

    def _finish(self) -> bytes:
        """Return the chunk with the finish reason, if it has not gone yet."""
        if self._has_finish:
            return b""
        self._has_finish = True
        role = b"" if self._has_role else self._say({"content": ""})
        return role + _chunk(self._head, {}, self.ending)


def farewell(head: Head, words: str = "") -> bytes:
    """Return a whole stream that ends the turn politely, with `words` to be spoken, if any."""
    said = _chunk(head, {"role": "assistant", "content": words}, None)
    return said + _chunk(head, {}, "stop") + _DONE


def _delta(content: str, calls: tuple[Mapping[str, Any], ...]) -> Mapping[str, Any]:
    delta: dict[str, Any] = {}
    if content:
        delta["content"] = content
    if calls:
        delta["tool_calls"] = calls
    return delta


def _chunk(head: Head, delta: Mapping[str, Any], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _event({**_shared(head), "choices": [choice]})


def _shared(head: Head) -> Mapping[str, Any]:
    return {
        "id": head.id,
        "object": "chat.completion.chunk",
        "created": head.created,
        "model": head.model,
    }


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % write(value)
