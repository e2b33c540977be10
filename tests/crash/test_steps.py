"""The daemon dies, or freezes, at each step of each kind of call; its users change their minds.

Whatever the step: in the end the vendors' world equals the rows, everything that ended is proven to
have ended, and no row ever had two live agents. Each test runs one world for each step at the same
time, so that the horizon is waited for once.
"""

import signal
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.crash.conftest import MakeDatabase
from tests.crash.worlds import (
    PATIENCE_S,
    VENDORS,
    Wish,
    World,
    every_wish,
    open_world,
    run_side_by_side,
)
from tests.daemon.application import SQLITE
from tests.daemon.customers import TENCENT, ZEGO, Customer
from tests.daemon.running import Daemon

pytestmark = pytest.mark.anyio

STEPS = ("drawn", "claimed", "announced", "sent", "replied", "settling", "settled")
STOP_ALL = "UPDATE agent_task SET desired_state = 'stopped'"

LOST = (TENCENT, ZEGO)
"""Those that must be looked for, or removed from the room, when a start was lost."""


@dataclass(frozen=True)
class Kind:
    """A kind of call."""

    verb: str
    customers: tuple[Customer, ...]
    steps: tuple[str, ...] = STEPS


START = Kind("start", VENDORS, (*STEPS, "sending"))
STOP = Kind("stop", VENDORS)
POLL = Kind("poll", VENDORS)
FIND = Kind("find", LOST)
# No slot is drawn for a kick before it is claimed.
KICK = Kind("kick", LOST, STEPS[1:])

ACTIONS = {
    ("find", TENCENT): "DescribeAIConversation",
    ("find", ZEGO): "DescribeUserList",
    ("kick", TENCENT): "RemoveUserByStrRoomId",
    ("kick", ZEGO): "KickoutUser",
}


def action(kind: Kind, customer: Customer) -> str:
    """Return the vendor's name of the call."""
    usual = {"start": customer.start, "stop": customer.stop, "poll": customer.look}
    return usual.get(kind.verb) or ACTIONS[kind.verb, customer]


@pytest.mark.parametrize(
    ("kind", "database"),
    [
        # A start on both: its announce is what all the rest stands on.
        pytest.param(START, "sqlite", id="start-sqlite"),
        pytest.param(START, "postgresql", id="start-postgresql"),
        pytest.param(STOP, "sqlite", id="stop-sqlite"),
        pytest.param(POLL, "postgresql", id="poll-postgresql"),
        pytest.param(FIND, "sqlite", id="find-sqlite"),
        pytest.param(KICK, "postgresql", id="kick-postgresql"),
    ],
)
async def test_killed_at_each_step(
    make_database: MakeDatabase, tmp_path: Path, kind: Kind, database: str
) -> None:
    works = {}
    for step in kind.steps:
        url = await make_database(database)
        works[step] = partial(die, url, tmp_path / step, kind, step)
    await run_side_by_side(works)


@pytest.mark.parametrize("kind", [START, STOP, POLL, FIND, KICK], ids=lambda kind: kind.verb)
async def test_frozen_at_each_step_while_another_goes_on(
    make_database: MakeDatabase, tmp_path: Path, kind: Kind
) -> None:
    works = {}
    for step in kind.steps:
        url = await make_database("postgresql")
        works[step] = partial(freeze_one_of_two, url, tmp_path / step, kind, step)
    await run_side_by_side(works)


@pytest.mark.parametrize("kind", [START, STOP], ids=lambda kind: kind.verb)
async def test_frozen_at_each_step_with_nobody_to_go_on(
    make_database: MakeDatabase, tmp_path: Path, kind: Kind
) -> None:
    works = {}
    for step in kind.steps:
        url = await make_database("sqlite")
        works[step] = partial(freeze_the_only_one, url, tmp_path / step, kind, step)
    await run_side_by_side(works)


async def die(url: str, folder: Path, kind: Kind, step: str) -> None:
    async with open_world(url, folder, every_wish(kind.customers)) as world:
        await lead_to(world, kind, step, "SIGKILL")
        await world.change_minds()
        await world.start("two")
        await world.wait_settled()


async def freeze_one_of_two(url: str, folder: Path, kind: Kind, step: str) -> None:
    async with open_world(url, folder, every_wish(kind.customers)) as world:
        first = await lead_to(world, kind, step, "SIGSTOP")
        await world.change_minds()
        second = await world.start("two")
        await world.wait_taken_over("one")
        await world.wake(first, second)


async def freeze_the_only_one(url: str, folder: Path, kind: Kind, step: str) -> None:
    async with open_world(url, folder, every_wish(kind.customers)) as world:
        first = await lead_to(world, kind, step, "SIGSTOP")
        held = is_locked(url)
        if not held:
            await world.change_minds()
        await world.wait_leases_over("one")
        first.process.send_signal(signal.SIGCONT)
        if held:
            await world.change_minds()
        await world.wait_settled()
        assert await first.stop() == 0


def is_locked(url: str) -> bool:
    """Return whether somebody holds the one lock of an SQLite file.

    A daemon that freezes at some step of a call may be writing something else in that moment.
    """
    path = url.removeprefix(SQLITE)
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as user:
        try:
            user.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        user.execute("ROLLBACK")
    return False


async def lead_to(world: World, kind: Kind, step: str, name: str) -> Daemon:
    """Lead a daemon to the step of such a call, where it dies or freezes."""
    first = await world.start("one")
    await prepare(world, kind)
    if step == "sent":
        for customer in kind.customers:
            await world.scene.vendors.script(action(kind, customer), "delay_reply", ms=800)
    else:
        world.set_trap(step, kind.verb, name)
    if kind is START:
        await world.insert()
    elif kind is not POLL:
        await world.scene.app.write(STOP_ALL)
    if step == "sent":
        await world.scene.wait_for_faults(PATIENCE_S)
        first.process.send_signal(signal.Signals[name])
    else:
        await world.wait_sprung(first)
    if name == "SIGKILL":
        await first.ended()
    return first


async def prepare(world: World, kind: Kind) -> None:
    """Bring the world to where the next thing to happen is such a call."""
    if kind in (STOP, POLL):
        await world.insert()
        await world.wait_phase("running")
    if kind in (FIND, KICK):
        await lose_starts(world, kind)


async def lose_starts(world: World, kind: Kind) -> None:
    """Let starts have their effect and lose their replies.

    No trap may be set before all of them have left: on a busy machine the first is given up, and
    looked for, before the last has had its slot.
    """
    vendors = world.scene.vendors
    # With its TaskId Tencent would tell the handle, and nobody had to be removed from a room.
    await vendors.turn(tencent_describe_without_task_id=kind is KICK)
    for customer in kind.customers:
        await vendors.script(customer.start, "hang", n=len(Wish))
    await world.insert()
    for customer in kind.customers:
        await world.scene.wait_for_calls(customer.start, len(Wish), PATIENCE_S)
