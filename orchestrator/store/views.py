"""How a row comes back to whoever shows it to people: what is asked for is `snapshot`, `dossier`.

Rule 1: a row is a mapping of all its columns, times as aware UTC instants, so that what is shown is
what a SQL client sees, on both databases.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Executable

View = Mapping[str, Any]
"""A row of a view, by the names of its columns."""


def read_rows(connection: Connection, statement: Executable) -> Sequence[View]:
    """Return what a statement on views or tables selects, the same from both databases."""
    return [
        {name: _as_read(name, value) for name, value in row.items()}
        for row in connection.execute(statement).mappings()
    ]


def _as_read(column: str, value: Any) -> Any:
    """Return what SQLite has no type for: an instant, JSON, or whether something is so."""
    if column == "ours":
        return bool(value)
    if not isinstance(value, str):
        return value
    try:
        if column == "labels":
            return json.loads(value)
        return datetime.fromisoformat(value).replace(tzinfo=UTC) if _is_instant(column) else value
    except ValueError:
        return value


def _is_instant(column: str) -> bool:
    return column == "at" or column.endswith(("_at", "_since", "_until"))
