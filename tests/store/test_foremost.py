"""Which tasks are shown first: never by a walk through those that rest."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.store import foremost
from orchestrator.store.engine import Connection, Database, now
from orchestrator.store.foremost import Page
from tests.store.rows import insert, run, update
from tests.store.test_plans import RESTING, feign_a_million, fill, plans, tidy

pytestmark = pytest.mark.anyio

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
ODD = {
    "reason": {"reason": "'Indefinite'"},
    "failed": {"phase": "'failed'", "reason": "'InvalidSpec'"},
    "waits": {"phase": "'pending'", "waiting_for": "'paused'"},
    "parked": {"waiting_for": "'frozen'", "parked_class": "'stop'", "parked_verb": "'stop'"},
    "begun": {"phase": "'starting'"},
    "unknown": {"phase": "'quarantined'", "waiting_for": "'proof'"},
    "late": {"stop_due_at": "'2020-01-01 00:00:00.000000'"},
    "unheard": {},
}
"""Columns of what does not rest, by id; each began before everything that does."""
TROUBLE = {"reason", "failed", "waits", "parked", "unknown", "late", "unheard"}
CALM = 5
WALK = re.compile(
    r"SCAN agent_(status|task)( USING (?!INDEX ix_agent_status_(trouble|parked)$).*)?$"
    r"|Seq Scan agent_(status|task)"
)
"""The two indexes are walked: one up to a bound, one that holds nothing but what is parked."""


def page(most: int, account: str | None = None, *, trouble: bool = False) -> Page:
    return Page(most=most, account=account, trouble=trouble)


async def write_tasks(database: Database) -> None:
    """Write what does not rest, then younger tasks that do; those two are to be stopped."""
    ids = [*ODD, *(f"calm{n}" for n in range(CALM))]
    for number, id_ in enumerate(ids):
        began = (BEGAN + timedelta(minutes=number)).strftime("%Y-%m-%d %H:%M:%S.000000")
        usual = {"phase": "'running'", "due_at": "'2099-01-01 00:00:00.000000'"}
        columns = usual | ODD.get(id_, {}) | {"phase_since": f"'{began}'"}
        changed = ", ".join(f"{name} = {value}" for name, value in columns.items())
        desired = "'stopped'" if id_ in {"late", "unheard"} else "'running'"
        account = "'b'" if id_ == "calm0" else "'a'"
        row = {"id": f"'{id_}'", "account": account, "room_id": "'r'", "user_id": "'u'"}
        await run(
            database,
            insert("agent_task", desired_state=desired, **row),
            update("agent_status", changed) + f" WHERE task_id = '{id_}'",
        )
    await run(database, "DELETE FROM task_change WHERE task_id <> 'unheard'")


async def find(database: Database, wanted: Page) -> list[str]:
    return list(await database.read(lambda c: foremost.find(c, now(c), wanted)))


async def test_the_oldest_trouble_comes_before_the_newest_that_rests(database: Database) -> None:
    await write_tasks(database)
    ids = await find(database, page(len(ODD)))
    assert set(ids[:2]) == {"reason", "failed"}
    assert set(ids[2:5]) == {"waits", "parked", "unknown"}
    assert ids[5:] == ["begun", "calm4", "calm3"]


async def test_only_trouble_is_all_of_it(database: Database) -> None:
    await write_tasks(database)
    assert set(await find(database, page(100, trouble=True))) == TROUBLE


async def test_an_account_has_its_own_page(database: Database) -> None:
    await write_tasks(database)
    assert await find(database, page(3, "b")) == ["calm0"]
    assert await find(database, page(3, "b", trouble=True)) == []


def look_around(connection: Connection) -> None:
    for trouble in (False, True):
        foremost.find(connection, BEGAN, page(1_000, trouble=trouble))


def walks(connection: Connection) -> list[str]:
    """Return the steps that walk through all statuses or tasks."""
    steps = plans(connection, look_around)
    assert any("ix_agent_status_trouble" in step for step in steps), steps
    return [step for step in steps if WALK.search(step)]


async def test_it_walks_through_nothing(database: Database) -> None:
    await database.write(fill, 0, RESTING)
    await database.write(lambda c: c.exec_driver_sql("DELETE FROM task_change"))
    await database.read(tidy)
    await database.write(feign_a_million)
    assert await database.write(walks) == []
