"""Reading what a vendor posted, without believing any of it.

Rule 1: a signature is compared in constant time, and what was not signed is not read further.
Rule 2: numbers stay the text that was sent. Vendors send one field now as a number and now as a
string, sign the text of it, and count beyond what a float holds.
Rule 3: of a vendor's text only ids reach a fact, bounded and printable. What a code means is said
in our words, since a vendor's own may repeat what was spoken.
Rule 4: no verdict holds anything that was received.
"""

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core.fact import Event, Fact
from orchestrator.providers.base import Forged, Garbled

ID_LIMIT = 512
"""Bytes of an id; the longest that a vendor's pages show has about 130. Two of them fit a key."""

NO_SECRET = Forged("this account has no callback secret")
WRONG_SIGNATURE = Forged("the signature is wrong")
OTHER_APP = Forged("it is not about this account's app")
NO_OBJECT = Garbled("the body is not a JSON object")

Fields = Mapping[str, Any]
"""A JSON object in which every number is the text that was sent."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_CENTURY_MS = range(946_684_800_000, 4_102_444_800_000)
_INT64 = range(-(2**63), 2**63)


def is_same(given: object, expected: str) -> bool:
    """Return whether what was given is the expected text, in a time that does not tell where."""
    if not isinstance(given, str):
        return False
    # Text from outside may hold lone surrogates, which no strict encoding takes.
    return hmac.compare_digest(given.encode(errors="surrogatepass"), expected.encode())


def read_fields(raw: bytes | str) -> dict[str, Any] | None:
    """Return the JSON object that `raw` is as a whole, null if it is anything else."""
    try:
        value = json.loads(raw, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def object_at(fields: Fields, name: str) -> Fields:
    """Return the object under `name`; an empty one if there is none."""
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def text_at(fields: Fields, name: str) -> str | None:
    """Return the text or number under `name` as it was sent; null if that is not Unicode text."""
    value = fields.get(name)
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def id_at(fields: Fields, name: str) -> str | None:
    """Return the id under `name`; null if there is none that a database and a terminal can take."""
    value = fields.get(name)
    if not isinstance(value, str) or not value or not value.isprintable():
        return None
    return value if len(value.encode()) <= ID_LIMIT else None


def number_at(fields: Fields, name: str) -> int | None:
    """Return the whole number under `name`, given as one or as text; null beyond 64 bits."""
    value = fields.get(name)
    if not isinstance(value, str) or _WHOLE.fullmatch(value) is None:
        return None
    return int(value) if int(value) in _INT64 else None


def moment_at(fields: Fields, name: str) -> datetime | None:
    """Return the instant under `name`, in milliseconds since 1970; null if it is none."""
    milliseconds = number_at(fields, name)
    return None if milliseconds is None else moment(milliseconds)


def moment(milliseconds: int) -> datetime | None:
    """Return the instant so many milliseconds after 1970 began; null outside of this century.

    Not every database and calendar takes what is far away, and no agent of then is alive.
    """
    if milliseconds not in _CENTURY_MS:
        return None
    return _EPOCH + timedelta(milliseconds=milliseconds)


def alive(fact: Fact) -> Fact:
    """Return the fact as a sign of life. One in a minute is enough, so those have one key.

    The fact has a handle.
    """
    minute = f"{fact.event_at:%Y-%m-%dT%H:%M}"
    return replace(fact, event=Event.ALIVE, key=f"alive:{fact.vendor_task_id}:{minute}")
