"""`orchestrator migrate --wait`: what the service does before its daemon."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

from orchestrator.store.schema import REVISION

pytestmark = pytest.mark.anyio

PATIENCE_S = 60.0


def migrate(config: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", "migrate", *options, "-c", str(config)]


def write_config(folder: Path, url: str) -> Path:
    path = folder / "config.toml"
    path.write_text(f"[database]\nurl = {json.dumps(url)}\n", "utf-8")
    return path


async def test_it_waits_with_one_line_and_then_goes_on(sqlite_url: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, sqlite_url)
    path = sqlite_url.removeprefix("sqlite:///")
    with anyio.fail_after(PATIENCE_S), closing(sqlite3.connect(path, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        async with await anyio.open_process(migrate(config, "--wait")) as process:
            assert process.stderr is not None
            said = ""
            async for text in TextReceiveStream(process.stderr):
                said += text
                if "database_away" in said and lock.in_transaction:
                    assert process.returncode is None
                    lock.execute("ROLLBACK")
            assert await process.wait() == 0
    assert said.count("database_away") == 1


async def test_without_it_what_is_away_is_trouble(sqlite_url: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, sqlite_url)
    path = sqlite_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        done = await anyio.run_process(migrate(config), check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done.stderr
    assert b"write lock" in done.stderr


@pytest.mark.parametrize("options", [(), ("--wait",)])
async def test_a_path_that_cannot_be_is_a_mistake(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("no folder", "utf-8")
    config = write_config(tmp_path, f"sqlite:///{tmp_path}/file/orchestrator.db")
    done = await anyio.run_process(migrate(config, *options), check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1), done.stderr
    assert b"cannot create the database" in done.stderr


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear reader, " * 100, "utf-8")
    before = path.read_bytes()
    config = write_config(tmp_path, f"sqlite:///{path}")
    done = await anyio.run_process(migrate(config, "--wait"), check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1), done.stderr
    assert b"not a database" in done.stderr
    assert path.read_bytes() == before


async def test_the_statements_are_printed_at_once(sqlite_url: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, sqlite_url)
    done = await anyio.run_process(migrate(config, "--sql", "--wait"), check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    done = await anyio.run_process(migrate(config, "--sql"), check=False)
    assert f"'{REVISION}'".encode() in done.stdout
