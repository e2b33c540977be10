"""SIGHUP: what is taken at once, what waits for a restart, what is refused, and what is said."""

import signal
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO
from tests.daemon.llm import WORDS, open_gate
from tests.daemon.running import Daemon, Scene, task, until
from tests.fault_proxy import fault_proxy

pytestmark = pytest.mark.anyio

LINE = "reloaded"


async def reload(scene: Scene, daemon: Daemon, event: str = LINE) -> dict[str, Any]:
    """Write the scene's configuration, send SIGHUP and return the line that answers it."""
    scene.write_config("one")
    before = len(daemon.events(event))

    async def said() -> dict[str, Any] | None:
        lines = daemon.events(event)
        return lines[-1] if len(lines) > before else None

    daemon.process.send_signal(signal.SIGHUP)
    return await until(said, daemon.describe)


async def test_a_reload_says_what_is_taken_and_what_waits(scene: Scene) -> None:
    key = scene.folder / "llm"
    key.write_text("fake-llm-key-one\n", "utf-8")
    scene.settings["secrets"] = {"llm": {"file": "llm"}}
    removed = scene.settings["accounts"].pop(ZEGO.name)
    daemon = await scene.start_daemon()

    same = await reload(scene, daemon)
    assert same["message"] == "nothing has changed"

    key.write_text("fake-llm-key-two\n", "utf-8")
    scene.settings["accounts"][ZEGO.name] = removed
    del scene.settings["accounts"][TENCENT.name]
    scene.account(VOLCENGINE)["secret_access_key"] = "fake-rotated-key"
    scene.account(VOLCENGINE)["poll_s"] = 2
    scene.settings["orphans"] = {"foreign": "stop"}
    scene.settings["lanes"] = {"gap_timeout_ms": 1}
    scene.settings["database"]["pool_size"] = 5
    said = await reload(scene, daemon)
    volcengine = f"accounts.{VOLCENGINE.name}"
    assert said["added"] == [f"accounts.{ZEGO.name}"]
    assert said["removed"] == [f"accounts.{TENCENT.name}"]
    assert said["changed"] == [
        f"{volcengine}.poll_s",
        f"{volcengine}.secret_access_key",
        "orphans.foreign",
        "secrets.llm",
    ]
    assert said["accounts"] == sorted(scene.settings["accounts"])
    (waits,) = daemon.events("needs_restart")
    assert waits["keys"] == ["database.pool_size", "lanes.gap_timeout_ms"]
    for value in ("fake-llm-key", "fake-rotated-key"):
        assert value not in daemon.log()

    async def written() -> bool | None:
        (row,) = await scene.app.read("SELECT accounts FROM daemon")
        return True if ZEGO.name in row["accounts"] else None

    await until(written, daemon.describe)
    await scene.ask_for(ZEGO, "new")
    await scene.wait("new", phase="running")


