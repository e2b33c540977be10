"""On Postgres a daemon and an application share tables, and neither waits for the other.

The limits are the daemon's sessions': the server ends a transaction that idles for 2 s and a wait
for a lock after 1 s.
"""

import random
import signal
from collections.abc import Iterable
from pathlib import Path

import anyio
import asyncpg
import pytest

from orchestrator.core.model import Verb
from tests.daemon.application import (
    PostgresApplication,
    delete_task,
    open_application,
    quoted,
    update_task,
)
from tests.daemon.customers import TENCENT, VOLCENGINE
from tests.daemon.running import Scene, task
from tests.resilience.convergence import wait_converged
from tests.resilience.drill import Blow, open_drill

pytestmark = pytest.mark.anyio

SESSION_LIMITS_S = 3.0
MARGIN_S = 2.0
"""For a machine that has other things to do."""
AT_ONCE_S = 1.0
"""Less than a transaction of the daemon's may idle."""
STOPPED = {"desired_state": "'stopped'"}


async def test_a_daemon_frozen_in_its_claim_delays_nobody_for_longer_than_its_sessions_may(
    postgres_url: str, tmp_path: Path
) -> None:
    async with open_drill(postgres_url, tmp_path, [VOLCENGINE, TENCENT]) as drill:
        scene = drill.scene
        frozen = await drill.strike(Blow("claiming", Verb.START, signal.SIGSTOP))
        heir = await scene.start_daemon("two")
        with anyio.fail_after(SESSION_LIMITS_S + MARGIN_S):
            await drill.wait_call_by("two")
        await drill.wait_converged()
        frozen.process.send_signal(signal.SIGCONT)
        assert await frozen.stop() == 0
        assert await heir.stop() == 0


async def test_an_application_does_not_notice_a_daemon_frozen_in_its_claim(
    postgres_url: str, tmp_path: Path
) -> None:
    async with open_drill(postgres_url, tmp_path, [VOLCENGINE, TENCENT]) as drill:
        await drill.insert()
        blow = Blow("claiming", Verb.START, signal.SIGSTOP)
        frozen = drill.launch(blow)
        await drill.wait_struck(frozen, blow)
        with anyio.fail_after(AT_ONCE_S):
            await drill.change_minds()
            await drill.scene.app.write("DELETE FROM agent_task")
        frozen.process.send_signal(signal.SIGCONT)
        await wait_converged(drill.scene, {row.id: None for row in drill.rows})


async def test_a_forgotten_begin_delays_no_stop(postgres_scene: Scene) -> None:
    scene = postgres_scene
    await scene.start_daemon()
    ids = [f"neighbour-{n}" for n in range(5)]
    late = scene.app.in_seconds(4)
    await scene.app.write(*(task(VOLCENGINE, id_) for id_ in ids))
    await scene.app.write(task(TENCENT, "held", stop_at=late))
    for id_ in [*ids, "held"]:
        await scene.wait(id_, phase="running")
    forgetful = await asyncpg.connect(scene.database_url)
    try:
        await forgetful.execute("BEGIN")
        for id_ in [*ids[:2], "held"]:
            await forgetful.execute(update_task(id_, priority="7"))
        await scene.app.write(*(update_task(id_, **STOPPED) for id_ in ids[2:]))
        for id_ in ids[2:]:
            await scene.wait(id_, SESSION_LIMITS_S + MARGIN_S, phase="stopped")
        # Not even that of a row which the forgotten transaction has changed.
        await scene.wait("held", phase="stopped", end_reason="deadline")
        await forgetful.execute("ROLLBACK")
    finally:
        await forgetful.close()
    await scene.app.write("DELETE FROM agent_task")
    await wait_converged(scene, dict.fromkeys([*ids, "held"]))


async def test_a_repeatable_read_is_never_aborted_by_the_daemon(postgres_scene: Scene) -> None:
    scene = postgres_scene
    await scene.start_daemon()
    statements = {
        "stopped": update_task("stopped", **STOPPED),
        "labelled": update_task("labelled", labels="""'{"a": 1}'"""),
        "deleted": delete_task("deleted"),
    }
    user = await asyncpg.connect(scene.database_url)
    try:
        transaction = user.transaction(isolation="repeatable_read")
        await scene.app.write(*(task(VOLCENGINE, id_) for id_ in statements))
        await transaction.start()
        before = await user.fetch("SELECT task_id, phase, version FROM agent_status")
        for id_ in statements:  # the daemon writes what the snapshot has seen otherwise
            await scene.wait(id_, phase="running")
        assert await user.fetch("SELECT task_id, phase, version FROM agent_status") == before
        for statement in statements.values():
            await user.execute(statement)
        await transaction.commit()
    finally:
        await user.close()
    wanted = {"stopped": "stopped", "labelled": "running", "deleted": None}
    await wait_converged(scene, wanted)


async def test_a_storm_of_transactions_in_any_order_meets_no_deadlock(
    postgres_scene: Scene,
) -> None:
    scene = postgres_scene
    daemons = [await scene.start_daemon(name) for name in ("one", "two")]
    users = {f"u{n}": [f"u{n}-{m}" for m in range(5)] for n in range(6)}
    await scene.app.write(*(task(VOLCENGINE, id_) for ids in users.values() for id_ in ids))
    async with anyio.create_task_group() as storm:
        for name, ids in users.items():
            storm.start_soon(storm_of, scene.database_url, random.Random(name), ids)
    everyone = [id_ for ids in users.values() for id_ in ids]
    await scene.app.write("UPDATE agent_task SET desired_state = 'running'")
    await wait_converged(scene, dict.fromkeys(everyone, "running"))
    for daemon in daemons:
        assert await daemon.stop() == 0
        assert daemon.events("claim_failed") + daemon.events("settle_failed") == []
    (told,) = await scene.app.read(_DEADLOCKS)
    assert told["deadlocks"] == 0


async def storm_of(database_url: str, lots: random.Random, ids: Iterable[str]) -> None:
    """Change all rows of one user in each transaction, each time in another order."""
    async with open_application(database_url) as app:
        assert isinstance(app, PostgresApplication)
        for _ in range(30):
            order = lots.sample([*ids], k=5)
            await app.write(
                *(
                    update_task(id_, desired_state=quoted(lots.choice(["running", "stopped"])))
                    for id_ in order
                )
            )


_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
