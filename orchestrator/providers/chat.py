"""The request of a chat completion: what a vendor asks of the gateway, and what goes upstream.

Rule 1: reading never raises, and no verdict holds anything that was received.
Rule 2: what goes upstream always streams, and says of a conversation no more than the account's
configuration passes on: OpenAI's own fields, and those of the vendor's that are named.

Sources: platform.openai.com api-reference/chat/create; Volcengine 6348/1399966; ZEGO
configuring-llm; Tencent trtc.io 68338.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.providers.base import Garbled
from orchestrator.providers.chat_wire import kept, read_object, write

NESTING_LIMIT = 64
"""Objects and lists inside of each other; tools, whose parameters are JSON schemas, have about 10.

What is read here is written again, and writing must not run out of stack where reading did not.
"""

ALL_FIELDS = "*"
"""In `pass_fields`: everything that the vendor added."""

OPENAI_FIELDS = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
"""The body of a chat completion, less what the gateway decides (`_OURS`)."""

_OURS = frozenset({"stream", "stream_options"})

NO_OBJECT = Garbled("the body is not a JSON object")
TOO_DEEP = Garbled(f"the body is nested more than {NESTING_LIMIT} deep")
NO_MESSAGES = Garbled("messages is missing")
MESSAGES_NO_LIST = Garbled("messages is not a list")
MESSAGES_EMPTY = Garbled("messages is empty")
NO_ROLE = Garbled("messages holds something without a role")
SEVERAL_CHOICES = Garbled("n is not 1")
STREAM_NO_BOOL = Garbled("stream is not a boolean")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ChatRequest:
    """A chat completion as a vendor asks for it. Holds a conversation, so it has no repr."""

    fields: Mapping[str, Any]
    """The decoded body. Volcengine's old `maxTokens` is `max_tokens` here."""
    stream: bool
    wants_usage: bool
    """Whether the last chunk is to tell the tokens (`stream_options.include_usage`)."""

    @property
    def last_user_text(self) -> str:
        """Return what the user said last, bounded; "" if it is no text or there is nothing."""
        messages = reversed(self.fields["messages"])
        content = next((m.get("content") for m in messages if m["role"] == "user"), None)
        return kept(_text(content))


def read_chat(raw: bytes) -> ChatRequest | Garbled:
    """Return the request that a vendor posted, or in what it is none. Never raises."""
    fields = read_object(raw)
    if fields is None:
        return NO_OBJECT
    if _is_too_deep(fields):
        return TOO_DEEP
    why = _mistake(fields)
    if why is not None:
        return why
    old = fields.pop("maxTokens", None)
    if old is not None and fields.get("max_tokens") is None:
        fields["max_tokens"] = old
    options = fields.get("stream_options")
    return ChatRequest(
        fields=fields,
        stream=fields.get("stream") is True,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def upstream_body(
    request: ChatRequest, *, model: str | None, pass_fields: Collection[str], counts_tokens: bool
) -> bytes:
    """Return the body to post upstream: the request, always streaming.

    `model` replaces the request's, if given. `pass_fields` names the fields beside OpenAI's own
    that go along (`round_id`, `device_id`, `agent_info`, ...), or is {`ALL_FIELDS`}; what is null
    stays behind. `counts_tokens` asks for the tokens, which not every upstream understands.
    """
    body = {
        name: value
        for name, value in request.fields.items()
        if value is not None and _goes_along(name, pass_fields)
    }
    if model is not None:
        body["model"] = model
    body["stream"] = True
    if counts_tokens:
        body["stream_options"] = {"include_usage": True}
    return write(body)


def failure(kind: str, message: str) -> bytes:
    """Return the body of an HTTP error as OpenAI's clients read it; `kind` is its `type`."""
    return write({"error": {"message": message, "type": kind, "param": None, "code": None}})


def _mistake(fields: Mapping[str, Any]) -> Garbled | None:
    """Return the first thing that makes this object no chat completion."""
    messages = fields.get("messages")
    if messages is None:
        return NO_MESSAGES
    if not isinstance(messages, list):
        return MESSAGES_NO_LIST
    if not messages:
        return MESSAGES_EMPTY
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        return NO_ROLE
    # A vendor speaks one answer; who pays for several hears of it here.
    if fields.get("n") not in (None, 1):
        return SEVERAL_CHOICES
    if not isinstance(fields.get("stream"), bool | None):
        return STREAM_NO_BOOL
    return None


def _is_too_deep(value: Any) -> bool:
    """Tell whether containers lie more than `NESTING_LIMIT` deep in each other."""
    level = [value]
    for _ in range(NESTING_LIMIT):
        level = [inner for outer in level for inner in _containers(outer)]
        if not level:
            return False
    return True


def _containers(outer: Any) -> Iterable[Any]:
    """Return the objects and lists right inside of an object or list."""
    inside = outer.values() if isinstance(outer, dict) else outer
    return (value for value in inside if isinstance(value, dict | list))


def _goes_along(name: str, pass_fields: Collection[str]) -> bool:
    if name in _OURS:
        return False
    return name in OPENAI_FIELDS or name in pass_fields or ALL_FIELDS in pass_fields


def _text(content: Any) -> str:
    """Return the text of a message's content, which may come in parts of several kinds."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))
