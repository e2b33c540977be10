"""What the commands that look say when the database does not tell."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from anyio.from_thread import start_blocking_portal

from orchestrator.commands import completion, explain, status, watch
from orchestrator.commands.reading import QueryFailed
from orchestrator.store.snapshot import Wanted

WANTED = Wanted()
NO_TEXT = "\udcff"
"""What Python makes of an argument that is no UTF-8."""


def config_of(url: str, folder: Path) -> Path:
    file = folder / "config.toml"
    file.write_text(f'[database]\nurl = "{url}"\n', "utf-8")
    return file


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
        look(config)
    assert str(failed.value) == "a query failed: canceling statement due to lock timeout"


def test_a_table_that_is_locked_offers_a_shell_nothing(postgres_url: str, tmp_path: Path) -> None:
    config = config_of(postgres_url, tmp_path)
    with locked(postgres_url):
        assert completion.tasks(config, "t") == ()


def test_a_name_that_is_no_text_is_one_line(database_url: str, tmp_path: Path) -> None:
    config = config_of(database_url, tmp_path)
    with pytest.raises(QueryFailed) as failed:
        explain.show(config, NO_TEXT)
    assert len(str(failed.value).splitlines()) == 1
    assert completion.tasks(config, NO_TEXT) == ()
