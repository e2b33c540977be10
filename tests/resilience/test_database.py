"""A database that goes away, or that somebody else holds: the daemon goes on when it is back."""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from orchestrator.store.migrate import upgrade
from tests.daemon.application import SQLITE, open_application, quoted, update_task
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO
from tests.daemon.running import Scene, open_scene, task, until
from tests.postgres_server import PostgresServer, running_server
from tests.resilience.convergence import describe, wait_converged

pytestmark = pytest.mark.anyio

THREE = (VOLCENGINE, TENCENT, ZEGO)
HELD_S = 12
"""Longer than the daemon waits for the lock."""
SECONDS = 30.0


@pytest.mark.parametrize("end", [PostgresServer.kill, PostgresServer.stop])
async def test_postgres_restarted_in_the_middle(
    end: Callable[[PostgresServer], None], tmp_path: Path
) -> None:
    with running_server(tmp_path / "server") as server:
        await upgrade(server.url())
        async with open_scene(server.url(), tmp_path) as scene:
            daemon = await scene.start_daemon()
            stopped = [f"stopped-{one.name}" for one in THREE]
            running = [f"running-{one.name}" for one in THREE]
            await ask_for(scene, [*stopped, *running])
            for one in THREE:  # calls are in flight while the server is away
                await scene.vendors.script(one.stop, "delay_reply", ms=700)
            await scene.app.write(*(update_task(id_, desired_state="'stopped'") for id_ in stopped))
            await scene.wait_for_faults()
            end(server)
            await wait_for_event(daemon.events, "database_away")
            server.start()
            async with open_application(server.url()) as scene.app:
                await ask_for(scene, [f"later-{one.name}" for one in THREE])
                wanted = dict.fromkeys(stopped, "stopped") | dict.fromkeys(running, "running")
                await wait_converged(scene, wanted | {f"later-{c.name}": "running" for c in THREE})
                assert await daemon.stop() == 0
                assert await scene.app.read("SELECT * FROM daemon") == []


async def test_all_backends_terminated_again_and_again(postgres_scene: Scene) -> None:
    scene = postgres_scene
    daemon = await scene.start_daemon()
    wanted: dict[str, str] = {}
    for number in range(4):
        ids = [f"round-{number}-{one.name}" for one in THREE]
        await scene.app.write(*(task(one, f"round-{number}-{one.name}") for one in THREE))
        await scene.app.write(*(update_task(id_, desired_state="'stopped'") for id_ in wanted))
        await wait_until_it_listens(scene)
        assert len(await scene.app.read(_TERMINATE)) >= 2
        wanted = dict.fromkeys(wanted, "stopped") | dict.fromkeys(ids, "running")
        for id_, phase in wanted.items():
            await scene.wait(id_, phase=phase)
    await wait_until_it_listens(scene)
    await wait_converged(scene, wanted)
    assert await daemon.stop() == 0


async def test_a_foreign_writer_holds_the_file_for_longer_than_the_daemon_waits(
    sqlite_scene: Scene,
) -> None:
    scene = sqlite_scene
    daemon = await scene.start_daemon()
    await scene.app.write(
        *(task(one, f"late-{one.name}", stop_at=scene.app.in_seconds(6)) for one in THREE),
        *(task(one, f"kept-{one.name}") for one in THREE),
    )
    kept = {f"kept-{one.name}": "running" for one in THREE}
    late = {f"late-{one.name}": "stopped" for one in THREE}
    for id_ in [*kept, *late]:
        await scene.wait(id_, phase="running")
    path = scene.database_url.removeprefix(SQLITE)
    with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        let_go_at = anyio.current_time() + HELD_S
        await wait_for_event(daemon.events, "database_away")

        async def is_over() -> bool | None:
            return True if anyio.current_time() > let_go_at else None

        await until(is_over, daemon.describe)
        foreign.execute("COMMIT")
    await wait_converged(scene, kept | late)
    assert daemon.events("database_back") != []
    assert await daemon.stop() == 0


async def test_an_application_that_waits_5_s_for_the_lock_always_gets_it(
    sqlite_scene: Scene,
) -> None:
    scene = sqlite_scene
    await scene.vendors.turn(volcengine_qps=10_000)
    scene.account(VOLCENGINE)["qps"] = {VOLCENGINE.start: 0, VOLCENGINE.stop: 0}
    daemon = await scene.start_daemon()
    ids = [f"busy-{n}" for n in range(60)]
    await scene.app.write(*(task(VOLCENGINE, id_) for id_ in ids))
    path = scene.database_url.removeprefix(SQLITE)
    # In a thread, since the vendors live on this loop.
    await to_thread.run_sync(flip, path, ids)
    assert daemon.process.poll() is None
    await wait_converged(scene, dict.fromkeys(ids, "running"))
    assert await daemon.stop() == 0


def flip(path: str, ids: Iterable[str]) -> None:
    """Change each row three times, each in a transaction of its own. Raises if the lock is held."""
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
        for state in ("stopped", "running", "stopped", "running"):
            for id_ in ids:
                connection.execute(update_task(id_, desired_state=quoted(state)))


async def ask_for(scene: Scene, ids: Iterable[str]) -> None:
    """Insert tasks, each of the account that its id ends with, and wait until they run."""
    wanted = {id_: one for id_ in ids for one in THREE if id_.endswith(one.name)}
    await scene.app.write(*(task(one, id_) for id_, one in wanted.items()))
    for id_ in wanted:
        await scene.wait(id_, phase="running")


async def wait_for_event(events: Callable[[str], list[dict[str, object]]], event: str) -> None:
    """Wait until a daemon has said something in its log."""

    async def look() -> bool | None:
        return True if events(event) else None

    async def awaited() -> str:
        return f"{event} in the log"

    await until(look, awaited, SECONDS)


async def wait_until_it_listens(scene: Scene) -> None:
    """Wait until the daemon has its listening connection back."""

    async def look() -> bool | None:
        return True if await scene.app.read(_LISTENING) else None

    async def awaited() -> str:
        return await describe(scene)

    await until(look, awaited, SECONDS)


_TERMINATE = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'orchestrator%'"""
_LISTENING = """SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'orchestrator wake'"""