async def test_a_reload_with_one_mistake_takes_nothing(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    daemon = await scene.start_daemon()
    kept = scene.settings["accounts"].pop(ZEGO.name)
    scene.account(TENCENT)["secret_key"] = {"credential": "fake_absent"}
    refused = await reload(scene, daemon, "reload_refused")
    assert (
        f"accounts.{TENCENT.name}.secret_key: expected the systemd credential" in (refused["error"])
    )
    assert daemon.events(LINE) == []
    await scene.ask_for(ZEGO, "still-there")
    await scene.wait("still-there", phase="running")
    scene.settings["accounts"][ZEGO.name] = kept


async def test_a_credential_is_read_again(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    credentials = scene.folder / "credentials"
    credentials.mkdir()
    key = credentials / "tencent_secret_key"
    key.write_text("fake-wrong-key", "utf-8")
    right = scene.account(TENCENT)["secret_key"]
    scene.account(TENCENT)["secret_key"] = {"credential": key.name}
    daemon = await scene.start_daemon(CREDENTIALS_DIRECTORY=str(credentials))
    await scene.ask_for(TENCENT, "denied")
    await scene.wait("denied", waiting_for="denied")
    key.write_text(right, "utf-8")
    said = await reload(scene, daemon)
    assert said["changed"] == [f"accounts.{TENCENT.name}.secret_key"]
    await scene.wait("denied", phase="running")


async def test_upstreams_come_and_go_and_the_keys_of_a_gateway_wait(scene: Scene) -> None:
    async with open_gate(scene) as gate:
        daemon = await scene.start_daemon()
        agent = await gate.start_agent(ZEGO, "call")
        upstreams = scene.settings["llm_upstreams"]
        main = upstreams.pop("main")
        upstreams["other"] = {**main, "model": "fake-model"}
        scene.settings["llm_gateway"]["apology"] = "fake-apology"
        said = await reload(scene, daemon)
        assert (said["added"], said["removed"], said["changed"]) == (
            ["llm_upstreams.other"],
            ["llm_upstreams.main"],
            [],
        )
        (waits,) = daemon.events("needs_restart")
        assert waits["keys"] == ["llm_gateway.apology"]
        # An agent that runs was told of the one that is gone: its turns end politely.
        assert (await agent.ask()).text == ""
        (turn,) = await gate.wait_for_turns("call", 1)
        assert (turn["outcome"], turn["reason"]) == ("failed", "UnknownUpstream")
        assert gate.model.asked == []

        upstreams["main"] = main
        assert (await reload(scene, daemon))["added"] == ["llm_upstreams.main"]
        assert (await agent.ask()).text == "".join(WORDS)


async def test_the_new_key_of_an_upstream_is_used_at_once(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    async with open_gate(scene) as gate:
        key = scene.folder / "model_key"
        key.write_text("fake-first-key", "utf-8")
        main = scene.settings["llm_upstreams"]["main"]
        main |= {"api_key": {"file": key.name}, "headers": {"X-Team": {"file": key.name}}}
        daemon = await scene.start_daemon()
        agent = await gate.start_agent(ZEGO, "call")
        await agent.ask()
        key.write_text("fake-second-key", "utf-8")
        said = await reload(scene, daemon)
        path = "llm_upstreams.main"
        assert said["changed"] == [f"{path}.api_key", f"{path}.headers.X-Team"]
        # The agent has the token that it had: only the model's key is another.
        await agent.ask()
        headers = [one.headers for one in gate.model.asked]
        assert [(one["authorization"], one["x-team"]) for one in headers] == [
            ("Bearer fake-first-key", "fake-first-key"),
            ("Bearer fake-second-key", "fake-second-key"),
        ]
        for value in ("fake-first-key", "fake-second-key"):
            assert value not in daemon.log()


async def test_a_mistake_among_the_upstreams_takes_nothing(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    async with open_gate(scene) as gate:
        daemon = await scene.start_daemon()
        agent = await gate.start_agent(ZEGO, "call")
        scene.settings["llm_upstreams"]["main"]["fallback"] = "nobody"
        refused = await reload(scene, daemon, "reload_refused")
        assert "llm_upstreams.main.fallback: expected the name of another" in refused["error"]
        assert daemon.events(LINE) == []
        assert (await agent.ask()).text == "".join(WORDS)


async def test_the_level_of_the_log_is_taken_at_once(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    daemon = await scene.start_daemon()
    scene.settings["log"] = {"level": "error"}
    scene.write_config("one")
    daemon.process.send_signal(signal.SIGHUP)
    scene.settings["accounts"].pop(ZEGO.name)
    scene.account(TENCENT)["secret_key"] = ""
    # An error is said, and that the file was read before is not.
    await reload(scene, daemon, "reload_refused")
    assert daemon.events(LINE) == []


async def test_a_removed_account_with_agents_is_alarmed_once_and_its_rows_wait(
    scene: Scene,
) -> None:
    daemon = await scene.start_daemon()
    await scene.app.write(task(TENCENT, "left"), task(VOLCENGINE, "kept"))
    for id_ in ("left", "kept"):
        await scene.wait(id_, phase="running")
    removed = scene.settings["accounts"].pop(TENCENT.name)
    alarm = await reload(scene, daemon, "account_missing")
    assert (alarm["level"], alarm["account"]) == ("error", TENCENT.name)
    await scene.wait("left", waiting_for="account", reason="UnknownAccount")

    scene.account(VOLCENGINE)["poll_s"] = 2
    await reload(scene, daemon)
    await scene.app.write("UPDATE agent_task SET desired_state = 'stopped'")
    await scene.wait("kept", phase="stopped")
    await scene.wait("left", phase="stopping", waiting_for="account")
    assert [a["room_id"] for a in await scene.vendors.live()] == ["room-left"]
    assert len(daemon.events("account_missing")) == 1

    scene.settings["accounts"][TENCENT.name] = removed
    await reload(scene, daemon)
    # It would be looked at within a minute anyhow; a change makes it at once.
    await scene.app.write("DELETE FROM agent_task WHERE id = 'left'")
    await scene.wait_gone("left")
    assert await scene.vendors.live() == []


async def test_a_signal_to_end_is_heard_while_a_reload_awaits_the_database(
    postgres_scene: Scene,
) -> None:
    scene = postgres_scene
    server = make_url(scene.database_url)
    async with fault_proxy(server.host or "", server.port or 0) as way:
        through = server.set(host="127.0.0.1", port=way.port)
        scene.settings["database"]["url"] = through.render_as_string(hide_password=False)
        daemon = await scene.start_daemon()
        way.is_half_open = True
        way.cut()
        await reload(scene, daemon)
        daemon.process.send_signal(signal.SIGTERM)

        async def draining() -> bool | None:
            return True if daemon.events("draining") else None

        await until(draining, daemon.describe)
        way.is_half_open = False
        assert await daemon.ended() == 0


async def test_a_file_that_cannot_be_read_at_all_ends_no_daemon(scene: Scene) -> None:
    daemon = await scene.start_daemon()
    config = scene.write_config("one")
    config.write_text(f"daemon = {'[' * 9_999}", "utf-8")

    async def refused() -> bool | None:
        return True if daemon.events("reload_refused") else None

    daemon.process.send_signal(signal.SIGHUP)
    await until(refused, daemon.describe)
    await scene.app.write(task(VOLCENGINE, "a"))
    await scene.wait("a", phase="running")
