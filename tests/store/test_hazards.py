"""Histories that broke earlier drafts, on a real database. The name of a test is its history."""

import pytest

from orchestrator.core.model import Verb
from orchestrator.store import daemons
from orchestrator.store.engine import Connection, Database
from orchestrator.store.engine import now as database_now
from tests.store.claiming import Daemon, status, want
from tests.store.rows import run, update

pytestmark = pytest.mark.anyio

LONG_AGO = "'2020-01-01 00:00:00.000000'"
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
