"""Settle: the fence decides who writes the row; what comes too late still reaches the ledger."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import asyncpg
import pytest

from orchestrator.core.model import Verb
from orchestrator.core.outcome import Done, Gone, Indefinite, Outcome
from orchestrator.daemon.claim import Order
from orchestrator.store.engine import Database, open_database
from tests.store.claiming import (
    Daemon,
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

LATE = "SELECT outcome, actor FROM agent_event WHERE event = 'late'"


@pytest.fixture
async def daemon(database: Database) -> Daemon:
    return await Daemon(database).ready()


def second(daemon: Daemon) -> Daemon:
    return Daemon(daemon.database, make_desk(make_book(), "d2"))


async def lose(daemon: Daemon, account: str = "tencent") -> tuple[Order, Order]:
    """Let a start be taken over: return the order that was lost, and the one that follows it."""
    await want(daemon.database, "a", account=account, spec=SPECS[account])
    lost = await daemon.claim_one("a")
    await wait_out_lease(daemon.database, "a")
    return lost, await second(daemon).claim_one("a")


SPECS = {
    "volc": """'{"Config": {"LLMConfig": {"Mode": "ArkV3", "EndPointId": "ep"}}}'""",
    "tencent": """'{"AgentConfig": {}, "STTConfig": {"Language": "en"},
        "LLMConfig": {"LLMType": "openai", "Model": "m", "APIKey": "fake", "APIUrl": "http://x"},
        "TTSConfig": {"TTSType": "flow", "VoiceId": "v", "Model": "m"}}'""",
}


