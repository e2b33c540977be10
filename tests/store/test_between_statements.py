"""What an application commits between two statements of a claim is left to the next one.

On Postgres each statement sees the newest commits. A change that is taken with a task as it was
before it would be lost: a start that never comes, or a status that is forgotten for ever.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy.util import await_only

from orchestrator.store import rows
from orchestrator.store.engine import Connection, Database, now, open_database
from orchestrator.store.reading import read
from tests.daemon.application import delete_task, update_task
from tests.daemon.customers import VOLCENGINE
from tests.daemon.running import task

pytestmark = pytest.mark.anyio

ID = "between"
INSERT = task(VOLCENGINE, ID)
STOP = update_task(ID, desired_state="'stopped'")
RUN = update_task(ID, desired_state="'running'")
DELETE = delete_task(ID)

Meanwhile = Callable[[str], None]


@pytest.fixture
async def user(postgres_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


@pytest.fixture
async def database(postgres_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend  # asked for, so that it is there before this
    opened = open_database(postgres_url)
    yield opened
    await opened.close()


@pytest.fixture
def meanwhile(user: Any, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """What lets the application commit a statement between the reads of tasks and of changes."""

    def commit_between(statement: str) -> None:
        reads: list[str] = []

        def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def after_the_first(*args: Any, **more: Any) -> Any:
                if len(reads) == 1:
                    await_only(user.execute(statement))
                reads.append(name)
                return real(*args, **more)

            return after_the_first

        for name in ("read_tasks", "read_changes"):
            monkeypatch.setattr(rows, name, watched(name, getattr(rows, name)))

    return commit_between


@pytest.mark.parametrize(
    ("before", "statement"),
    [([INSERT], STOP), ([INSERT, STOP], RUN), ([INSERT, DELETE], INSERT), ([INSERT], DELETE)],
    ids=["stop", "run", "insert", "delete"],
)
async def test_a_change_is_never_taken_before_its_task_is_seen(
    before: list[str], statement: str, user: Any, database: Database, meanwhile: Meanwhile
) -> None:
    for one in before:
        await user.execute(one)
    meanwhile(statement)
    (found,) = await database.write(lock_and_read)
    assert len(found.changes) == len(before)


async def test_the_change_of_a_task_inserted_anew_outlives_the_old_status(
    user: Any, database: Database, meanwhile: Meanwhile
) -> None:
    await user.execute(INSERT)
    await user.execute(DELETE)
    await user.execute("DELETE FROM agent_status")
    meanwhile(INSERT)
    await database.write(lambda connection: rows.restore(connection, [ID], now(connection)))
    assert "insert" in {row["what"] for row in await user.fetch("SELECT what FROM task_change")}
    assert len(await user.fetch("SELECT task_id FROM agent_status")) == 1


def lock_and_read(connection: Connection) -> Any:
    at = now(connection)
    return read(connection, rows.lock(connection, [ID], at), at)
