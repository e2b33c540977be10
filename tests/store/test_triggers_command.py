"""What `agent_command` fills in and refuses."""

import pytest
from sqlalchemy.exc import DBAPIError

from orchestrator.store.engine import Database
from tests.store.rows import COMMAND, TASK, insert, query, quoted, run, update, value

pytestmark = pytest.mark.anyio

LISTEN = "INSERT INTO agent_command (id, task_id, kind, user_id, sequence) VALUES "


@pytest.fixture
async def task(database: Database) -> Database:
    """A database with one task and one command."""
    await run(database, TASK, COMMAND)
    return database


async def test_the_tasks_user_is_filled_in(task: Database) -> None:
    assert await value(task, "SELECT user_id FROM agent_command") == "human"


async def test_positions_follow_insertion(task: Database) -> None:
    await run(
        task,
        "INSERT INTO agent_command (id, task_id, kind) VALUES ('b', 't1', 'say')",
        "INSERT INTO agent_command (id, task_id, kind) VALUES ('a', 't1', 'say')",
    )
    ordered = await query(task, "SELECT id FROM agent_command ORDER BY position")
    assert ordered == [("c1",), ("b",), ("a",)]


async def test_a_retried_insert_is_harmless_even_when_the_task_has_gone(task: Database) -> None:
    await run(
        task,
        "UPDATE agent_command SET state = 'done'",
        "DELETE FROM agent_task",
        f"{COMMAND} ON CONFLICT (id) DO NOTHING",
    )
    assert await query(task, "SELECT id, state FROM agent_command") == [("c1", "done")]


async def test_a_task_must_exist(task: Database) -> None:
    with pytest.raises(DBAPIError, match=r"agent_command\.task_id: there is no such agent_task"):
        await run(task, "INSERT INTO agent_command (task_id, kind) VALUES ('nobody', 'say')")


async def test_a_command_begins_queued(task: Database) -> None:
    with pytest.raises(DBAPIError, match=r"agent_command\.state is the daemon's"):
        await run(task, insert("agent_command", task_id="'t1'", kind="'say'", state="'done'"))


@pytest.mark.parametrize(
    "assignment",
    [
        "id = 'c2'",
        "position = 99",
        "task_id = 't2'",
        "kind = 'say'",
        "user_id = 'other'",
        """payload = '{"a": 1}'""",
        "created_at = '2020-01-01 00:00:00'",
    ],
)
async def test_what_was_asked_for_cannot_change(task: Database, assignment: str) -> None:
    with pytest.raises(DBAPIError, match="agent_command cannot change: to take a command back"):
        await run(task, update("agent_command", assignment))


async def test_the_daemon_fills_in_nulls_once_and_writes_what_became_of_it(task: Database) -> None:
    await run(
        task,
        "UPDATE agent_command SET sequence = 5, expires_at = '2030-01-01 00:00:00'",
        "UPDATE agent_command SET state = 'sending', sent_at = created_at",
        "UPDATE agent_command SET state = 'failed', reason = 'x', message = 'y', request_id = 'r',"
        " result = '{}', done_at = created_at",
    )
    for assignment in ("sequence = 6", "expires_at = '2031-01-01 00:00:00'", "sequence = NULL"):
        with pytest.raises(DBAPIError, match="agent_command cannot change"):
            await run(task, update("agent_command", assignment))


@pytest.mark.parametrize("state", ["queued", "sending"])
async def test_an_open_command_cannot_be_deleted(task: Database, state: str) -> None:
    await run(task, update("agent_command", f"state = {quoted(state)}"))
    with pytest.raises(DBAPIError, match="what = 'cancel_command'"):
        await run(task, "DELETE FROM agent_command")


@pytest.mark.parametrize("state", ["done", "failed", "superseded", "expired"])
async def test_an_ended_command_can_be_pruned(task: Database, state: str) -> None:
    await run(
        task, update("agent_command", f"state = {quoted(state)}"), "DELETE FROM agent_command"
    )
    assert await query(task, "SELECT id FROM agent_command") == []


async def test_a_number_is_queued_once_for_a_user_named_or_not(task: Database) -> None:
    await run(task, f"{LISTEN} ('l1', 't1', 'start_listening', NULL, 1)")
    with pytest.raises(DBAPIError):
        await run(task, f"{LISTEN} ('l2', 't1', 'stop_listening', 'human', 1)")
    with pytest.raises(DBAPIError):
        await run(task, f"{LISTEN} ('l3', 't1', 'stop_listening', NULL, 1)")
    await run(
        task,
        f"{LISTEN} ('l4', 't1', 'stop_listening', 'other', 1)",
        f"{LISTEN} ('l5', 't1', 'say', NULL, 1)",
        "UPDATE agent_command SET state = 'done' WHERE id = 'l1'",
        f"{LISTEN} ('l6', 't1', 'start_listening', NULL, 1)",
    )


async def test_unnumbered_presses_do_not_collide(task: Database) -> None:
    await run(
        task,
        f"{LISTEN} ('l1', 't1', 'start_listening', NULL, NULL)",
        f"{LISTEN} ('l2', 't1', 'stop_listening', NULL, NULL)",
    )
    assert await value(task, "SELECT count(*) FROM agent_command WHERE sequence IS NULL") == 3
