"""Places of the lanes' loop: how many commands of an account are in flight, and who uses whose."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from orchestrator.daemon.lane_scheduler import LISTENING_IN_FLIGHT, OTHERS_IN_FLIGHT
from orchestrator.store.engine import Database
from tests.daemon.running import until
from tests.daemon.test_lane_scheduler import open_bench, press
from tests.loopback_vendor import hang
from tests.store.rows import insert, query, quoted, run, value

pytestmark = pytest.mark.anyio

MORE = 5
"""Commands more than there are places."""


@asynccontextmanager
async def before_a_vendor_that_hangs(database: Database, *tasks: str) -> AsyncIterator[None]:
    """Let these tasks run, and the lanes' loop of a daemon without limits beside the block."""
    async with open_bench(database, zego=hang) as bench:
        await bench.talk_to(*tasks)
        async with bench.turning({}):
            yield


def interrupt(task_id: str) -> str:
    """Return the INSERT of an interruption."""
    return insert("agent_command", task_id=quoted(task_id), kind="'interrupt'")


async def peak_until_all_left(database: Database, lanes: str, count: int) -> int:
    """Wait until so many lanes have sent something; return how many were in flight at most."""
    peak = 0
    told = f"SELECT count(lease_owner), count(*) FROM lane WHERE version > 0 AND {lanes}"  # noqa: S608 - a test's own words

    async def look() -> bool | None:
        nonlocal peak
        ((leased, left),) = await query(database, told)
        peak = max(peak, leased)
        return True if left == count else None

    async def awaited() -> str:
        return f"{count} lanes: {await query(database, told)}"

    await until(look, awaited)
    return peak


async def test_no_more_presses_are_in_flight_than_there_are_places(database: Database) -> None:
    users = [f"u{n}" for n in range(LISTENING_IN_FLIGHT + MORE)]
    async with before_a_vendor_that_hangs(database, "call"):
        await run(database, *(press("call", user) for user in users))
        peak = await peak_until_all_left(database, "user_id <> ''", len(users))
    assert peak == LISTENING_IN_FLIGHT == 64


async def test_no_more_other_commands_are_in_flight_than_they_have_places(
    database: Database,
) -> None:
    tasks = [f"t{n}" for n in range(OTHERS_IN_FLIGHT + MORE)]
    async with before_a_vendor_that_hangs(database, *tasks):
        await run(database, *(interrupt(id_) for id_ in tasks))
        peak = await peak_until_all_left(database, "user_id = ''", len(tasks))
    assert peak == OTHERS_IN_FLIGHT == 32


async def test_a_press_needs_none_of_the_places_that_other_commands_fill(
    database: Database,
) -> None:
    tasks = [f"t{n}" for n in range(OTHERS_IN_FLIGHT + MORE)]
    async with before_a_vendor_that_hangs(database, *tasks):
        await run(database, *(interrupt(id_) for id_ in tasks), press("t0", "human"))
        await peak_until_all_left(database, "user_id <> ''", 1)
    pressed_at = "(SELECT sent_at FROM agent_command WHERE kind = 'start_listening')"
    earlier = f"kind = 'interrupt' AND sent_at <= {pressed_at}"
    before = f"SELECT count(*) FROM agent_command WHERE {earlier}"  # noqa: S608 - a test's own words
    assert await value(database, before) == OTHERS_IN_FLIGHT
