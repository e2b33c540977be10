"""The ledger: a handle is added and never overwritten, and what is open is found by its task."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.core.model import Agent, Evidence
from orchestrator.store import ledger
from orchestrator.store.engine import Database

pytestmark = pytest.mark.anyio

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def agent(name: str = "n1", **changes: Any) -> Agent:
    values: dict[str, Any] = {
        "id": name,
        "incarnation": 1,
        "try_": 1,
        "account": "acc",
        "site": "{}",
        "room_id": "r",
        "user_id": "u",
        "name": name,
        "session_name": name,
        "stream_id": name,
        "announced_at": AT,
    }
    return Agent(**(values | changes))


async def add(database: Database, *agents: Agent) -> None:
    await database.write(ledger.add_agents, [("t1", one) for one in agents])


async def open_rows(database: Database) -> tuple[Agent, ...]:
    return (await database.read(ledger.read_agents, ["t1", "t2"])).get("t1", ())


async def test_open_rows_come_back_oldest_first(database: Database) -> None:
    old, new = agent("n2"), agent("n1", announced_at=AT.replace(hour=13))
    ended = agent("n3", ended_at=AT, evidence=Evidence.ABSENT)
    await add(database, new, ended, old)
    assert await open_rows(database) == (old, new)


@pytest.mark.parametrize(
    ("before", "written", "after"), [(None, "h1", "h1"), ("h1", "h2", "h1"), ("h1", None, "h1")]
)
async def test_a_handle_is_added_and_never_overwritten(
    database: Database, before: str | None, written: str | None, after: str
) -> None:
    one = agent(vendor_task_id=before)
    await add(database, one)
    await database.write(ledger.write_agents, [replace(one, vendor_task_id=written)])
    assert [row.vendor_task_id for row in await open_rows(database)] == [after]


async def test_evidence_closes_a_row(database: Database) -> None:
    await add(database, agent())
    ended = agent(ended_at=AT, evidence=Evidence.STOPPED)
    await database.write(ledger.write_agents, [ended])
    assert await open_rows(database) == ()
    assert await database.write(ledger.lock_one, "n1") == ended


async def test_incarnations_count_on_from_all_rows_open_or_ended(database: Database) -> None:
    ended = agent("n2", incarnation=7, ended_at=AT, evidence=Evidence.ABSENT)
    await add(database, agent(incarnation=3), ended)
    assert await database.read(ledger.last_incarnations, ["t1", "t2"]) == {"t1": 7}
    assert await database.read(ledger.last_incarnations, []) == {}


async def test_a_lost_status_is_made_so_that_all_of_it_must_end(database: Database) -> None:
    await add(database, agent("n1", incarnation=2), agent("n2", incarnation=4))
    (status,) = await database.read(ledger.lost_statuses, ["t1", "t2"])
    assert (status.incarnation, status.retired, status.account) == (4, 4, "acc")
