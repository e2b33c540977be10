import os
import socket
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio.to_thread
import asyncpg
import pytest
from sqlalchemy.engine import make_url

from orchestrator.commands.check import inspect, run
from orchestrator.commands.checks.finding import Finding
from orchestrator.commands.checks.vendors import judge_vendor
from orchestrator.commands.dev import Ports, configure
from orchestrator.config import Config, understand
from orchestrator.setting_types import Address
from orchestrator.simulator import Simulator, serve
from orchestrator.simulator.keys import DEMO
from orchestrator.store.examine import NEEDED
from orchestrator.store.version import VERSION_TABLE
from tests.ports import unused_port

pytestmark = pytest.mark.anyio

PORTS = Ports(callbacks=Address("127.0.0.1", 0), llm_gateway=Address("127.0.0.1", unused_port()))
USER = f"fake_user_{uuid4().hex[:8]}"
ROLES = files("migrations").joinpath("roles.sql").read_text("utf-8")


@pytest.fixture
async def vendors_url(anyio_backend: str) -> AsyncIterator[str]:
    del anyio_backend  # asked for, so that it is there before this
    async with serve(Simulator(DEMO), "127.0.0.1", 0) as url:
        yield url


def configured(**written: Any) -> Config:
    return understand(written, Path("/nowhere/config.toml"), {})


async def found(config: Config) -> list[Finding]:
    report: list[Finding] = []
    await inspect(config, report.append)
    return report


def verdicts(report: list[Finding], *, about: str) -> list[str]:
    return [finding.verdict for finding in report if finding.what.startswith(about)]


def only(report: list[Finding], *, about: str) -> Finding:
    (finding,) = [finding for finding in report if finding.what.startswith(about)]
    return finding


async def test_all_is_well_where_all_is_well(database_url: str, vendors_url: str) -> None:
    report = await found(configure(database_url, vendors_url, PORTS))
    whole = ("configuration", "database", "rights", "specs", "accounts:", "upstream ")
    for about in (*whole, "callbacks.listen", "llm_gateway.listen", "llm_gateway.public_url"):
        assert verdicts(report, about=about) == ["well"], about
    on_postgres = ["well"] if database_url.startswith("postgresql") else []
    assert verdicts(report, about="clock") == on_postgres
    assert verdicts(report, about="wake") == on_postgres
    assert set(verdicts(report, about="secret ")) == {"warning"}
    vendors = [f"account {name}: " for name in ("volcengine", "tencent", "zego")]
    assert [verdicts(report, about=about) for about in vendors] == [["well"]] * 3


async def test_every_trouble_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    report = await found(
        configure(f"sqlite:///{tmp_path}/absent.db", f"http://127.0.0.1:{port}", PORTS)
    )
    trouble = [finding for finding in report if finding.verdict == "trouble"]
    assert len(trouble) == 5, trouble
    assert "orchestrator migrate" in trouble[0].what
    assert all(finding.advice for finding in trouble[1:])
    assert all("ConnectFailed" in finding.what for finding in trouble[1:])


