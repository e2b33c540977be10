"""`explain` for tasks and for commands, on both databases and on a terminal."""

from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from orchestrator.cli import _Asked, app
from orchestrator.commands.terminal import event_line
from orchestrator.store import views
from orchestrator.store.engine import Connection, Database, open_database
from tests.store.rows import insert, run

pytestmark = pytest.mark.anyio

TASK = insert("agent_task", id="'call'", account="'acc'", room_id="'room'", user_id="'human'")
PRESS = insert("agent_command", id="'press'", task_id="'call'", kind="'start_listening'")
RELEASE = insert("agent_command", id="'release'", task_id="'call'", kind="'stop_listening'")
GONE = insert("agent_command", id="'gone'", task_id="'call'", kind="'interrupt'")
SETTLE = (
    "UPDATE agent_command SET state = 'failed', reason = 'TaskEnded', message = 'it was over',"
    " done_at = '2020-01-01 00:00:00' WHERE id = 'gone'"
)
EVENTS = (
    insert("agent_event", task_id="'call'", event="'wish'", action="'insert'"),
    insert(
        "agent_event", task_id="'call'", event="'command'", command_id="'gone'", code="'TaskEnded'"
    ),
)


async def write(database: Database) -> None:
    await run(database, TASK, PRESS, RELEASE, GONE, SETTLE, *EVENTS)


async def explain(database: Database, id_: str) -> views.Explained | None:
    def look(connection: Connection) -> views.Explained | None:
        return views.explain(connection, id_)

    return await database.read(look)


async def test_a_task_comes_with_its_waiting_commands(database: Database) -> None:
    await write(database)
    explained = await explain(database, "call")
    assert explained is not None
    assert explained.sentence.endswith("; 2 commands wait")
    assert [one["command_id"] for one in explained.waiting] == ["press", "release"]
    assert "queued since" in explained.waiting[0]["explanation"]
    assert [one["event"] for one in explained.events] == ["wish", "command"]


async def test_a_command_comes_with_what_happened_to_it(database: Database) -> None:
    await write(database)
    explained = await explain(database, "gone")
    assert explained is not None
    assert explained.sentence == (
        "interrupt, failed at 2020-01-01 00:00:00 UTC; TaskEnded: it was over"
    )
    assert explained.waiting == ()
    assert [one["command_id"] for one in explained.events] == ["gone"]


async def test_what_is_neither_is_not_there(database: Database) -> None:
    await write(database)
    assert await explain(database, "nobody") is None


async def test_a_task_goes_before_a_command_of_the_same_id(database: Database) -> None:
    await run(database, TASK, PRESS.replace("'press'", "'call'"))
    explained = await explain(database, "call")
    assert explained is not None
    assert explained.sentence.startswith("not started yet")
    assert [one["command_id"] for one in explained.waiting] == ["call"]


async def test_no_more_commands_are_shown_than_anybody_reads(database: Database) -> None:
    many = [PRESS.replace("'press'", f"'c{n}'") for n in range(views.SHOWN_COMMANDS + 1)]
    await run(database, TASK, *many)
    explained = await explain(database, "call")
    assert explained is not None
    assert [one["command_id"] for one in explained.waiting] == [
        f"c{n}" for n in range(views.SHOWN_COMMANDS)
    ]


async def fill(url: str) -> None:
    database = open_database(url)
    await write(database)
    await database.close()


def invoke(url: str, folder: Path, id_: str) -> list[str]:
    file = folder / "config.toml"
    file.write_text(f'[database]\nurl = "{url}"\n', "utf-8")
    told = CliRunner().invoke(app, ["explain", id_, "-c", str(file)], obj=_Asked())
    assert told.exit_code == 0
    return told.output.splitlines()


def test_it_is_printed(sqlite_url: str, tmp_path: Path) -> None:
    anyio.run(fill, sqlite_url)
    task, press, release, wish, command = invoke(sqlite_url, tmp_path, "call")
    assert task.startswith("call: not started yet")
    assert press.startswith("  press: start_listening of human, queued since")
    assert release.startswith("  release: stop_listening of human, queued since")
    assert "wish  insert" in wish
    assert "command  TaskEnded  command gone" in command
    gone, only = invoke(sqlite_url, tmp_path, "gone")
    assert gone.startswith("gone: interrupt, failed at")
    assert only == command


def test_an_event_of_no_command_names_none() -> None:
    assert event_line({"at": "then", "event": "wish", "command_id": None}) == "then  wish"
