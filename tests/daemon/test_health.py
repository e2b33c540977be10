"""The server for health, whatever becomes of the loops and of the database behind it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy.engine import make_url

from orchestrator.app import build_keys
from orchestrator.config import understand
from orchestrator.daemon.book import Book
from orchestrator.daemon.callback_tally import CallbackTally
from orchestrator.daemon.listening import Listen, bind
from orchestrator.daemon.monitoring import cached, vitals
from orchestrator.daemon.monitoring.counted_database import CountedDatabase
from orchestrator.daemon.monitoring.meter import Meter
from orchestrator.daemon.monitoring.server import MonitoringServer
from orchestrator.daemon.monitoring.vitals import Vitals
from orchestrator.daemon.pulse import Loop, Pulse
from orchestrator.errors import UsageError
from orchestrator.store.engine import Database, DatabaseAway, StatementError, now, open_database
from orchestrator.wake.poll import PollWaker
from orchestrator.wake.postgres import PostgresWaker
from tests.daemon.customers import TENCENT
from tests.daemon.scraping import Samples, parse, sample
from tests.fault_proxy import fault_proxy
from tests.store.rows import run

pytestmark = pytest.mark.anyio

LOCAL = Listen(key="metrics.listen", host="127.0.0.1", port=0)


class Door:
    """Who asks, and where."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self._base_url = f"http://127.0.0.1:{port}"
        self._session = session

    async def ask(self, path: str) -> tuple[int, str]:
        async with self._session.get(f"{self._base_url}{path}") as answer:
            return answer.status, await answer.text()

    async def samples(self) -> Samples:
        return parse((await self.ask("/metrics"))[1])


@asynccontextmanager
async def serving(health: MonitoringServer) -> AsyncIterator[Door]:
    """Serve without a daemon around it."""
    async with AsyncExitStack() as stack:
        bound = stack.enter_context(bind(LOCAL))
        assert bound is not None
        port = bound.getsockname()[1]
        await stack.enter_async_context(health.serve(bound))
        yield Door(port, await stack.enter_async_context(aiohttp.ClientSession()))


class Parts:
    """The parts of a daemon that runs, with nothing that turns them."""

    def __init__(self) -> None:
        accounts = {TENCENT.name: {**TENCENT.settings, "endpoint": "http://vendor.invalid"}}
        self.pulse = Pulse()
        self.draining = False
        self.vitals = Vitals(
            book=Book(build_keys(understand({"accounts": accounts}, Path("/nowhere/c.toml"), {}))),
            callbacks=CallbackTally(),
            pulse=self.pulse,
            waker=PollWaker(timedelta(seconds=1)),
            is_draining=lambda: self.draining,
        )


def opener(url: str) -> Callable[[], Database]:
    return lambda: open_database(url, pool_size=3)


async def test_a_daemon_is_ready_after_its_first_pass(database_url: str) -> None:
    health, parts = MonitoringServer(Meter(), opener(database_url)), Parts()
    async with serving(health) as door:
        assert await door.ask("/healthz") == (200, "starting\n")
        assert await door.ask("/readyz") == (503, "starting\n")
        health.attach(parts.vitals)
        assert await door.ask("/readyz") == (503, "the first pass is not done yet\n")
        parts.pulse.turn(Loop.TASKS, passed=True)
        parts.pulse.turn(Loop.LANES, passed=False)
        assert await door.ask("/readyz") == (503, "the first pass is not done yet\n")
        parts.pulse.turn(Loop.LANES, passed=True)
        assert await door.ask("/readyz") == (200, "ready\n")
        parts.draining = True
        assert await door.ask("/readyz") == (503, "draining\n")


@pytest.mark.parametrize("stuck", Loop)
async def test_a_loop_that_does_not_turn_is_named(
    sqlite_url: str, stuck: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    health, parts = MonitoringServer(Meter(), opener(sqlite_url)), Parts()
    health.attach(parts.vitals)
    async with serving(health) as door:
        assert await door.ask("/healthz") == (200, "ok\n")
        monkeypatch.setattr(vitals, "SILENT_S", 1_000.0)
        parts.pulse._turned_ns[stuck] -= 2_000 * 10**9
        status, why = await door.ask("/healthz")
        assert (status, why.startswith(f"the loop of the {stuck.value} has not")) == (503, True)
        parts.draining = True
        assert await door.ask("/healthz") == (200, "ok\n")


async def test_a_database_that_hangs_keeps_no_answer_back(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "PATIENCE_S", 0.2)
    server = make_url(postgres_url)
    async with fault_proxy(server.host or "", server.port or 0) as way:
        url = server.set(host="127.0.0.1", port=way.port)
        there = url.render_as_string(hide_password=False)
        health, parts = MonitoringServer(Meter(), opener(there)), Parts()
        health.attach(parts.vitals)
        async with serving(health) as door:
            way.is_half_open = True
            status, why = await door.ask("/readyz")
            assert (status, "has not answered" in why) == (503, True)
            samples = await door.samples()
            assert sample(samples, "orchestrator_database_figures_up") == 0
            assert sample(samples, "orchestrator_loop_age_seconds", loop="tasks") >= 0
            assert not [name for name, _ in samples if name == "orchestrator_tasks"]
            assert (await door.ask("/healthz"))[0] == 200
            way.cut()


async def test_a_schema_that_is_not_there_is_said(empty_postgres_url: str) -> None:
    async with serving(MonitoringServer(Meter(), opener(empty_postgres_url))) as door:
        status, why = await door.ask("/readyz")
        assert (status, "orchestrator migrate" in why, why.count("\n")) == (503, True, 1)
        assert sample(await door.samples(), "orchestrator_database_figures_up") == 0


async def test_what_ends_the_daemon_goes_on_as_it_is(sqlite_url: str) -> None:
    with pytest.raises(UsageError, match=r"^so it is$"):
        async with serving(MonitoringServer(Meter(), opener(sqlite_url))):
            raise UsageError("so it is")


async def test_where_nothing_is_bound_nothing_is_opened() -> None:
    def refuse() -> Database:
        raise AssertionError("opened")

    async with MonitoringServer(Meter(), refuse).serve(None):
        pass


async def test_a_waker_that_does_not_hear_says_so(postgres_url: str) -> None:
    parts = Parts()
    waker = PostgresWaker(postgres_url)  # never entered: nobody listens
    one = Vitals(
        book=parts.vitals.book,
        callbacks=CallbackTally(),
        pulse=parts.pulse,
        waker=waker,
        is_draining=lambda: False,
    )
    shown = {family.name: family.samples for family in one.collect()}
    assert [each.value for each in shown["orchestrator_listen_up"]] == [0]
    assert "orchestrator_listen_round_trip_seconds" not in shown


async def test_failures_of_the_database_are_counted_by_kind(database: Database) -> None:
    seen: list[Exception] = []
    counted = CountedDatabase(database, seen.append)
    assert (counted.dialect, counted.path) == (database.dialect, database.path)
    assert await counted.read(now) is not None
    with pytest.raises(StatementError):
        await run(counted, "INSERT INTO nowhere VALUES (1)")
    assert [isinstance(error, StatementError) for error in seen] == [True]
    meter = Meter()
    meter.count_error(seen[0])
    meter.count_error(DatabaseAway("gone"))
    value = meter.registry.get_sample_value
    assert value("orchestrator_database_errors_total", {"kind": "statement"}) == 1
    assert value("orchestrator_database_errors_total", {"kind": "away"}) == 1
    assert value("orchestrator_database_errors_total", {"kind": "refused"}) == 0
