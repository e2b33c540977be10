"""The answer for who does not stream: an upstream's payloads as one chat completion.

Rule 1: what is collected is bounded.

Source: platform.openai.com api-reference/chat/object.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.providers.chat_answer import Answer
from orchestrator.providers.chat_chunks import Head
from orchestrator.providers.chat_events import TooLong
from orchestrator.providers.chat_wire import write


class Collector(Answer):
    """Makes one chat completion of one upstream's answer."""

    def __init__(self, head: Head, *, max_bytes: int, keep_text: bool = False) -> None:
        """Collect at most `max_bytes` of content and arguments, as UTF-8."""
        super().__init__(keep_text=keep_text)
        self._head = head
        self._room_bytes = max_bytes
        self._content: list[str] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}

    def collect(self, payload: bytes) -> None:
        """Take in one data payload. Raises `UpstreamError` for what is no chunk, and `TooLong`."""
        said = self._hear(payload)
        if said.content:
            self._hold(said.content)
            self._content.append(said.content)
        for call in said.calls:
            self._collect_call(call)

    def completion(self) -> bytes:
        """Return the chat completion that came together, whatever has come so far."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._content)}
        if self._tool_calls:
            message["content"] = message["content"] or None
            message["tool_calls"] = [
                {**call, "function": {**call["function"], "arguments": "".join(arguments)}}
                for call, arguments in (
                    (self._tool_calls[index], self._arguments[index])
                    for index in sorted(self._tool_calls)
                )
            ]
        return _completion(self._head, message, self.ending, self.usage)

    def _collect_call(self, call: Mapping[str, Any]) -> None:
        index, function = call["index"], call["function"]
        self._hold(function["arguments"])
        if index not in self._tool_calls:
            self._hold(call["id"] + function["name"])
            self._tool_calls[index] = {name: call[name] for name in ("id", "type", "function")}
            self._arguments[index] = []
        self._arguments[index].append(function["arguments"])

    def _hold(self, text: str) -> None:
        self._room_bytes -= len(text.encode(errors="replace"))
        if self._room_bytes < 0:
            raise TooLong("the answer is too long to be collected")


def whole_farewell(head: Head, words: str = "") -> bytes:
    """Return a chat completion that ends the turn politely, with `words` to be spoken, if any."""
    return _completion(head, {"role": "assistant", "content": words}, "stop", None)


def _completion(
    head: Head, message: Mapping[str, Any], finish_reason: str, usage: Mapping[str, int] | None
) -> bytes:
    completion = {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
    }
    return write(completion if usage is None else {**completion, "usage": usage})
