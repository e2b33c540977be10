"""What the inbox gets when an application writes `agent_task` and `task_owner`."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import DBAPIError

from orchestrator.store.engine import Database, now
from tests.store.rows import TASK, changes, insert, query, quoted, run, update, value

pytestmark = pytest.mark.anyio

STOP = ("t1", "stop", True)
RUN = ("t1", "run", False)
SPEC = ("t1", "spec", False)
START_BY = ("t1", "start_by", False)
TIMING = ("t1", "timing", False)
RESTART = ("t1", "restart", False)
OWNER = ("t1", "owner", False)


@pytest.fixture
async def task(database: Database) -> Database:
    """A database with one task and an empty inbox."""
    await run(
        database,
        "INSERT INTO task_owner (name, heartbeat_timeout_s) VALUES ('process', 30)",
        TASK,
        "DELETE FROM task_change",
    )
    return database


UPDATES = {
    "desired_state = 'stopped'": [STOP],
    "desired_state = 'running'": [],
    """spec = '{"a": 1}'""": [SPEC],
    "spec = ' { } '": [],
    "start_by = '2030-01-01 00:00:00+00:00'": [START_BY],
    "start_by = NULL": [],
    "start_at = '2030-01-01 00:00:00+00:00'": [TIMING],
    "stop_at = '2030-01-01T00:00:00+02:00'": [TIMING],
    "heartbeat_timeout_s = 5": [TIMING],
    "restart_policy = 'always'": [TIMING],
    "restart_policy = 'never'": [],
    "owner = 'process'": [TIMING],
    "restart_token = 'x'": [RESTART],
    "restart_token = NULL": [],
    "priority = 5": [],
    """labels = '{"a": 1}'""": [],
    "heartbeat_at = '2030-01-01 00:00:00+00:00'": [],
    "account = account, room_id = room_id, user_id = user_id, id = id": [],
    """desired_state = 'stopped', spec = '{"a": 1}', stop_at = '2030-01-01 00:00'""": [
        STOP,
        SPEC,
        TIMING,
    ],
    """spec = '{"a": 1}', restart_token = 'x', start_by = '2030-01-01 00:00'""": [
        SPEC,
        START_BY,
        RESTART,
    ],
}


@pytest.mark.parametrize(("assignment", "expected"), UPDATES.items(), ids=UPDATES)
async def test_an_update_tells_what_changed_its_meaning(
    task: Database, assignment: str, expected: list[tuple[str, str, bool]]
) -> None:
    await run(task, update("agent_task", assignment))
    assert await changes(task) == expected


@pytest.mark.parametrize("assignment", [key for key, told in UPDATES.items() if STOP not in told])
async def test_a_value_written_again_is_no_change(task: Database, assignment: str) -> None:
    await run(task, update("agent_task", assignment))
    await changes(task)
    await run(task, update("agent_task", assignment))
    assert await changes(task) == []


async def test_stopped_and_running_again_are_two_wishes_in_order(task: Database) -> None:
    await run(
        task,
        "UPDATE agent_task SET desired_state = 'stopped'",
        "UPDATE agent_task SET desired_state = 'running'",
    )
    assert await changes(task) == [STOP, RUN]


async def test_an_insert_makes_a_status_and_a_delete_leaves_it(task: Database) -> None:
    status = "SELECT task_id, account, room_id, user_id, phase, incarnation FROM agent_status"
    assert await query(task, status) == [("t1", "acc", "room", "human", "pending", 0)]
    await run(task, "UPDATE agent_status SET incarnation = 7", "DELETE FROM agent_task", TASK)
    assert await changes(task) == [("t1", "delete", True), ("t1", "insert", False)]
    assert await query(task, status) == [("t1", "acc", "room", "human", "pending", 7)]


async def test_a_retried_insert_is_harmless(task: Database) -> None:
    await run(task, f"{TASK} ON CONFLICT (id) DO NOTHING", f"{TASK} ON CONFLICT DO NOTHING")
    assert await changes(task) == []


async def test_an_upsert_is_an_update(task: Database) -> None:
    await run(task, f"{TASK} ON CONFLICT (id) DO UPDATE SET desired_state = 'stopped'")
    assert await changes(task) == [STOP]


@pytest.mark.parametrize("column", ["id", "account", "room_id", "user_id"])
async def test_identity_cannot_change(task: Database, column: str) -> None:
    with pytest.raises(DBAPIError, match=f"agent_task.{column} cannot change: insert a new row"):
        await run(task, update("agent_task", f"{column} = 'other'"))
    assert await query(task, "SELECT id, account, room_id, user_id FROM agent_task") == [
        ("t1", "acc", "room", "human")
    ]


async def test_a_refused_update_leaves_no_change(task: Database) -> None:
    with pytest.raises(DBAPIError, match="cannot change"):
        await run(task, "UPDATE agent_task SET desired_state = 'stopped', room_id = 'other'")
    assert await changes(task) == []


async def test_updated_at_follows_changes_but_not_heartbeats(task: Database) -> None:
    old = "UPDATE agent_task SET updated_at = '2020-01-01 00:00:00+00:00'"
    read = "SELECT count(*) FROM agent_task WHERE updated_at < '2021-01-01 00:00:00'"
    await run(task, old, "UPDATE agent_task SET heartbeat_at = '2030-01-01 00:00:00'")
    assert await value(task, read) == 1
    await run(task, "UPDATE agent_task SET priority = 9")
    assert await value(task, read) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE agent_task SET owner = 'nobody'",
        insert("agent_task", id="'t2'", account="'a'", room_id="'r'", user_id="'u'", owner="'b'"),
    ],
)
async def test_an_owner_must_exist(task: Database, statement: str) -> None:
    with pytest.raises(DBAPIError, match="there is no task_owner of this name: insert it first"):
        await run(task, statement)


async def test_an_owner_may_go_and_its_tasks_hear_of_it(task: Database) -> None:
    await run(task, "UPDATE agent_task SET owner = 'process'")
    await changes(task)
    await run(task, "UPDATE task_owner SET heartbeat_at = '2030-01-01 00:00:00'")
    assert await changes(task) == []
    await run(task, "UPDATE task_owner SET heartbeat_timeout_s = 5")
    assert await changes(task) == [OWNER]
    await run(task, "DELETE FROM task_owner")
    assert await changes(task) == [OWNER]
    await run(task, "UPDATE agent_task SET owner = owner, priority = 3")
    assert await value(task, "SELECT owner FROM agent_task") == "process"


@pytest.mark.parametrize("written", ["1999-01-01 00:00:00", "2999-01-01 00:00:00"])
async def test_an_owners_heartbeat_is_stamped_by_the_database(task: Database, written: str) -> None:
    await run(
        task,
        insert("task_owner", name="'b'", heartbeat_timeout_s="30", heartbeat_at=quoted(written)),
        update("task_owner", f"heartbeat_at = {quoted(written)}"),
    )
    present = await task.read(now)
    for (stamp,) in await query(task, "SELECT heartbeat_at FROM task_owner"):
        written_at = datetime.fromisoformat(str(stamp)).replace(tzinfo=UTC)
        assert abs(present - written_at) < timedelta(minutes=1)


async def test_an_operators_orphan_is_urgent_and_a_reported_one_is_not(task: Database) -> None:
    await run(
        task,
        "INSERT INTO orphan_task (id, account, vendor_task_id) VALUES ('o1', 'acc', 'V1')",
        "INSERT INTO orphan_task (id, account, source, action)"
        " VALUES ('o2', 'acc', 'callback', 'report')",
    )
    assert await changes(task) == [("~o1", "stop", True)]


async def test_changes_name_their_actor(task: Database) -> None:
    await run(task, "DELETE FROM agent_task")
    expected = "sqlite" if task.dialect == "sqlite" else "postgres"
    assert await value(task, "SELECT actor FROM task_change") == expected
