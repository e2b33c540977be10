from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from orchestrator.wake.base import Waker
from orchestrator.wake.poll import PollWaker
from orchestrator.wake.postgres import PostgresWaker
from orchestrator.wake.sqlite import SqliteWaker

pytestmark = pytest.mark.anyio

SHORT = timedelta(milliseconds=1)
NEVER = timedelta(hours=1)

# The type checker asks whether each of them is what the scheduler expects.
WAKERS: list[Waker] = [
    PollWaker(SHORT),
    SqliteWaker(Path("absent.db")),
    PostgresWaker("postgresql://nobody@127.0.0.1:9/none"),
]


@pytest.mark.parametrize(
    ("every", "at_most"), [(SHORT, NEVER), (NEVER, SHORT)], ids=["period", "timeout"]
)
async def test_wait_ends_with_the_shorter_one(every: timedelta, at_most: timedelta) -> None:
    async with PollWaker(every) as waker:
        with anyio.fail_after(10):
            await waker.wait(at_most)


async def test_nudge_ends_the_wait_and_is_kept() -> None:
    async with PollWaker(NEVER) as waker:
        waker.nudge()
        with anyio.fail_after(10):
            await waker.wait(NEVER)
