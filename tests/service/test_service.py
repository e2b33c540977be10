"""The service under a real systemd: how it starts, lives, is looked after and ends."""

import anyio
import pytest

from tests.daemon.customers import TENCENT, VOLCENGINE
from tests.daemon.running import task
from tests.service.conftest import FIGURE
from tests.service.machine import SERVICE
from tests.service.serving import QUICKER, Serving

pytestmark = pytest.mark.anyio

STATE = "/var/lib/orchestrator"
SLOW_MS = 4_000
"""Of a vendor's reply, below the calls' own limit."""
EXPOSED_MOST = 15
"""Tenths; from 0, which is not at all, to 100."""


async def test_ready_is_who_has_made_a_pass(serving: Serving) -> None:
    """While another program holds the database's lock nothing can be passed, and it says so."""
    machine = serving.machine
    await serving.start()
    await machine.run("systemctl", "stop", SERVICE)
    with serving.held_lock():
        await serving.begin()
        await machine.wait(SERVICE, StatusText="waiting for the database")
        assert await machine.show(SERVICE, "ActiveState") == "activating"
    await machine.wait(SERVICE, ActiveState="active")
    async with serving.application() as app:
        assert len(await app.read("SELECT id FROM daemon")) == 1


async def test_credentials_are_read_and_the_status_has_figures(serving: Serving) -> None:
    """The vendors take no call that is not signed with keys that only root may read."""
    await serving.start()
    async with serving.application() as app:
        await app.write(task(VOLCENGINE, "first"), task(TENCENT, "second"))
        for id_ in ("first", "second"):
            await serving.wait_status(app, id_, phase="running")
    await serving.machine.wait(
        SERVICE,
        StatusText="2 running, 0 starting, 0 stopping; 0 not as desired, 0 orphans",
    )
    journal = await serving.machine.journal()
    assert VOLCENGINE.settings["secret_access_key"] not in journal


async def test_a_reload_takes_new_keys_and_keeps_the_process(serving: Serving) -> None:
    machine = serving.machine
    key = serving.settings["accounts"][VOLCENGINE.name]
    right, key["secret_access_key"] = key["secret_access_key"], {"file": "key"}
    machine.path("/etc/orchestrator/key").write_text("fake-wrong-key", "utf-8")
    pid = await serving.start()
    key["secret_access_key"] = right
    serving.configure()
    await machine.run("systemctl", "reload", SERVICE)
    async with serving.application() as app:
        await app.write(task(VOLCENGINE, "after"))
        await serving.wait_status(app, "after", phase="running")
    assert await machine.main_pid() == pid
    assert await machine.show(SERVICE, "ActiveState") == "active"


async def test_a_daemon_that_hangs_is_ended_and_started_again(serving: Serving) -> None:
    machine = serving.machine
    await serving.drop_in(QUICKER)
    pid = await serving.start()
    await machine.run("kill", "-STOP", str(pid))
    await machine.wait_for_line("Watchdog timeout")
    await machine.wait(SERVICE, NRestarts="1", ActiveState="active")
    assert await machine.main_pid() not in {0, pid}


async def test_a_daemon_that_waits_for_its_database_does_not_hang(serving: Serving) -> None:
    """Its loops turn, so it gives signs of life, for longer than the watchdog's patience."""
    machine = serving.machine
    await serving.drop_in("WatchdogSec=4\n")
    pid = await serving.start()
    with serving.held_lock():
        since = anyio.current_time()
        await machine.wait_for_line("janitor_failed")  # ten seconds without the lock
        assert anyio.current_time() - since > 4
    assert (await machine.main_pid(), await machine.show(SERVICE, "NRestarts")) == (pid, "0")


async def test_a_daemon_that_was_killed_is_started_again(serving: Serving) -> None:
    machine = serving.machine
    await serving.drop_in(QUICKER)
    pid = await serving.start()
    async with serving.application() as app:
        await app.write(task(VOLCENGINE, "kept"))
        await serving.wait_status(app, "kept", phase="running")
        await machine.run("kill", "-KILL", str(pid))
        await machine.wait(SERVICE, NRestarts="1", ActiveState="active")
        assert await machine.main_pid() not in {0, pid}
        await app.write("UPDATE agent_task SET desired_state = 'stopped'")
        await serving.wait_status(app, "kept", phase="stopped")
    assert await serving.vendors.live() == []


async def test_calls_in_flight_are_finished_before_the_end(serving: Serving) -> None:
    machine = serving.machine
    serving.settings["accounts"][VOLCENGINE.name]["call_timeout_ms"] = 2 * SLOW_MS
    serving.settings["leases"]["ttl_s"] = 15
    await serving.drop_in("WatchdogSec=2\n")
    await serving.start()
    async with serving.application() as app:
        await serving.vendors.script("StartVoiceChat", "delay_reply", ms=SLOW_MS)
        await app.write(task(VOLCENGINE, "slow"))
        await serving.wait_status(app, "slow", intent="start")
        await machine.run("systemctl", "stop", SERVICE)
        await serving.wait_status(app, "slow", phase="running", intent=None)
        assert await app.read("SELECT id FROM daemon") == []
    assert await machine.show(SERVICE, "Result") == "success"
    assert await machine.show(SERVICE, "ExecMainStatus") == "0"


async def test_nothing_is_writable_but_its_state(serving: Serving) -> None:
    """And its own temporary directories; memory that it shares with nobody is not looked at."""
    pid = await serving.start()
    found = await serving.machine.attempt(
        *("nsenter", "--target", str(pid), "--mount"),
        *("setpriv", "--reuid", SERVICE, "--regid", SERVICE, "--clear-groups"),
        *("find", "/", "(", "-path", "/proc", "-o", "-path", "/dev", ")", "-prune"),
        *("-o", "-writable", "!", "-type", "l", "!", "-type", "s", "-print"),
    )
    writable = found.stdout.decode().split()
    files = {path for path in writable if path.startswith(f"{STATE}/")}
    assert {STATE, f"{STATE}/orchestrator.db"} <= set(writable)
    assert set(writable) - files == {STATE, "/tmp", "/var/tmp"}  # noqa: S108 - its own ones


async def test_it_is_hardly_exposed(serving: Serving, request: pytest.FixtureRequest) -> None:
    command = ("systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSED_MOST}")
    done = await serving.machine.attempt(*command, SERVICE)
    told = done.stdout.decode()
    request.config.stash[FIGURE] = told.splitlines()[-1].lstrip("→ ")
    assert done.returncode == 0, told


@pytest.mark.parametrize("unit", ["orchestrator.service", "orchestrator@.service"])
async def test_systemd_understands_every_line(serving: Serving, unit: str) -> None:
    verify = ("systemd-analyze", "verify", "--recursive-errors=yes", "--man=no")
    done = await serving.machine.attempt(*verify, f"/usr/local/lib/systemd/system/{unit}")
    assert (done.returncode, done.stderr.decode(), done.stdout.decode()) == (0, "", "")
