import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio.to_thread
import asyncpg
import pytest
from sqlalchemy.engine import make_url

from orchestrator.commands.check import Finding, _judge_clock, findings, judge_vendor, run
from orchestrator.commands.dev import configure
from orchestrator.config import Config, understand
from orchestrator.settings import Address
from orchestrator.simulator import Simulator, serve
from orchestrator.simulator.keys import DEMO

pytestmark = pytest.mark.anyio

LISTEN = Address("127.0.0.1", 8787)


@pytest.fixture
async def vendors_url(anyio_backend: str) -> AsyncIterator[str]:
    del anyio_backend  # asked for, so that it is there before this
    async with serve(Simulator(DEMO), "127.0.0.1", 0) as url:
        yield url


def configured(**written: Any) -> Config:
    return understand(written, Path("/nowhere/config.toml"), {})


async def found(config: Config) -> list[Finding]:
    return [finding async for finding in findings(config)]


def verdicts(report: list[Finding], *, about: str) -> list[str]:
    return [finding.verdict for finding in report if finding.what.startswith(about)]


async def test_all_is_well_where_all_is_well(database_url: str, vendors_url: str) -> None:
    report = await found(configure(database_url, vendors_url, LISTEN))
    for about in ("configuration", "database", "rights", "specs"):
        assert verdicts(report, about=about) == ["well"]
    vendors = [f"account {name}: " for name in ("volcengine", "tencent", "zego")]
    assert [verdicts(report, about=about) for about in vendors] == [
        ["well"],
        ["well"],
        ["well"] * 2,
    ]


async def test_every_trouble_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    report = await found(
        configure(f"sqlite:///{tmp_path}/absent.db", f"http://127.0.0.1:{port}", LISTEN)
    )
    trouble = [finding for finding in report if finding.verdict == "trouble"]
    assert len(trouble) == 5
    assert "orchestrator migrate" in trouble[0].what
    assert all(finding.advice for finding in trouble[1:])
    assert all("ConnectFailed" in finding.what for finding in trouble[1:])


async def test_a_database_that_is_away_is_told_and_the_vendors_are_still_asked(
    vendors_url: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"postgresql://me:fake-password@127.0.0.1:{port}/db"
    report = await found(configure(url, vendors_url, LISTEN))
    assert verdicts(report, about="database (postgresql)") == ["trouble"]
    assert verdicts(report, about="account volcengine") == ["well"]
    assert "fake-password" not in str(report)


async def test_a_user_who_may_not_write_is_told_which_rights_are_missing(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("DROP ROLE IF EXISTS fake_reader")
    await connection.execute("CREATE ROLE fake_reader LOGIN")
    await connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO fake_reader")
    await connection.execute("GRANT INSERT ON agent_event TO fake_reader")
    reader = make_url(postgres_url).set(username="fake_reader")
    try:
        report = await found(configured(database={"url": reader.render_as_string()}))
    finally:
        await connection.execute("DROP OWNED BY fake_reader")
        await connection.execute("DROP ROLE fake_reader")
        await connection.close()
    (rights,) = [finding for finding in report if finding.what.startswith("rights")]
    assert rights.verdict == "trouble"
    assert "UPDATE on agent_status" in rights.what
    assert "INSERT on agent_event" not in rights.what
    assert "SELECT" not in rights.what


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


@pytest.mark.parametrize(
    ("offset_s", "verdict"),
    [
        (0, "well"),
        (-2, "well"),
        (2.1, "warning"),
        (-15, "warning"),
        (15.1, "trouble"),
        (-3600, "trouble"),
    ],
)
async def test_a_clock_that_is_wrong_is_told_before_it_hurts(offset_s: float, verdict: str) -> None:
    judged = _judge_clock("account a", [timedelta(seconds=offset_s)], timedelta(seconds=15))
    assert judged.verdict == verdict
    assert f"{offset_s:+.1f} s" in judged.what
    assert bool(judged.advice) is (verdict != "well")


async def test_a_vendor_that_tells_no_time_is_no_trouble() -> None:
    assert _judge_clock("account a", [], timedelta(seconds=15)).verdict == "warning"


async def test_any_answer_is_an_answer(vendors_url: str) -> None:
    account = configure("sqlite:////nowhere/o.db", vendors_url, LISTEN).accounts["volcengine"]
    judged = await judge_vendor("volcengine", account, vendors_url)
    assert judged.verdict == "well"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("[daemon]\nnope = 1", 2, "✗ configuration: "),
        ('[database]\nurl = "sqlite:///absent.db"', 1, "✗ database (sqlite): "),
    ],
)
async def test_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, said: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text, "utf-8")
    assert await anyio.to_thread.run_sync(run, file) == code
    assert said in capsys.readouterr().out
