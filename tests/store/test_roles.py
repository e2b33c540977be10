"""`migrations/roles.sql`: who may do what on Postgres."""

from collections.abc import AsyncIterator
from importlib.resources import files

import asyncpg
import pytest

from tests.store.rows import COMMAND, TASK

pytestmark = pytest.mark.anyio

Connection = asyncpg.Connection

ROLES = files("migrations").joinpath("roles.sql").read_text(encoding="utf-8")

OWNER = "INSERT INTO task_owner (name, heartbeat_timeout_s) VALUES ('o', 5)"
CONTROL = "INSERT INTO account_control (account, paused) VALUES ('acc', true)"
ORPHAN = "INSERT INTO orphan_task (account, vendor_task_id) VALUES ('acc', 'V1')"
WITHDRAW = "DELETE FROM orphan_task"
CANCEL = "INSERT INTO task_change (task_id, what) VALUES ('c1', 'cancel_command')"
ASSUME = "INSERT INTO task_change (task_id, what) VALUES ('t1', 'assume_gone')"
FORGED = "INSERT INTO task_change (task_id, what) VALUES ('t1', 'ledger')"
ACTOR = "INSERT INTO task_change (task_id, what, actor) VALUES ('c1', 'cancel_command', 'me')"
STATUS = "UPDATE agent_status SET phase = 'stopped'"
SETTLE = "UPDATE agent_command SET state = 'done'"
LEDGER = "UPDATE vendor_agent SET ended_at = now()"
TAKE = "DELETE FROM task_change"
STOP = "UPDATE agent_task SET desired_state = 'stopped'"
DELETE = "DELETE FROM agent_task"
LOOK = "SELECT * FROM task_explain, installation, task_change"
TABLE = "CREATE TABLE more (x int)"
HEARTBEAT = "UPDATE task_owner SET heartbeat_at = now()"
GAP = "UPDATE installation SET amnesty_at = now()"
BEAT = "UPDATE daemon SET heartbeat_at = now()"
HISTORY = "INSERT INTO agent_event (event) VALUES ('call')"
REWRITE = "UPDATE agent_event SET message = ''"
HEAR = "LISTEN orchestrator_status"
OFF = "SET session_replication_role = replica"

APP = {OWNER, ORPHAN, CANCEL, STOP, DELETE, LOOK, COMMAND, HEARTBEAT, HEAR}
OPERATOR = APP | {CONTROL, ASSUME, WITHDRAW}
DAEMON = {ORPHAN, CANCEL, ASSUME, FORGED, ACTOR, STATUS, SETTLE, LEDGER, TAKE, DELETE, LOOK}
DAEMON |= {CONTROL, COMMAND, WITHDRAW, GAP, BEAT, HISTORY, REWRITE, HEAR}
EVERYTHING = OPERATOR | DAEMON | {TABLE, OFF}
ALLOWED = {
    "orchestrator_app": APP,
    "orchestrator_operator": OPERATOR,
    "orchestrator_daemon": DAEMON,
    "orchestrator_reader": {LOOK, HEAR},
}


@pytest.fixture
async def owner(postgres_url: str) -> AsyncIterator["Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(ROLES)
    yield connection
    await connection.close()


async def test_the_file_runs_again(owner: "Connection[asyncpg.Record]") -> None:
    await owner.execute(ROLES)


@pytest.mark.parametrize("role", ALLOWED)
async def test_each_role_may_do_its_own_and_nothing_else(
    owner: "Connection[asyncpg.Record]", role: str
) -> None:
    await owner.execute(TASK)
    done = set()
    for statement in sorted(EVERYTHING):
        transaction = owner.transaction()
        await transaction.start()
        await owner.execute(f"SET LOCAL ROLE {role}")
        try:
            await owner.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            pass
        else:
            done.add(statement)
        await transaction.rollback()
    assert done == ALLOWED[role]


async def test_an_applications_write_becomes_due_work_in_its_name(
    owner: "Connection[asyncpg.Record]",
) -> None:
    await owner.execute("SET ROLE orchestrator_app")
    await owner.execute(TASK)
    await owner.execute(COMMAND)
    assert await owner.fetchval("SELECT count(*) FROM agent_status") == 1
    assert await owner.fetchval("SELECT actor FROM task_change") == "postgres"
    assert await owner.fetchval("SELECT position FROM agent_command") == 1
