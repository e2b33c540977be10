"""What a vendor asks the customer's own LLM, as far as the three have it in common. No I/O.

Each vendor's form is in its own file (`volcengine_llm`, `tencent_llm`, `zego_llm`): `own_llm` reads
what a start says of the customer's LLM, `write_request` puts a question into the vendor's form.
Rule: what the customer wrote is passed on as it is; whoever answers judges it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.simulator.wire import Fields
from orchestrator.simulator.world import Exchange

Message = dict[str, Any]


class Unheard(Exception):  # noqa: N818 - nobody hears it: no error of the simulator
    """What the user would say is heard by no agent, or the agent has nobody to ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """What the user says, and what goes on meanwhile."""

    text: str
    interrupt_after: int | None = None
    """Chunks with words after which the vendor hangs up; 0: as soon as the request is out."""
    repeat: bool = False
    """An early request for the same round comes first, and is abandoned at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the user said, as the vendor asks about it."""

    text: str
    round: int
    request_id: str
    """The same when the request is repeated."""
    at: datetime
    """The wall clock, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request, complete to the byte. A repetition sends it as it is."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    answer_within_s: float
    """How long the vendor waits for the first chunk, or for the answer if it streams none."""
    streams: bool = True
    wants_usage: bool = False
    """Whether a last chunk without choices is expected, as `stream_options` asks for it."""


def make_request(
    *, url: object, api_key: object, headers: Fields, body: Fields, answer_within_s: float
) -> Request:
    """Return the request with what all three send: JSON, and the customer's key as a bearer's."""
    options = body.get("stream_options")
    return Request(
        url=str(url),
        headers={
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            **{name: str(value) for name, value in headers.items()},
        },
        # In ASCII: half a surrogate pair from the customer is passed on, too.
        body=json.dumps(body).encode(),
        answer_within_s=answer_within_s,
        streams=body["stream"] is True,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def has_url(block: object, name: str) -> bool:
    """Return whether the block names an address in this field."""
    value = block.get(name) if isinstance(block, dict) else None
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def message(role: str, content: str) -> Message:
    """Return one message of a conversation."""
    return {"role": role, "content": content}


def spoken(exchanges: Iterable[Exchange]) -> list[Message]:
    """Return what was said as messages. An answer of which nothing came is left out."""
    return [
        message(role, words)
        for exchange in exchanges
        for role, words in zip(("user", "assistant"), exchange, strict=True)
        if words
    ]


def newest(items: Sequence[Any], count: object, default: int) -> list[Any]:
    """Return the last `count` items; `default` of them if it is no number from 0."""
    wanted = count if type(count) is int and count >= 0 else default
    return list(items[len(items) - wanted :]) if wanted < len(items) else list(items)


def given(block: Fields, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields that the block has, under their names on the wire."""
    return {wire: block[name] for name, wire in names.items() if block.get(name) is not None}


def customer_messages(value: object) -> list[Message]:
    """Return a customer's list of {Role, Content} as messages."""
    entries = value if isinstance(value, list) else []
    return [
        message(str(entry.get("Role", "user")), str(entry.get("Content", "")))
        for entry in entries
        if isinstance(entry, dict)
    ]
