"""A daemon that freezes in the middle of a command: what it has locked is free again (Postgres).

While the driver prepares a statement it has sent no Sync, so the server waits for the rest of the
command, and neither the limit of an idle transaction nor that of a statement counts.
"""

import asyncpg
import pytest
from sqlalchemy import text

from orchestrator.store import postgres
from orchestrator.store.engine import open_database
from orchestrator.store.frozen import BOUNDS_TRANSACTIONS
from orchestrator.store.postgres import PostgresDatabase
from tests.crash.conftest import MakeDatabase
from tests.crash.half_a_command import say_half_a_command
from tests.crash.worlds import PATIENCE_S
from tests.daemon.running import until

pytestmark = pytest.mark.anyio

LOCK = "SELECT mark FROM installation FOR UPDATE"

SESSIONS = "SELECT state, wait_event, xact_start FROM pg_stat_activity"


async def test_a_lock_of_a_half_spoken_command_is_not_held_for_long(
    make_database: MakeDatabase,
) -> None:
    url = await make_database("postgresql")
    user = await asyncpg.connect(url)
    if user.get_server_version().major < BOUNDS_TRANSACTIONS:
        await user.close()
        pytest.skip("a server of one's own that needs help: test_oldest_postgres.py tries that")
    database = open_database(url)
    assert isinstance(database, PostgresDatabase)
    frozen = await postgres.connect(database._rest)
    try:
        await frozen.execute(text(LOCK))
        raw = await frozen.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        say_half_a_command(driver)

        async def look() -> bool | None:
            free = await user.fetch(f"{LOCK} SKIP LOCKED")
            return True if free else None

        async def awaited() -> str:
            return f"the end of one of {await user.fetch(SESSIONS)}"

        assert await look() is None
        await until(look, awaited, PATIENCE_S)
    finally:
        await frozen.invalidate()
        await frozen.close()
        await database.close()
        await user.close()
