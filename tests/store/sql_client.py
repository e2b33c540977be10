"""Plain SQL as people and applications run it: a driver, a role, and what came back.

Rule 1: nothing of ours stands between a statement and its database.
Rule 2: on Postgres a statement runs with the rights of one role and under its name, so that a
document that says who may write what is held to it. SQLite knows no roles.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import asyncpg

from tests.daemon.application import SQLITE

APP, OPERATOR, READER = "orchestrator_app", "orchestrator_operator", "orchestrator_reader"
ROLES = files("migrations").joinpath("roles.sql").read_text(encoding="utf-8")

PgConnection = asyncpg.Connection


@dataclass(frozen=True)
class Answer:
    """What a statement came to."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    touched: int
    """Rows that were returned or written; 1 for what is about none."""


def statements_of(sql: str) -> list[str]:
    """Return the statements of a text, without its comments."""
    bare = re.sub(r"--.*", "", sql)
    return [one.strip() for one in bare.split(";") if one.strip()]


async def make_roles(url: str) -> None:
    """Let the roles be there, where the database knows any."""
    if url.startswith(SQLITE):
        return
    connection = await asyncpg.connect(url)
    await connection.execute(ROLES)
    await connection.close()


async def run_as(role: str, url: str, statements: Sequence[str]) -> list[Answer]:
    """Run statements one by one on a connection of their own."""
    if url.startswith(SQLITE):
        path = url.removeprefix(SQLITE)
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            return list(_run_sqlite(connection, statements))
    client = await asyncpg.connect(url)
    try:
        await client.execute(f"SET SESSION AUTHORIZATION {role}")
        return [await _run_postgres(client, one) for one in statements]
    finally:
        await client.close()


def _run_sqlite(connection: sqlite3.Connection, statements: Sequence[str]) -> Iterator[Answer]:
    for statement in statements:
        cursor = connection.execute(statement)
        columns = tuple(column[0] for column in cursor.description or ())
        rows = cursor.fetchall()
        is_write = statement.split()[0] in {"INSERT", "UPDATE", "DELETE"}
        touched = cursor.rowcount if is_write else len(rows) if columns else 1
        yield Answer(columns, rows, touched)


async def _run_postgres(connection: "PgConnection[asyncpg.Record]", statement: str) -> Answer:
    prepared = await connection.prepare(statement)
    rows = [tuple(row) for row in await prepared.fetch()]
    columns = tuple(column.name for column in prepared.get_attributes())
    told = (prepared.get_statusmsg() or "").split()[-1]
    return Answer(columns, rows, int(told) if told.isdigit() else 1)
