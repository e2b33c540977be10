"""Completion as the shells ask for it: the program is run, and says what may come next."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from orchestrator.commands import completion
from orchestrator.store.engine import open_database
from tests.store.rows import TASK, run

PROGRAM = Path(sys.executable).with_name("orchestrator")


def complete(*words: str, shell: str = "bash", **environ: str) -> list[str]:
    """Return what a shell is offered for the last of the words."""
    asked = {
        "bash": {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": " ".join(words)},
        "fish": {
            "_TYPER_COMPLETE_ARGS": " ".join(words),
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }[shell]
    kept = {name: value for name, value in os.environ.items() if "ORCHESTRATOR" not in name}
    told = subprocess.run(
        [PROGRAM],
        env={**kept, **asked, "_ORCHESTRATOR_COMPLETE": f"complete_{shell}", **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stderr == ""
    return told.stdout.split()


@pytest.fixture
def config_path(sqlite_url: str, tmp_path: Path) -> str:
    file = tmp_path / "config.toml"
    secret = '{ credential = "not-there" }'
    accounts = "".join(
        f'[accounts.{name}]\nprovider = "zego"\napp_id = 1\nserver_secret = {secret}\n'
        for name in ("main", "mail", "other")
    )
    file.write_text(f'[database]\nurl = "{sqlite_url}"\n{accounts}', "utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["orchestrator", "st"], ["status"]),
        (["orchestrator", "status", "--w"], ["--watch"]),
        (["orchestrator", "token", "--listen"], ["--listen-only"]),
        (["orchestrator", "nope"], []),
    ],
)
def test_commands_and_options_are_offered(words: Sequence[str], offered: list[str]) -> None:
    assert complete(*words) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_offered_every_command(shell: str) -> None:
    offered = set(re.findall(r"[a-z]+", " ".join(complete("orchestrator", "", shell=shell))))
    wanted = {"run", "migrate", "dev", "simulate", "check", "status", "explain", "token"}
    assert wanted - offered == set()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["orchestrator", "token", "ma"], ["main", "mail"]),
        (["orchestrator", "status", "--account", "o"], ["other"]),
        (["orchestrator", "run", "--abandon", "x"], []),
    ],
)
def test_accounts_are_offered_though_their_keys_cannot_be_read(
    config_path: str, words: Sequence[str], offered: list[str]
) -> None:
    assert complete(*words, ORCHESTRATOR_CONFIG=config_path) == offered


async def _insert(url: str) -> None:
    database = open_database(url)
    await run(database, TASK, TASK.replace("'t1'", "'t2'"), TASK.replace("'t1'", "'other'"))
    await database.close()


def test_tasks_are_offered(config_path: str, sqlite_url: str) -> None:
    anyio.run(_insert, sqlite_url)
    assert complete("orchestrator", "explain", "t", ORCHESTRATOR_CONFIG=config_path) == ["t1", "t2"]
    assert complete("orchestrator", "explain", "-c", config_path, "t") == ["t1", "t2"]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "no toml",
        "accounts = 5",
        '[database]\nurl = "sqlite:///none.db"',
        '[database]\nurl = "postgresql://nobody@127.0.0.1:1/none"',
        "[database]\nurl = 7",
    ],
)
def test_whatever_is_wrong_nothing_is_said(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "config.toml"
    if text is not None:
        file.write_text(text, "utf-8")
    assert list(completion.accounts(file, "")) == []
    assert list(completion.tasks(file, "")) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed_without_a_shell_around(shell: str) -> None:
    """This is how an installation gets the files for the shells' folders."""
    told = subprocess.run(
        [PROGRAM],
        env={"_ORCHESTRATOR_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_ORCHESTRATOR_COMPLETE=complete_{shell}" in told.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_a_bash_that_has_read_the_script_completes(tmp_path: Path) -> None:
    script = """
        source <(_ORCHESTRATOR_COMPLETE=source_bash orchestrator)
        COMP_WORDS=(orchestrator expl); COMP_CWORD=1
        _orchestrator_completion orchestrator; echo "${COMPREPLY[@]}"
    """
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    told = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={"PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "explain"
