import json
from datetime import datetime
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection, text
from typer.testing import CliRunner

from orchestrator.cli import _Asked, app
from orchestrator.examples import EXAMPLES
from orchestrator.store import demo, migrate, views
from orchestrator.store.engine import Database, open_database
from orchestrator.store.schema import REVISION

pytestmark = pytest.mark.anyio

TASK = text(
    "INSERT INTO agent_task (id, account, room_id, user_id, labels)"
    " VALUES ('a', 'm', 'r', 'u', :labels)"
)
EVENT = text(
    "INSERT INTO agent_event (task_id, account, event, message)"
    " VALUES ('a', 'm', :event, '[red]said')"
)
DAEMON = text(
    "INSERT INTO daemon (id, name, host, pid, version, accounts)"
    " VALUES (:id, 'n', 'h', :pid, '1', '[]')"
)


def write_rows(connection: Connection) -> None:
    connection.execute(TASK, {"labels": '{"k": 1}'})
    connection.execute(EVENT, [{"event": "first"}, {"event": "second"}])


def invoke(*args: str) -> tuple[int, str]:
    told = CliRunner().invoke(app, args, obj=_Asked())
    return told.exit_code, told.output


@pytest.fixture
def config_path(sqlite_url: str, tmp_path: Path) -> str:
    file = tmp_path / "config.toml"
    file.write_text(f'[database]\nurl = "{sqlite_url}"\n', "utf-8")
    return str(file)


async def filled(url: str) -> None:
    database = open_database(url)
    await database.write(write_rows)
    await database.close()


async def test_the_views_read_the_same_on_both_databases(database: Database) -> None:
    await database.write(write_rows)
    overview = await database.read(views.overview)
    (task,) = overview.tasks
    assert task["task_id"] == "a"
    assert task["labels"] == {"k": 1}
    assert isinstance(task["phase_since"], datetime)
    assert task["phase_since"].tzinfo is not None
    assert [row["tasks"] for row in overview.convergence] == [1]
    assert overview.accounts == []


async def test_a_task_is_explained_with_its_history_oldest_first(database: Database) -> None:
    await database.write(write_rows)
    explained = await database.read(lambda connection: views.explain(connection, "a"))
    assert explained is not None
    assert "not started yet" in explained.sentence
    assert [event["event"] for event in explained.events] == ["first", "second"]
    assert await database.read(lambda connection: views.explain(connection, "b")) is None


async def test_examples_are_inserted_once_and_begin_anew_after(database: Database) -> None:
    def changes(connection: Connection) -> list[tuple[str, str]]:
        found = connection.execute(text("SELECT task_id, what FROM task_change ORDER BY seq"))
        return [(task_id, what) for task_id, what in found]

    await database.write(demo.ask_for, EXAMPLES, "first")
    inserted = await database.read(changes)
    assert inserted == [(example.id, "insert") for example in EXAMPLES]
    await database.write(demo.ask_for, EXAMPLES, "second")
    again = (await database.read(changes))[len(inserted) :]
    assert again == [(example.id, "restart") for example in EXAMPLES]


async def test_only_this_process_s_daemon_counts(database: Database) -> None:
    def begin(connection: Connection, id_: str, pid: int) -> None:
        connection.execute(DAEMON, {"id": id_, "pid": pid})

    assert not await database.read(demo.has_daemon, 1)
    await database.write(begin, "old", 1)
    assert await database.read(demo.has_daemon, 1)
    await database.write(begin, "new", 2)
    assert await database.read(demo.has_daemon, 2)
    assert not await database.read(demo.has_daemon, 1)


def test_status_and_explain_say_it_on_a_terminal(config_path: str, sqlite_url: str) -> None:
    anyio.run(filled, sqlite_url)
    code, told = invoke("status", "-c", config_path)
    assert code == 0
    assert [word for word in ("task_id", "pending", "oldest_s") if word not in told] == []
    code, told = invoke("status", "--json", "-c", config_path)
    assert code == 0
    assert [task["task_id"] for task in json.loads(told)["tasks"]] == ["a"]
    code, told = invoke("explain", "a", "-c", config_path)
    assert code == 0
    sentence, first, second = told.splitlines()
    assert sentence.startswith("a: not started yet")
    assert "first  [red]said" in first
    assert "second  [red]said" in second


def test_migrate_makes_the_file_and_prints_the_same(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[database]\nurl = "sqlite:///new.db"\n', "utf-8")
    for _ in range(2):
        assert invoke("migrate", "-c", str(file)) == (0, f"the schema is {REVISION}\n")
    assert invoke("migrate", "--sql", "-c", str(file)) == (0, migrate.sql("sqlite") + "\n")
    file.write_text('[database]\nurl = "postgresql://h/d"\nschema = "voice"\n', "utf-8")
    expected = migrate.sql("postgresql", schema="voice")
    assert invoke("migrate", "--sql", "-c", str(file)) == (0, expected + "\n")
    assert '"voice"' in expected


@pytest.mark.parametrize("args", [("status",), ("status", "--json"), ("explain", "a")])
def test_a_database_without_tables_is_told_what_to_do(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[database]\nurl = "sqlite:///new.db"\n', "utf-8")
    told = CliRunner().invoke(app, [*args, "-c", str(file)], obj=_Asked())
    assert "orchestrator migrate" in str(told.exception)
    assert getattr(told.exception, "exit_code", None) == 2


def test_a_task_that_is_not_there_is_trouble(config_path: str) -> None:
    told = CliRunner().invoke(app, ["explain", "nope", "-c", config_path], obj=_Asked())
    assert 'no task "nope"' in str(told.exception)
    assert getattr(told.exception, "exit_code", None) == 1
