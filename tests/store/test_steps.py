"""The database's clock is set, ahead or back: on real databases, with looks at times of our own.

Nobody can set the clock of a database in a test. But a daemon compares two looks, and the earlier
may be of our making: then the real clock is what was set.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from orchestrator.clock import Anchor, boot_ns
from orchestrator.core.model import Verb
from orchestrator.core.outcome import Gone, Indefinite
from orchestrator.daemon.claim import Order
from orchestrator.daemon.timekeeper import SHARP_NS, Timekeeper
from orchestrator.store import steps
from orchestrator.store.engine import Connection, Database
from orchestrator.store.engine import now as database_now
from orchestrator.store.schema import vendor_agent
from tests.store.claiming import Daemon, make_book, make_desk, settled, status, want
from tests.store.rows import run
from tests.store.rows import update as update_sql

pytestmark = pytest.mark.anyio

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
SECOND_NS = 10**9


def _fill(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    connection.execute(insert(vendor_agent), rows)


def _horizons(connection: Connection) -> dict[str, datetime]:
    found = connection.execute(select(vendor_agent.c.id, vendor_agent.c.horizon_at))
    return {row.id: row.horizon_at for row in found}


async def horizons(database: Database) -> dict[str, datetime]:
    return await database.read(_horizons)


async def recorded(database: Database) -> timedelta:
    return await database.read(steps.read)


# --- what was still to come


@pytest.mark.parametrize(
    ("announced", "horizon", "ended", "is_put_off"),
    [
        pytest.param(-HOUR - 100 * SECOND, -HOUR + 15 * SECOND, None, True, id="to come"),
        pytest.param(-2 * HOUR, -HOUR - SECOND, None, False, id="past already"),
        pytest.param(-2 * HOUR, None, None, False, id="never sent"),
        pytest.param(-2 * HOUR, -HOUR + SECOND, -HOUR, False, id="ended"),
        pytest.param(-SECOND, 114 * SECOND, None, False, id="announced by the clock as it is"),
    ],
)
async def test_what_was_to_come_is_put_off_and_nothing_else(
    database: Database,
    announced: timedelta,
    horizon: timedelta | None,
    ended: timedelta | None,
    *,
    is_put_off: bool,
) -> None:
    now = await database.read(database_now)
    before = None if horizon is None else now + horizon
    row = {
        "id": "a",
        "account": "volc",
        "site": "{}",
        "announced_at": now + announced,
        "horizon_at": before,
        "ended_at": None if ended is None else now + ended,
    }
    await database.write(_fill, [row])
    assert await database.write(steps.put_off_horizons, now, HOUR) == int(is_put_off)
    moved = before + HOUR if before is not None and is_put_off else before
    assert await horizons(database) == {"a": moved}


# --- who notices, and who makes up for it


class Clock:
    """Looks at a database's clock that goes as we say."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.began_ns = self.passed_ns = boot_ns()

    @property
    def passed_s(self) -> float:
        return (self.passed_ns - self.began_ns) / SECOND_NS

    def look(self, *, after: float = 1.0, step: float = 0.0, width_ns: int = 1000) -> Anchor:
        """Return a look so many seconds later, of a clock that was set by `step` meanwhile."""
        self.passed_ns += int(after * SECOND_NS)
        self.now += timedelta(seconds=after + step)
        return Anchor(then=self.now, before_ns=self.passed_ns, after_ns=self.passed_ns + width_ns)


async def clock_of(database: Database) -> Clock:
    return Clock(await database.read(database_now))


async def test_a_clock_that_goes_on_changes_nothing(database: Database) -> None:
    clock, keeper = await clock_of(database), Timekeeper()
    for after in (0.0, 1.0, 0.001, 3600.0, 1.9):
        await database.write(keeper.keep, clock.look(after=after))
    assert keeper.set_by == timedelta(0)
    assert await recorded(database) == timedelta(0)


