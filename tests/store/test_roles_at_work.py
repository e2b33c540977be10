"""The four Postgres roles at work, as logins that own nothing, in a schema that is not `public`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import URL, make_url

from orchestrator.store import migrate
from tests.daemon.application import delete_task
from tests.daemon.running import Scene, open_scene, until
from tests.daemon.talk import WALKIE, press
from tests.store.test_roles import ROLES
from tests.store.test_views_tasks import VIEWS

pytestmark = pytest.mark.anyio

Connection = asyncpg.Connection

SCHEMA = "calls"
LOGINS = ("daemon", "app", "operator", "reader")
PASSWORD = "plainly-fake"
BILLED = "INSERT INTO orphan_task (id, account, vendor_task_id) VALUES ('bill', 'zego', '77')"
PAUSE = "UPDATE account_control SET paused = true WHERE account = 'zego'"
FUNCTIONS = """
    SELECT proname, prosecdef, proconfig FROM pg_proc
    WHERE pronamespace = $1::regnamespace AND prorettype = 'trigger'::regtype
"""


@dataclass(frozen=True)
class Served:
    """A migrated schema, and who may log in to it."""

    database: URL
    suffix: str

    def login(self, who: str) -> str:
        return f"{who}_{self.suffix}"

    def url(self, who: str) -> str:
        own = self.database.set(username=self.login(who), password=PASSWORD)
        return own.render_as_string(hide_password=False)

    @asynccontextmanager
    async def connected(self, who: str) -> AsyncIterator["Connection[asyncpg.Record]"]:
        connection = await asyncpg.connect(self.url(who))
        try:
            yield connection
        finally:
            await connection.close()


@pytest.fixture
async def owner(empty_postgres_url: str) -> AsyncIterator["Connection[asyncpg.Record]"]:
    """Whoever migrated."""
    await migrate.upgrade(empty_postgres_url, schema=SCHEMA)
    connection = await asyncpg.connect(empty_postgres_url)
    await connection.execute(f"SET search_path = {SCHEMA}")
    yield connection
    await connection.close()


@pytest.fixture
async def served(
    owner: "Connection[asyncpg.Record]", empty_postgres_url: str
) -> AsyncIterator[Served]:
    """A login for each role, which finds the tables by its search_path."""
    served = Served(make_url(empty_postgres_url), uuid4().hex[:8])
    await owner.execute(ROLES)
    for who in LOGINS:
        login, role = served.login(who), f"orchestrator_{who}"
        await owner.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{PASSWORD}' IN ROLE {role}")
        await owner.execute(f"ALTER ROLE {login} SET search_path = {SCHEMA}")
    yield served
    for who in LOGINS:
        await owner.execute(f"DROP ROLE {served.login(who)}")


async def test_each_does_its_work_with_no_more_than_its_role(
    served: Served, tmp_path: Path
) -> None:
    async with open_scene(served.url("app"), tmp_path) as scene, served.connected("reader") as who:
        scene.settings["database"] |= {"url": served.url("daemon"), "schema": SCHEMA}
        await scene.start_daemon()
        await scene.ask_for(WALKIE, "call")
        await scene.wait("call", phase="running")
        await scene.app.write(press("call", "press"))
        await wait_for(scene, "SELECT state = 'done' FROM agent_command")
        async with served.connected("operator") as operator:
            await operator.execute(PAUSE)
            await operator.execute(BILLED)
        await wait_for(scene, "SELECT phase = 'stopped' FROM orphan_task")
        await scene.app.write(delete_task("call"))
        await scene.wait_gone("call")
        assert await scene.vendors.live() == []
        assert "permission denied" not in scene.logs()
        for view in VIEWS:
            await who.fetch(f"SELECT * FROM {view}")  # noqa: S608 - from the list of the views
        actors = await who.fetch("SELECT DISTINCT actor FROM agent_event WHERE event = 'wish'")
        assert {row["actor"] for row in actors} >= {served.login("app"), served.login("operator")}


async def wait_for(scene: Scene, question: str) -> None:
    """Wait until the only row of a SELECT is true."""

    async def look() -> bool | None:
        rows = await scene.app.read(question)
        return True if [list(row.values()) for row in rows] == [[True]] else None

    async def awaited() -> str:
        told = await scene.app.read("SELECT explanation FROM command_explain")
        return f"{question}\n{told}\n{scene.logs()}"

    await until(look, awaited)


@pytest.mark.parametrize("who", LOGINS)
async def test_no_role_makes_or_changes_a_table(served: Served, who: str) -> None:
    async with served.connected(who) as connection:
        for statement in (
            "CREATE TABLE more (x int)",
            "ALTER TABLE agent_task ADD COLUMN more int",
            "DROP VIEW task_overview",
            "CREATE OR REPLACE FUNCTION wake_daemons() RETURNS trigger AS '' LANGUAGE plpgsql",
            "ALTER TABLE agent_task DISABLE TRIGGER ALL",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_what_a_trigger_runs_sees_its_own_schema_first(
    owner: "Connection[asyncpg.Record]",
) -> None:
    """With its owner's rights, and with a session's temporary tables last."""
    found = await owner.fetch(FUNCTIONS, SCHEMA)
    assert len(found) > 10
    assert {(row["prosecdef"], tuple(row["proconfig"])) for row in found} == {
        (True, (f"search_path={SCHEMA}, pg_temp",))
    }


async def test_a_temporary_table_stands_in_for_none_of_ours(served: Served) -> None:
    async with served.connected("app") as app:
        await app.execute("CREATE TEMPORARY TABLE task_change (task_id text, what text)")
        await app.execute("CREATE TEMPORARY TABLE agent_status (LIKE calls.agent_status)")
        await app.execute(
            "INSERT INTO agent_task (id, account, room_id, user_id) VALUES ('t', 'a', 'r', 'u')"
        )
        written = (
            "SELECT (SELECT count(*) FROM calls.task_change), count(*) FROM calls.agent_status"
        )
        assert tuple(await app.fetchrow(written) or ()) == (1, 1)


async def test_the_file_runs_again_in_its_schema(
    owner: "Connection[asyncpg.Record]", served: Served
) -> None:
    await owner.execute(ROLES)
    async with served.connected("reader") as reader:
        assert await reader.fetch("SELECT * FROM task_explain") == []
