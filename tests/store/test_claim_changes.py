"""What a claim makes of changes: whose they are, when they are taken, what they lead to."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.util import await_only

from orchestrator.core.model import Verb
from orchestrator.core.outcome import Done, Indefinite, Refused
from orchestrator.daemon.claim import Claimed, Desk, Wanted, claim
from orchestrator.store.engine import Connection, Database, open_database
from tests.store.claiming import (
    Daemon,
    full_room,
    inbox,
    ledger,
    make_book,
    make_desk,
    settled,
    status,
    wait_out_lease,
    want,
)
from tests.store.rows import query, run

pytestmark = pytest.mark.anyio

STOP_A = "UPDATE agent_task SET desired_state = 'stopped' WHERE id = 'a'"
RUN_A = "UPDATE agent_task SET desired_state = 'running' WHERE id = 'a'"


@pytest.fixture
async def daemon(database: Database) -> Daemon:
    return await Daemon(database).ready()


async def test_a_claim_takes_all_changes_of_a_row_and_counts_them(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    await run(daemon.database, STOP_A)
    await run(daemon.database, RUN_A)
    order = await daemon.claim_one("a")
    # Insert, stop, run: the second incarnation is the one that lives.
    assert (order.flight.verb, order.flight.agent.incarnation) == (Verb.START, 2)
    assert await status(daemon.database, "a", "generation", "incarnation", "retired") == (3, 2, 1)
    assert await inbox(daemon.database) == ["b"]


async def test_a_stop_then_a_run_ends_what_runs_before_the_next_begins(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await daemon.start("a")
    await run(daemon.database, STOP_A)
    await run(daemon.database, RUN_A)
    order = await daemon.claim_one("a")
    assert (order.flight.verb, order.flight.agent.incarnation) == (Verb.STOP, 1)


async def test_a_leased_row_is_left_alone_and_its_change_stays(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    order = await daemon.claim_one("a")
    await run(daemon.database, STOP_A)
    other = Daemon(daemon.database, make_desk(make_book(), "d2"))
    assert (await other.claim("a")) == Claimed()
    assert await inbox(daemon.database) == ["a"]
    await daemon.settle(settled(order, Done(handle="h1")))
    assert (await other.claim_one("a")).flight.verb is Verb.STOP
    assert await inbox(daemon.database) == []


async def test_a_row_whose_lease_ended_is_taken_over_with_its_intent_unknown(
    daemon: Daemon,
) -> None:
    await want(daemon.database, "a")
    first = await daemon.claim_one("a")
    await wait_out_lease(daemon.database, "a")
    other = Daemon(daemon.database, make_desk(make_book(), "d2"))
    again = await other.claim_one("a")
    assert again.flight.agent.id == first.flight.agent.id
    assert again.flight.version == first.flight.version + 1
    assert await status(daemon.database, "a", "lease_owner") == ("d2",)


async def test_a_delete_ends_the_agent_and_then_forgets_the_row(daemon: Daemon) -> None:
    await want(daemon.database, "a", account="tencent", spec="'{}'")
    await want(daemon.database, "b")
    await daemon.start("b")
    await run(daemon.database, "DELETE FROM agent_task")
    claimed = await daemon.claim("a", "b")
    assert [order.flight.verb for order in claimed.orders] == [Verb.STOP]
    assert await query(daemon.database, "SELECT task_id, phase FROM agent_status") == [
        ("b", "stopping")
    ]


async def test_who_wished_what_is_an_event(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await run(daemon.database, STOP_A)
    ((actor,),) = await query(daemon.database, "SELECT DISTINCT actor FROM task_change")
    await daemon.claim("a")
    told = await query(
        daemon.database,
        "SELECT action, actor, task_id, account FROM agent_event WHERE event = 'wish' ORDER BY id",
    )
    assert told == [("insert", actor, "a", "volc"), ("stop", actor, "a", "volc")]


async def test_what_a_claim_alone_does_to_the_phase_is_an_event(daemon: Daemon) -> None:
    await want(daemon.database, "a", spec="""'{"Config": 1}'""")
    await daemon.claim("a")
    told = await query(
        daemon.database,
        "SELECT phase_before, phase_after, code, actor FROM agent_event WHERE event = 'phase'",
    )
    assert told == [("pending", "failed", "InvalidSpec", "d1")]


# --- rows made again


async def test_a_task_inserted_after_its_status_was_forgotten_counts_on(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await daemon.start("a")
    await run(daemon.database, "DELETE FROM agent_status")
    await run(daemon.database, "UPDATE vendor_agent SET ended_at = announced_at")
    await run(daemon.database, RUN_A, "UPDATE agent_task SET restart_token = 'again'")
    claimed = await daemon.claim(without_status=["a"])
    assert (claimed.orders, claimed.written) == ([], 1)
    order = await daemon.claim_one("a")
    assert (order.flight.verb, order.flight.agent.incarnation) == (Verb.START, 2)
    assert [row[0] for row in await ledger(daemon.database, "a", "incarnation")] == [1, 2]


async def test_changes_of_a_task_that_is_long_gone_are_dropped(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await run(daemon.database, "DELETE FROM agent_task", "DELETE FROM agent_status")
    assert await inbox(daemon.database) == ["a", "a"]
    await daemon.claim(without_status=["a"])
    assert await inbox(daemon.database) == []
    assert await query(daemon.database, "SELECT * FROM agent_status") == []


async def test_a_row_of_another_account_under_an_old_id_waits_in_its_own_queue(
    daemon: Daemon,
) -> None:
    """Else the new account's slots are never drawn for it."""
    await want(daemon.database, "a")
    await daemon.start("a")
    await run(daemon.database, "DELETE FROM agent_task")
    await want(daemon.database, "a", account="other")
    await daemon.run_to_end("a", Done())
    await daemon.claim("a", tickets={("other", Verb.START): []})
    found = await status(daemon.database, "a", "account", "parked_verb", "waiting_for")
    assert found == ("other", "start", "rate_limit")


