from datetime import timedelta

import anyio
import pytest

from orchestrator.wake.base import Hint

pytestmark = pytest.mark.anyio

LONG = timedelta(seconds=10)
NO_TIME = timedelta(0)


async def test_hint_ends_a_wait() -> None:
    hint = Hint()
    came: list[bool] = []

    async def wait() -> None:
        came.append(await hint.wait(LONG))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        hint.give()
    assert came == [True]


async def test_hint_without_a_waiter_is_kept_once() -> None:
    hint = Hint()
    hint.give()
    hint.give()
    assert await hint.wait(LONG) is True
    assert await hint.wait(NO_TIME) is False


async def test_no_hint_is_a_time_out() -> None:
    assert await Hint().wait(timedelta(milliseconds=1)) is False


async def test_hint_is_not_lost_with_a_cancelled_wait() -> None:
    hint = Hint()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await hint.wait(LONG)
    hint.give()
    assert await hint.wait(LONG) is True
