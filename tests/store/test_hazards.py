"""Histories that broke earlier drafts, on a real database. The name of a test is its history."""

import sqlite3
from contextlib import closing

import anyio
import pytest

from orchestrator.core.model import Verb, WorkClass
from orchestrator.core.outcome import Done
from orchestrator.store import daemons, queue
from orchestrator.store.columns import write_json
from orchestrator.store.engine import Connection, Database, open_database, sqlite_path
from orchestrator.store.engine import now as database_now
from orchestrator.store.queue import Queue, Scope
from tests.store.claiming import (
    Daemon,
    inbox,
    make_book,
    make_desk,
    settled,
    status,
    ticket,
    wait_out_lease,
    want,
)
from tests.store.rows import query, quoted, run, update

pytestmark = pytest.mark.anyio

LONG_AGO = "'2020-01-01 00:00:00.000000'"
LATER = "'2020-01-01 00:01:00.000000'"
ALL = Scope(most=128, most_polls=128, without={})
START = ("volc", Verb.START)
ONE = daemons.Daemon(
    id="d1", name="d1", host="here", pid=1, version="1", wake="poll", accounts=["volc"]
)


# --- heartbeats


def register(connection: Connection) -> None:
    daemons.register(connection, ONE, database_now(connection))


async def silent_agent(database: Database, **literals: str) -> Daemon:
    """Let an agent run whose application has been silent since long ago; its time is over."""
    await database.write(register)
    daemon = await Daemon(database).ready()
    await want(database, "a", created_at=LONG_AGO, heartbeat_timeout_s="30", **literals)
    await run(
        database,
        update("installation", f"amnesty_at = {LONG_AGO}"),
        update("agent_task", "heartbeat_at = CURRENT_TIMESTAMP"),
    )
    await daemon.start("a")
    await run(
        database,
        update("agent_task", f"heartbeat_at = {LONG_AGO}"),
        update("agent_status", f"stop_due_at = {LONG_AGO}, due_at = {LONG_AGO}"),
    )
    return daemon


async def calls(daemon: Daemon) -> list[Verb]:
    return [order.flight.verb for order in (await daemon.claim("a")).orders]


async def test_who_is_silent_while_we_are_there_is_stopped(database: Database) -> None:
    daemon = await silent_agent(database)
    assert await calls(daemon) == [Verb.STOP]
    assert await status(database, "a", "end_reason") == ("heartbeat_lost",)


async def test_the_first_claim_after_an_outage_stops_no_fleet(database: Database) -> None:
    """It may come before the first heartbeat of ours, which says that there was a gap."""
    daemon = await silent_agent(database)
    await run(database, update("daemon", f"heartbeat_at = {LONG_AGO}"))
    assert Verb.STOP not in await calls(daemon)
    assert await status(database, "a", "end_reason") == (None,)


async def test_a_gap_that_another_daemon_ended_is_a_gap_for_all(database: Database) -> None:
    daemon = await silent_agent(database)
    await run(database, update("installation", "amnesty_at = CURRENT_TIMESTAMP"))
    assert Verb.STOP not in await calls(daemon)
    assert await status(database, "a", "end_reason") == (None,)


async def test_heartbeats_write_nothing_but_themselves(database: Database) -> None:
    """One write of ours for each time-out, however often the application beats."""
    await database.write(register)
    daemon = await Daemon(database).ready()
    await want(database, "a", heartbeat_timeout_s="30")
    await daemon.start("a")
    before = await status(database, "a", "*")
    for _ in range(20):
        await run(database, update("agent_task", "heartbeat_at = CURRENT_TIMESTAMP"))
    assert await inbox(database) == []
    assert await status(database, "a", "*") == before
    await run(database, update("agent_status", f"stop_due_at = {LONG_AGO}"))
    assert await calls(daemon) == []
    moved, generation = await status(database, "a", "stop_due_at", "generation")
    assert moved > (await status(database, "a", "updated_at"))[0]
    assert generation == 1


# --- whose a row is


async def test_two_daemons_claim_one_row_at_once(database: Database) -> None:
    first = await Daemon(database).ready()
    second = Daemon(database, make_desk(make_book(), "d2"))
    ids = [f"t{n}" for n in range(10)]
    await want(database, *ids)
    orders: list[str] = []

    async def claim(daemon: Daemon) -> None:
        for _ in range(3):
            orders.extend(one.flight.task_id for one in (await daemon.claim(*ids)).orders)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(claim, first)
        tasks.start_soon(claim, second)
    assert sorted(orders) == ids
    assert len(await query(database, "SELECT id FROM vendor_agent")) == len(ids)


