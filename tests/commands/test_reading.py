"""What the commands that look say when the database does not tell."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest
from anyio.from_thread import start_blocking_portal

from orchestrator.commands import completion, explain, status, watch
from orchestrator.commands.reading import QueryFailed
from orchestrator.errors import UsageError
from orchestrator.store.snapshot import Wanted

T = TypeVar("T")
WANTED = Wanted()
NO_TEXT = "\udcff"
"""What Python makes of an argument that is no UTF-8."""


def config_of(url: str, folder: Path) -> Path:
    file = folder / "config.toml"
    file.write_text(f'[database]\nurl = "{url}"\n', "utf-8")
    return file


def alone(work: Callable[[], T]) -> T:
    """Run a command as in a process of its own: without a fixture's event loop around it."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(work).result()


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold a lock that no reader passes, as a migration of somebody's would."""
    with start_blocking_portal() as portal:
        connection = portal.call(asyncpg.connect, url)
        portal.call(connection.execute, "BEGIN; LOCK TABLE agent_status")
        try:
            yield
        finally:
            portal.call(connection.close)


@pytest.mark.parametrize(
    "look",
    [
        lambda config: status.show(config, WANTED),
        lambda config: status.print_json(config, WANTED),
        lambda config: explain.show(config, "t1"),
        lambda config: watch.watch(config, WANTED),
    ],
    ids=["status", "json", "explain", "watch"],
)
def test_a_table_that_is_locked_is_one_line(
    look: Callable[[Path], None], postgres_url: str, tmp_path: Path
) -> None:
    config = config_of(postgres_url, tmp_path)
    with locked(postgres_url), pytest.raises(QueryFailed) as failed:
        alone(partial(look, config))
    assert str(failed.value) == "a query failed: canceling statement due to lock timeout"


def test_a_table_that_is_locked_offers_a_shell_nothing(postgres_url: str, tmp_path: Path) -> None:
    config = config_of(postgres_url, tmp_path)
    with locked(postgres_url):
        assert alone(partial(completion.tasks, config, "t")) == ()


def test_a_name_that_is_no_text_is_one_line(database_url: str, tmp_path: Path) -> None:
    config = config_of(database_url, tmp_path)
    with pytest.raises(QueryFailed) as failed:
        alone(partial(explain.show, config, NO_TEXT))
    assert len(str(failed.value).splitlines()) == 1
    assert alone(partial(completion.tasks, config, NO_TEXT)) == ()


@pytest.mark.parametrize("look", [status.show, status.print_json, watch.watch])
def test_an_account_that_nobody_knows_is_not_as_desired(
    look: Callable[[Path, Wanted], None], sqlite_url: str, tmp_path: Path
) -> None:
    config = config_of(sqlite_url, tmp_path)
    with config.open("a", encoding="utf-8") as file:
        file.write('[accounts.main]\nprovider = "zego"\napp_id = 1\nserver_secret = "fake-key"\n')
    with pytest.raises(UsageError) as wrong:
        look(config, Wanted(account="mian"))
    told = '--account: nobody knows "mian"; the configuration has: main'
    assert str(wrong.value) == told


def test_an_account_without_tasks_is_as_desired(
    sqlite_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(sqlite_url, tmp_path)
    with config.open("a", encoding="utf-8") as file:
        file.write('[accounts.main]\nprovider = "zego"\napp_id = 1\nserver_secret = "fake-key"\n')
    status.show(config, Wanted(account="main"))
    assert "all as desired" in capsys.readouterr().out


def test_what_a_terminal_s_encoding_cannot_say_is_a_question_mark(
    sqlite_url: str, tmp_path: Path
) -> None:
    config = config_of(sqlite_url, tmp_path)
    told = subprocess.run(
        [sys.executable, "-m", "orchestrator", "status", "-c", config],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.startswith("0 tasks ? all as desired ? no orphans\n")
