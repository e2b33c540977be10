"""Runs a file of SQL, statement by statement, on a database or as printed text.

A statement ends with a `;` at the end of a line, outside of the body of a function or a trigger.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from alembic import op

_SQL = Path(__file__).parent / "sql"


def run_file(name: str) -> None:
    """Run `sql/<dialect>/<name>.sql`."""
    dialect = op.get_context().dialect.name
    text = (_SQL / dialect / f"{name}.sql").read_text(encoding="utf-8")
    for statement in split_statements(text, dialect):
        op.execute(statement.replace(":", r"\:"))  # a colon is no bound parameter


def split_statements(text: str, dialect: str) -> Iterator[str]:
    """Yield the statements of a file for `sqlite` or `postgresql`, comments included."""
    lines: list[str] = []
    for line in text.splitlines():
        lines.append(line)
        is_comment = line.startswith("--")
        if line.endswith(";") and not is_comment and _is_complete("\n".join(lines), dialect):
            yield "\n".join(lines).strip().removesuffix(";")
            lines.clear()


def _is_complete(statement: str, dialect: str) -> bool:
    if dialect == "sqlite":
        return sqlite3.complete_statement(statement)
    return statement.count("$$") % 2 == 0
