"""The settler: outcomes are gathered into batches, and none is lost while the database is away."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anyio
import asyncpg
import pytest
from structlog.testing import capture_logs

from orchestrator.core.model import Verb
from orchestrator.core.outcome import Denied, Done, Indefinite, NotSent, Throttled
from orchestrator.daemon.call_tally import CallTally
from orchestrator.daemon.claim import Order
from orchestrator.daemon.limiter import Action, Limiter
from orchestrator.daemon.settle import Settlement
from orchestrator.daemon.settler import Desk, Settler
from orchestrator.store import sqlite
from orchestrator.store.engine import Database, open_database, sqlite_path
from orchestrator.store.migrate import upgrade
from tests.postgres_server import running_server
from tests.store.claiming import OWNER, Daemon, settled, status, want
from tests.store.rows import query, run

pytestmark = pytest.mark.anyio

START = Action(account="volc", name="start")


@dataclass
class Bench:
    """A daemon that has claimed, its settler, and how often it was told to look again."""

    daemon: Daemon
    nudges: list[None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tally = CallTally()
        self.limiter = Limiter(self.daemon.database, {START: 5})
        self.settler = Settler(
            Desk(
                database=self.daemon.database,
                limiter=self.limiter,
                book=self.daemon.desk.book,
                tally=self.tally,
                daemon_id="d1",
                daemon_name="d1",
                owner=OWNER,
                nudge=lambda: self.nudges.append(None),
            )
        )

    async def claim(self, *ids: str) -> list[Order]:
        await want(self.daemon.database, *ids)
        return (await self.daemon.claim(*ids)).orders

    async def settle(self, outcomes: Sequence[Settlement]) -> None:
        """Hand these over, and let the settler finish."""
        with anyio.fail_after(15):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.settler.run)
                for one in outcomes:
                    await self.settler.put(one)
                self.settler.finish()


@pytest.fixture
async def bench(database: Database) -> Bench:
    return Bench(await Daemon(database).ready())


async def test_many_outcomes_are_settled_together_and_the_scheduler_is_told(bench: Bench) -> None:
    # One by one: a claim announces no more than its time allows.
    orders = [(await bench.claim(f"t{n}"))[0] for n in range(30)]
    await bench.settle([settled(o, Done(handle=o.flight.task_id)) for o in orders])
    running = "SELECT task_id FROM agent_status WHERE phase = 'running'"
    assert len(await query(bench.daemon.database, running)) == len(orders)
    assert 1 <= len(bench.nudges) < len(orders)
    assert sum(one.calls for one in bench.tally.take()) == len(orders)


async def test_the_vendor_s_too_many_closes_the_action_for_everybody(bench: Bench) -> None:
    (order,) = await bench.claim("a")
    await bench.settle([settled(order, Throttled(code="Slow"))])
    assert await bench.limiter.draw(START, 1, keep_half=False) == []


async def test_too_many_agents_closes_no_action(bench: Bench) -> None:
    (order,) = await bench.claim("a")
    await bench.settle([settled(order, Throttled(code="Full", capacity=True))])
    assert len(await bench.limiter.draw(START, 1, keep_half=False)) == 1
    assert await status(bench.daemon.database, "a", "waiting_for") == ("capacity",)


@pytest.mark.parametrize(("code", "opens"), [("RateLimited", False), ("ConnectFailed", True)])
async def test_only_the_vendor_s_trouble_opens_the_breaker(
    bench: Bench, code: str, *, opens: bool
) -> None:
    (order,) = await bench.claim("a")
    await bench.settle([settled(order, NotSent(code=code)) for _ in range(60)])
    assert bench.daemon.desk.book.breaker("volc").is_open is opens


async def test_a_denial_reaches_the_account(bench: Bench) -> None:
    (order,) = await bench.claim("a")
    await bench.settle([settled(order, Denied(code="NoMoney"))])
    assert await query(
        bench.daemon.database,
        "SELECT account FROM account_state WHERE denied_code = 'NoMoney'",
    ) == [("volc",)]


@pytest.mark.parametrize(("verb", "told"), [(Verb.POLL, 1), (Verb.STOP, 1), (Verb.START, 2)])
async def test_a_denial_is_told_once_until_a_start_is_taken(
    bench: Bench, verb: Verb, told: int
) -> None:
    (order,) = await bench.claim("a")
    other = replace(order, flight=replace(order.flight, verb=verb))
    denied = settled(order, Denied(code="NoMoney"))
    with capture_logs() as lines:
        await bench.settle([denied, settled(other, Done()), denied])
    assert [line["event"] for line in lines].count("account_denied") == told


# --- what cannot be written


def unwritable(one: Settlement) -> Settlement:
    """Return a settlement that breaks a rule of the database's."""
    return replace(one, settled=replace(one.settled, outcome=Done(handle="taken")))


