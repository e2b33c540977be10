"""The settler: outcomes are gathered into batches, and none is lost while the database is away."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs

from orchestrator.core.outcome import Denied, Done, Indefinite, NotSent, Throttled
from orchestrator.daemon.limiter import Action, Limiter
from orchestrator.daemon.settle import Settlement
from orchestrator.daemon.settler import Desk, Settler
from orchestrator.daemon.tally import Tally
from orchestrator.store.engine import Database
from tests.store.claiming import Daemon, settled, status, want
from tests.store.rows import query, run

pytestmark = pytest.mark.anyio

START = Action(account="volc", name="start")


@dataclass
class Bench:
    """A daemon that has claimed, its settler, and how often it was told to look again."""

    daemon: Daemon
    nudges: list[None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tally = Tally()
        self.limiter = Limiter(self.daemon.database, {START: 5})
        self.settler = Settler(
            Desk(
                database=self.daemon.database,
                limiter=self.limiter,
                book=self.daemon.desk.book,
                tally=self.tally,
                daemon_id="d1",
                daemon_name="d1",
                nudge=lambda: self.nudges.append(None),
            )
        )

    async def claim(self, *ids: str) -> list[Any]:
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
    ids = [f"t{n}" for n in range(30)]
    orders = await bench.claim(*ids)
    await bench.settle([settled(o, Done(handle=o.flight.task_id)) for o in orders])
    running = "SELECT task_id FROM agent_status WHERE phase = 'running'"
    assert len(await query(bench.daemon.database, running)) == len(orders)
    # A claim announces no more than its time allows.
    assert 1 <= len(bench.nudges) < len(orders) <= len(ids)
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


@pytest.mark.parametrize(("code", "opens"), [("SlotMissed", False), ("ConnectFailed", True)])
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


async def test_outcomes_survive_a_database_that_refuses_them_for_a_while(bench: Bench) -> None:
    orders = await bench.claim("a")
    await run(bench.daemon.database, "ALTER TABLE agent_event RENAME TO elsewhere")
    with capture_logs() as lines:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.settle, [settled(o, Indefinite(code="E")) for o in orders])
            while not any(line["event"] == "settle_failed" for line in lines):
                await anyio.lowlevel.checkpoint()
            await run(bench.daemon.database, "ALTER TABLE elsewhere RENAME TO agent_event")
    assert await status(bench.daemon.database, "a", "reason") == ("E",)
