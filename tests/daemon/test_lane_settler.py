"""The lanes' settler: outcomes are gathered, and none is lost while its lane's lease lasts."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anyio
import asyncpg
import pytest
from structlog.testing import capture_logs

from orchestrator.clock import boot_ns
from orchestrator.core.outcome import Done
from orchestrator.daemon.lane_settle import CommandSettlement
from orchestrator.daemon.lane_settler import LaneSettler
from orchestrator.store import sqlite
from orchestrator.store.engine import Database, open_database, sqlite_path
from orchestrator.store.migrate import upgrade
from tests.daemon.running import until
from tests.postgres_server import running_server
from tests.store.rows import insert, query, quoted, run
from tests.store.test_lanes import Speaker, came_to, end_leases, speaker_to, state

pytestmark = pytest.mark.anyio

LONG_NS = 60 * 10**9
"""A lease that no test outlives."""


@dataclass
class Bench:
    """A daemon that has claimed presses, its settler, and how often its loop was told to look."""

    speaker: Speaker
    nudges: list[None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settler = LaneSettler(
            self.database, self.speaker.settling, lambda: self.nudges.append(None)
        )

    @property
    def database(self) -> Database:
        return self.speaker.database

    async def claim(self, *users: str) -> list[CommandSettlement]:
        """Let each of these users' presses, which has the user's name, be taken by the vendor."""
        for user in users:
            own = {"id": quoted(user), "task_id": "'call'", "user_id": quoted(user)}
            await run(self.database, insert("agent_command", **own, kind="'start_listening'"))
        orders = (await self.speaker.claim()).orders
        lasting = [replace(one, lease_ends_ns=boot_ns() + LONG_NS) for one in orders]
        return [came_to(one, Done(request_id=one.flight.command.id)) for one in lasting]

    @asynccontextmanager
    async def settling(self, *settlements: CommandSettlement) -> AsyncIterator[None]:
        """Hand these over, and let the settler finish after the block."""
        with anyio.fail_after(LONG_NS / 1e9):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.settler.run)
                for one in settlements:
                    await self.settler.put(one)
                try:
                    yield
                finally:
                    self.settler.finish()

    async def settle(self, *settlements: CommandSettlement) -> None:
        async with self.settling(*settlements):
            pass

    async def states(self, *users: str) -> list[str]:
        return [await state(self.database, user) for user in users]


@pytest.fixture
async def bench(database: Database) -> Bench:
    return Bench(await speaker_to(database, "call"))


async def test_many_outcomes_are_settled_together_and_the_loop_is_told(bench: Bench) -> None:
    users = [f"u{n}" for n in range(40)]
    await bench.settle(*await bench.claim(*users))
    assert set(await bench.states(*users)) == {"done"}
    assert 1 <= len(bench.nudges) < len(users)


async def test_an_outcome_that_lost_its_lane_is_dropped(bench: Bench) -> None:
    late = await bench.claim("p")
    await end_leases(bench.database)
    await Speaker(bench.database, "two").claim_one()
    await bench.settle(*late)
    assert await bench.states("p") == ["sending"]


# --- what cannot be written


async def test_an_outcome_that_cannot_be_written_keeps_no_other_back(bench: Bench) -> None:
    await run(
        bench.database,
        insert("agent_command", id="'before'", task_id="'call'", kind="'interrupt'"),
        "UPDATE agent_command SET state = 'done', seen_at = created_at, request_id = 'bad'",
        "CREATE UNIQUE INDEX one_request ON agent_command (request_id)",
    )
    outcomes = await bench.claim("a", "bad", "c")
    with capture_logs() as lines:
        await bench.settle(*outcomes)
    # It is left to its lease: whoever claims its lane next takes the call for unknown.
    assert await bench.states("a", "bad", "c") == ["done", "sending", "done"]
    lost = [line["command_id"] for line in lines if line["event"] == "outcome_lost"]
    assert lost == ["bad"]


# --- a database that is away


async def settle_while_away(
    bench: Bench, outcome: CommandSettlement, back: Callable[[], object]
) -> None:
    """Settle an outcome; call `back` when the settler has said that the database is away."""

    async def is_told() -> bool | None:
        return any(line["event"] == "commands_unsettled" for line in lines) or None

    async def awaited() -> str:
        return f"the settler's word\n{lines}"

    with capture_logs() as lines:
        async with bench.settling(outcome):
            await until(is_told, awaited)
            back()


async def test_what_was_said_is_done_though_the_file_was_locked_for_a_moment(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(sqlite_url)
    bench = Bench(await speaker_to(database, "call"))
    (outcome,) = await bench.claim("p")
    monkeypatch.setattr(sqlite, "LOCK_WAIT_S", 0.05)
    with closing(sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        await settle_while_away(bench, outcome, partial(stranger.execute, "ROLLBACK"))
    assert await bench.states("p") == ["done"]
    await database.close()


async def test_what_was_said_is_done_though_the_server_was_away_for_a_moment(
    tmp_path: Path,
) -> None:
    with running_server(tmp_path / "postgres") as server:
        await upgrade(server.url())
        database = open_database(server.url())
        bench = Bench(await speaker_to(database, "call"))
        (outcome,) = await bench.claim("p")
        server.kill()
        await settle_while_away(bench, outcome, server.start)
        await database.close()
        reopened = open_database(server.url())
        assert await state(reopened, "p") == "done"
        await reopened.close()


# --- a lane that somebody else has locked


@pytest.fixture
async def shared(postgres_url: str, anyio_backend: str) -> AsyncIterator[Bench]:
    """A bench whose rows others can lock."""
    del anyio_backend  # asked for, so that it is there before this
    opened = open_database(postgres_url)
    yield Bench(await speaker_to(opened, "call"))
    await opened.close()


@asynccontextmanager
async def locked(url: str, user: str) -> AsyncIterator[None]:
    """Hold a user's lane locked."""
    stranger = await asyncpg.connect(url)
    try:
        async with stranger.transaction():
            await stranger.execute("SELECT * FROM lane WHERE user_id = $1 FOR UPDATE", user)
            yield
    finally:
        await stranger.close()


async def test_an_outcome_whose_lane_is_locked_waits_and_keeps_no_other_back(
    shared: Bench, postgres_url: str
) -> None:
    outcomes = await shared.claim("held", "free")

    async def is_settled() -> bool | None:
        return await shared.states("held", "free") == ["sending", "done"] or None

    async def awaited() -> str:
        return str(await query(shared.database, "SELECT id, state FROM agent_command"))

    # The lane is locked before there is anything to settle, and free before the settler finishes.
    async with shared.settling(), locked(postgres_url, "held"):
        for one in outcomes:
            await shared.settler.put(one)
        await until(is_settled, awaited)
    assert await shared.states("held", "free") == ["done", "done"]


async def test_an_outcome_is_given_up_when_its_lease_has_ended(
    shared: Bench, postgres_url: str
) -> None:
    (outcome,) = await shared.claim("p")
    late = replace(outcome, order=replace(outcome.order, lease_ends_ns=boot_ns()))
    async with locked(postgres_url, "p"):
        await shared.settle(late)
    assert await shared.states("p") == ["sending"]
