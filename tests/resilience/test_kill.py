"""`kill -9` at each step of each kind of call, and the next daemon finds its way."""

import signal
from pathlib import Path

import pytest

from tests.resilience.conftest import MakeDatabase
from tests.resilience.drill import STEPS, Blow, open_drill, run_all

pytestmark = pytest.mark.anyio

BLOWS = [Blow(step, verb, signal.SIGKILL) for verb, steps in STEPS.items() for step in steps]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_daemon_killed_at_any_step(
    kind: str, make_database: MakeDatabase, tmp_path: Path
) -> None:
    async def kill(blow: Blow) -> None:
        url, folder = await make_database(kind), tmp_path / f"{blow.verb}-{blow.step}"
        async with open_drill(url, folder, blow.customers) as drill:
            await drill.strike(blow)
            heir = await drill.scene.start_daemon("two")
            await drill.wait_converged()
            assert await heir.stop() == 0

    await run_all(BLOWS, kill)
