"""Reading what a vendor answered, without believing any of it.

Rule 1: a reply that is not one whole JSON object under HTTP 200 says nothing about the effect of
the call: it is `Indefinite`, never a guess.
Rule 2: text of a vendor's reaches an outcome only through `printable`.
"""

import json
from typing import Any, Protocol

from orchestrator.core.outcome import Gone, Indefinite, NotSent, Outcome, Throttled
from orchestrator.providers.base import Reply, Response

MESSAGE_LIMIT = 500
"""Characters of a vendor's message that are kept."""

UNREADABLE = "UnreadableReply"
"""Our own code for a reply that is not what the vendor documents."""


class Verdict(Protocol):
    """What an error code means: an outcome class, or a function that fills one in."""

    def __call__(self, *, code: str, message: str, request_id: str) -> Outcome:
        """Return the outcome with what the vendor told."""
        ...


def at_capacity(*, code: str, message: str, request_id: str) -> Outcome:
    """Return the verdict on too many agents, as opposed to too many calls."""
    return Throttled(code=code, message=message, request_id=request_id, capacity=True)


def printable(value: object) -> str:
    """Return a vendor's text on one line, at most `MESSAGE_LIMIT` characters; "" if it is no text.

    Control characters and lone surrogates become spaces: logs are read on terminals, and databases
    take neither.
    """
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in value[:MESSAGE_LIMIT])


def read_object(reply: Reply) -> dict[str, Any] | NotSent | Indefinite:
    """Return the JSON object that an HTTP 200 carries, or what the lack of one means.

    The Content-Type is not looked at: vendors label the same body in several ways.
    """
    if not isinstance(reply, Response):
        return reply
    if reply.status != 200:
        return Indefinite(code=f"HTTP{reply.status}", message=f"HTTP status {reply.status}")
    found = _json_object(reply.body)
    if found is None:
        return unreadable("the body is not a JSON object")
    return found


def unreadable(why: str, request_id: str = "") -> Indefinite:
    """Return the outcome of a reply that is not what the vendor documents."""
    return Indefinite(code=UNREADABLE, message=why, request_id=request_id)


def started(outcome: Outcome) -> Outcome:
    """Return the outcome of a start: it has no target that could be absent.

    A vendor that says so all the same means something we do not know.
    """
    if not isinstance(outcome, Gone):
        return outcome
    return Indefinite(code=outcome.code, message=outcome.message, request_id=outcome.request_id)


def _json_object(body: bytes) -> dict[str, Any] | None:
    """Return the object that `body` is as a whole, null if it is anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
