"""One daemon for one SQLite file."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.store.single import hold_single_daemon


def test_a_second_daemon_is_told_who_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with (
        hold_single_daemon(path, "first"),
        pytest.raises(UsageError) as refused,
        hold_single_daemon(path, "second"),
    ):
        pytest.fail("two daemons hold one file")
    holder = re.escape(f"first pid {os.getpid()} on {socket.gethostname()} since 2")
    assert re.search(holder, str(refused.value))


def test_the_file_is_free_again_after_its_holder(tmp_path: Path) -> None:
    for name in ("a very long name of a daemon", "short"):
        with hold_single_daemon(tmp_path / "x.db", name):
            assert (tmp_path / "x.db.lock").read_text().startswith(f"{name} pid ")
            assert (tmp_path / "x.db.lock").read_text().count("\n") == 1


def test_the_lock_ends_with_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    program = (
        "import pathlib, sys\n"
        "from orchestrator.store.single import hold_single_daemon\n"
        "with hold_single_daemon(pathlib.Path(sys.argv[1]), 'other'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(UsageError, match=f"other pid {other.pid} on"),
            hold_single_daemon(path, "me"),
        ):
            pytest.fail("two daemons hold one file")
        other.kill()
        other.wait()
        with hold_single_daemon(path, "me"):
            pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(OrchestratorError, match="cannot hold the database"),
        hold_single_daemon(tmp_path / "none" / "x.db", "me"),
    ):
        pytest.fail("there is nothing to hold")
