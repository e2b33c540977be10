"""A daemon that slept for three leases wakes: what it had announced is somebody else's by then."""

import signal
from functools import partial
from pathlib import Path

import pytest

from tests.crash.conftest import MakeDatabase
from tests.crash.worlds import (
    LEASE_S,
    PATIENCE_S,
    Wish,
    Wished,
    World,
    open_world,
    run_side_by_side,
)
from tests.daemon.application import Row
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO, Customer
from tests.daemon.running import until

pytestmark = pytest.mark.anyio

LEASES = 3
ROWS = "SELECT task_id, phase, incarnation, vendor_task_id, end_reason FROM agent_status"


@pytest.mark.parametrize("step", ["announced", "replied"])
async def test_a_daemon_that_slept_sends_nothing_and_settles_nothing_that_it_lost(
    make_database: MakeDatabase, tmp_path: Path, step: str
) -> None:
    works = {}
    for customer in (VOLCENGINE, TENCENT, ZEGO):
        url = await make_database("postgresql")
        works[customer.name] = partial(oversleep, url, tmp_path / customer.name, customer, step)
    await run_side_by_side(works)


async def oversleep(url: str, folder: Path, customer: Customer, step: str) -> None:
    async with open_world(url, folder, [Wished("lost", customer, Wish.RUN)]) as world:
        first = await world.start("one")
        world.set_trap(step, "start", "SIGSTOP")
        await world.insert()
        await world.wait_sprung(first)
        second = await world.start("two")
        await world.wait_taken_over("one")
        await world.wait_settled()
        await wait_leases(world)
        assert await second.stop() == 0
        sent = len(await world.scene.vendors.calls(customer.start))
        before = await world.scene.app.read(ROWS)
        first.process.send_signal(signal.SIGCONT)
        assert await first.stop() == 0
        assert len(await world.scene.vendors.calls(customer.start)) == sent
        assert as_dicts(await world.scene.app.read(ROWS)) == as_dicts(before)
        assert len(await world.scene.vendors.live()) == 1


def as_dicts(rows: list[Row]) -> list[dict[str, object]]:
    return [dict(row) for row in rows]


async def wait_leases(world: World) -> None:
    """Wait until three leases have passed since the sleeper last said that it runs."""
    ago = world.scene.app.in_seconds(-LEASES * LEASE_S)
    asleep = f"SELECT id FROM daemon WHERE name = 'one' AND heartbeat_at < {ago}"  # noqa: S608 - a test's own words

    async def look() -> bool | None:
        return True if await world.scene.app.read(asleep) else None

    async def awaited() -> str:
        return f"three leases\n{await world.describe()}"

    await until(look, awaited, PATIENCE_S)
