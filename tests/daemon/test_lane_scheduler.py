"""The lanes' loop on a real database, before a vendor that says one thing: nobody is in the way.

What a lane waits for, be it a slot, a place, an account or its own mending, it waits for alone.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import anyio
import pytest
from structlog.testing import capture_logs

from orchestrator.clock import utc_now
from orchestrator.daemon.book import Book, Keys
from orchestrator.daemon.call_tally import CallTally
from orchestrator.daemon.gateway import Gateway
from orchestrator.daemon.lane_claim import LaneDesk
from orchestrator.daemon.lane_scheduler import (
    BLOCKED_WAIT,
    LISTENING_IN_FLIGHT,
    LONGEST_WAIT,
    LaneParts,
    LaneScheduler,
)
from orchestrator.daemon.lane_settle import LaneSettling
from orchestrator.daemon.lane_settler import LaneSettler
from orchestrator.daemon.limiter import Action, Limiter
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.pulse import Pulse
from orchestrator.daemon.transport import Transport
from orchestrator.store.engine import Database, open_database
from orchestrator.wake.fan import Seat
from tests.daemon.running import until
from tests.loopback_vendor import Handler, answer, answering, hang, vendor
from tests.ports import unused_port
from tests.store.claiming import Daemon, make_desk, providers, runtime, want
from tests.store.rows import insert, query, quoted, run, value
from tests.store.test_lanes import ZEGO_SPEC, state

pytestmark = pytest.mark.anyio

START = Action(account="zego", name="StartListening")
TAKES_ALL = answering(answer(b'{"Code": 0, "Message": "ok", "RequestId": "r"}'))
MANY = LISTENING_IN_FLIGHT + 6
TTL = timedelta(minutes=10)


@dataclass
class Watched(Seat):
    """A seat that keeps what it was asked to wait for."""

    timeouts: list[timedelta] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def wait(self, timeout: timedelta) -> None:  # noqa: ASYNC109 - it is what wait does
        self.timeouts.append(timeout)
        await super().wait(timeout)


@dataclass
class Bench:
    """A daemon's accounts, its loop of the lanes, and where that waits."""

    database: Database
    book: Book
    seat: Watched = field(default_factory=Watched)

    async def talk_to(self, *tasks: str, account: str = "zego") -> None:
        """Let the agents of these tasks run."""
        daemon = Daemon(self.database, make_desk(self.book))
        spec = {"spec": ZEGO_SPEC} if account == "zego" else {}
        await want(self.database, *tasks, account=account, **spec)
        for id_ in tasks:
            await daemon.start(id_)

    @asynccontextmanager
    async def turning(self, limits: Mapping[Action, int]) -> AsyncIterator[None]:
        """Run the loop and its settler; calls that hang at the end are cancelled."""
        async with Transport(now=utc_now, on_date=lambda _host, _offset: None) as transport:
            loop, settler = self._wire(transport, Limiter(self.database, limits))
            async with anyio.create_task_group() as outcomes:
                outcomes.start_soon(settler.run)
                async with anyio.create_task_group() as calls:
                    calls.start_soon(loop.run, calls)
                    try:
                        yield
                    finally:
                        calls.cancel_scope.cancel()
                        settler.finish()

    def _wire(self, transport: Transport, limiter: Limiter) -> tuple[LaneScheduler, LaneSettler]:
        settling = LaneSettling(daemon_id="one", daemon_name="one")
        settler = LaneSettler(self.database, settling, self.seat.nudge)
        gateway = Gateway(
            transport=transport, limiter=limiter, book=self.book, meter=Meter(), redact=str
        )
        desk = LaneDesk(
            daemon_id="one",
            daemon_name="one",
            book=self.book,
            gap_timeout=timedelta(0),
            command_ttl=TTL,
        )
        parts = LaneParts(
            database=self.database,
            limiter=limiter,
            gateway=gateway,
            settler=settler,
            tally=CallTally(),
            seat=self.seat,
            desk=desk,
            pulse=Pulse(),
        )
        return LaneScheduler(parts), settler


@asynccontextmanager
async def open_bench(database: Database, **handlers: Handler) -> AsyncIterator[Bench]:
    """Open a daemon with these accounts, each before a vendor of its own that behaves so."""
    async with AsyncExitStack() as stack:
        accounts = {}
        for name, handler in handlers.items():
            there = await stack.enter_async_context(vendor(handler))
            provider = providers(f"http://127.0.0.1:{there.port}")[name]
            accounts[name] = runtime(name, provider)
        book = Book(Keys(accounts=accounts, secrets={}))
        await Daemon(database, make_desk(book)).ready()
        yield Bench(database, book)


def press(task_id: str, user: str) -> str:
    """Return the INSERT of a user's press."""
    own = {"id": quoted(user), "task_id": quoted(task_id), "user_id": quoted(user)}
    return insert("agent_command", **own, kind="'start_listening'")


def presses(count: int) -> list[str]:
    """Return the INSERTs of the presses of so many users of `call`."""
    return [press("call", f"u{n}") for n in range(count)]


