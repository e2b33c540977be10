import json
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import assert_never
from urllib.request import urlopen

import pytest

from orchestrator.clock import boot_ns
from orchestrator.commands.dev import Ports, configure
from orchestrator.examples import EXAMPLES, TALK, UPSTREAM, Command, Sentence
from orchestrator.setting_types import Address

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


def run_line(folder: Path, line: str) -> list[str]:
    """Run a printed line as it stands, and return the lines that it prints.

    Where there is no such client, the library that is in every Python does as it would.
    """
    client, option, timeout, file, sql = shlex.split(line)
    assert (client, option, timeout) == ("sqlite3", "-cmd", ".timeout 5000")
    if shutil.which(client):
        return run_in_shell(folder, line)
    with closing(sqlite3.connect(folder / file, timeout=5, isolation_level=None)) as connection:
        rows = connection.execute(sql).fetchall()
    return ["|".join("" if each is None else str(each) for each in row) for row in rows]


def run_in_shell(folder: Path, line: str) -> list[str]:
    ran = subprocess.run(
        ["/bin/sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False, timeout=30
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


def test_everything_runs_and_what_it_tells_to_try_works(tmp_path: Path) -> None:
    with developing(tmp_path, "--listen", "127.0.0.1:0") as (process, told):
        for example in EXAMPLES:
            assert re.search(rf"^{example.id}  running", told, re.MULTILINE)
        for step in TALK:
            assert outcome_of(step) in told
        lines = re.findall(r"^  (sqlite3 .*)$", told, re.MULTILINE)
        explain, press, release, say, commands, turns, stop, start, history, forget = lines
        explained = run_line(tmp_path, explain)
        assert {row.partition("|")[0] for row in explained} == {each.id for each in EXAMPLES}
        for one in (press, release, say):
            assert run_line(tmp_path, one) == []
        kinds = [row.split()[0] for row in all_done(tmp_path, commands)]
        assert kinds == ["say,", "stop_listening", "start_listening"]
        all_asked(tmp_path, turns)
        run_line(tmp_path, stop)
        told_of(process, "example-zego  stopped (requested)")
        run_line(tmp_path, start)
        run_line(tmp_path, forget)
        assert len(run_line(tmp_path, history)) == 10
        assert callbacks_taken(told) == {"volcengine", "tencent", "zego"}
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


def outcome_of(step: Command | Sentence) -> str:
    """Return how a line about a step begins that went well."""
    match step:
        case Command():
            return f"{step.task_id}  {step.kind}: done"
        case Sentence():
            return f"{step.example.id}  user: {step.text}  agent: You said: {step.text}  (first"
        case _:
            assert_never(step)


def callbacks_taken(told: str) -> set[str]:
    """Return whose callbacks the daemon has taken, after looking where the vendors say."""
    (url,) = re.findall(r"^their callbacks +(.*)$", told, re.MULTILINE)
    with urlopen(url, timeout=10) as answer:  # noqa: S310 - our own URL
        attempts = json.load(answer)["attempts"]
    assert {attempt["status"] for attempt in attempts} == {200}
    return {attempt["account"] for attempt in attempts}


def all_asked(folder: Path, turns: str) -> None:
    """Look until each example has asked the model: turns are written when they have ended."""
    give_up_ns = boot_ns() + PATIENCE_NS
    rows: list[str] = []
    while boot_ns() < give_up_ns:
        rows = run_line(folder, turns)
        asked = {tuple(row.split("|")[1:5:2]) for row in rows}
        if asked == {(example.id, UPSTREAM) for example in EXAMPLES}:
            return
    raise AssertionError(f"not all have asked: {rows}")


def all_done(folder: Path, commands: str) -> list[str]:
    """Look until the newest commands are all done; return their sentences, the newest first."""
    give_up_ns = boot_ns() + PATIENCE_NS
    rows: list[str] = []
    while boot_ns() < give_up_ns:
        rows = run_line(folder, commands)
        if all(", done at " in row for row in rows):
            return rows
    raise AssertionError(f"not all are done: {rows}")


def test_it_can_be_started_again_on_the_same_file(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = f"127.0.0.1:{free.getsockname()[1]}"
    for end in (signal.SIGKILL, signal.SIGTERM):
        with developing(tmp_path, "--listen", where) as (process, _):
            # Its vendors know nothing of the agents of the last time: these were started now.
            assert live_agents(f"http://{where}") == len(EXAMPLES)
            process.send_signal(end)
            assert process.wait(timeout=30) == (0 if end is signal.SIGTERM else -end)
        # As an older version may have written them.
        with closing(sqlite3.connect(tmp_path / "var" / "orchestrator.db")) as database, database:
            database.execute("UPDATE agent_task SET spec = '{}'")


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
    ports = Ports(callbacks=Address("127.0.0.1", 2), llm_gateway=Address("127.0.0.1", 3))
    config = configure("sqlite:////nowhere/o.db", "http://127.0.0.1:1", ports)
    assert config.callbacks.listen == ports.callbacks
    assert config.llm_gateway.listen == ports.llm_gateway
    assert config.llm_gateway.public_url == "http://127.0.0.1:3"
    assert config.llm_upstreams[UPSTREAM].url == "http://127.0.0.1:1/_sim/model"
    assert config.accounts[name].provider == name
    assert config.accounts[name].endpoint == "http://127.0.0.1:1"
    assert {example.account for example in EXAMPLES} == set(config.accounts)
