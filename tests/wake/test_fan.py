"""One waker and several who wait: each hears every hint once, and none takes another's."""

from datetime import timedelta

import anyio
import pytest

from orchestrator.wake.fan import Fan, Seat
from orchestrator.wake.poll import PollWaker

pytestmark = pytest.mark.anyio

LONG = timedelta(minutes=10)
"""Longer than any test: a wait that ends was hinted."""
PATIENCE_S = 10


async def is_hinted(seat: Seat) -> bool:
    """Take the hint that a seat holds, if it holds one."""
    heard: list[bool] = []

    async def wait() -> None:
        await seat.wait(LONG)
        heard.append(True)

    async with anyio.create_task_group() as waiting:
        waiting.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        waiting.cancel_scope.cancel()
    return bool(heard)


async def test_a_hint_that_comes_while_nobody_waits_is_kept_once() -> None:
    seat = Seat()
    assert not await is_hinted(seat)
    seat.nudge()
    seat.nudge()
    assert await is_hinted(seat)
    assert not await is_hinted(seat)


async def test_a_seat_can_be_hinted_alone() -> None:
    first, second = Seat(), Seat()
    Fan(PollWaker(LONG), (first, second))
    first.nudge()
    assert await is_hinted(first)
    assert not await is_hinted(second)


async def test_all_seats_can_be_hinted_at_once_and_each_takes_its_own() -> None:
    seats = [Seat() for _ in range(3)]
    Fan(PollWaker(LONG), seats).nudge()
    assert [await is_hinted(seat) for seat in seats] == [True, True, True]
    assert not any([await is_hinted(seat) for seat in seats])


async def test_what_the_waker_hears_is_handed_to_every_seat() -> None:
    waker, seats = PollWaker(LONG), (Seat(), Seat())
    waker.nudge()
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as running:
            running.start_soon(Fan(waker, seats).run)
            for seat in seats:
                await seat.wait(LONG)
            running.cancel_scope.cancel()


async def test_a_waker_that_only_times_out_hints_as_well() -> None:
    seats = (Seat(), Seat())
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as running:
            running.start_soon(Fan(PollWaker(timedelta(milliseconds=1)), seats).run)
            for seat in seats:
                await seat.wait(LONG)
            running.cancel_scope.cancel()


async def test_a_wait_ends_without_a_hint() -> None:
    with anyio.fail_after(PATIENCE_S):
        await Seat().wait(timedelta(milliseconds=1))
