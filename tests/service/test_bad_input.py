"""What keeps the service from starting: one clear line, the right exit code, and no second try."""

import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from orchestrator.store.schema import REVISION
from tests.daemon.application import SQLITE, update
from tests.daemon.customers import VOLCENGINE
from tests.postgres_server import PostgresServer
from tests.service.machine import SERVICE
from tests.service.serving import CONFIG, Serving

pytestmark = pytest.mark.anyio

Mistake = Callable[[Serving], Awaitable[str]]
"""Makes something wrong, and returns the unit that will meet it."""

ROLE, PASSWORD = "orchestrator_test", "fake-password"
SMALL = "/var/lib/orchestrator/small"
"""A file system of its own, which a test can fill."""


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that asks one role for its password."""
    folder = tmp_path_factory.mktemp("guarded")
    server = PostgresServer(folder)
    try:
        server.initialise()
        rules = folder / "data" / "pg_hba.conf"
        given = rules.read_text("utf-8")
        rules.write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n{given}", "utf-8")
        server.start()
        yield server
    finally:
        server.stop()


async def no_credentials(serving: Serving) -> str:
    serving.take_credential("volcengine", "secret_access_key")
    serving.configure()
    return SERVICE


async def no_toml(serving: Serving) -> str:
    serving.configure()
    with serving.machine.path(f"{CONFIG}/config.toml").open("a", encoding="utf-8") as config:
        config.write("[accounts\n")
    return SERVICE


async def unknown_schema(serving: Serving) -> str:
    await serving.start()
    await serving.machine.run("systemctl", "stop", SERVICE)
    async with serving.application() as app:
        newer = f"'{int(REVISION) + 1:04}'"
        await app.write(update("orchestrator_version", "true", version_num=newer))
    return SERVICE


async def second_daemon(serving: Serving) -> str:
    await serving.start()
    serving.configure("second")
    return f"{SERVICE}@second"


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (no_credentials, 'expected the systemd credential "volcengine_secret_access_key"'),
        (no_toml, "expected TOML, found a mistake"),
        (unknown_schema, f"newer than {REVISION}: upgrade orchestrator"),
        (second_daemon, "orchestrator.db is held by the daemon"),
    ],
    ids=["no credentials", "no TOML", "unknown schema", "second daemon"],
)
async def test_what_a_person_must_put_right(
    serving: Serving, mistake: Mistake, sentence: str
) -> None:
    unit = await mistake(serving)
    await assert_fails(serving, unit, sentence)


async def test_a_port_in_use(serving: Serving) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving.settings["callbacks"] = {"listen": f"127.0.0.1:{port}"}
        serving.configure()
        await assert_fails(serving, SERVICE, f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("password", "database", "sentence"),
    [
        ("fake-wrong-password", "postgres", f'password authentication failed for user "{ROLE}"'),
        (PASSWORD, "nowhere", 'database "nowhere" does not exist'),
    ],
    ids=["wrong password", "unknown database"],
)
async def test_a_server_that_refuses(
    serving: Serving, guarded_server: PostgresServer, password: str, database: str, sentence: str
) -> None:
    await make_role(guarded_server)
    url = make_url(guarded_server.url(database)).set(username=ROLE, password=password)
    serving.settings["database"]["url"] = url.render_as_string(hide_password=False)
    serving.configure()
    await assert_fails(serving, SERVICE, sentence)
    assert password not in await serving.machine.journal()


async def make_role(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        known = "SELECT FROM pg_roles WHERE rolname = $1"
        if not await connection.fetch(known, ROLE):
            await connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    finally:
        await connection.close()


async def assert_fails(serving: Serving, unit: str, sentence: str) -> None:
    """Start a unit: it fails with 2 and one line about it, and is left alone."""
    machine = serving.machine
    await machine.forget_journal()
    done = await machine.attempt("systemctl", "start", unit)
    assert done.returncode != 0
    assert await machine.show(unit, "ActiveState") == "failed"
    assert await machine.show(unit, "NRestarts") == "0"
    assert len(await machine.lines("status=2/INVALIDARGUMENT")) == 1
    assert len(await machine.lines(sentence)) == 1, await machine.journal()
    assert await machine.lines("Traceback") == []
    assert await machine.lines("Scheduled restart job") == []


async def test_a_full_disk_is_awaited_with_one_line(serving: Serving) -> None:
    """Before there is a database, and when there is one; and a service that waits can be ended."""
    machine = serving.machine
    owner = f"uid={SERVICE},gid={SERVICE}"
    await machine.run("mkdir", SMALL)
    await machine.run("mount", "-t", "tmpfs", "-o", f"size=16m,mode=2770,{owner}", "tmpfs", SMALL)
    try:
        serving.settings["database"]["url"] = f"{SQLITE}{SMALL}/orchestrator.db"
        serving.configure()
        for _ in ("without a database", "with one"):
            await machine.forget_journal()
            await machine.attempt("dd", "if=/dev/zero", f"of={SMALL}/filler", "bs=64k")
            await serving.begin()
            await machine.wait(SERVICE, StatusText="waiting for the database")
            assert await machine.show(SERVICE, "ActiveState") == "activating"
            await machine.run("rm", f"{SMALL}/filler")
            await machine.wait(SERVICE, ActiveState="active")
            assert len(await machine.lines('"database_away"')) == 1
            assert await machine.show(SERVICE, "NRestarts") == "0"
            await machine.run("systemctl", "stop", SERVICE)
        await machine.attempt("dd", "if=/dev/zero", f"of={SMALL}/filler", "bs=64k")
        await serving.begin()
        await machine.wait(SERVICE, StatusText="waiting for the database")
        await machine.run("systemctl", "stop", SERVICE)
        assert await machine.show(SERVICE, "Result") != "timeout"
    finally:
        await machine.run("umount", "--lazy", SMALL)
        await machine.run("rmdir", SMALL)


async def test_a_key_that_stands_in_the_file_is_no_mistake(serving: Serving) -> None:
    """So the cases above fail for what they say, and for nothing else."""
    serving.take_credential("volcengine", "secret_access_key")
    account = serving.settings["accounts"][VOLCENGINE.name]
    account["secret_access_key"] = VOLCENGINE.settings["secret_access_key"]
    await serving.start()
    assert await serving.machine.show(SERVICE, "ActiveState") == "active"


def test_the_configuration_is_found_where_the_unit_says() -> None:
    unit = Path(__file__).parents[2] / "systemd" / "orchestrator.service"
    assert f"run -c {CONFIG}/config.toml" in unit.read_text("utf-8")
