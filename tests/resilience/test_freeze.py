"""SIGSTOP at each step of each kind of call, for longer than the lease, and what comes after it.

A frozen daemon wakes in the middle of a call that is not its own any more. What it then still sends
is a zombie: the vendor takes it while its signature is good, and refuses it later.
"""

import signal
from pathlib import Path

import pytest

from orchestrator.core.model import Verb
from tests.daemon.running import Daemon
from tests.resilience.conftest import MakeDatabase
from tests.resilience.drill import HORIZON_S, LEASE_S, STEPS, Blow, Drill, open_drill, run_all

pytestmark = pytest.mark.anyio

BLOWS = [Blow(step, verb, signal.SIGSTOP) for verb, steps in STEPS.items() for step in steps]
ZOMBIES = [
    Blow("leaving", verb, signal.SIGSTOP) for verb in (Verb.START, Verb.STOP, Verb.FIND, Verb.KICK)
]
ALONE = [
    Blow(step, verb, signal.SIGSTOP)
    for verb in (Verb.START, Verb.STOP)
    for step in ("claiming", "claimed", "answered", "settling")
]


async def test_another_daemon_takes_over_and_the_frozen_one_wakes_when_all_is_done(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    async def freeze(blow: Blow) -> None:
        url, folder = await make_database("postgresql"), tmp_path / f"{blow.verb}-{blow.step}"
        async with open_drill(url, folder, blow.customers) as drill:
            frozen = await drill.strike(blow)
            heir = await drill.scene.start_daemon("two")
            await drill.wait_converged()
            await wake(drill, frozen)
            assert await heir.stop() == 0

    await run_all(BLOWS, freeze)


async def test_a_zombie_whose_signature_is_good_comes_while_another_works(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    async def freeze(blow: Blow) -> None:
        url, folder = await make_database("postgresql"), tmp_path / f"{blow.verb}-{blow.step}"
        async with open_drill(url, folder, blow.customers) as drill:
            frozen = await drill.strike(blow)
            heir = await drill.scene.start_daemon("two")
            await drill.wait_call_by("two")
            await wake(drill, frozen)
            assert await heir.stop() == 0

    await run_all(ZOMBIES, freeze)


@pytest.mark.parametrize(
    ("blows", "seconds"),
    [(ALONE, LEASE_S + 1), (ZOMBIES, HORIZON_S)],
    ids=["lease", "signature"],
)
async def test_the_only_daemon_is_frozen_for_longer_than(
    blows: list[Blow], seconds: int, make_database: MakeDatabase, tmp_path: Path
) -> None:
    async def freeze(blow: Blow) -> None:
        url, folder = await make_database("sqlite"), tmp_path / f"{blow.verb}-{blow.step}"
        async with open_drill(url, folder, blow.customers) as drill:
            frozen = await drill.strike(blow)
            await drill.wait_seconds(seconds)
            frozen.process.send_signal(signal.SIGCONT)
            if drill.holds_lock(blow):
                await drill.change_minds()
            await drill.wait_converged()
            assert await frozen.stop() == 0

    await run_all(blows, freeze)


async def wake(drill: Drill, frozen: Daemon) -> None:
    """Let the frozen daemon go on and end in peace; the world is as it has to be after that."""
    frozen.process.send_signal(signal.SIGCONT)
    assert await frozen.stop() == 0
    await drill.wait_converged()
