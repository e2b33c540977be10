"""What a daemon forgets: a real one before old rows, how fast, and by which clock."""

from datetime import datetime, timedelta

import pytest

from orchestrator.daemon.pruner import BATCH, CALM_NS, SPAN, Pruner
from orchestrator.daemon.timekeeper import Timekeeper
from orchestrator.store.engine import Database
from orchestrator.store.engine import now as database_now
from orchestrator.store.retention import Cutoffs
from tests.daemon.application import insert
from tests.daemon.customers import CUSTOMERS, VOLCENGINE
from tests.daemon.running import Scene, until
from tests.store.rows import query, run, value

pytestmark = pytest.mark.anyio

OLD = "'2020-01-01 00:00:00.000000'"
KEPT = timedelta(days=1)
PATIENCE_S = 60.0


# --- a daemon that runs


async def make_old(scene: Scene, *ids: str) -> None:
    """Let tasks that have ended have done so long ago, and nobody have touched them since."""
    for id_ in ids:
        untouched = f"UPDATE agent_task SET updated_at = {OLD} WHERE id = '{id_}'"  # noqa: S608 - a test's own words
        off, on = (
            ("", "")
            if scene.on_sqlite
            else (
                "ALTER TABLE agent_task DISABLE TRIGGER USER",
                "ALTER TABLE agent_task ENABLE TRIGGER USER",
            )
        )
        statements = (
            off,
            untouched,
            on,
            f"UPDATE agent_status SET stopped_at = {OLD} WHERE task_id = '{id_}'",  # noqa: S608 - as above
            f"UPDATE vendor_agent SET ended_at = {OLD} WHERE task_id = '{id_}'",  # noqa: S608 - as above
            f"UPDATE vendor_agent SET horizon_at = {OLD} WHERE task_id = '{id_}'",  # noqa: S608 - as above
            f"UPDATE agent_event SET at = {OLD} WHERE task_id = '{id_}'",  # noqa: S608 - as above
        )
        await scene.app.write(*filter(None, statements))


async def test_what_is_old_is_forgotten_and_what_runs_runs_on(scene: Scene) -> None:
    first = await scene.start_daemon()
    ended = [f"ended-{one.name}" for one in CUSTOMERS]
    for one in CUSTOMERS:
        await scene.ask_for(one, f"ended-{one.name}")
        await scene.ask_for(one, f"lives-{one.name}")
    for id_ in ended:
        await scene.wait(id_, within_s=PATIENCE_S, phase="running")
    await scene.app.write("UPDATE agent_task SET desired_state = 'stopped' WHERE id LIKE 'ended-%'")
    for id_ in ended:
        await scene.wait(id_, within_s=PATIENCE_S, phase="stopped")
    for one in CUSTOMERS:
        await scene.wait(f"lives-{one.name}", within_s=PATIENCE_S, phase="running")
    assert await first.stop() == 0
    await make_old(scene, *ended)
    await scene.app.write(
        insert("orphan_task", id="'gone'", account="'volc'", phase="'stopped'", stopped_at=OLD),
        "DELETE FROM task_change",
    )

    daemon = await scene.start_daemon("two")

    async def are_gone() -> bool | None:
        counted = await scene.app.read(LEFT)
        return True if set(counted[0].values()) == {0} else None

    await until(are_gone, daemon.describe, PATIENCE_S)
    assert len(await scene.vendors.live()) == len(CUSTOMERS)
    assert len(await scene.app.read("SELECT * FROM agent_task")) == len(CUSTOMERS)
    assert len(await scene.app.read("SELECT * FROM agent_status")) == len(CUSTOMERS)
    assert daemon.events("janitor_failed") == []
    # The same id may be used again.
    id_ = await scene.ask_for(VOLCENGINE, f"ended-{VOLCENGINE.name}")
    await scene.wait(id_, within_s=PATIENCE_S, phase="running", incarnation=1)


