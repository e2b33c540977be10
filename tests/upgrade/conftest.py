"""The scene of the daemon's tests, and the releases that follow this one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.daemon.running import Scene, open_scene
from tests.upgrade.releases import Release, build_next, build_slow


@pytest.fixture
async def scene(postgres_url: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Scene]:
    """A scene on Postgres, where daemons of two releases run side by side."""
    del anyio_backend  # asked for, so that it is there before this
    async with open_scene(postgres_url, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """The releases after this one, by their version."""
    return {one.version: one for one in build_next(tmp_path_factory.mktemp("releases"))}


@pytest.fixture(scope="session")
def slow_release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release whose migration stands still in the middle."""
    return build_slow(tmp_path_factory.mktemp("slow"))