async def test_a_database_that_is_away_is_told_and_the_vendors_are_still_asked(
    vendors_url: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"postgresql://me:fake-password@127.0.0.1:{port}/db"
    report = await found(configure(url, vendors_url, PORTS))
    assert verdicts(report, about="database (postgresql)") == ["trouble"]
    assert verdicts(report, about="account volcengine") == ["well"]
    assert "fake-password" not in str(report)


@pytest.fixture
async def owner(postgres_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The owner of the tables; beside it the user `USER` without any rights."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"{ROLES}; CREATE ROLE {USER} LOGIN")
    yield connection
    await connection.execute(f"DROP OWNED BY {USER}; DROP ROLE {USER}")
    await connection.close()


def as_fake_user(postgres_url: str, **database: Any) -> Config:
    url = make_url(postgres_url).set(username=USER).render_as_string(hide_password=False)
    return configured(database={"url": url, **database})


async def test_a_user_who_may_not_write_is_told_which_rights_are_missing(
    postgres_url: str, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await owner.execute(f"GRANT orchestrator_reader TO {USER}")
    await owner.execute(f"GRANT INSERT ON agent_event TO {USER}")
    rights = only(await found(as_fake_user(postgres_url)), about="rights")
    assert rights.verdict == "trouble"
    assert "UPDATE on agent_status" in rights.what
    assert "INSERT on agent_event" not in rights.what
    assert "UPDATE (updated_at) on agent_task" in rights.what
    assert "SELECT" not in rights.what
    assert "the rows of task_change" in rights.what


async def test_the_role_of_the_daemon_is_all_it_needs_and_each_right_is_missed(
    postgres_url: str, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await owner.execute(f"GRANT orchestrator_daemon TO {USER}")
    assert only(await found(as_fake_user(postgres_url)), about="rights").verdict == "well"
    # Without the version's table nobody knows the schema: that is told before all rights.
    needed = NEEDED - {("SELECT", VERSION_TABLE)} | {("UPDATE (updated_at)", "agent_task")}
    for right, table in needed:
        await owner.execute(f"REVOKE {right} ON {table} FROM orchestrator_daemon")
    rights = only(await found(as_fake_user(postgres_url)), about="rights")
    missed = {tuple(one.split(" on ")) for one in rights.what.split("no ", 1)[1].split(", ")}
    assert missed == needed


async def test_one_question_that_is_refused_hides_no_other(
    postgres_url: str, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await owner.execute(f"GRANT orchestrator_daemon TO {USER}")
    await owner.execute("REVOKE SELECT ON agent_task FROM orchestrator_daemon")
    report = await found(as_fake_user(postgres_url))
    assert "SELECT on agent_task" in only(report, about="rights").what
    specs = only(report, about="specs")
    assert specs.what.endswith(": permission denied for table agent_task")
    assert verdicts(report, about="accounts:") == ["well"]


async def test_a_schema_that_one_may_not_use_does_not_look_empty(
    postgres_url: str, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await owner.execute("CREATE SCHEMA closed")
    report = await found(as_fake_user(postgres_url, schema="closed"))
    database = only(report, about="database")
    assert database.what.endswith("this user may not use the schema closed")
    report = await found(as_fake_user(postgres_url, schema="absent"))
    assert "orchestrator migrate" in only(report, about="database").what


async def test_a_listen_that_hears_nothing_is_told(
    postgres_url: str, empty_postgres_url: str
) -> None:
    elsewhere = {"url": postgres_url, "listen_url": empty_postgres_url}
    wake = only(await found(configured(database=elsewhere)), about="wake")
    assert (wake.verdict, wake.what) == ("trouble", "wake: LISTEN hears nothing")
    assert "listen_url" in wake.advice
    away = {"url": postgres_url, "listen_url": f"postgresql://me:fake@127.0.0.1:{unused_port()}/d"}
    report = await found(configured(database=away))
    assert only(report, about="wake").verdict == "trouble"
    assert "fake@" not in str(report)
    polled = {"url": postgres_url, "wake": "poll"}
    wake = only(await found(configured(database=polled)), about="wake")
    assert (wake.verdict, wake.what) == (
        "well",
        "wake: the daemon looks every 10 ms (database.wake)",
    )


async def test_a_server_that_forgets_in_a_power_cut_is_told(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    off = [
        name
        for name in ("fsync", "full_page_writes")
        if await connection.fetchval(f"SHOW {name}") == "off"
    ]
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    await connection.close()
    report = await found(configured(database={"url": postgres_url}))
    (durability,) = [finding for finding in report if finding.what.startswith("durability")]
    # Our own sessions turn synchronous_commit on, whatever the database says.
    assert "synchronous_commit" not in durability.what
    assert [name for name in off if f"{name} = off" not in durability.what] == []
    assert durability.verdict == ("trouble" if off else "well")


async def test_sqlite_is_as_durable_as_we_make_it(sqlite_url: str) -> None:
    report = await found(configured(database={"url": sqlite_url}))
    assert verdicts(report, about="durability") == ["well"]


async def test_rows_that_hold_keys_in_plain_text_are_counted(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.executemany(
        "INSERT INTO agent_task (account, room_id, user_id, spec) VALUES ('a', 'r', 'u', $1)",
        [('{"LLMConfig": {"APIKey": "fake-key"}}',), ('{"token": {"$secret": "a"}}',), ("{}",)],
    )
    await connection.close()
    report = await found(configured(database={"url": postgres_url}))
    (specs,) = [finding for finding in report if finding.what.startswith("specs")]
    assert specs.verdict == "warning"
    assert "1 rows" in specs.what
    assert "fake-key" not in str(report)


AGENT = (
    "INSERT INTO vendor_agent (id, account, incarnation, try, name, site, room_id, user_id,"
    " announced_at) VALUES ('a', 'gone', 1, 1, 'orcabcde1', '{}', 'r', 'u', '2030-01-01 00:00:00')"
)
DAEMON = (
    "INSERT INTO daemon (id, name, host, pid, version, wake, accounts, started_at, heartbeat_at)"
    " VALUES ('d', 'one', 'elsewhere', 1, '0', 'poll', '[\"gone\"]', now(), now())"
)


async def test_accounts_with_agents_that_are_not_configured_are_told(postgres_url: str) -> None:
    config = configured(database={"url": postgres_url})
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(AGENT)
    accounts = only(await found(config), about="accounts:")
    assert (accounts.verdict, accounts.what) == (
        "trouble",
        "accounts: agents may run in accounts that nobody has: gone",
    )
    await connection.execute(DAEMON)
    accounts = only(await found(config), about="accounts:")
    assert (accounts.verdict, accounts.what) == (
        "warning",
        "accounts: agents may run in accounts that only running daemons have: gone",
    )
    await connection.close()


async def test_another_database_under_our_prefix_is_told(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "INSERT INTO orphan_task (account, vendor_task_id, agent_user_id) VALUES"
        " ('a', 'V1', 'orczzzzz1'), ('a', 'V2', 'somebody'), ('a', 'V3', 'orczzzzz2')"
    )
    await connection.execute("UPDATE orphan_task SET ours = vendor_task_id = 'V3'")
    await connection.close()
    report = await found(configured(database={"url": postgres_url}))
    prefix = only(report, about="owner_prefix")
    assert prefix.verdict == "warning"
    assert prefix.what.startswith("owner_prefix: 1 agents")
    other = configured(database={"url": postgres_url}, daemon={"owner_prefix": "mine"})
    assert verdicts(await found(other), about="owner_prefix") == []


def own(path: Path, user: int, group: int, mode: int) -> None:
    os.chown(path, user, group)
    path.chmod(mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
async def test_a_file_of_another_user_than_its_folder_is_told(sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    config = configured(database={"url": sqlite_url})
    assert verdicts(await found(config), about="owner:") == []
    own(path.parent, 65534, 65534, 0o777)
    own(path, 0, 0, 0o644)
    owner = only(await found(config), about="owner:")
    assert owner.verdict == "warning"
    assert owner.advice == f"chown --reference={path.parent} {path}*"
    own(path, 0, 65534, 0o660)
    assert verdicts(await found(config), about="owner:") == []


async def test_a_port_is_free_in_use_by_us_or_by_somebody_else(postgres_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        config = configured(database={"url": postgres_url}, metrics={"listen": where})
        metrics = only(await found(config), about="metrics.listen")
        assert (metrics.verdict, metrics.what) == (
            "trouble",
            f"metrics.listen {where}: in use, and no daemon runs here",
        )
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(DAEMON.replace("elsewhere", socket.gethostname()))
        await connection.close()
        metrics = only(await found(config), about="metrics.listen")
        assert (metrics.verdict, metrics.what) == (
            "well",
            f"metrics.listen {where}: in use, and here runs one (pid 1)",
        )
        away = {"url": f"postgresql://me@127.0.0.1:{unused_port()}/db"}
        config = configured(database=away, metrics={"listen": where})
        assert only(await found(config), about="metrics.listen").verdict == "warning"
    assert only(await found(config), about="metrics.listen").what.endswith(": free")


async def test_a_place_that_is_not_this_machine_s_is_told(sqlite_url: str) -> None:
    config = configured(database={"url": sqlite_url}, callbacks={"listen": "192.0.2.1:8787"})
    listen = only(await found(config), about="callbacks.listen 192.0.2.1:8787")
    assert listen.verdict == "trouble"


async def test_any_answer_is_an_answer(vendors_url: str) -> None:
    account = configure("sqlite:////nowhere/o.db", vendors_url, PORTS).accounts["volcengine"]
    judged = await judge_vendor("volcengine", account, vendors_url)
    assert judged.verdict == "well"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("[daemon]\nnope = 1", 2, "✗ configuration: "),
        ("[daemon]\nnope = 1", 2, " service: "),
        ('[database]\nurl = "sqlite:///absent.db"', 1, "✗ database (sqlite): "),
        ('[database]\nurl = "sqlite:///absent.db"', 1, " service: "),
    ],
)
async def test_exit_codes_and_what_is_said_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, said: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text, "utf-8")
    assert await anyio.to_thread.run_sync(run, file) == code
    assert said in capsys.readouterr().out


async def test_warnings_alone_are_no_trouble(tmp_path: Path, sqlite_url: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[database]\nurl = "{sqlite_url}"', "utf-8")
    assert await anyio.to_thread.run_sync(run, file) == 0
