"""The loop on a real database before a simulated vendor: bad rows and databases, drain, rest."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import anyio
import asyncpg
import pytest
from structlog.testing import capture_logs

from orchestrator.clock import utc_now
from orchestrator.daemon import settler
from orchestrator.daemon.book import Book, Keys
from orchestrator.daemon.call_tally import CallTally
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.limiter import Limiter
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.pulse import Pulse
from orchestrator.daemon.scheduler import LONGEST_WAIT, Parts, Scheduler
from orchestrator.daemon.transport import Transport
from orchestrator.providers.zego import Zego
from orchestrator.simulator import Simulator, serve
from orchestrator.simulator.faults import Fault, Kind
from orchestrator.simulator.keys import DEMO
from orchestrator.store import daemons, sqlite
from orchestrator.store.engine import Database, open_database, sqlite_path
from orchestrator.store.engine import now as database_now
from orchestrator.store.migrate import upgrade
from orchestrator.wake.fan import Seat
from tests.postgres_server import running_server
from tests.store.claiming import OWNER, Daemon, make_desk, runtime, want
from tests.store.rows import query, run

pytestmark = pytest.mark.anyio

ZEGO = DEMO[2]
CREATE = "CreateAgentInstance"
SPEC = """'{"AgentId": "agent", "RTC": {"UserStreamId": "s"}}'"""
PATIENCE_S = 20
RESTS = 10
"""Rests that are looked at: more than what follows a start takes to settle down."""


@dataclass
class Watched(Seat):
    """A seat that is hinted by nudges alone, and keeps what it was asked to wait for."""

    timeouts: list[timedelta] = field(default_factory=list)
    hints_for_nothing: int = 0
    """So many waits end at once."""

    def __post_init__(self) -> None:
        super().__init__()
        self.is_done = anyio.Event()
        """The hints for nothing are all given."""

    async def wait(self, timeout: timedelta) -> None:  # noqa: ASYNC109 - it is what wait does
        self.timeouts.append(timeout)
        if self.hints_for_nothing <= 0:
            self.is_done.set()
            await self._hint.wait(min(timeout, timedelta(milliseconds=20)))
        self.hints_for_nothing -= 1


@dataclass
class Bench:
    """A daemon's loop with all that it drives, and its vendor."""

    daemon: Daemon
    simulator: Simulator
    scheduler: Scheduler
    settling: settler.Settler
    seat: Watched
    pulse: Pulse

    @property
    def database(self) -> Database:
        return self.daemon.database

    async def want(self, *ids: str, **literals: str) -> None:
        await want(self.database, *ids, account="zego", **({"spec": SPEC} | literals))

    async def running(self) -> set[str]:
        rows = await query(self.database, "SELECT task_id FROM agent_status WHERE confirmed_at "
                           "IS NOT NULL OR phase = 'running'")  # fmt: skip
        return {id_ for (id_,) in rows}

    async def wait_for_running(self, *ids: str) -> None:
        await until(lambda: self._is_running(ids))

    async def _is_running(self, ids: tuple[str, ...]) -> bool:
        return set(ids) <= await self.running()

    @asynccontextmanager
    async def turning(self) -> AsyncIterator[None]:
        """Run the loop, and drain it at the end."""
        with anyio.fail_after(PATIENCE_S * 2):
            async with anyio.create_task_group() as outcomes:
                outcomes.start_soon(self.settling.run)
                async with anyio.create_task_group() as calls:
                    calls.start_soon(self.scheduler.run, calls)
                    yield
                    self.scheduler.drain()
                self.settling.finish()


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Look until it is so."""
    with anyio.fail_after(PATIENCE_S):
        while not await is_so():  # noqa: ASYNC110 - a row has no event
            await anyio.sleep(0.01)


@asynccontextmanager
async def open_bench(database: Database) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        simulator = Simulator(DEMO)
        url = await stack.enter_async_context(serve(simulator, "127.0.0.1", 0))
        transport = Transport(now=utc_now, on_date=lambda _host, _offset: None)
        await stack.enter_async_context(transport)
        zego = Zego(
            app_id=ZEGO.app_id,
            server_secret=ZEGO.server_secret,
            endpoint=url,
            rtc_endpoint=url,
        )
        book = Book(Keys(accounts={"zego": runtime("zego", zego)}, secrets={}))
        daemon = await Daemon(database, make_desk(book)).ready()
        yield wire(daemon, simulator, transport, Watched())


def wire(daemon: Daemon, simulator: Simulator, transport: Transport, seat: Watched) -> Bench:
    database, book, pulse = daemon.database, daemon.desk.book, Pulse()
    limiter = Limiter(database, {})
    settling = settler.Settler(
        settler.Desk(
            database=database,
            limiter=limiter,
            book=book,
            tally=CallTally(),
            daemon_id="d1",
            daemon_name="d1",
            owner=OWNER,
            nudge=seat.nudge,
        )
    )
    gateway = Gateway(transport=transport, limiter=limiter, book=book, meter=Meter(), redact=str)
    parts = Parts(
        database=database,
        limiter=limiter,
        gateway=gateway,
        settler=settling,
        seat=seat,
        on_pass=lambda: None,
        desk=daemon.desk,
        notified=False,
        pulse=pulse,
    )
    return Bench(daemon, simulator, Scheduler(parts), settling, seat, pulse)


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with open_bench(database) as opened:
        yield opened


# --- a row that breaks its claim


async def poison(bench: Bench) -> None:
    """Let no agent be announced in the room of the task `bad`."""
    await run(
        bench.database,
        "INSERT INTO vendor_agent (id, account, site, room_id, ended_at) "
        "VALUES ('there', 'zego', '{}', 'room-bad', '2020-01-01 00:00:00')",
        "CREATE UNIQUE INDEX one_agent ON vendor_agent (room_id)",
    )


async def test_a_row_whose_claim_fails_stops_no_other(bench: Bench) -> None:
    await poison(bench)
    await bench.want("a", "bad", "z")
    with capture_logs() as lines:
        async with bench.turning():
            await bench.wait_for_running("a", "z")
            await bench.want("later")
            await bench.wait_for_running("later")
    assert "bad" not in await bench.running()
    failed = [line for line in lines if line["event"] == "row_failed"]
    assert {line["task_id"] for line in failed} == {"bad"}


async def test_a_row_is_claimed_soon_after_what_broke_it_is_mended(bench: Bench) -> None:
    await poison(bench)
    await bench.want("bad")
    with capture_logs() as lines:
        async with bench.turning():

            async def has_failed() -> bool:
                return any(line["event"] == "row_failed" for line in lines)

            await until(has_failed)
            await run(bench.database, "DROP INDEX one_agent")
            with anyio.fail_after(10):  # it was left alone for 60 s once
                await bench.wait_for_running("bad")


async def test_the_loop_turns_while_somebody_holds_a_table(postgres_url: str) -> None:
    """Each row alone waits a second for it: who tried them all would be taken for dead."""
    database = open_database(postgres_url)
    holder = await asyncpg.connect(postgres_url)
    ids = [f"t{number}" for number in range(9)]  # the vendor takes ten
    async with open_bench(database) as bench:
        await bench.want(*ids)
        await holder.execute("BEGIN; LOCK TABLE vendor_agent IN ACCESS EXCLUSIVE MODE")
        has_turned = anyio.Event()
        bench.pulse.on_turn(has_turned.set)
        with capture_logs() as lines:
            async with bench.turning():
                await has_turned.wait()
                told = [line["event"] for line in lines]
                await holder.execute("COMMIT")
                await bench.wait_for_running(*ids)
    await holder.close()
    await database.close()
    assert "claim_failed" in told
    assert 0 < told.count("row_failed") < len(ids)


# --- a database that is away


async def ride_out(bench: Bench, back: Callable[[], object]) -> None:
    """Turn the loop before a database that is away; bring it back when the loop has said so."""
    with capture_logs() as lines:
        async with bench.turning():

            async def has_said(event: str) -> bool:
                return any(line["event"] == event for line in lines)

            await until(lambda: has_said("database_away"))
            back()
            await until(lambda: has_said("database_back"))
            await until(lambda: is_started(bench))
    assert [line["event"] for line in lines].count("database_away") == 1


async def is_started(bench: Bench) -> bool:
    return any(call["action"] == CREATE for call in bench.simulator.calls.since(0))


async def test_a_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    with running_server(tmp_path / "postgres") as server:
        await upgrade(server.url())
        database = open_database(server.url())
        async with open_bench(database) as bench:
            await bench.want("a")
            server.kill()
            await ride_out(bench, server.start)
        await database.close()


async def test_a_file_that_somebody_locks_for_too_long_is_waited_for(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(sqlite_url)
    async with open_bench(database) as bench:
        await bench.want("a")
        with closing(sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)) as stranger:
            monkeypatch.setattr(sqlite, "LOCK_WAIT_S", 0.05)
            stranger.execute("BEGIN IMMEDIATE")
            await ride_out(bench, lambda: stranger.execute("ROLLBACK"))
    await database.close()


# --- the end


async def test_a_drain_claims_nothing_more_and_waits_for_calls_in_flight(bench: Bench) -> None:
    bench.simulator.faults.script(CREATE, 1, Fault(kind=Kind.DELAY, ms=500))
    await bench.want("a")
    async with bench.turning():
        await until(lambda: is_claimed(bench, "a"))
        bench.scheduler.drain()
        await bench.want("b")
    assert await bench.running() == {"a"}
    assert not await is_claimed(bench, "b")


async def is_claimed(bench: Bench, id_: str) -> bool:
    rows = await query(bench.database, "SELECT task_id FROM agent_status WHERE version > 0")
    return (id_,) in rows


# --- rest


async def nothing(bench: Bench) -> None:
    """Leave the database empty."""


async def an_agent_that_rests(bench: Bench) -> None:
    await bench.want("a")
    await run(
        bench.database,
        "DELETE FROM task_change",
        "UPDATE agent_status SET phase = 'running', due_at = '2099-01-01 00:00:00.000000'",
    )


async def rows_of_another_daemon(bench: Bench) -> None:
    await want(bench.database, "a", "b", account="theirs")
    await run(
        bench.database,
        "DELETE FROM task_change WHERE task_id = 'b'",
        "UPDATE agent_status SET due_at = '2020-01-01 00:00:00.000000' WHERE task_id = 'b'",
    )
    other = daemons.Daemon(
        id="d2", name="d2", host="there", pid=1, version="1", wake="poll", accounts=["theirs"]
    )
    now = await bench.database.read(database_now)
    await bench.database.write(daemons.register, other, now)


async def a_paused_account(bench: Bench) -> None:
    await bench.want("a")
    await run(bench.database, "UPDATE account_control SET paused = true")


async def a_row_that_fails(bench: Bench) -> None:
    await poison(bench)
    await bench.want("bad")


@pytest.mark.parametrize(
    "given",
    [nothing, an_agent_that_rests, rows_of_another_daemon, a_paused_account, a_row_that_fails],
)
async def test_with_nothing_to_do_the_loop_rests_as_long_as_it_may(
    bench: Bench, given: Callable[[Bench], Awaitable[None]]
) -> None:
    await given(bench)
    bench.seat.hints_for_nothing = RESTS
    with capture_logs():
        async with bench.turning():
            await bench.seat.is_done.wait()
    assert bench.seat.timeouts[-RESTS:] == [LONGEST_WAIT] * RESTS


async def test_a_hint_is_one_pass(bench: Bench) -> None:
    """Each pass at rest ends in a wait: what wakes it for nothing costs one look, and no more."""
    bench.seat.hints_for_nothing = RESTS
    passes: list[int] = []
    bench.pulse.on_turn(lambda: passes.append(1))
    async with bench.turning():
        await bench.seat.is_done.wait()
    assert RESTS <= len(passes) <= RESTS + 2