def undecidable(one: Settlement) -> Settlement:
    """Return a settlement that nothing can be decided about: its time is in no time zone."""
    naive = one.settled.answered_at.replace(tzinfo=None)
    return replace(one, settled=replace(one.settled, answered_at=naive))


@pytest.mark.parametrize("spoil", [unwritable, undecidable])
async def test_an_outcome_that_cannot_be_written_keeps_no_other_back(
    bench: Bench, spoil: Callable[[Settlement], Settlement]
) -> None:
    database = bench.daemon.database
    await bench.claim("other")
    await run(
        database,
        "CREATE UNIQUE INDEX one_handle ON agent_status (vendor_task_id)",
        "UPDATE agent_status SET vendor_task_id = 'taken' WHERE task_id = 'other'",
    )
    orders = [(await bench.claim(id_))[0] for id_ in ("a", "bad", "c")]
    outcomes = [settled(o, Done(handle=o.flight.task_id)) for o in orders]
    outcomes[1] = spoil(outcomes[1])
    with capture_logs() as lines:
        await bench.settle(outcomes)
    for id_, phase in {"a": "running", "bad": "starting", "c": "running"}.items():
        assert await status(database, id_, "phase") == (phase,)
    # It is left to its lease: whoever claims it next takes the call for unknown.
    assert await status(database, "bad", "intent", "lease_owner") == ("start", "d1")
    told = [line for line in lines if line["event"] == "outcome_lost"]
    assert [line["task_id"] for line in told] == ["bad"]


# --- a database that is away


async def settle_while_away(bench: Bench, order: Order, back: Callable[[], object]) -> None:
    """Settle an outcome; call `back` when the settler has said that the database is away."""
    with capture_logs() as lines:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.settle, [settled(order, Indefinite(code="E"))])
            while not any(line["event"] == "settle_failed" for line in lines):  # noqa: ASYNC110 - a log line has no event
                await anyio.sleep(0.01)
            back()


async def test_outcomes_survive_a_file_that_somebody_locks_for_too_long(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(sqlite_url)
    bench = Bench(await Daemon(database).ready())
    with closing(sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)) as stranger:
        (order,) = await bench.claim("a")
        monkeypatch.setattr(sqlite, "LOCK_WAIT_S", 0.05)
        stranger.execute("BEGIN IMMEDIATE")
        await settle_while_away(bench, order, partial(stranger.execute, "ROLLBACK"))
    assert await status(database, "a", "reason") == ("E",)
    await database.close()


async def test_outcomes_survive_a_table_that_somebody_holds(postgres_url: str) -> None:
    """As a migration does, or an application: for longer than our sessions wait."""
    database = open_database(postgres_url)
    bench = Bench(await Daemon(database).ready())
    (order,) = await bench.claim("a")
    holder = await asyncpg.connect(postgres_url)
    held = holder.transaction()
    await held.start()
    await holder.execute("LOCK TABLE agent_event IN ACCESS EXCLUSIVE MODE")
    await settle_while_away(bench, order, holder.terminate)
    assert await status(database, "a", "reason") == ("E",)
    await database.close()


async def test_outcomes_survive_a_server_that_is_away(tmp_path: Path) -> None:
    with running_server(tmp_path / "postgres") as server:
        await upgrade(server.url())
        database = open_database(server.url())
        bench = Bench(await Daemon(database).ready())
        (order,) = await bench.claim("a")
        server.kill()
        await settle_while_away(bench, order, server.start)
        await database.close()
        reopened = open_database(server.url())
        assert await status(reopened, "a", "reason") == ("E",)
        await reopened.close()
