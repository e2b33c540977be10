"""Nobody waits for a daemon that is frozen in a transaction, nor it for anybody (Postgres).

The application's transactions are real ones, on connections of its own; each history here has once
lost a stop, aborted a user's transaction, or blocked everybody.
"""

import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection

from orchestrator.store.engine import Database, open_database
from orchestrator.store.postgres import PostgresDatabase
from tests.crash.conftest import MakeDatabase
from tests.crash.worlds import PATIENCE_S, VENDORS, World, every_wish, open_world
from tests.daemon.application import delete_task, update_task
from tests.daemon.customers import TENCENT, VOLCENGINE
from tests.daemon.running import task, until
from tests.store import claiming

pytestmark = pytest.mark.anyio

IDLE_S, LOCK_S = 2.0, 1.0
"""What our sessions allow a transaction that does nothing, and a wait for a lock."""
SLACK_S = 1.5
"""For a busy machine."""
STORM_USERS, STORM_ROUNDS = 4, 40


@asynccontextmanager
async def user_of(world: World) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Connect once more, as another process of the application."""
    connection = await asyncpg.connect(world.scene.database_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("step", ["claimed", "settling"])
async def test_a_daemon_frozen_in_a_transaction_delays_nobody_for_long(
    make_database: MakeDatabase, tmp_path: Path, step: str
) -> None:
    url = await make_database("postgresql")
    async with open_world(url, tmp_path / step, every_wish(VENDORS)) as world:
        first = await world.start("one")
        second = await world.start("two")
        # Whichever of the two comes there first; the other has to live with it.
        world.set_trap(step, "start", "SIGSTOP")
        await world.insert()
        frozen = await world.wait_sprung(first, second)
        frozen_at = anyio.current_time()
        worst = 0.0
        for row in world.rows:
            for statement in (
                update_task(row.id, stop_at="now() + interval '1 hour'"),
                update_task(row.id, desired_state="'stopped'"),
                update_task(row.id, desired_state="'running'"),
                delete_task(row.id),
                task(row.customer, row.id),
            ):
                began = anyio.current_time()
                await world.scene.app.write(statement)
                worst = max(worst, anyio.current_time() - began)
        # An insert waits for a status that a frozen transaction may just delete; nothing else does.
        assert worst < IDLE_S + SLACK_S, worst
        await wait_all_claimed_since_frozen(world)
        waited = anyio.current_time() - frozen_at
        # A row whose call is in flight is claimed when its lease ends; one that nobody leased, when
        # the frozen transaction is ended.
        assert waited < IDLE_S + LOCK_S + 3.0 + SLACK_S, waited
        frozen.process.send_signal(signal.SIGCONT)
        await world.change_minds()
        await world.wait_settled()
        assert [await first.stop(), await second.stop()] == [0, 0]


async def wait_all_claimed_since_frozen(world: World) -> None:
    """Wait until all changes are taken."""

    async def look() -> bool | None:
        return None if await world.scene.app.read("SELECT seq FROM task_change") else True

    async def awaited() -> str:
        return f"all changes taken\n{await world.describe()}"

    await until(look, awaited, PATIENCE_S)


async def test_a_forgotten_transaction_delays_no_stop(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = await make_database("postgresql")
    rows = every_wish([VOLCENGINE, TENCENT])
    async with open_world(url, tmp_path / "forgotten", rows) as world:
        daemon = await world.start("one")
        await world.insert()
        await world.wait_phase("running")
        held, *others = rows
        deadline = world.scene.app.in_seconds(3)
        await world.scene.app.write(update_task(held.id, stop_at=deadline))
        async with user_of(world) as user:
            forgotten = user.transaction()
            await forgotten.start()
            await user.execute(update_task(held.id, priority="5"))
            await world.scene.app.write(
                *(update_task(one.id, desired_state="'stopped'") for one in others)
            )
            for one in others:
                await world.scene.wait(one.id, within_s=5, phase="stopped", end_reason="requested")
            await world.scene.wait(held.id, within_s=8, phase="stopped", end_reason="deadline")
            assert await world.scene.vendors.live() == []
            await forgotten.rollback()
        assert await daemon.stop() == 0


async def test_a_repeatable_read_transaction_of_a_user_is_never_aborted(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = await make_database("postgresql")
    rows = every_wish([VOLCENGINE, TENCENT])
    async with open_world(url, tmp_path / "repeatable", rows) as world, user_of(world) as user:
        daemon = await world.start("one")
        for isolation in ("repeatable_read", "serializable"):
            await world.scene.app.write(*(delete_task(row.id) for row in rows))
            await world.insert()
            async with user.transaction(isolation=isolation):
                # Its snapshot is taken; then the daemon writes every status there is.
                assert await user.fetchval("SELECT count(*) FROM agent_task") == len(rows)
                await world.wait_phase("running")
                for row in rows:
                    await user.execute(update_task(row.id, desired_state="'stopped'"))
            await world.wait_phase("stopped")
        assert await daemon.stop() == 0


async def test_a_storm_of_transactions_of_many_tasks_meets_no_deadlock(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = await make_database("postgresql")
    rows = every_wish(VENDORS)
    async with open_world(url, tmp_path / "storm", rows) as world:
        daemons = [await world.start("one"), await world.start("two")]
        await world.insert()

        async def storm(number: int) -> None:
            lots = random.Random(number)
            async with user_of(world) as user:
                for _ in range(STORM_ROUNDS):
                    # Users keep an order among themselves; the daemon is told of none.
                    some = sorted(lots.sample(range(len(rows)), 4))
                    wanted = lots.choice(["running", "stopped"])
                    async with user.transaction():
                        for index in some:
                            await user.execute(
                                update_task(rows[index].id, desired_state=f"'{wanted}'")
                            )

        async with anyio.create_task_group() as users:
            for number in range(STORM_USERS):
                users.start_soon(storm, number)
        await world.change_minds()
        await world.wait_settled()
        async with user_of(world) as user:
            deadlocks = await user.fetchval(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            )
        assert deadlocks == 0
        assert not any(daemon.events("claim_failed") for daemon in daemons)
        assert [await daemon.stop() for daemon in daemons] == [0, 0]


async def test_a_stop_committed_between_snapshot_and_lock_is_not_lost(
    make_database: MakeDatabase,
) -> None:
    url = await make_database("postgresql")
    pausing, plain = open_database(url), open_database(url)
    try:
        await stop_between_snapshot_and_lock(url, pausing, plain)
    finally:
        await pausing.close()
        await plain.close()


async def stop_between_snapshot_and_lock(url: str, pausing: Database, plain: Database) -> None:
    """Pause a claim after the snapshot of its locking statement, and stop the task there."""
    daemon = await claiming.Daemon(plain).ready()
    await claiming.want(plain, "t1")
    await daemon.start("t1")
    await plain.write(_touch)
    pause_locks(pausing)
    claimed = []
    user = await asyncpg.connect(url)
    try:
        await user.execute("SELECT pg_advisory_lock(1)")
        async with anyio.create_task_group() as tasks:

            async def claim() -> None:
                claimed.append(await claiming.Daemon(pausing).claim("t1"))

            tasks.start_soon(claim)
            await wait_paused(user)
            await user.execute(update_task("t1", desired_state="'stopped'"))
            await user.execute("SELECT pg_advisory_unlock(1)")
    finally:
        await user.close()
    (seen,) = claimed
    calls = [order.flight.verb for order in seen.orders]
    left = await claiming.inbox(plain)
    # Either the claim has seen the stop and carries it out, or the stop waits for the next claim.
    assert calls == ["stop"] or (left == ["t1"] and calls != ["stop"]), (calls, left)
    assert (await claiming.status(plain, "t1", "retired"))[0] == len(calls) or left == ["t1"]


def _touch(connection: Connection) -> None:
    """Let the row be due, as a poll would."""
    connection.exec_driver_sql("UPDATE agent_status SET due_at = clock_timestamp()")


def pause_locks(database: Database) -> None:
    """Let each locking statement take its snapshot and then wait for an advisory lock."""
    assert isinstance(database, PostgresDatabase)

    @event.listens_for(database._stop.sync_engine, "before_cursor_execute", retval=True)
    @event.listens_for(database._rest.sync_engine, "before_cursor_execute", retval=True)
    def pause(
        _connection: object, _cursor: object, statement: str, parameters: object, *_rest: object
    ) -> tuple[str, object]:
        if "FOR UPDATE OF agent_status" in statement:
            paused = "WHERE (SELECT pg_advisory_xact_lock_shared(1) IS NOT NULL) AND"
            statement = statement.replace("WHERE", paused, 1)
        return statement, parameters


async def wait_paused(user: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Wait until a session of ours waits for the advisory lock."""

    async def look() -> bool | None:
        waiting = await user.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return True if waiting else None

    async def awaited() -> str:
        return "a claim that waits between snapshot and lock"

    await until(look, awaited)