LEFT = """
    SELECT (SELECT count(*) FROM agent_task WHERE id LIKE 'ended-%') AS tasks,
        (SELECT count(*) FROM agent_status WHERE task_id LIKE 'ended-%') AS statuses,
        (SELECT count(*) FROM vendor_agent WHERE task_id LIKE 'ended-%') AS agents,
        (SELECT count(*) FROM agent_event WHERE task_id LIKE 'ended-%') AS events,
        (SELECT count(*) FROM task_change) AS changes,
        (SELECT count(*) FROM orphan_task) AS orphans
"""


# --- one pass


def before(now: datetime) -> Cutoffs:
    return Cutoffs(events=now - KEPT, commands=now - KEPT, turns=now - KEPT, ended=now - KEPT)


async def begin(database: Database) -> tuple[Timekeeper, Pruner]:
    timekeeper = Timekeeper()
    await database.write(timekeeper.look)
    return timekeeper, Pruner(database, timekeeper, before)


NUMBERS = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {})",
    "postgresql": "WITH s(n) AS (SELECT generate_series(1, {}))",
}


async def fill_events(database: Database, count: int, at: str) -> None:
    typed = at if database.dialect == "sqlite" else f"timestamptz {at}"
    numbers = NUMBERS[database.dialect].format(count)
    await run(
        database,
        f"INSERT INTO agent_event (at, event) {numbers} SELECT {typed}, 'call' FROM s",  # noqa: S608 - a test's own words
    )


async def test_a_pass_takes_all_batches(database: Database) -> None:
    await fill_events(database, 2 * BATCH[database.dialect] + 1, OLD)
    _, one = await begin(database)
    await one.run()
    assert await value(database, "SELECT count(*) FROM agent_event") == 0


async def test_a_pass_goes_no_further_than_a_clock_can_be_wrong(database: Database) -> None:
    """Were the clock a year ahead, all of this would look old: the oldest goes, not all of it."""
    many = BATCH[database.dialect]
    await fill_events(database, many, "'2020-01-01 00:00:00.000000'")
    await fill_events(database, many, "'2020-01-01 05:00:00.000000'")
    await fill_events(database, many, "'2020-01-01 07:00:00.000000'")
    assert timedelta(hours=5) < SPAN < timedelta(hours=7)
    _, one = await begin(database)
    await one.run()
    assert await value(database, "SELECT count(*) FROM agent_event") == many
    await one.run()
    assert await value(database, "SELECT count(*) FROM agent_event") == 0


async def test_nothing_is_forgotten_after_a_clock_was_set(database: Database) -> None:
    await fill_events(database, 1, OLD)
    timekeeper, one = await begin(database)
    timekeeper.set_by += timedelta(days=365)
    await one.run()
    timekeeper.set_by -= timedelta(days=365)  # and back
    await one.run()
    assert await value(database, "SELECT count(*) FROM agent_event") == 1
    one._calm_ns -= CALM_NS  # an hour later
    await one.run()
    assert await value(database, "SELECT count(*) FROM agent_event") == 0


async def test_what_may_not_go_does_not_keep_a_pass_from_its_end(database: Database) -> None:
    many = BATCH[database.dialect] + 1
    numbers = NUMBERS[database.dialect].format(many)
    old = OLD if database.dialect == "sqlite" else f"timestamptz {OLD}"
    columns = "task_id, account, room_id, user_id, stopped_at"
    await run(
        database,
        f"INSERT INTO agent_status ({columns}) {numbers} SELECT 't' || n, '', '', '', {old} FROM s",  # noqa: S608 - a test's own words
    )
    _, one = await begin(database)
    await one.run()
    assert await value(database, "SELECT count(*) FROM agent_status") == many


async def test_times_are_the_database_s(database: Database) -> None:
    """What is a moment too young stays."""
    now = await database.read(database_now)
    young = (now - KEPT + timedelta(hours=1)).strftime("'%Y-%m-%d %H:%M:%S.%f'")
    await fill_events(database, 1, young)
    await fill_events(database, 1, OLD)
    _, one = await begin(database)
    await one.run()
    await one.run()
    assert len(await query(database, "SELECT id FROM agent_event")) == 1
