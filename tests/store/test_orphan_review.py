"""Orphans in the database: what a review found that people, age and a lost status can do to them."""

import pytest

from orchestrator.store.engine import Database, StatementError, open_database
from tests.store.rows import changes, insert, run
from tests.store.test_orphans import add_orphan, found, seen, take_up

pytestmark = pytest.mark.anyio


# --- what people may write


INSERTED = insert("orphan_task", id="'o1'", account="'acc'", vendor_task_id="'h2'")


async def test_an_insert_replaces_no_orphan(sqlite_url: str) -> None:
    """Postgres has no such statement."""
    database = open_database(sqlite_url)
    await take_up(database, found(stop=True))
    for _ in range(2):
        with pytest.raises(StatementError, match="would forget an agent"):
            await run(database, INSERTED.replace("INSERT", "INSERT OR REPLACE"))
    assert await seen(database, "o1", "phase", "vendor_task_id") == ("stopping", "h1")
    await database.close()


async def test_a_repeated_insert_of_an_orphan_does_nothing(database: Database) -> None:
    await add_orphan(database, "o1", vendor_task_id="h1")
    await run(database, f"{INSERTED} ON CONFLICT (id) DO NOTHING")
    assert await seen(database, "o1", "vendor_task_id") == ("h1",)
    await run(database, "DELETE FROM orphan_task", INSERTED)
    assert await seen(database, "o1", "vendor_task_id") == ("h2",)
    assert await changes(database) == [("~o1", "stop", True)] * 2


async def test_nobody_reports_an_orphan_but_the_daemon(database: Database) -> None:
    with pytest.raises(StatementError, match="reports are the daemon's own"):
        await add_orphan(database, "o1", action="report")
    await add_orphan(database, "o1", action="report", source="callback")
    assert await changes(database) == []