async def test_a_row_whose_next_account_another_daemon_has_is_left_to_it(
    database: Database,
) -> None:
    ours = await Daemon(database, make_desk(make_book("volc"))).ready()
    theirs = await Daemon(database, make_desk(make_book("other"), "d2")).ready()
    await want(database, "a")
    await ours.start("a")
    await run(database, "DELETE FROM agent_task")
    await want(database, "a", account="other")
    await ours.run_to_end("a", Done())
    await ours.claim("a")
    assert await status(database, "a", "account", "phase") == ("other", "pending")
    assert (await theirs.claim_one("a")).account.name == "other"


# --- the same start


async def claim_with_secret(daemon: Daemon, value: str) -> Claimed:
    secretive = Daemon(daemon.database, replace(daemon.desk, book=make_book(secrets={"k": value})))
    return await secretive.claim("a")


async def test_a_changed_secret_supersedes_an_unknown_start(daemon: Daemon) -> None:
    spec = """'{"Config": {"LLMConfig": {"Mode": "ArkV3", "EndPointId": {"$secret": "k"}}}}'"""
    await want(daemon.database, "a", spec=spec)
    (first,) = (await claim_with_secret(daemon, "one")).orders
    await daemon.settle(settled(first, Indefinite(code="Timeout")))
    await run(daemon.database, "UPDATE agent_status SET retry_at = NULL")
    (same,) = (await claim_with_secret(daemon, "one")).orders
    assert same.flight.agent.id == first.flight.agent.id
    await daemon.settle(settled(same, Indefinite(code="Timeout")))
    await run(daemon.database, "UPDATE agent_status SET retry_at = NULL")
    assert (await claim_with_secret(daemon, "two")).orders == []
    (stop,) = (await claim_with_secret(daemon, "two")).orders
    assert (stop.flight.verb, stop.flight.agent.id) == (Verb.STOP, first.flight.agent.id)
    found = await status(daemon.database, "a", "incarnation", "retired", "end_reason")
    assert found == (2, 1, "superseded")


async def test_a_spec_that_was_not_read_is_read_before_a_start(daemon: Daemon) -> None:
    """A row with a known agent needs no spec, until a person says that the agent is gone."""
    await want(daemon.database, "a")
    await daemon.start("a")
    await run(
        daemon.database,
        "UPDATE agent_task SET restart_token = 'x'",
        "INSERT INTO task_change (task_id, what) VALUES ('a', 'assume_gone')",
    )
    assert (await daemon.claim("a")).orders == []
    order = await daemon.claim_one("a")
    assert (order.flight.verb, order.flight.agent.incarnation) == (Verb.START, 2)


# --- what cannot be read


async def spoil(database: Database) -> None:
    """Write into task a what its column cannot mean, past the constraints."""
    if database.dialect == "sqlite":
        await run(database, "UPDATE agent_task SET heartbeat_timeout_s = 9e15 WHERE id = 'a'")
        return
    await run(
        database,
        "UPDATE agent_task SET start_at = '9998-06-01', heartbeat_timeout_s = 2147483647 "
        "WHERE id = 'a'",
    )


