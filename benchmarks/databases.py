"""Databases to measure on: each one new, migrated, and as durable as in production."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from os import environ
from pathlib import Path
from typing import Final, Literal

import asyncpg
from sqlalchemy.engine import make_url

from orchestrator.store.migrate import upgrade
from tests.postgres_server import running_server

Kind = Literal["sqlite", "postgresql"]

OWN_SERVER: Final = "ORCHESTRATOR_TEST_POSTGRES"
"""A server of one's own, in the environment: a URL whose user may create databases."""
DURABLE: Final = ("fsync=on", "full_page_writes=on", "synchronous_commit=on", "max_connections=100")


@dataclass(frozen=True, slots=True)
class Databases:
    """Where new databases come from."""

    folder: Path
    server: str
    """The URL of a Postgres database whose user may create others."""
    _numbers: "count[int]"

    async def make(self, kind: Kind) -> str:
        """Return the URL of a new, migrated database of that kind."""
        name = f"orc_bench_{self.folder.name.lower()}_{next(self._numbers)}"
        url = await self._create(kind, name)
        await upgrade(url)
        return url

    async def _create(self, kind: Kind, name: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{self.folder / name}.db"
        connection = await asyncpg.connect(self.server)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return make_url(self.server).set(database=name).render_as_string(hide_password=False)


@asynccontextmanager
async def open_databases() -> AsyncIterator[Databases]:
    """Run a Postgres server where none is named, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="orc-") as name:
        folder = Path(name)
        own = environ.get(OWN_SERVER)
        if own:
            yield Databases(folder, own, count())
            return
        with running_server(folder / "postgres", DURABLE) as server:
            yield Databases(folder, server.url(), count())
