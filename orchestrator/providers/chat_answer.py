"""What an upstream's data payloads say, taken out of the many forms in which upstreams say it.

Rule 1: only what a vendor can speak or call is heard: the content and the tool calls of choice 0.
Reasoning, log probabilities, refusals and other choices are not, nor what follows the end.
Rule 2: of what is heard every part has the type that OpenAI documents; a part that has not is
left out, and what is no chunk at all is an `UpstreamError`.
Rule 3: no error holds anything that was received, not as its context either.

Source: platform.openai.com api-reference/chat-streaming.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.providers.chat_wire import TEXT_LIMIT, kept, read_object

CALLS_LIMIT = 128
"""Tool calls in one answer; OpenAI lets a request name as many tools."""

FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter"})
_DONE = b"[DONE]"
_TOKENS = range(2**31)


class UpstreamFault(StrEnum):
    """In what way an upstream's payload is no chunk."""

    GARBLED = "garbled"
    """It is nothing that a chat completion consists of: HTML, half an object."""
    ERROR = "error"
    """It is the upstream's own word that it failed."""


class UpstreamError(ValueError):
    """An upstream sent something that is no chunk. Holds nothing of it."""

    def __init__(self, reason: UpstreamFault) -> None:
        super().__init__(f"the upstream sent no chunk: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Said:
    """What one payload adds to the answer. Holds a conversation, so it has no repr."""

    content: str
    calls: tuple[Mapping[str, Any], ...]
    """In OpenAI's delta form: `index`, `function`, and in the first of a call `id` and `type`."""

    def __bool__(self) -> bool:
        return bool(self.content or self.calls)


_NOTHING = Said(content="", calls=())


class Answer:
    """One answer of an upstream, as far as it has come."""

    has_spoken: bool
    """Whether content or a tool call has come. Until then nothing of it has gone to the vendor."""
    is_done: bool
    """Whether `[DONE]` has come."""
    finish_reason: str | None
    """One of `FINISH_REASONS`; null while the upstream has not said one."""
    prompt_tokens: int | None
    completion_tokens: int | None

    def __init__(self, *, keep_text: bool) -> None:
        self.has_spoken = False
        self.is_done = False
        self.finish_reason = None
        self.prompt_tokens = None
        self.completion_tokens = None
        self._keeps_text = keep_text
        self._kept: list[str] = []
        self._room = TEXT_LIMIT if keep_text else 0
        self._calls: set[int] = set()
        """Indices of the tool calls that have begun."""
        self._last_call: int | None = None
        """Index of the tool call that was last heard of; null if content was heard since."""

    @property
    def text(self) -> str:
        """Return the beginning of what was said; "" unless the keeping of text is switched on."""
        return kept("".join(self._kept))

    @property
    def ending(self) -> str:
        """Return the finish reason for the vendor, where need be one that the upstream owes."""
        if self.finish_reason is None:
            return "stop" if self._last_call is None else "tool_calls"
        # Who is told of tool calls waits for them.
        if self.finish_reason == "tool_calls" and not self._calls:
            return "stop"
        return self.finish_reason

    @property
    def usage(self) -> Mapping[str, int] | None:
        """Return the tokens as OpenAI counts them; null if the upstream has not told both."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def _hear(self, payload: bytes) -> Said:
        """Take in one payload and return what it adds. Raises `UpstreamError`."""
        payload = payload.strip()
        if not payload or self.is_done:
            return _NOTHING
        if payload == _DONE:
            self.is_done = True
            return _NOTHING
        chunk = read_object(payload)
        if chunk is None:
            raise UpstreamError(UpstreamFault.GARBLED)
        choice = _first_choice(chunk)
        self._count(chunk.get("usage"))
        if self.finish_reason is not None:
            return _NOTHING
        self.finish_reason = _finish_reason(choice.get("finish_reason"))
        delta = choice.get("delta")
        return self._take(delta) if isinstance(delta, dict) else _NOTHING

    def _count(self, usage: Any) -> None:
        """Note the tokens. Some upstreams tell them in each chunk: the last word counts."""
        if not isinstance(usage, dict):
            return
        self.prompt_tokens = _tokens(usage.get("prompt_tokens"), self.prompt_tokens)
        self.completion_tokens = _tokens(usage.get("completion_tokens"), self.completion_tokens)

    def _take(self, delta: Mapping[str, Any]) -> Said:
        said = Said(
            content=_text(delta, "content", ""),
            calls=self._take_calls(delta.get("tool_calls")),
        )
        if said.content:
            self._keep(said.content)
        if said:
            self.has_spoken = True
        if said.content and not said.calls:
            self._last_call = None
        return said

    def _keep(self, content: str) -> None:
        if self._room > 0:
            self._kept.append(content[: self._room])
            self._room -= len(content)

    def _take_calls(self, deltas: Any) -> tuple[Mapping[str, Any], ...]:
        if not isinstance(deltas, list):
            return ()
        calls = (self._take_call(delta) for delta in deltas if isinstance(delta, dict))
        return tuple(call for call in calls if call is not None)

    def _take_call(self, delta: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return a tool call's delta in OpenAI's form; null if it adds nothing.

        Its id and name go along once, however often the upstream says them: readers append.
        """
        index = self._call_index(delta)
        function = delta.get("function")
        if index not in range(CALLS_LIMIT) or not isinstance(function, dict):
            return None
        arguments = _text(function, "arguments", "")
        if index in self._calls:
            self._last_call = index
            return {"index": index, "function": {"arguments": arguments}} if arguments else None
        name = _text(function, "name", "")
        if not name:
            return None
        self._calls.add(index)
        self._last_call = index
        return {
            "index": index,
            "id": _text(delta, "id", f"call_{index}"),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }

    def _call_index(self, delta: Mapping[str, Any]) -> int:
        """Return the index that a tool call's delta has, or that the upstream left out.

        One with an id begins a call; one without goes on with the last.
        """
        index = _whole(delta.get("index"))
        if index is not None:
            return index
        if delta.get("id") is not None or self._last_call is None:
            return len(self._calls)
        return self._last_call


def _first_choice(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return choice 0 of a chunk; an empty one if it tells tokens alone. Raises `UpstreamError`."""
    if chunk.get("error") is not None:
        raise UpstreamError(UpstreamFault.ERROR)
    choices = chunk.get("choices")
    if choices is None and (not chunk or "usage" in chunk):
        return {}
    if not isinstance(choices, list):
        raise UpstreamError(UpstreamFault.GARBLED)
    objects = (choice for choice in choices if isinstance(choice, dict))
    return next((choice for choice in objects if choice.get("index") in (None, 0)), {})


def _finish_reason(value: Any) -> str | None:
    """Return OpenAI's word for why an answer ends; null for what says that it does not."""
    if not isinstance(value, str) or value in {"", "null"}:
        return None
    return value if value in FINISH_REASONS else "stop"


def _tokens(value: Any, known: int | None) -> int | None:
    """Return the count of tokens that was told, or else what is known."""
    count = _whole(value)
    return known if count is None or count not in _TOKENS else count


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(fields: Mapping[str, Any], name: str, otherwise: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) and value else otherwise
