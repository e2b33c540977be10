"""How rows look to machines: the JSON of every command that has `--json`."""

import json
from datetime import datetime
from typing import Any


def to_json(value: Any) -> str:
    """Return rows as JSON: times as ISO 8601 with their zone, other types as their text."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
