import json
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from orchestrator.clock import boot_ns
from orchestrator.commands.dev import configure
from orchestrator.examples import EXAMPLES, TALK

PATIENCE_NS = 60_000_000_000


@contextmanager
def developing(folder: Path, *args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "orchestrator", "dev", *args]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, told_until(process, "ready")
        finally:
            process.kill()


def told_until(process: subprocess.Popen[str], last: str) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.rstrip("\n") == last:
            return "".join(lines)
    raise AssertionError(f"ended before {last!r}:\n{''.join(lines)}")


def told_of(process: subprocess.Popen[str], start: str) -> str:
    """Wait for the line about a task that begins like this."""
    assert process.stdout is not None
    give_up_ns = boot_ns() + PATIENCE_NS
    for line in process.stdout:
        if line.startswith(start):
            return line
        assert boot_ns() < give_up_ns
    raise AssertionError(f"ended before a line {start!r}")


def run_line(folder: Path, line: str) -> list[tuple[object, ...]]:
    """Run a printed line as sqlite3's client would, with the library that is in every Python."""
    client, option, timeout, file, sql = shlex.split(line)
    assert (client, option, timeout) == ("sqlite3", "-cmd", ".timeout 5000")
    with closing(sqlite3.connect(folder / file, timeout=5, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


def test_everything_runs_and_what_it_tells_to_try_works(tmp_path: Path) -> None:
    with developing(tmp_path, "--listen", "127.0.0.1:0") as (process, told):
        for example in EXAMPLES:
            assert re.search(rf"^{example.id}  running", told, re.MULTILINE)
        for command in TALK:
            assert f"{command.task_id}  {command.kind}: done" in told
        lines = re.findall(r"^  (sqlite3 .*)$", told, re.MULTILINE)
        explain, press, release, commands, stop, start, history, forget = lines
        assert {row[0] for row in run_line(tmp_path, explain)} == {each.id for each in EXAMPLES}
        run_line(tmp_path, press)
        run_line(tmp_path, release)
        assert settled_kinds(tmp_path, commands) == {"start_listening": 2, "stop_listening": 2}
        run_line(tmp_path, stop)
        told_of(process, "example-zego  stopped (requested)")
        run_line(tmp_path, start)
        run_line(tmp_path, forget)
        assert len(run_line(tmp_path, history)) == 10
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


def settled_kinds(folder: Path, commands: str) -> Counter[object]:
    """Look until the listening commands are all done; return how many there are of each kind."""
    give_up_ns = boot_ns() + PATIENCE_NS
    while boot_ns() < give_up_ns:
        rows = [row[:2] for row in run_line(folder, commands) if "listening" in str(row[0])]
        if {state for _, state in rows} == {"done"}:
            return Counter(kind for kind, _ in rows)
    raise AssertionError("a press or a release is not done")


def test_it_can_be_started_again_on_the_same_file(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = f"127.0.0.1:{free.getsockname()[1]}"
    for end in (signal.SIGKILL, signal.SIGTERM):
        with developing(tmp_path, "--listen", where) as (process, _):
            # Its vendors know nothing of the agents of the last time: these were started now.
            assert live_agents(f"http://{where}") == len(EXAMPLES)
            process.send_signal(end)
            assert process.wait(timeout=30) == (0 if end is signal.SIGTERM else -end)


def live_agents(vendors_url: str) -> int:
    with urlopen(f"{vendors_url}/_sim/agents", timeout=10) as answer:  # noqa: S310 - our own URL
        return sum(agent["live"] for agent in json.load(answer)["agents"])


def test_without_examples_nothing_is_inserted(tmp_path: Path) -> None:
    with developing(tmp_path, "--listen", "127.0.0.1:0", "--no-examples") as (_, told):
        assert "example-zego  " not in told
        explain = re.findall(r"^  (sqlite3 .*)$", told, re.MULTILINE)[0]
        assert run_line(tmp_path, explain) == []


@pytest.mark.parametrize("name", ["volcengine", "tencent", "zego"])
def test_every_account_is_at_the_simulated_vendors(name: str) -> None:
    config = configure("sqlite:////nowhere/o.db", "http://127.0.0.1:1")
    assert config.accounts[name].provider == name
    assert config.accounts[name].endpoint == "http://127.0.0.1:1"
    assert {example.account for example in EXAMPLES} == set(config.accounts)
