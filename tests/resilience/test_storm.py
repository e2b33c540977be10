"""`kill -9` at seeded points while users change their minds: the rows and the vendors agree again.

`$ORCHESTRATOR_STORM_SEEDS` (a number) runs so many histories on each database instead of three.
"""

import os
import random
from pathlib import Path

import anyio
import pytest

from tests.daemon.application import delete_task, quoted, update_task
from tests.daemon.customers import CUSTOMERS, VOLCENGINE, Customer
from tests.daemon.running import Scene, open_scene, task, until
from tests.resilience.conftest import MakeDatabase
from tests.resilience.convergence import describe, wait_converged
from tests.resilience.drill import shorten

pytestmark = pytest.mark.anyio

SEEDS = range(int(os.environ.get("ORCHESTRATOR_STORM_SEEDS", "3")))
AT_ONCE = 3
ROWS = 40
KILLS = 4
CALLS_BETWEEN = 25
"""Calls that a daemon answers at most before it is killed."""
MANY = 50
MANY_LEASE_S = 8
"""Long enough for all of them to be asked before the first is given up."""
MARGIN_S = 12.0
"""For the next daemon to start, and a machine that has other things to do."""


class Storm:
    """Users of one scene, who flip rows by a seed."""

    def __init__(self, scene: Scene, lots: random.Random) -> None:
        self.scene = scene
        self.lots = lots
        self.wanted: dict[str, str | None] = {}
        self.customers: dict[str, Customer] = {}

    async def begin(self) -> None:
        """Ask for all rows."""
        for number in range(ROWS):
            customer = CUSTOMERS[number % len(CUSTOMERS)]
            self.customers[f"storm-{number}"] = customer
        await self.scene.app.write(*(task(one, id_) for id_, one in self.customers.items()))
        self.wanted = dict.fromkeys(self.customers, "running")

    async def flip(self) -> None:
        """Change what is wanted of one to four rows, in one transaction."""
        ids = self.lots.sample(sorted(self.customers), k=self.lots.randint(1, 4))
        await self.scene.app.write(*(self._flip(id_) for id_ in ids))

    def _flip(self, id_: str) -> str:
        state = self.wanted[id_]
        if state is None:
            self.wanted[id_] = "running"
            return task(self.customers[id_], id_)
        if self.lots.random() < 0.3:
            self.wanted[id_] = None
            return delete_task(id_)
        self.wanted[id_] = flipped = "stopped" if state == "running" else "running"
        return update_task(id_, desired_state=quoted(flipped))

    async def until_calls(self, count: int) -> None:
        """Flip rows until the vendors have answered so many more calls."""
        target = len(await self.scene.vendors.calls()) + count

        async def look() -> bool | None:
            await self.flip()
            return True if len(await self.scene.vendors.calls()) >= target else None

        async def awaited() -> str:
            return f"{target} calls\n{await describe(self.scene)}"

        await until(look, awaited)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_killed_at_any_point_while_rows_flip(
    kind: str, make_database: MakeDatabase, tmp_path: Path
) -> None:
    wrong: dict[int, str] = {}
    places = anyio.CapacityLimiter(AT_ONCE)

    async def run_one(seed: int) -> None:
        async with places:
            folder = tmp_path / f"seed-{seed}"
            await anyio.Path(folder).mkdir()
            try:
                await kill_in_a_storm(await make_database(kind), folder, random.Random(seed))
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - told below
                wrong[seed] = f"{type(error).__name__}: {error}"

    async with anyio.create_task_group() as tasks:
        for seed in SEEDS:
            tasks.start_soon(run_one, seed)
    if wrong:
        pytest.fail("\n\n".join(f"=== seed {seed}\n{text}" for seed, text in wrong.items()))


async def kill_in_a_storm(database_url: str, folder: Path, lots: random.Random) -> None:
    """Kill one daemon after the other in the middle of its work; the last one ends it well."""
    async with open_scene(database_url, folder) as scene:
        shorten(scene)
        await scene.vendors.turn(zego_capacity=10 * ROWS)
        storm = Storm(scene, lots)
        await storm.begin()
        for number in range(KILLS):
            daemon = await scene.start_daemon(f"victim-{number}")
            await storm.until_calls(lots.randint(1, CALLS_BETWEEN))
            await daemon.kill()
        last = await scene.start_daemon("last")
        await storm.until_calls(CALLS_BETWEEN)
        await wait_converged(scene, storm.wanted)
        assert await last.stop() == 0


async def test_open_intents_are_asked_again_when_their_lease_is_over(scene: Scene) -> None:
    scene.settings["leases"] = {"ttl_s": MANY_LEASE_S}
    scene.account(VOLCENGINE)["call_timeout_ms"] = 6_000
    daemon = await scene.start_daemon()
    await scene.vendors.script(VOLCENGINE.start, "hang", n=MANY)
    ids = [f"open-{n}" for n in range(MANY)]
    await scene.app.write(*(task(VOLCENGINE, id_) for id_ in ids))
    await scene.wait_for_faults()
    await daemon.kill()
    await scene.start_daemon("next")
    with anyio.fail_after(MANY_LEASE_S + MARGIN_S):
        await scene.wait_for_calls(VOLCENGINE.start, 2 * MANY)
    await wait_converged(scene, dict.fromkeys(ids, "running"))
