"""Databases for tests that need several at once: each world has one of its own."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import anyio
import asyncpg
import pytest
from sqlalchemy.engine import make_url

MakeDatabase = Callable[[str], Awaitable[str]]


@pytest.fixture
async def make_database(
    postgres_server: str,
    postgres_template: str,
    sqlite_template: Path,
    tmp_path: Path,
    anyio_backend: str,
) -> AsyncIterator[MakeDatabase]:
    """What makes a migrated database of a kind (`sqlite`, `postgresql`) and returns its URL."""
    del anyio_backend  # asked for, so that it is there before this
    server = await asyncpg.connect(postgres_server)
    made: list[str] = []
    turn = anyio.Lock()

    async def make(kind: str) -> str:
        name = f"orc_crash_{uuid4().hex[:12]}"
        if kind == "sqlite":
            path = shutil.copyfile(sqlite_template, tmp_path / f"{name}.db")
            return f"sqlite:///{path}"
        copy = f'CREATE DATABASE "{name}" TEMPLATE "{postgres_template}" STRATEGY file_copy'
        async with turn:
            await server.execute(copy)
        made.append(name)
        return make_url(postgres_server).set(database=name).render_as_string(hide_password=False)

    yield make
    for name in made:
        await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await server.close()