async def wait_for(database: Database, statement: str, expected: object) -> None:
    """Wait until a SELECT of one value returns it."""

    async def look() -> bool | None:
        return await value(database, statement) == expected or None

    async def awaited() -> str:
        lanes = await query(database, "SELECT * FROM lane")
        return f"{statement}: {expected}; lanes: {lanes}"

    await until(look, awaited)


async def wait_until_done(database: Database, id_: str) -> None:
    await wait_for(database, f"SELECT state FROM agent_command WHERE id = {quoted(id_)}", "done")  # noqa: S608 - a test's own words


async def count_queued(database: Database) -> int:
    found: int = await value(database, "SELECT count(*) FROM agent_command WHERE state = 'queued'")
    return found


# --- places


async def test_an_account_whose_calls_hang_keeps_no_other_waiting(database: Database) -> None:
    async with open_bench(database, zego=hang, volc=TAKES_ALL) as bench:
        await bench.talk_to("call")
        await bench.talk_to("other", account="volc")
        cut = insert("agent_command", id="'cut'", task_id="'other'", kind="'interrupt'")
        async with bench.turning({}):
            await run(database, *presses(MANY))
            leased = "SELECT count(*) FROM lane WHERE lease_owner IS NOT NULL"
            await wait_for(database, leased, LISTENING_IN_FLIGHT)
            await run(database, cut)
            await wait_for(
                database, "SELECT count(*) FROM lane WHERE task_id = 'other' AND version > 0", 1
            )
    cut_at = "(SELECT sent_at FROM agent_command WHERE id = 'cut')"
    before = f"SELECT count(*) FROM agent_command WHERE id <> 'cut' AND sent_at < {cut_at}"  # noqa: S608 - a test's own words
    assert await value(database, before) <= LISTENING_IN_FLIGHT


# --- slots


async def test_presses_without_a_slot_hide_no_release(database: Database) -> None:
    async with open_bench(database, zego=TAKES_ALL) as bench:
        await bench.talk_to("call")
        release = {"id": "'r'", "task_id": "'call'", "user_id": "'last'"}
        await run(
            database,
            *presses(100),
            insert("agent_command", **release, kind="'stop_listening'"),
        )
        async with bench.turning({START: 1}):
            await wait_until_done(database, "r")
            assert await count_queued(database) > 0


async def test_the_loop_wakes_up_when_a_slot_opens(database: Database) -> None:
    """Lanes that wait for one are left out of its looks, and it knows of them all the same."""
    async with open_bench(database, zego=TAKES_ALL) as bench:
        await bench.talk_to("call")
        await run(database, *presses(4))
        async with bench.turning({START: 2}):
            for n in range(4):
                await wait_until_done(database, f"u{n}")
    # Nothing here but a slot has a time of its own within the longest rest.
    assert [wait for wait in bench.seat.timeouts if BLOCKED_WAIT < wait < LONGEST_WAIT]


# --- trouble


async def test_a_throttle_that_cannot_be_written_raises_nothing() -> None:
    """It is one command's outcome that the vendor said so, and not the end of all calls."""
    away = open_database(f"postgresql://nobody@127.0.0.1:{unused_port()}/none")
    with capture_logs() as lines:
        await Limiter(away, {START: 1}).throttle(START, None)
    await away.close()
    assert [line["event"] for line in lines] == ["throttle_failed"]


async def test_commands_of_an_account_that_nobody_has_end_nothing(database: Database) -> None:
    async with open_bench(database, zego=TAKES_ALL) as bench:
        await bench.talk_to("call")
        await want(database, "typo", account="nowhere")
        await run(
            database,
            insert("agent_command", id="'lost'", task_id="'typo'", kind="'say'"),
            insert("task_change", task_id="'lost'", what="'cancel_command'"),
            insert("agent_command", id="'waits'", task_id="'typo'", kind="'say'"),
            press("call", "p"),
        )
        async with bench.turning({START: 10}):
            await wait_until_done(database, "p")
            gone = "SELECT state FROM agent_command WHERE id = 'lost'"
            await wait_for(database, gone, "superseded")
    assert await state(database, "waits") == "queued"


async def test_a_lane_that_cannot_be_claimed_fails_alone(database: Database) -> None:
    async with open_bench(database, zego=TAKES_ALL) as bench:
        await bench.talk_to("bad", "good", "idle")
        await run(
            database,
            insert("lane", task_id="'idle'", user_id="'human'", command_id="'bad'"),
            "CREATE UNIQUE INDEX one_lane ON lane (command_id)",
            press("bad", "bad"),
            press("good", "good"),
        )
        with capture_logs() as lines:
            async with bench.turning({}):
                await wait_until_done(database, "good")
                await run(database, press("good", "next"))
                await wait_until_done(database, "next")
    # It is left alone for a while, and then tried again.
    assert {line["task_id"] for line in lines if line["event"] == "lane_failed"} == {"bad"}
    assert await state(database, "bad") == "queued"