async def test_a_list_of_lost_rows_is_acted_on_after_another_took_them(database: Database) -> None:
    dead = await Daemon(database, make_desk(make_book(), "dead")).ready()
    await want(database, "a", "b")
    for id_ in ("a", "b"):
        await dead.claim_one(id_)
        await wait_out_lease(database, id_)
    await run(database, update("agent_status", f"due_at = {LONG_AGO}"))
    now = await database.read(database_now)
    listed = [one.task_id for one in await database.read(queue.peek, now, ALL)]
    assert sorted(listed) == ["a", "b"]
    quick = Daemon(database, make_desk(make_book(), "quick"))
    order = await quick.claim_one("a")
    await quick.settle(settled(order, Done(handle="h")))
    slow = Daemon(database, make_desk(make_book(), "slow"))
    claimed = await slow.claim(*listed)
    assert [one.flight.task_id for one in claimed.orders] == ["b"]
    assert await status(database, "a", "phase", "version") == ("running", order.flight.version)


# --- what is not ours to read


async def test_a_long_reader_keeps_nobody_from_writing(sqlite_url: str) -> None:
    """Nothing can be copied out of the log while it is read; afterwards it is used again."""
    database = open_database(sqlite_url)
    path = sqlite_path(sqlite_url)
    log = path.with_name(f"{path.name}-wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        await want(database, "first")
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM agent_task").fetchone() == (1,)
        await fill_log(database, "read")
        grown = log.stat().st_size
        assert reader.execute("SELECT count(*) FROM agent_task").fetchone() == (1,)
        reader.execute("COMMIT")
    await fill_log(database, "free")
    assert grown > 4_000_000
    assert log.stat().st_size < grown * 1.5
    await database.close()


async def fill_log(database: Database, name: str) -> None:
    """Write more than SQLite lets its log grow to before it copies it."""
    wide = {"labels": quoted(write_json({"wide": "x" * 2_000_000}))}
    for number in range(3):
        await want(database, f"{name}-{number}", **wide)


# --- whose turn it is


async def lose_start(database: Database, id_: str) -> None:
    """Let a daemon die with the start of this row announced."""
    dead = await Daemon(database, make_desk(make_book(), "dead")).ready()
    await want(database, id_)
    await dead.claim_one(id_)
    await wait_out_lease(database, id_)
    await run(database, f"{update('agent_status', f'due_at = {LATER}')} WHERE task_id = '{id_}'")


async def test_open_intents_are_found_before_what_is_new_or_due(database: Database) -> None:
    await want(database, "due")
    await run(database, "DELETE FROM task_change", update("agent_status", f"due_at = {LONG_AGO}"))
    await want(database, "new")
    await lose_start(database, "open")
    now = await database.read(database_now)
    found = [one.task_id for one in await database.read(queue.peek, now, ALL)]
    assert found == ["open", "new", "due"]


async def test_the_only_slot_is_for_an_open_intent(database: Database) -> None:
    daemon = await Daemon(database).ready()
    await lose_start(database, "open")
    await want(database, "a", "b", priority="9")
    claimed = await daemon.claim("a", "b", "open", tickets={START: [ticket()]})
    assert [one.flight.task_id for one in claimed.orders] == ["open"]


async def test_an_open_intent_without_a_slot_waits_before_all_others(database: Database) -> None:
    daemon = await Daemon(database).ready()
    await want(database, "a", "b", priority="9")
    await daemon.claim("a", "b", tickets={START: []})
    await lose_start(database, "open")
    await daemon.claim("open", tickets={START: []})
    starts = Queue("volc", WorkClass.START, Verb.START)
    now = await database.read(database_now)
    assert await database.read(queue.peek_parked, starts, now, 128) == ["open", "a", "b"]


async def test_a_slot_goes_to_who_is_more_urgent_and_not_to_who_is_new(database: Database) -> None:
    daemon = await Daemon(database).ready()
    await want(database, "waits", priority="5")
    await daemon.claim("waits", tickets={START: []})
    await want(database, "a-new-one", priority="4")
    claimed = await daemon.claim("a-new-one", "waits", tickets={START: [ticket()]})
    assert [one.flight.task_id for one in claimed.orders] == ["waits"]
