"""The limiter on a real database: no window holds too much, whoever draws, and nothing is lost."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from orchestrator.clock import boot_ns
from orchestrator.core.bucket import GRACE_US, SECOND_US, WINDOW_US
from orchestrator.daemon.limiter import LOOKAHEAD_US, Action, Limiter, Ticket
from orchestrator.store import pace
from orchestrator.store.engine import Connection, Database, StatementError, is_passing
from orchestrator.store.engine import now as database_now
from tests.store.rows import query

pytestmark = pytest.mark.anyio

CALL = Action(account="volc", name="StartVoiceChat")
LIMIT = 6


def limiter(database: Database, limit: int = LIMIT) -> Limiter:
    return Limiter(database, {CALL: limit})


async def drawn(one: Limiter, count: int, *, keep_half: bool = False) -> list[Ticket]:
    return await one.draw(CALL, count, keep_half=keep_half)


def worst_window(slots: Sequence[int]) -> int:
    """Return the most calls in any second, each as late as its grace allows or as early."""
    ordered = sorted(slots)
    return max(
        sum(first + GRACE_US <= slot + GRACE_US and slot < first + GRACE_US + SECOND_US
            for slot in ordered)
        for first in ordered
    )  # fmt: skip


async def test_the_whole_limit_can_be_drawn_at_once_and_no_more(database: Database) -> None:
    one = limiter(database)
    assert len(await drawn(one, LIMIT + 5)) == LIMIT
    assert await drawn(one, 1) == []


async def test_four_daemons_together_never_exceed_a_window(database: Database) -> None:
    slots: list[int] = []

    async def drawer() -> None:
        one = limiter(database)
        while len(slots) < 3 * LIMIT:
            try:
                slots.extend(ticket.slot for ticket in await drawn(one, 2))
            except StatementError as error:
                # A server that stands still while it commits holds the others up for longer than
                # they wait. They draw again in their next pass.
                if not is_passing(error):
                    raise

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(drawer)
    assert worst_window(slots) <= LIMIT
    ordered = sorted(slots)
    assert all(b - a >= WINDOW_US for a, b in zip(ordered, ordered[LIMIT:], strict=False))


async def test_half_is_kept_for_those_who_may_not_wait(database: Database) -> None:
    polls, stops = limiter(database), limiter(database)
    assert len(await drawn(polls, LIMIT, keep_half=True)) == LIMIT // 2
    assert await drawn(polls, LIMIT, keep_half=True) == []
    assert len(await drawn(stops, LIMIT)) == LIMIT - LIMIT // 2


async def test_an_empty_draw_says_until_when_drawing_is_in_vain(database: Database) -> None:
    one, before_ns = limiter(database), boot_ns()
    first = await drawn(one, LIMIT)
    assert one.opens_ns(CALL, keep_half=False) == 0
    assert await drawn(one, 1) == []
    wait_us = (one.opens_ns(CALL, keep_half=False) - first[0].opens_ns) / 1000
    took_us = (boot_ns() - before_ns) / 1000
    assert WINDOW_US - took_us < wait_us < WINDOW_US + took_us


async def test_an_empty_draw_of_half_says_when_the_half_opens(database: Database) -> None:
    one, before_ns = limiter(database), boot_ns()
    first = await drawn(one, LIMIT, keep_half=True)
    assert await drawn(one, 1, keep_half=True) == []
    wait_us = (one.opens_ns(CALL, keep_half=True) - first[0].opens_ns) / 1000
    took_us = (boot_ns() - before_ns) / 1000
    assert WINDOW_US - took_us < wait_us < WINDOW_US + took_us
    assert one.opens_ns(CALL, keep_half=False) == 0


async def test_where_all_is_closed_the_half_is_too(database: Database) -> None:
    one = limiter(database)
    await drawn(one, LIMIT)
    assert await drawn(one, 1) == []
    assert one.opens_ns(CALL, keep_half=True) == one.opens_ns(CALL, keep_half=False) > 0


async def test_what_is_given_back_can_be_drawn_at_once(database: Database) -> None:
    one = limiter(database)
    tickets = await drawn(one, LIMIT)
    assert await drawn(one, 1) == []
    await one.give_back(tickets[2:4])
    assert one.opens_ns(CALL, keep_half=False) == 0
    again = await drawn(one, LIMIT)
    assert len(again) == 2
    assert await drawn(limiter(database), 1) == []


async def test_a_throttled_action_is_closed_for_as_long_as_the_vendor_says(
    database: Database,
) -> None:
    one = limiter(database)
    await one.throttle(CALL, timedelta(seconds=30))
    other = limiter(database)
    assert await drawn(other, 1) == []
    assert other.opens_ns(CALL, keep_half=False) - boot_ns() > 29 * 10**9


async def test_without_a_word_of_the_vendor_s_it_is_closed_for_a_second(
    database: Database,
) -> None:
    one, before_ns = limiter(database), boot_ns()
    await one.throttle(CALL, None)
    assert await drawn(one, 1) == []
    opens_ns = one.opens_ns(CALL, keep_half=False)
    assert before_ns + 10**9 <= opens_ns <= boot_ns() + 10**9


async def test_an_action_without_a_limit_is_not_limited(database: Database) -> None:
    one = limiter(database, 0)
    assert not one.is_limited(CALL)
    assert not one.is_limited(Action(account="volc", name="Other"))
    await one.throttle(CALL, timedelta(seconds=30))
    assert await query(database, "SELECT * FROM rate_limit") == []


async def test_a_smaller_limit_holds_from_the_next_draw_on(database: Database) -> None:
    await drawn(limiter(database, 6), 6)
    assert await drawn(limiter(database, 2), 2) == []


def look(connection: Connection) -> tuple[int, int, int]:
    before_ns = boot_ns()
    return before_ns, pace.to_slot(database_now(connection)), boot_ns()


async def test_a_ticket_opens_never_before_its_slot_and_closes_within_its_grace(
    database: Database,
) -> None:
    for ticket in await drawn(limiter(database), 3):
        before_ns, now, after_ns = await database.read(look)
        # SQLite's clock has whole milliseconds.
        slack_us = 1_000
        opens_at_least = before_ns + (ticket.slot - now) * 1000 - slack_us * 1000
        closes_at_most = after_ns + (ticket.slot + GRACE_US - now) * 1000 + slack_us * 1000
        assert ticket.opens_ns >= opens_at_least
        assert ticket.closes_ns <= closes_at_most


async def test_no_slot_is_drawn_that_lies_far_ahead(database: Database) -> None:
    one = limiter(database)
    (_, now, _), tickets = await database.read(look), await drawn(one, 1)
    assert tickets[0].slot - now < LOOKAHEAD_US + SECOND_US


async def test_a_swap_that_others_were_quicker_with_writes_nothing(database: Database) -> None:
    def swap_twice(connection: Connection) -> tuple[bool, bool]:
        bucket, version, _ = pace.read(connection, "volc", "Start", LIMIT)
        first = pace.swap(connection, "volc", "Start", version, bucket.throttle(5))
        return first, pace.swap(connection, "volc", "Start", version, bucket)

    assert await database.write(swap_twice) == (True, False)
    bucket, version, _ = await database.read(lambda c: pace.read(c, "volc", "Start", LIMIT))
    assert (version, len(bucket.slots)) == (1, LIMIT)


# --- calls that are on their way already


async def test_calls_that_missed_their_slots_are_served_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = limiter(database, 2 * LIMIT)
    draws: list[int] = []
    real = one.draw

    async def counted(action: Action, count: int, *, keep_half: bool) -> list[Ticket]:
        draws.append(count)
        return await real(action, count, keep_half=keep_half)

    monkeypatch.setattr(one, "draw", counted)
    served: list[Ticket | None] = []

    async def call() -> None:
        served.append(await one.draw_one(CALL, keep_half=False))

    async with anyio.create_task_group() as tasks:
        for _ in range(LIMIT):
            tasks.start_soon(call)
    assert len([ticket for ticket in served if ticket is not None]) == LIMIT
    assert len(await drawn(limiter(database, 2 * LIMIT), 2 * LIMIT)) == LIMIT
    assert len(draws) <= 2


async def test_a_slot_that_was_missed_is_free_again(database: Database) -> None:
    one = limiter(database)
    (missed, *_) = await drawn(one, LIMIT)
    assert await drawn(one, 1) == []
    assert await one.draw_one(CALL, keep_half=False) is None
    ticket = await one.draw_one(CALL, keep_half=False, missed=missed)
    assert ticket is not None
    assert await drawn(limiter(database), 1) == []


async def test_a_spare_slot_that_is_over_is_nobodys(database: Database) -> None:
    """Who waited for it was cancelled."""
    one = limiter(database)
    (over,) = await drawn(one, 1)
    one._counters[CALL, False].spare = [replace(over, closes_ns=boot_ns() - 1)]
    ticket = await one.draw_one(CALL, keep_half=False)
    assert ticket is not None
    assert ticket.closes_ns > boot_ns()


async def test_several_actions_are_drawn_for_at_once(database: Database) -> None:
    other = Action(account="volc", name="Other")
    one = Limiter(database, {CALL: LIMIT, other: 2})
    found = await one.draw_all({CALL: 3, other: 5}, keep_half=False)
    assert [len(found[CALL]), len(found[other])] == [3, 2]
    again = await one.draw_all({CALL: LIMIT, other: 1}, keep_half=False)
    assert [len(again[CALL]), len(again[other])] == [LIMIT - 3, 0]
