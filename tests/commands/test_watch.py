"""`status --watch`, on a terminal and elsewhere, with a database that goes away and comes back."""

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import anyio
import pytest
from rich.console import Console

from orchestrator.commands import watch as watching
from orchestrator.commands.reading import QueryFailed
from orchestrator.commands.watch import Log, Seen, follow, silence
from orchestrator.store.engine import DatabaseAway, open_database
from orchestrator.store.migrate import upgrade
from orchestrator.store.snapshot import Snapshot
from tests.postgres_server import running_server
from tests.store.rows import TASK, run

pytestmark = pytest.mark.anyio

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def snapshot(**parts: Any) -> Snapshot:
    empty: dict[str, Any] = {
        "at": AT, "totals": {}, "tasks": [], "convergence": [], "health": [],
        "accounts": [], "orphans": [], "daemons": [],
    }  # fmt: skip
    return Snapshot(**(empty | parts))


async def test_a_database_that_goes_away_is_asked_until_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "REFRESH_S", 0)
    seen = Seen(snapshot())
    told: list[str] = []

    async def look() -> Snapshot:
        told.append(seen.trouble)
        match len(told):
            case 1:
                raise DatabaseAway("it went away")
            case 2:
                raise QueryFailed("it took too long")
            case 3:
                return snapshot(totals={"running": 1})
            case _:
                tasks.cancel_scope.cancel()
                return seen.snapshot

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow, look, seen)
    assert told == ["", "it went away", "it took too long", ""]
    assert seen.snapshot.totals == {"running": 1}
    assert silence(seen) == []


def test_what_is_old_is_said_to_be_old() -> None:
    seen = Seen(snapshot())
    assert silence(seen) == []
    seen.trouble = "connection refused"
    (line,) = silence(seen)
    assert line.plain == ("the database has not answered for 0s: connection refused; asking again")
    seen.trouble = ""
    seen.at_ns -= 61 * 10**9
    (line,) = silence(seen)
    assert line.plain == "the database has not answered for 1m 01s; asking again"


def test_a_log_has_a_line_for_what_has_changed_and_no_other() -> None:
    out = Console(file=io.StringIO(), soft_wrap=True, width=20)
    log, seen = Log(out), Seen(snapshot())
    log.draw(seen)
    log.draw(seen)
    seen.trouble = "refused"
    log.draw(seen)
    log.draw(seen)
    seen.answered(snapshot(totals={"running": 1}))
    log.draw(seen)
    text = out.file.getvalue()  # type: ignore[attr-defined] # the file is the StringIO above
    stamp = "2030-01-02 03:04:05Z"
    nobody = f"{stamp}  no daemon runs: nothing is started, stopped or looked after"
    assert text.splitlines() == [
        f"{stamp}  0 tasks · all as desired · no orphans",
        nobody,
        f"{stamp}  the database is away: refused",
        f"{stamp}  1 task: running 1 · all as desired · no orphans",
        nobody,
    ]


def config_of(url: str, folder: Path) -> str:
    file = folder / "config.toml"
    file.write_text(f'[database]\nurl = "{url}"\n', "utf-8")
    return str(file)


def command(config: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", "status", "--watch", "-c", config]


async def insert_task(url: str) -> None:
    database = open_database(url)
    await run(database, TASK)
    await database.close()


def lines_until(stream: IO[str], wanted: str) -> None:
    while wanted not in (line := stream.readline()):
        assert line, f"it ended before it said {wanted!r}"


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_elsewhere_it_writes_lines_and_ends_well(
    sqlite_url: str, tmp_path: Path, signal_: signal.Signals
) -> None:
    config = config_of(sqlite_url, tmp_path)
    with subprocess.Popen(command(config), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines_until(process.stdout, "0 tasks")
            anyio.run(insert_task, sqlite_url)
            lines_until(process.stdout, "t1  pending")
            process.send_signal(signal_)
            assert process.wait() == 0
        finally:
            process.kill()


def test_who_stops_reading_ends_it_without_a_word(sqlite_url: str, tmp_path: Path) -> None:
    config = config_of(sqlite_url, tmp_path)
    pipe = subprocess.PIPE
    with subprocess.Popen(command(config), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            lines_until(process.stdout, "0 tasks")
            process.stdout.close()
            anyio.run(insert_task, sqlite_url)
            assert process.wait() == 1
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_a_server_that_is_killed_and_started_again_is_watched_on(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        anyio.run(upgrade, server.url())
        config = config_of(server.url(), tmp_path)
        with subprocess.Popen(command(config), stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                lines_until(process.stdout, "0 tasks")
                server.kill()
                lines_until(process.stdout, "the database is away")
                server.start()
                anyio.run(insert_task, server.url())
                lines_until(process.stdout, "t1  pending")
                process.send_signal(signal.SIGINT)
                assert process.wait() == 0
            finally:
                process.kill()


@contextmanager
def on_a_terminal(args: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(args, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def read_until(terminal: int, wanted: bytes) -> bytes:
    text = b""
    while wanted not in text:
        text += os.read(terminal, 65_536)
    return text


def test_on_a_terminal_it_is_drawn_over_itself_and_leaves_nothing(
    sqlite_url: str, tmp_path: Path
) -> None:
    with on_a_terminal(command(config_of(sqlite_url, tmp_path))) as (process, terminal):
        begun = read_until(terminal, b"0 tasks")
        assert b"\x1b[?1049h" in begun  # the other screen
        anyio.run(insert_task, sqlite_url)
        drawn = read_until(terminal, b"t1")
        assert b"\x1b[2J" not in drawn  # nothing is wiped, so nothing flickers
        process.send_signal(signal.SIGINT)
        ended = read_until(terminal, b"\x1b[?1049l")  # back to where it was begun
        assert b"Traceback" not in ended
        assert process.wait() == 0


def test_a_database_that_is_away_at_the_start_is_an_error(tmp_path: Path) -> None:
    told = subprocess.run(
        command(config_of(f"sqlite:///{tmp_path}/none.db", tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2
    assert "orchestrator migrate" in told.stderr
