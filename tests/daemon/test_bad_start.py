"""What keeps a daemon from starting, and what it says: the database, the schema, the accounts."""

import signal
import sqlite3
import sys
from contextlib import closing

import anyio
import pytest
from sqlalchemy.engine import make_url

from orchestrator.store.schema import REVISION
from tests.daemon.application import SQLITE, delete_task, update, update_task
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO
from tests.daemon.running import Scene, task, until
from tests.fault_proxy import FaultProxy
from tests.ports import unused_port

pytestmark = pytest.mark.anyio

OLDER, NEWER = int(REVISION) - 1, int(REVISION) + 1


async def test_an_older_schema_is_to_be_migrated(scene: Scene) -> None:
    await scene.app.write(update("orchestrator_version", "true", version_num=f"'{OLDER:04}'"))
    daemon = scene.launch()
    assert await daemon.ended() == 2
    assert f"is {OLDER:04}, older than {REVISION}: run `orchestrator migrate`" in daemon.log()


async def test_a_newer_schema_needs_a_newer_daemon(scene: Scene) -> None:
    await scene.app.write(update("orchestrator_version", "true", version_num=f"'{NEWER:04}'"))
    daemon = scene.launch()
    assert await daemon.ended() == 2
    assert f"is {NEWER:04}, newer than {REVISION}: upgrade orchestrator" in daemon.log()


async def test_a_database_without_tables_is_to_be_migrated(scene: Scene) -> None:
    await scene.app.write("DROP TABLE orchestrator_version")
    daemon = scene.launch()
    assert await daemon.ended() == 2
    assert "has no tables of orchestrator: run `orchestrator migrate`" in daemon.log()


async def test_a_server_that_is_away_is_awaited_with_one_line(postgres_scene: Scene) -> None:
    scene = postgres_scene
    server = make_url(scene.database_url)
    assert server.host is not None
    assert server.port is not None
    port = unused_port()
    away = server.set(host="127.0.0.1", port=port)
    scene.settings["database"]["url"] = away.render_as_string(hide_password=False)
    daemon = scene.launch()

    async def told() -> bool | None:
        return True if daemon.events("database_away") else None

    await until(told, daemon.describe)
    way = FaultProxy(server.host, server.port)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, way.serve_connection)
        await scene.ask_for(VOLCENGINE, "waited")
        await scene.wait("waited", phase="running")
        assert len(daemon.events("database_away")) == 1
        assert await daemon.stop() == 0
        tasks.cancel_scope.cancel()


async def test_a_file_that_is_not_there_is_to_be_made_by_migrate(sqlite_scene: Scene) -> None:
    nowhere = sqlite_scene.folder / "nowhere.db"
    sqlite_scene.settings["database"]["url"] = f"{SQLITE}{nowhere}"
    daemon = sqlite_scene.launch()
    assert await daemon.ended() == 2
    assert f"there is no database at {nowhere}: run `orchestrator migrate`" in daemon.log()
    assert not nowhere.exists()


async def test_an_account_with_agents_cannot_just_be_removed(scene: Scene) -> None:
    first = await scene.start_daemon()
    await scene.app.write(task(TENCENT, "left"), task(VOLCENGINE, "kept"))
    for id_ in ("left", "kept"):
        await scene.wait(id_, phase="running")
    assert await first.stop() == 0

    removed = scene.settings["accounts"].pop(TENCENT.name)
    refused = scene.launch("refused")
    assert await refused.ended() == 2
    assert "agents may run in accounts that the configuration does not have: tencent; put them" in (
        refused.log()
    )
    assert "--abandon tencent" in refused.log()

    given_up = scene.launch("given-up", "--abandon", TENCENT.name)
    await scene.app.write("UPDATE agent_task SET desired_state = 'stopped'")
    await scene.wait("kept", phase="stopped")
    await scene.wait("left", phase="stopping", waiting_for="account", reason="UnknownAccount")
    assert [a["room_id"] for a in await scene.vendors.live()] == ["room-left"]
    assert await given_up.stop() == 0

    scene.settings["accounts"][TENCENT.name] = removed
    await scene.start_daemon("again")
    # It would be looked at within a minute anyhow; a change makes it at once.
    await scene.app.write(delete_task("left"))
    await scene.wait_gone("left")
    assert await scene.vendors.live() == []


async def test_a_wrong_key_is_told_once_and_put_right_by_a_reload(scene: Scene) -> None:
    key = scene.folder / "key"
    key.write_text("fake-wrong-key", "utf-8")
    right = scene.account(TENCENT)["secret_key"]
    scene.account(TENCENT)["secret_key"] = {"file": "key"}
    daemon = await scene.start_daemon()
    ids = ["denied-1", "denied-2", "denied-3"]
    await scene.app.write(*(task(TENCENT, id_) for id_ in ids), task(ZEGO, "other"))
    await scene.wait("other", phase="running")
    for id_ in ids:
        await scene.wait(id_, phase="pending", waiting_for="denied")
    (told,) = daemon.events("account_denied")
    assert (told["level"], told["code"]) == ("error", "AuthFailure.SignatureFailure")

    key.write_text(right, "utf-8")
    daemon.process.send_signal(signal.SIGHUP)
    for id_ in ids:
        await scene.wait(id_, phase="running")
    assert len(daemon.events("account_denied")) == 1
    await scene.app.write(update_task(ids[0], desired_state="'stopped'"))
    await scene.wait(ids[0], phase="stopped")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("orchestrator_test", "postgres"), 'role "orchestrator_test" does not exist'),
        (("postgres", "nowhere"), 'database "nowhere" does not exist'),
    ],
    ids=["role", "database"],
)
@pytest.mark.parametrize("command", [("run",), ("migrate",), ("migrate", "--wait"), ("status",)])
async def test_a_server_that_refuses_is_no_server_that_is_away(
    postgres_scene: Scene, command: tuple[str, ...], names: tuple[str, str], sentence: str
) -> None:
    user, database = names
    url = make_url(postgres_scene.database_url).set(username=user, database=database)
    postgres_scene.settings["database"]["url"] = url.render_as_string(hide_password=False)
    config = str(postgres_scene.write_config("refused"))
    done = await anyio.run_process(
        [sys.executable, "-m", "orchestrator", *command, "-c", config], check=False
    )
    told = [line for line in done.stderr.decode().splitlines() if '"configuration"' not in line]
    assert (done.returncode, len(told)) == (2, 1), told
    assert sentence in told[0]


async def test_a_signal_to_end_is_heard_while_the_start_awaits_the_database(
    sqlite_scene: Scene,
) -> None:
    path = sqlite_scene.database_url.removeprefix(SQLITE)
    with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        daemon = sqlite_scene.launch()

        async def told() -> bool | None:
            return True if daemon.events("database_away") else None

        await until(told, daemon.describe)
        assert await daemon.stop() == 0
    assert await sqlite_scene.app.read("SELECT id FROM daemon") == []