async def test_an_outcome_in_time_writes_row_ledger_and_event(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    order = await daemon.claim_one("a")
    outcome = Done(handle="h1", request_id="r1")
    assert await daemon.settle(settled(order, outcome, ms=42)) == []
    columns = ("phase", "vendor_task_id", "last_request_id", "lease_owner", "intent")
    assert await status(daemon.database, "a", *columns) == ("running", "h1", "r1", None, None)
    assert await ledger(daemon.database, "a", "vendor_task_id", "ended_at") == [("h1", None)]
    events = await query(
        daemon.database,
        "SELECT task_id, account, incarnation, actor, action, outcome, code, request_id, "
        "latency_ms, phase_before, phase_after FROM agent_event WHERE event = 'call'",
    )
    assert events == [
        ("a", "volc", 1, "d1", "start", "Done", None, "r1", 42, "starting", "running")
    ]


async def test_a_vendor_s_words_are_in_the_event_and_in_the_row(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    order = await daemon.claim_one("a")
    await daemon.settle(settled(order, Indefinite(code="E5", message="odd", request_id="r")))
    assert await status(daemon.database, "a", "reason", "message") == ("E5", "odd")
    assert await query(
        daemon.database, "SELECT outcome, code, message FROM agent_event WHERE event = 'call'"
    ) == [("Indefinite", "E5", "odd")]


# --- the fence


async def test_an_outcome_after_a_takeover_changes_nothing_of_the_row(daemon: Daemon) -> None:
    lost, _ = await lose(daemon)
    before = await query(daemon.database, "SELECT * FROM agent_status")
    await daemon.settle(settled(lost, Gone()))
    assert await query(daemon.database, "SELECT * FROM agent_status") == before
    assert await query(daemon.database, LATE) == [("Gone", "d1")]


async def test_the_owner_counts_as_well_as_the_version(daemon: Daemon) -> None:
    """Versions begin anew when a forgotten row is made again: the same one means nothing."""
    await want(daemon.database, "a")
    order = await daemon.claim_one("a")
    await second(daemon).settle(settled(order, Done(handle="h1")))
    assert await status(daemon.database, "a", "phase", "lease_owner") == ("starting", "d1")


async def test_who_takes_over_settles_as_if_nothing_had_been(daemon: Daemon) -> None:
    lost, taken = await lose(daemon)
    await second(daemon).settle(settled(taken, Done(handle="h2")))
    await daemon.settle(settled(lost, Done(handle="h2")))
    assert await status(daemon.database, "a", "phase", "vendor_task_id") == ("running", "h2")


# --- what comes too late


async def test_a_late_handle_reaches_the_ledger_and_makes_the_row_due(daemon: Daemon) -> None:
    lost, taken = await lose(daemon)
    await daemon.settle(settled(lost, Done(handle="h1")))
    assert await ledger(daemon.database, "a", "vendor_task_id") == [("h1",)]
    assert await query(daemon.database, "SELECT task_id, what, actor FROM task_change") == [
        ("a", "ledger", "d1")
    ]
    # The other daemon knew nothing of it, and what it writes takes nothing away.
    await second(daemon).settle(settled(taken, Indefinite(code="Timeout")))
    assert await ledger(daemon.database, "a", "vendor_task_id") == [("h1",)]
    await run(daemon.database, "UPDATE agent_task SET desired_state = 'stopped'")
    order = await second(daemon).claim_one("a")
    assert (order.flight.verb, order.flight.agent.vendor_task_id) == (Verb.STOP, "h1")


async def test_a_late_handle_opens_a_row_again_that_had_ended(daemon: Daemon) -> None:
    lost, taken = await lose(daemon)
    await run(daemon.database, "UPDATE agent_task SET desired_state = 'stopped'")
    later = lost.flight.announced_at + timedelta(hours=1)
    await second(daemon).settle(settled(taken, Gone(), at=later))
    await second(daemon).claim("a")
    assert await status(daemon.database, "a", "phase") == ("stopped",)
    await daemon.settle(settled(lost, Done(handle="h1")))
    found = await ledger(daemon.database, "a", "vendor_task_id", "ended_at", "evidence")
    assert found == [("h1", None, None)]
    order = await second(daemon).claim_one("a")
    assert (order.flight.verb, order.flight.agent.vendor_task_id) == (Verb.STOP, "h1")


async def test_a_late_handle_of_a_forgotten_task_is_still_stopped(daemon: Daemon) -> None:
    lost, taken = await lose(daemon)
    await run(daemon.database, "DELETE FROM agent_task")
    later = lost.flight.announced_at + timedelta(hours=1)
    await second(daemon).settle(settled(taken, Gone(), at=later))
    await second(daemon).claim("a")
    assert await query(daemon.database, "SELECT * FROM agent_status") == []
    await daemon.settle(settled(lost, Done(handle="h1")))
    order = await second(daemon).claim_one("a")
    assert (order.flight.verb, order.flight.agent.vendor_task_id) == (Verb.STOP, "h1")
    await second(daemon).settle(settled(order, Done()))
    assert await query(daemon.database, "SELECT * FROM agent_status") == []
    assert await ledger(daemon.database, "a", "evidence") == [("stopped",)]


async def test_a_handle_is_never_overwritten(daemon: Daemon) -> None:
    lost, taken = await lose(daemon, "volc")
    await second(daemon).settle(settled(taken, Done(handle="h2")))
    await daemon.settle(settled(lost, Done(handle="h1")))
    assert await ledger(daemon.database, "a", "vendor_task_id") == [("h2",)]


@pytest.mark.parametrize("outcome", [Done(handle=None), Gone(), Indefinite(code="Timeout")])
async def test_what_is_late_and_holds_no_handle_is_only_told(
    daemon: Daemon, outcome: Outcome
) -> None:
    lost, _ = await lose(daemon)
    before = await ledger(daemon.database, "a", "*")
    await daemon.settle(settled(lost, outcome))
    assert await ledger(daemon.database, "a", "*") == before
    assert await query(daemon.database, "SELECT * FROM task_change") == []
    assert len(await query(daemon.database, LATE)) == 1


async def test_a_late_handle_takes_back_nothing_that_the_owner_writes_meanwhile(
    held: tuple[Daemon, "asyncpg.Connection[Any]"],
) -> None:
    daemon, other = held
    lost, _ = await lose(daemon)
    async with anyio.create_task_group() as tasks, other.transaction():
        await other.execute("UPDATE vendor_agent SET horizon_at = '2099-01-01 00:00+00'")
        tasks.start_soon(daemon.settle, settled(lost, Done(handle="h1")))
        while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass  # until the settle waits for the row
    found = await ledger(daemon.database, "a", "vendor_task_id", "horizon_at")
    assert found == [("h1", datetime(2099, 1, 1, tzinfo=UTC))]


# --- together


async def test_a_deleted_task_is_forgotten_in_the_settle_that_proves_its_end(
    daemon: Daemon,
) -> None:
    await want(daemon.database, "a")
    await daemon.start("a")
    await run(daemon.database, "DELETE FROM agent_task")
    await daemon.run_to_end("a", Done())
    assert await query(daemon.database, "SELECT * FROM agent_status") == []
    assert await ledger(daemon.database, "a", "evidence") == [("stopped",)]


async def test_a_change_during_the_call_makes_the_row_due_after_it(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    order = await daemon.claim_one("a")
    await run(daemon.database, "UPDATE agent_task SET desired_state = 'stopped'")
    await daemon.settle(settled(order, Done(handle="h1")))
    assert (await daemon.claim_one("a")).flight.verb is Verb.STOP


@pytest.fixture
async def held(postgres_url: str) -> AsyncIterator[tuple[Daemon, "asyncpg.Connection[Any]"]]:
    database = open_database(postgres_url)
    other = await asyncpg.connect(postgres_url)
    try:
        yield await Daemon(database).ready(), other
    finally:
        await other.close()
        await database.close()


async def test_what_others_have_locked_is_returned_and_settled_later(
    held: tuple[Daemon, "asyncpg.Connection[Any]"],
) -> None:
    daemon, other = held
    await want(daemon.database, "a", "b")
    outcomes = [
        settled(order, Done(handle=f"h-{order.flight.task_id}"))
        for order in (await daemon.claim("a", "b")).orders
    ]
    async with other.transaction():
        await other.execute("SELECT * FROM agent_status WHERE task_id = 'a' FOR UPDATE")
        (left,) = await daemon.settle(*outcomes)
        assert left.order.flight.task_id == "a"
    assert await status(daemon.database, "a", "phase") == ("starting",)
    assert await status(daemon.database, "b", "phase") == ("running",)
    assert await daemon.settle(left) == []
    assert await status(daemon.database, "a", "phase") == ("running",)
    assert len(await query(daemon.database, "SELECT * FROM agent_event WHERE event = 'call'")) == 2
