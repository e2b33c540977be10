"""Scenes as in the daemon's tests, and databases for tests that need several at once."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import anyio
import asyncpg
import pytest
from sqlalchemy.engine import make_url

from tests.daemon.conftest import postgres_scene, scene, sqlite_scene

__all__ = ["MakeDatabase", "make_database", "postgres_scene", "scene", "sqlite_scene"]

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
    turn, made = anyio.Lock(), list[str]()

    async def make(kind: str) -> str:
        name = f"orc_drill_{uuid4().hex[:12]}"
        if kind == "sqlite":
            return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / f'{name}.db')}"
        async with turn:
            await server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{postgres_template}"')
        made.append(name)
        return make_url(postgres_server).set(database=name).render_as_string(hide_password=False)

    yield make
    for name in made:
        await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await server.close()
