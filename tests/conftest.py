"""What every test may ask for: a migrated database of its own, on either kind of server.

Postgres is never left out: if the server cannot be started, the tests that need it fail. A server
of one's own is named by ORCHESTRATOR_TEST_POSTGRES, a URL whose user may create databases.
"""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import anyio
import asyncpg
import pytest
from hypothesis import settings
from sqlalchemy.engine import make_url

from orchestrator.store import postgres
from orchestrator.store.engine import Database, open_database
from orchestrator.store.migrate import upgrade
from tests.postgres_server import running_server

OWN_SERVER = "ORCHESTRATOR_TEST_POSTGRES"

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if "CI" in os.environ else "dev")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database on a real server, whose user may create others."""
    own = os.environ.get(OWN_SERVER)
    if own:
        yield own
        return
    with running_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server.url()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a migrated database, from which each test gets a copy."""
    name = f"orc_template_{uuid4().hex[:8]}"
    anyio.run(_administer, postgres_server, f'CREATE DATABASE "{name}"')
    anyio.run(upgrade, _database_url(postgres_server, name))
    yield name
    anyio.run(_administer, postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file, of which each test gets a copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    anyio.run(upgrade, f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a migrated SQLite file of the test's own."""
    path = tmp_path / "orchestrator.db"
    path.write_bytes(sqlite_template.read_bytes())
    path.chmod(0o660)
    return f"sqlite:///{path}"


@pytest.fixture
async def postgres_url(
    postgres_server: str, postgres_template: str, anyio_backend: str
) -> AsyncIterator[str]:
    """The URL of a migrated Postgres database of the test's own."""
    del anyio_backend  # asked for, so that it is there before this
    name = f"orc_test_{uuid4().hex[:12]}"
    await _copy_database(postgres_server, postgres_template, name)
    yield _database_url(postgres_server, name)
    await _administer(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def empty_postgres_url(postgres_server: str, anyio_backend: str) -> AsyncIterator[str]:
    """The URL of a Postgres database of the test's own in which nothing is."""
    del anyio_backend  # asked for, so that it is there before this
    name = f"orc_empty_{uuid4().hex[:12]}"
    await _administer(postgres_server, f'CREATE DATABASE "{name}"')
    yield _database_url(postgres_server, name)
    await _administer(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database of the test's own, once for each kind."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
async def database(database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """A migrated database of the test's own, open, and patient with a machine that stands still."""
    del anyio_backend  # asked for, so that it is there before this
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(postgres.SESSION, "idle_in_transaction_session_timeout", "60s")
        opened = open_database(database_url)
    try:
        yield opened
    finally:
        await opened.close()


async def _administer(url: str, statement: str) -> None:
    """Run a statement that belongs in no transaction."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _copy_database(url: str, template: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        # Three times as quick as the default, which came with the choice.
        strategy = " STRATEGY file_copy" if connection.get_server_version().major >= 15 else ""
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{strategy}')
    finally:
        await connection.close()


def _database_url(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)