@pytest.mark.parametrize(
    "seconds", [2.5, 60.0, 86_400.0, 50 * 365 * 86_400.0, -2.5, -3600.0, -50 * 365 * 86_400.0]
)
async def test_a_step_is_noticed_and_recorded_once(database: Database, seconds: float) -> None:
    clock, keeper = await clock_of(database), Timekeeper()
    first = clock.look()
    await database.write(keeper.keep, first)
    for step in (0.0, seconds, 0.0, 0.0):
        await database.write(keeper.keep, clock.look(step=step))
    expected = timedelta(seconds=seconds)
    assert abs(keeper.set_by - expected) < SECOND
    assert abs(keeper.set_since(first) - expected) < SECOND
    assert abs(await recorded(database) - expected) < SECOND


async def test_two_daemons_put_off_once(database: Database) -> None:
    clock, one, other = await clock_of(database), Timekeeper(), Timekeeper()
    await database.write(one.keep, clock.look())
    await database.write(other.keep, clock.look())
    for keeper, step in ((one, 60.0), (other, 0.0), (one, 0.0), (other, 0.0)):
        await database.write(keeper.keep, clock.look(step=step))
    assert abs(await recorded(database) - 60 * SECOND) < SECOND
    assert abs(other.set_by - 60 * SECOND) < SECOND


async def test_who_slept_through_steps_ahead_and_back_makes_up_for_the_last(
    database: Database,
) -> None:
    """Ahead, back and ahead again: the other daemon has seen the first two only."""
    clock, awake, asleep = await clock_of(database), Timekeeper(), Timekeeper()
    await database.write(asleep.keep, clock.look())
    await database.write(awake.keep, clock.look())
    await database.write(awake.keep, clock.look(step=60.0))
    await database.write(awake.keep, clock.look(step=-60.0))
    assert abs(await recorded(database)) < SECOND
    await database.write(asleep.keep, clock.look(step=60.0))
    assert abs(await recorded(database) - 60 * SECOND) < SECOND


async def test_two_steps_of_which_another_daemon_saw_one(database: Database) -> None:
    clock, awake, asleep = await clock_of(database), Timekeeper(), Timekeeper()
    await database.write(asleep.keep, clock.look())
    await database.write(awake.keep, clock.look())
    await database.write(awake.keep, clock.look(step=600.0))
    await database.write(asleep.keep, clock.look(step=1200.0))
    assert abs(await recorded(database) - 1800 * SECOND) < SECOND


async def test_a_daemon_that_begins_later_does_not_make_up_for_it_again(
    database: Database,
) -> None:
    clock, one, later = await clock_of(database), Timekeeper(), Timekeeper()
    await database.write(one.keep, clock.look())
    await database.write(one.keep, clock.look(step=60.0))
    await database.write(later.keep, clock.look())
    await database.write(later.keep, clock.look(step=30.0))
    assert abs(await recorded(database) - 90 * SECOND) < SECOND


class LostError(Exception):
    """The transaction is rolled back."""


async def test_what_is_rolled_back_is_done_by_the_next(database: Database) -> None:
    clock, keeper = await clock_of(database), Timekeeper()
    await database.write(keeper.keep, clock.look())

    def keep_in_vain(connection: Connection, look: Anchor) -> None:
        keeper.keep(connection, look)
        raise LostError

    with pytest.raises(LostError):
        await database.write(keep_in_vain, clock.look(step=60.0))
    assert await recorded(database) == timedelta(0)
    await database.write(keeper.keep, clock.look())
    assert abs(await recorded(database) - 60 * SECOND) < SECOND
    assert abs(keeper.set_by - 60 * SECOND) < SECOND


async def test_a_look_that_stood_still_is_taken_again(database: Database) -> None:
    """As when the process was frozen before the answer was read."""
    clock, keeper = await clock_of(database), Timekeeper()
    await database.write(keeper.look)
    await database.write(keeper.keep, clock.look(step=-60.0, width_ns=SHARP_NS + 1))
    assert keeper.set_by == timedelta(0)


# --- claims and settles