async def test_a_row_that_makes_no_sense_fails_alone(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    await spoil(daemon.database)
    claimed = await daemon.claim("a", "b")
    assert [order.flight.task_id for order in claimed.orders] == ["b"]
    assert (await status(daemon.database, "a", "phase", "reason")) == ("failed", "Unreadable")
    assert await inbox(daemon.database) == []


@pytest.mark.parametrize(
    ("spec", "reason", "said"),
    [
        ("""'{"Config": 1}'""", "InvalidSpec", "Config"),
        ("""'{"Config": {"LLMConfig": {"$secret": "none"}}}'""", "UnknownSecret", "none"),
    ],
)
async def test_a_wrong_spec_fails_alone_and_says_where(
    daemon: Daemon, spec: str, reason: str, said: str
) -> None:
    await want(daemon.database, "a", spec=spec)
    await want(daemon.database, "b")
    claimed = await daemon.claim("a", "b")
    assert [order.flight.task_id for order in claimed.orders] == ["b"]
    phase, found, message = await status(daemon.database, "a", "phase", "reason", "message")
    assert (phase, found) == ("failed", reason)
    assert said in message
    assert await ledger(daemon.database, "a", "id") == []


async def test_what_a_message_holds_of_secrets_is_taken_out(database: Database) -> None:
    desk = make_desk(make_book(), redact=lambda text: text.replace("Config", "***"))
    daemon = await Daemon(database, desk).ready()
    await want(database, "a", spec="""'{"Config": 1}'""")
    await daemon.claim("a")
    (message,) = await status(database, "a", "message")
    assert "***" in message
    assert "Config" not in message


async def test_a_failed_row_is_not_tried_again_by_itself(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await daemon.run_to_end("a", Refused(code="Wrong"))
    assert (await daemon.claim("a")).orders == []
    assert await status(daemon.database, "a", "phase", "reason", "due_at", "stop_due_at") == (
        "failed",
        "Wrong",
        None,
        None,
    )


# --- rows that others hold (Postgres)


Held = tuple[Daemon, "asyncpg.Connection[Any]"]


@pytest.fixture
async def held(postgres_url: str) -> AsyncIterator[Held]:
    """A daemon on Postgres, and another connection beside it."""
    database = open_database(postgres_url)
    other = await asyncpg.connect(postgres_url)
    try:
        yield await Daemon(database).ready(), other
    finally:
        await other.close()
        await database.close()


async def test_a_locked_row_is_skipped_and_taken_next_time(
    held: Held,
) -> None:
    daemon, other = held
    await want(daemon.database, "a", "b")
    async with other.transaction():
        await other.execute("SELECT * FROM agent_status WHERE task_id = 'a' FOR UPDATE")
        claimed = await daemon.claim("a", "b")
        assert [order.flight.task_id for order in claimed.orders] == ["b"]
        assert await inbox(daemon.database) == ["a"]
    assert (await daemon.claim_one("a")).flight.task_id == "a"


async def test_a_stop_between_lock_and_read_is_not_lost(
    held: Held,
) -> None:
    daemon, other = held
    await want(daemon.database, "a")
    await daemon.start("a")

    def interrupted(connection: Connection, desk: Desk, wanted: Wanted) -> Claimed:
        """Claim, while the application commits a stop as soon as the rows are locked."""
        stops = [STOP_A]

        def commit(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if "FOR UPDATE" in statement and stops:
                await_only(other.execute(stops.pop()))

        event.listen(connection, "after_cursor_execute", commit)
        try:
            return claim(connection, desk, wanted, {}, full_room())
        finally:
            event.remove(connection, "after_cursor_execute", commit)
            assert stops == []

    claimed = await daemon.database.write(interrupted, daemon.desk, Wanted(ids=["a"]))
    assert [order.flight.verb for order in claimed.orders] == [Verb.STOP]
    assert await inbox(daemon.database) == []


async def test_an_application_that_forgot_to_commit_delays_nobody(
    held: Held,
) -> None:
    daemon, other = held
    await want(daemon.database, "a")
    async with other.transaction():
        await other.execute("UPDATE agent_task SET labels = '{\"x\": 1}', priority = 3")
        await other.execute(STOP_A)
        order = await daemon.claim_one("a")
        assert order.flight.verb is Verb.START
        await daemon.settle(settled(order, Done(handle="h")))
    assert (await daemon.claim_one("a")).flight.verb is Verb.STOP
