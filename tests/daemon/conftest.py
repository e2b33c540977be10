"""The scene on either kind of database, or on the one that a test is about; the gateway in it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.daemon.llm import Gate, open_gate
from tests.daemon.running import Scene, open_scene


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Scene]:
    """A scene on a migrated database of the test's own, once for each kind."""
    del anyio_backend  # asked for, so that it is there before this
    async with open_scene(database_url, tmp_path) as opened:
        yield opened


@pytest.fixture
async def postgres_scene(
    postgres_url: str, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[Scene]:
    """A scene on Postgres."""
    del anyio_backend  # asked for, so that it is there before this
    async with open_scene(postgres_url, tmp_path) as opened:
        yield opened


@pytest.fixture
async def sqlite_scene(sqlite_url: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Scene]:
    """A scene on SQLite."""
    del anyio_backend  # asked for, so that it is there before this
    async with open_scene(sqlite_url, tmp_path) as opened:
        yield opened


@pytest.fixture
async def gate(scene: Scene) -> AsyncIterator[Gate]:
    """The gateway before an upstream that says `WORDS`, on either kind of database."""
    async with open_gate(scene) as opened:
        yield opened
