"""What every part of the LLM gateway's wire has in common: JSON in, JSON out, text fit to keep.

Rule 1: reading never raises, and returns nothing that writing could not write.
Rule 2: what is written is UTF-8 that the strictest reader takes. Half a surrogate pair, which JSON
can spell and no encoding can carry, becomes a question mark.
"""

import json
import math
from typing import Any

TEXT_LIMIT = 4_000
"""Characters that are kept of what was said, where the keeping of text is switched on."""


def read_object(raw: bytes) -> dict[str, Any] | None:
    """Return the JSON object that `raw` is as a whole, null if it is anything else.

    NaN, the infinities and numbers that only an infinity can hold are not JSON.
    """
    try:
        value = _DECODER.decode(raw.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write(value: Any) -> bytes:
    """Return `value` as JSON without spaces."""
    return _ENCODER.encode(value).encode(errors="replace")


def kept(text: str) -> str:
    """Return the beginning of `text`, as any database takes it: at most `TEXT_LIMIT` characters."""
    return text[:TEXT_LIMIT].replace("\0", " ").encode(errors="replace").decode()


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("no float holds it")
    return value


def _no_constant(_text: str) -> None:
    raise ValueError("not JSON")


# Made once: `json.loads` and `json.dumps` make these anew at each call that has an option.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
# What came out of JSON holds no circle.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
