"""`kill -9` at random points while users flip their rows: any seed, any database, any moment.

A seed decides who flips what and how many calls the vendors see between two kills. More seeds:
ORCHESTRATOR_CRASH_SEEDS=100.
"""

import os
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.crash.conftest import MakeDatabase
from tests.crash.worlds import PATIENCE_S, Wish, Wished, World, open_world
from tests.daemon.application import delete_task, quoted, update_task
from tests.daemon.customers import TENCENT, VOLCENGINE, VOLCENGINE_FIRST, ZEGO
from tests.daemon.running import task, until

pytestmark = pytest.mark.anyio

SEEDS = int(os.environ.get("ORCHESTRATOR_CRASH_SEEDS", "1"))
ROWS = 60
KILLS = 6
CALLS_BETWEEN = 40
ZEGO_LIMIT = 10
"""Instances of one AppId at a time, ours and the lost ones together."""
PER_SECOND: Mapping[tuple[str, str], int] = {
    (VOLCENGINE.name, VOLCENGINE.start): 60,
    (VOLCENGINE_FIRST.name, VOLCENGINE.start): 60,
    (TENCENT.name, TENCENT.start): 20,
    (ZEGO.name, ZEGO.start): 10,
}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_killed_at_random(
    make_database: MakeDatabase, tmp_path: Path, seed: int, database: str
) -> None:
    lots = random.Random(seed)
    url = await make_database(database)
    async with open_world(url, tmp_path / "world", draw_rows(lots)) as world:
        await world.insert()
        calls = 0
        for kill in range(KILLS):
            daemon = await world.start(f"daemon-{kill}")
            calls += lots.randrange(1, CALLS_BETWEEN)
            await flip_until(world, lots, calls)
            await daemon.kill()
        last = await world.start("last")
        await restore(world)
        await world.change_minds()
        await world.wait_settled()
        worst = await world.scene.vendors.busiest_seconds()
        assert all(worst.get(key, 0) <= most for key, most in PER_SECOND.items()), worst
        assert await last.stop() == 0


def draw_rows(lots: random.Random) -> list[Wished]:
    """Return rows whose users' last words are drawn; ZEGO has fewer places than others."""
    customers = [VOLCENGINE, VOLCENGINE_FIRST, TENCENT] * 19 + [ZEGO] * (ROWS - 57)
    return [
        Wished(f"row-{number}", customer, lots.choice(list(Wish)))
        for number, customer in enumerate(customers)
    ]


async def flip_until(world: World, lots: random.Random, calls: int) -> None:
    """Change a few rows at a time until the vendors have seen so many calls."""

    async def look() -> bool | None:
        if len(await world.scene.vendors.calls()) >= calls:
            return True
        await world.scene.app.write(*(flip(lots, row) for row in lots.sample(list(world.rows), 3)))
        return None

    async def awaited() -> str:
        return f"{calls} calls\n{await world.describe()}"

    await until(look, awaited, PATIENCE_S)


def flip(lots: random.Random, row: Wished) -> str:
    """Return some change of a row; one that is not there is left alone, or comes back."""
    match lots.randrange(8):
        case 0:
            return delete_task(row.id)
        case 1:
            return bring_back(row)
        case 2:
            return update_task(row.id, restart_token=quoted(str(lots.random())))
        case number:
            return update_task(row.id, desired_state="'stopped'" if number % 2 else "'running'")


def bring_back(row: Wished) -> str:
    return f"{task(row.customer, row.id)} ON CONFLICT (id) DO NOTHING"


async def restore(world: World) -> None:
    """Insert again what was deleted on the way."""
    await world.scene.app.write(*(bring_back(row) for row in world.rows))
