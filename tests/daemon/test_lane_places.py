"""Places of the lanes' loop: how many commands of an account are in flight, and who uses whose."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import pytest

from orchestrator.clock import utc_now
from orchestrator.daemon.book import Book, Keys
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.lane_claim import LaneDesk
from orchestrator.daemon.lane_scheduler import (
    LISTENING_IN_FLIGHT,
    OTHERS_IN_FLIGHT,
    LaneParts,
    LaneScheduler,
)
from orchestrator.daemon.limiter import Limiter
from orchestrator.daemon.tally import Tally
from orchestrator.daemon.transport import Transport
from orchestrator.store.engine import Database
from orchestrator.wake.fan import Seat
from tests.daemon.running import until
from tests.loopback_vendor import hang, vendor
from tests.store.claiming import Daemon, make_desk, providers, runtime, want
from tests.store.rows import insert, query, quoted, run, value

pytestmark = pytest.mark.anyio

MORE = 5
"""Commands more than there are places."""
TTL = timedelta(minutes=10)
ZEGO_SPEC = """'{"AgentId": "fake", "RTC": {"UserStreamId": "mic"}}'"""


def loop_of(database: Database, book: Book, transport: Transport) -> LaneScheduler:
    """Return the lanes' loop of a daemon without limits, on this database."""
    limiter = Limiter(database, {})
    gateway = Gateway(transport=transport, limiter=limiter, book=book, redact=lambda text: text)
    desk = LaneDesk(
        daemon_id="one", daemon_name="one", book=book, gap_timeout=timedelta(0), command_ttl=TTL
    )
    return LaneScheduler(
        LaneParts(
            database=database,
            limiter=limiter,
            gateway=gateway,
            tally=Tally(),
            seat=Seat(),
            desk=desk,
        )
    )


@asynccontextmanager
async def before_a_vendor_that_hangs(database: Database, *tasks: str) -> AsyncIterator[None]:
    """Let these tasks run, and the lanes' loop beside the block."""
    async with vendor(hang) as there, anyio.create_task_group() as group:
        zego = providers(f"http://127.0.0.1:{there.port}")["zego"]
        book = Book(Keys(accounts={"zego": runtime("zego", zego)}, secrets={}))
        daemon = await Daemon(database, make_desk(book)).ready()
        await want(database, *tasks, account="zego", spec=ZEGO_SPEC)
        for id_ in tasks:
            await daemon.start(id_)
        async with Transport(now=utc_now, on_date=lambda _host, _offset: None) as transport:
            group.start_soon(loop_of(database, book, transport).run, group)
            yield
            group.cancel_scope.cancel()


def press(task_id: str, user: str) -> str:
    """Return the INSERT of a user's press."""
    return insert(
        "agent_command",
        task_id=quoted(task_id),
        kind="'start_listening'",
        user_id=quoted(user),
    )


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
