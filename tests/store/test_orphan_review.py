"""Orphans in the database: what people, age and the loss of a status can do to them."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, update

from orchestrator.core.model import Verb
from orchestrator.core.outcome import Gone
from orchestrator.store import reported, retention
from orchestrator.store.engine import Connection, Database, StatementError, now, open_database
from orchestrator.store.retention import Cutoffs
from orchestrator.store.schema import vendor_agent
from tests.store.claiming import Daemon, want
from tests.store.rows import changes, insert, query, run
from tests.store.test_orphans import AT, add_orphan, found, seen, take_up

pytestmark = pytest.mark.anyio

FACT = "INSERT INTO task_change (task_id, what) VALUES ('t1', 'fact')"

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


# --- what is forgotten


@pytest.mark.parametrize("forever", [True, False])
async def test_what_is_ignored_is_forgotten_when_nobody_has_seen_it_for_long(
    database: Database, *, forever: bool
) -> None:
    for id_, at in (("old", "2020-01-01 00:00"), ("young", "2099-01-01 00:00")):
        await add_orphan(database, id_, phase="ignored", last_seen_at=at)
    await add_orphan(database, "open", last_seen_at="2020-01-01 00:00")
    ended = None if forever else AT
    before = Cutoffs(events=AT, commands=AT, turns=AT, ended=ended)
    assert await database.write(retention.prune, before, 100) == (0 if forever else 1)
    left = await query(database, "SELECT id FROM orphan_task ORDER BY id")
    assert left == [("old",)] * forever + [("open",), ("young",)]


# --- what is stopped after all


async def test_a_report_that_is_stopped_after_all_waits_for_starts_on_their_way(
    database: Database,
) -> None:
    daemon = await Daemon(database).ready()
    await take_up(database, found(account="volc"))
    assert await database.write(reported.stop_reported, ["volc"], ["volc"], "d1", 9) == 1
    assert await daemon.run_to_end("~o1", Gone()) == [Verb.STOP]
    present = await database.read(now)
    (horizon_at,) = await database.read(_horizons)
    assert horizon_at - present > timedelta(seconds=90)
    assert await seen(database, "o1", "phase") == ("stopping",)
    assert (await daemon.claim("~o1")).orders == []


def _horizons(connection: Connection) -> list[datetime]:
    return list(connection.execute(select(vendor_agent.c.horizon_at)).scalars())


# --- a status that is lost


async def test_who_is_told_of_and_has_lost_its_status_is_stopped_at_once(
    database: Database,
) -> None:
    daemon = await Daemon(database).ready()
    await want(database, "t1")
    await daemon.start("t1")
    await run(database, "DELETE FROM agent_task", "DELETE FROM agent_status")
    await run(database, "DELETE FROM task_change", FACT)
    (order,) = (await daemon.claim("t1", without_status=["t1"])).orders
    assert (order.flight.verb, order.row.status.incarnation) == (Verb.STOP, 1)
    assert await changes(database) == []


async def test_changes_of_what_nothing_is_left_of_are_dropped(database: Database) -> None:
    daemon = await Daemon(database).ready()
    await want(database, "t1")
    await daemon.start("t1")
    await daemon.database.write(_end_all)
    await run(database, "DELETE FROM agent_task", "DELETE FROM agent_status")
    assert (await daemon.claim("t1", without_status=["t1"])).orders == []
    assert await changes(database) == []
    assert await query(database, "SELECT task_id FROM agent_status") == []


def _end_all(connection: Connection) -> None:
    connection.execute(update(vendor_agent).values(ended_at=now(connection)))
