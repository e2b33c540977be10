"""Thousands of calls were announced when the daemon was killed: how soon all are asked again.

10,000 as the design has it: ORCHESTRATOR_CRASH_INTENTS=10000; fewer in the usual run.
"""

import os
from pathlib import Path

import anyio
import pytest

from orchestrator.app import build
from orchestrator.config import load
from orchestrator.core.bucket import SECOND_US, WINDOW_US
from orchestrator.daemon.book import Book
from orchestrator.log import Redactor
from tests.crash.conftest import MakeDatabase
from tests.crash.worlds import LEASE_S, PATIENCE_S, Wish, Wished, World, open_world
from tests.daemon.customers import VOLCENGINE
from tests.daemon.running import until
from tests.store import claiming

pytestmark = pytest.mark.anyio

MANY = int(os.environ.get("ORCHESTRATOR_CRASH_INTENTS", "300"))
LIMIT = 60
"""Starts per second that the vendor takes."""
SILENT = "SELECT task_id FROM agent_status WHERE intent IS NULL LIMIT 100"
SLACK_S = 10.0
"""For a process to start, on a busy machine."""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_all_open_intents_are_asked_again(
    make_database: MakeDatabase, tmp_path: Path, database: str
) -> None:
    url = await make_database(database)
    rows = [Wished(f"row-{number}", VOLCENGINE, Wish.RUN) for number in range(MANY)]
    async with open_world(url, tmp_path / "world", rows) as world:
        world.scene.account(VOLCENGINE)["qps"] = {VOLCENGINE.start: LIMIT}
        await world.insert()
        await announce_all(world)
        daemon = await world.start("one")
        waited_s = await wait_asked(world)
        bound_s = LEASE_S + MANY * WINDOW_US / SECOND_US / LIMIT + SLACK_S
        print(f"{MANY} open intents: all asked again after {waited_s:.1f} s, bound {bound_s:.1f} s")  # noqa: T201 - for people
        assert waited_s < bound_s
        await world.wait_settled()
        assert len(await world.scene.vendors.live()) == MANY
        assert await daemon.stop() == 0


async def announce_all(world: World) -> None:
    """Announce a start of every row and send none, as a daemon that is killed in that moment."""
    setup = build(load(world.scene.write_config("dead"), {}), Redactor())
    desk = claiming.make_desk(Book(setup.keys), "dead", lease=setup.lease)
    try:
        dead = await claiming.Daemon(setup.database, desk).ready()
        room = dict.fromkeys(claiming.full_room(VOLCENGINE.name), MANY)
        while silent := await world.scene.app.read(SILENT):
            await dead.claim(*(row["task_id"] for row in silent), room=dict(room))
    finally:
        await setup.database.close()


async def wait_asked(world: World) -> float:
    """Wait until the vendor has heard of every row; return how many seconds that took."""
    began = anyio.current_time()

    async def look() -> bool | None:
        return True if len(await world.scene.vendors.live()) == MANY else None

    async def awaited() -> str:
        return f"{MANY} agents, not {len(await world.scene.vendors.live())}\n{world.scene.logs()}"

    await until(look, awaited, PATIENCE_S + MANY / 40)
    return anyio.current_time() - began