def _rewind(connection: Connection, step: timedelta) -> None:
    """Let all that the ledger holds be older by `step`."""
    chosen = select(vendor_agent.c.id, vendor_agent.c.announced_at, vendor_agent.c.horizon_at)
    for id_, announced_at, horizon_at in connection.execute(chosen).all():
        then = {"announced_at": announced_at - step, "horizon_at": horizon_at - step}
        connection.execute(update(vendor_agent).where(vendor_agent.c.id == id_).values(then))


async def set_ahead(database: Database, one: Daemon, step: timedelta) -> None:
    """Let the clock have been set ahead by `step` since this daemon looked last."""
    await database.write(_rewind, step)
    then, at_ns = await database.read(database_now) - step, boot_ns()
    keeper = one.desk.book.timekeeper = Timekeeper()
    await database.write(keeper.keep, Anchor(then=then, before_ns=at_ns, after_ns=at_ns))


def before(order: Order, step: timedelta) -> Order:
    """Return an order as if it had been claimed by the clock as it was."""
    agent, flight = order.flight.agent, order.flight
    assert agent.horizon_at is not None
    agent = replace(
        agent, announced_at=agent.announced_at - step, horizon_at=agent.horizon_at - step
    )
    return replace(
        order,
        row=order.row.replace_agent(agent),
        flight=replace(flight, agent=agent, announced_at=flight.announced_at - step),
        anchor=replace(order.anchor, then=order.anchor.then - step),
    )


async def make_daemon(database: Database) -> Daemon:
    return await Daemon(database, make_desk(make_book("volc"))).ready()


async def test_gone_is_not_believed_because_the_clock_was_set_ahead(database: Database) -> None:
    """The reply of a start is lost, the clock is set, and the stop finds nothing as yet."""
    one = await make_daemon(database)
    await want(database, "a")
    await one.run_to_end("a", Indefinite(code="Timeout"))
    (was,) = (await horizons(database)).values()
    await set_ahead(database, one, HOUR)
    await run(database, update_sql("agent_task", "desired_state = 'stopped'"))
    assert await one.run_to_end("a", Gone(code="TaskNotExist")) == [Verb.STOP]
    assert await status(database, "a", "phase", "waiting_for") == ("stopping", "proof")
    (horizon_at,) = (await horizons(database)).values()
    assert abs(horizon_at - was) < SECOND


async def test_a_call_in_flight_is_settled_by_the_clock_as_it_is(database: Database) -> None:
    """What is settled before anything is claimed is put off once, and so is all else."""
    one = await make_daemon(database)
    await want(database, "a", "b")
    flying, other = (await one.claim("a", "b")).orders
    was = await horizons(database)
    await set_ahead(database, one, HOUR)
    await one.settle(settled(before(flying, HOUR), Indefinite(code="Timeout")))
    await one.claim("a")
    await one.settle(settled(before(other, HOUR), Indefinite(code="Timeout")))
    for id_, horizon_at in (await horizons(database)).items():
        assert abs(horizon_at - was[id_]) < SECOND


async def test_signatures_are_by_the_vendor_s_clock_whoever_sets_ours(database: Database) -> None:
    one = await make_daemon(database)
    book, host = one.desk.book, one.desk.book.runtimes["volc"].host
    clock = await clock_of(database)
    begin = clock.now
    await database.write(book.timekeeper.keep, claimed := clock.look())
    book.note_offset(host, 7 * SECOND)
    for step in (3600.0, -60.0):
        await database.write(book.timekeeper.keep, now := clock.look(step=step))
        truth = begin + timedelta(seconds=clock.passed_s)
        assert abs(clock.now + book.offset("volc") - truth - 7 * SECOND) < SECOND
        assert book.offset_at("volc", now) == book.offset("volc")
        assert abs(book.offset_at("volc", claimed) - 7 * SECOND) < SECOND
    book.note_offset(host, book.offset("volc"))
    assert abs(book.offset_at("volc", claimed) - 7 * SECOND) < SECOND
