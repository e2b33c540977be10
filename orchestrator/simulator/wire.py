"""What the three wires have in common: one call in, one answer out, or a refusal.

Rule 1: no I/O. The server hands a call over with the time at which it came.
Rule 2: a vendor's file turns a `Refusal` into the vendor's own envelope; nobody else does.
"""

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from orchestrator.simulator.world import Agent, Vendor

Fields = Mapping[str, Any]

_LETTERS_AND_DIGITS = frozenset(string.ascii_letters + string.digits)
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


@dataclass(slots=True, kw_only=True)
class Call:
    """One request to a vendor. The vendor fills in what it learns of the caller as it reads."""

    vendor: Vendor
    action: str
    version: str
    method: str
    host: str
    query: Mapping[str, str | list[str]]
    headers: Mapping[str, str]
    """Names without case."""
    body: bytes
    at: datetime
    """The wall clock: signatures and rate limits go by it."""
    world_at: datetime
    """The world's clock: idle times, delays and bills go by it."""
    key_id: str = ""
    """Whose signature it bears, once that was verified."""
    account: str = ""
    """The account: by the key at first, by the application once the body is read."""
    ids: dict[str, Any] = field(default_factory=dict)
    """What the call is about, in lower case words, for `/_sim/calls`."""

    @property
    def at_us(self) -> int:
        """Return the wall clock as microseconds since 1970."""
        return int(self.at.timestamp() * 1_000_000)

    def query_one(self, name: str) -> str:
        """Return a query parameter that stands there once, empty if absent."""
        value = self.query.get(name, "")
        return value if isinstance(value, str) else value[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the vendor says, before any fault."""

    status: int
    body: bytes
    code: str
    """The vendor's code; empty on success."""
    content_type: str = "application/json"


class Refusal(Exception):  # noqa: N818 - a vendor's No is no error of the simulator
    """The vendor does not do it."""

    def __init__(self, code: str, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class VendorApi(Protocol):
    """One simulated vendor's API."""

    def serve(self, call: Call) -> Answer:
        """Do what the call asks, as the vendor would."""
        ...

    def refuse(self, call: Call, refusal: Refusal) -> Answer:
        """Put a refusal into the vendor's envelope."""
        ...

    def throttled(self, call: Call) -> Refusal:
        """Return the vendor's words for too many calls."""
        ...

    def hear(self, agent: Agent, now: datetime) -> int:
        """Let the agent's user be heard; return the number of the round in which it is.

        Raises:
            Unheard: the agent does not listen now.
        """
        ...


def to_json(value: object) -> bytes:
    """Return compact JSON."""
    return _ENCODER.encode(value).encode()


def parse_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that the body is, or None if it is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_text(value: object, *, longest: int, extra: str) -> bool:
    """Return whether `value` is 1 to `longest` ASCII letters, digits or characters of `extra`."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= longest
        and _LETTERS_AND_DIGITS.union(extra).issuperset(value)
    )
