"""The daemon dies, or freezes, at each step of a press or a release; the user goes on.

Whatever the step: each command has its effect once, numbers rise, and in the end the microphone is
as the rows say. Each world has a lane that the application numbers and one that the daemon does.
"""

import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.crash.conftest import MakeDatabase
from tests.crash.worlds import Wish, Wished, World, open_world, run_side_by_side
from tests.daemon.talk import (
    PRESS,
    RELEASE,
    START,
    STOP,
    WALKIE,
    Wire,
    assert_rising,
    command,
    lane_of,
    pressings,
    settled,
    told,
)

pytestmark = pytest.mark.anyio

STEPS = ("claimed", "announced", "sending", "replied", "settling", "settled")
ACTIONS = {PRESS: START, RELEASE: STOP}
NUMBERED, UNNUMBERED = "numbered", "unnumbered"
LANES = (NUMBERED, UNNUMBERED)
TALK = (PRESS, RELEASE, PRESS)
"""What the user of each lane does. The microphone is open at the end."""
LONG_MS = 120_000
"""Longer than any recovery: no command expires meanwhile."""


@pytest.mark.parametrize("kind", [PRESS, RELEASE])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_killed_at_each_step_of_a_command(
    make_database: MakeDatabase, tmp_path: Path, database: str, kind: str
) -> None:
    works = {}
    for step in STEPS:
        url = await make_database(database)
        works[step] = partial(die, url, tmp_path / step, kind, step)
    await run_side_by_side(works)


@pytest.mark.parametrize("kind", [PRESS, RELEASE])
async def test_frozen_at_each_step_of_a_command_while_another_goes_on(
    make_database: MakeDatabase, tmp_path: Path, kind: str
) -> None:
    works = {}
    for step in STEPS:
        url = await make_database("postgresql")
        works[step] = partial(freeze_one_of_two, url, tmp_path / step, kind, step)
    await run_side_by_side(works)


async def die(url: str, folder: Path, kind: str, step: str) -> None:
    async with open_lanes(url, folder) as world:
        first = await world.start("one")
        await lead_to(world, kind, step, "SIGKILL")
        await first.ended()
        await go_on(world, kind)
        await world.start("two")
        await check_heard(world)
        assert_rising(await pressings(world.scene))


async def freeze_one_of_two(url: str, folder: Path, kind: str, step: str) -> None:
    async with open_lanes(url, folder) as world:
        first = await world.start("one")
        await lead_to(world, kind, step, "SIGSTOP")
        await go_on(world, kind)
        second = await world.start("two")
        # No number is judged here on its way: what the first still writes when it wakes may arrive,
        # under a number that is used up.
        await check_heard(world)
        first.process.send_signal(signal.SIGCONT)
        assert [await first.stop(), await second.stop()] == [0, 0]
        await check_heard(world)


@asynccontextmanager
async def open_lanes(url: str, folder: Path) -> AsyncIterator[World]:
    """Open a world of agents that listen while a button is held."""
    rows = [Wished(id_, WALKIE, Wish.RUN) for id_ in LANES]
    async with open_world(url, folder, rows) as world:
        world.scene.settings["lanes"] = {"gap_timeout_ms": 30_000, "command_ttl_ms": LONG_MS}
        yield world


async def lead_to(world: World, kind: str, step: str, name: str) -> None:
    """Lead a daemon to the step of such a command, where it dies or freezes."""
    await world.insert()
    await world.wait_phase("running")
    for number, each in enumerate(TALK, 1):
        if each == kind:
            world.set_trap(step, kind, name)
            await say(world, number)
            await world.wait_sprung(*world.scene.daemons)
            return
        await say(world, number)
        await settled(world.scene, *(f"{id_}-{number}" for id_ in LANES))


async def go_on(world: World, kind: str) -> None:
    """Let the users do the rest while nobody listens to them."""
    for number in range(TALK.index(kind) + 2, len(TALK) + 1):
        await say(world, number)


async def say(world: World, number: int) -> None:
    """Let the user of each lane do what comes as number so-and-so (from 1)."""
    given = {NUMBERED: {"sequence": str(number)}, UNNUMBERED: {}}
    await world.scene.app.write(
        *(command(id_, f"{id_}-{number}", TALK[number - 1], **given[id_]) for id_ in LANES)
    )


async def check_heard(world: World) -> None:
    """Wait until everything is said; compare what the vendor took with the rows."""
    for id_ in LANES:
        ids = [f"{id_}-{number}" for number in range(1, len(TALK) + 1)]
        rows = await settled(world.scene, *ids)
        assert [row["state"] for row in rows] == ["done"] * len(TALK), await told(world.scene)
        expected = [(ACTIONS[kind], row["sequence"]) for kind, row in zip(TALK, rows, strict=True)]
        numbers = [number for _, number in expected]
        assert numbers == sorted(set(numbers)), await told(world.scene)
        assert await taken(world, id_) == expected, await told(world.scene)
        lane = await lane_of(world.scene, id_)
        assert (bool(lane["listening"]), lane["last_sequence"]) == (True, numbers[-1])


async def taken(world: World, task_id: str) -> Sequence[Wire]:
    """Return the listening calls that had their effect on a task's agent, in order."""
    (agent,) = await world.scene.vendors.live(room_id=f"room-{task_id}")
    everything = await pressings(world.scene)
    return [one.wire for one in everything if one.handle == agent["handle"] and one.had_effect]
