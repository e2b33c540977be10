"""`explain` for tasks, commands and orphans under all their names, on both databases."""

import io
import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console
from typer.testing import CliRunner

from orchestrator.cli import _Asked, app
from orchestrator.commands.explain import as_json, orphan_sentence, report
from orchestrator.store import dossier
from orchestrator.store.dossier import Dossier
from orchestrator.store.engine import Database, open_database
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


async def find(database: Database, name: str) -> Dossier | None:
    return await database.read(dossier.find, name)


async def test_a_task_comes_with_its_waiting_commands(database: Database) -> None:
    await write(database)
    explained = await find(database, "call")
    assert explained is not None
    assert explained.sentence.endswith("; 2 commands wait")
    assert [one["command_id"] for one in explained.waiting] == ["press", "release"]
    assert "queued since" in explained.waiting[0]["explanation"]
    assert [one["event"] for one in explained.events] == ["wish", "command"]


async def test_a_command_comes_with_what_happened_to_it(database: Database) -> None:
    await write(database)
    explained = await find(database, "gone")
    assert explained is not None
    assert explained.sentence == (
        "interrupt, failed at 2020-01-01 00:00:00 UTC; TaskEnded: it was over"
    )
    assert explained.waiting == ()
    assert [one["command_id"] for one in explained.events] == ["gone"]


async def test_what_is_neither_is_not_there(database: Database) -> None:
    await write(database)
    assert await find(database, "nobody") is None


async def test_a_task_goes_before_a_command_of_the_same_id(database: Database) -> None:
    await run(database, TASK, PRESS.replace("'press'", "'call'"))
    explained = await find(database, "call")
    assert explained is not None
    assert explained.sentence.startswith("not started yet")
    assert [one["command_id"] for one in explained.waiting] == ["call"]


async def test_no_more_commands_are_shown_than_anybody_reads(database: Database) -> None:
    many = [PRESS.replace("'press'", f"'c{n}'") for n in range(dossier.SHOWN_COMMANDS + 1)]
    await run(database, TASK, *many)
    explained = await find(database, "call")
    assert explained is not None
    assert [one["command_id"] for one in explained.waiting] == [
        f"c{n}" for n in range(dossier.SHOWN_COMMANDS)
    ]


LEDGER = (
    insert("account_state", account="'acc'"),
    insert(
        "vendor_agent",
        id="'orcaaaa'", name="'orcaaaa'", task_id="'call'", incarnation="1",
        account="'acc'", site="'{}'", vendor_task_id="'T1'",
        announced_at="'2020-01-01 00:00:00.000000'", ended_at="'2020-01-01 00:01:00.000000'",
        evidence="'Gone'",
    ),
    insert(
        "vendor_agent",
        id="'orcbbbb'", name="'agent-b'", task_id="'call'", incarnation="2",
        account="'acc'", site="'{}'", announced_at="'2020-01-01 00:02:00.000000'",
    ),
    insert(
        "vendor_agent",
        id="'orcpast'", name="'orcpast'", task_id="'forgotten'", incarnation="1",
        account="'acc'", site="'{}'", vendor_task_id="'T2'",
    ),
    insert("orphan_task", id="'lost'", account="'acc'", vendor_task_id="'T3'"),
    insert("orphan_task", id="'strange'", account="'acc'", vendor_task_id="'T4'"),
    insert(
        "vendor_agent",
        id="'orclost'", name="'orclost'", orphan_id="'lost'", account="'acc'", site="'{}'",
        vendor_task_id="'T3'",
    ),
    insert("agent_event", orphan_id="'lost'", event="'orphan'", request_id="'R-lost'"),
    insert(
        "agent_event", task_id="'call'", event="'call'", action="'Start'", request_id="'R-call'"
    ),
    insert(
        "agent_event", task_id="'call'", event="'command'", command_id="'gone'",
        request_id="'R-gone'",
    ),
    insert(
        "agent_event", task_id="'call'", event="'command'", command_id="'pruned'",
        request_id="'R-pruned'",
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "id_", "leads"),
    [
        ("call", "task", "call", ""),
        ("press", "command", "press", ""),
        ("lost", "orphan", "lost", ""),
        ("forgotten", "past", "forgotten", ""),
        ("T1", "task", "call", "TaskId"),
        ("orcaaaa", "task", "call", "name"),
        ("orcbbbb", "task", "call", "name"),
        ("agent-b", "task", "call", "name"),
        ("T2", "past", "forgotten", "TaskId"),
        ("T3", "orphan", "lost", "TaskId"),
        ("T4", "orphan", "strange", "TaskId"),
        ("R-call", "task", "call", "RequestId"),
        ("R-gone", "command", "gone", "RequestId"),
        ("R-pruned", "task", "call", "RequestId"),
        ("R-lost", "orphan", "lost", "RequestId"),
    ],
)
async def test_a_thing_is_found_by_every_name_it_has(
    database: Database, name: str, kind: str, id_: str, leads: str
) -> None:
    await write(database)
    await run(database, *LEDGER)
    found = await find(database, name)
    assert found is not None
    assert (found.kind, found.id, found.leads) == (kind, id_, leads)


async def test_what_nobody_is_called_is_not_found(database: Database) -> None:
    await write(database)
    await run(database, *LEDGER)
    names = ("", "%", "T", "R-", "~lost", "' OR 1=1")
    assert [name for name in names if await find(database, name)] == []


async def test_the_ledger_and_the_history_come_oldest_first(database: Database) -> None:
    await write(database)
    await run(database, *LEDGER)
    found = await find(database, "call")
    assert found is not None
    assert [agent["name"] for agent in found.agents] == ["orcaaaa", "agent-b"]
    assert [agent["evidence"] for agent in found.agents] == ["Gone", None]
    ids = [event["id"] for event in found.events]
    assert ids == sorted(ids)
    lost = await find(database, "lost")
    assert lost is not None
    assert [agent["name"] for agent in lost.agents] == ["orclost"]
    assert [event["event"] for event in lost.events] == ["orphan"]


async def test_a_request_is_looked_for_among_the_newest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(database)
    await run(database, *LEDGER)
    monkeypatch.setattr(dossier, "SEARCHED_EVENTS", 1)
    assert await find(database, "R-call") is None
    assert await find(database, "R-pruned") is not None


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        ("call", ["call", "call-17", "call-18"]),
        ("call-1", ["call-17", "call-18"]),
        ("call-77", ["call-17"]),
        ("calling-nobody-of-all-these", []),
        ("nope", []),
        ("c%", []),
        ("~los", []),
        ("", ["alpha", "call", "call-17"]),
    ],
)
async def test_near_matches_begin_alike(database: Database, name: str, alike: list[str]) -> None:
    tasks = [TASK.replace("'call'", f"'{id_}'") for id_ in ("call-17", "call", "call-18", "alpha")]
    await run(database, *tasks)
    found = await database.read(dossier.alike, name)
    assert list(found)[: len(alike)] == alike
    assert bool(found) == bool(alike)


ORPHAN = {
    "id": "lost",
    "account": "acc",
    "ours": True,
    "source": "callback",
    "action": "stop",
    "phase": "stopping",
    "first_seen_at": None,
    "stopped_at": None,
    "leaked_s": 61,
    "reason": "InternalError",
}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, ["ours, told of by: callback", "is being stopped", "leaked 1m 01s", "InternalError"]),
        ({"phase": "seen"}, ["no daemon has taken it up yet"]),
        ({"phase": "seen", "action": "report", "ours": False}, ["not ours", "only reported"]),
        ({"phase": "stopped"}, ["it has ended at"]),
        ({"phase": "ignored", "action": "report", "leaked_s": None}, ["nothing is done about it"]),
    ],
)
def test_what_is_done_about_an_orphan_is_a_sentence(
    columns: dict[str, Any], words: list[str]
) -> None:
    told = orphan_sentence(ORPHAN | columns)
    assert [part for part in words if part not in told] == []
    assert "\n" not in told


async def test_machines_read_everything_as_one_object(database: Database) -> None:
    await write(database)
    await run(database, *LEDGER)
    found = await find(database, "T1")
    assert found is not None
    told = json.loads(as_json(found))
    assert [*told] == [
        "kind", "id", "found_by", "explanation", "row", "waiting", "events", "agents",
    ]  # fmt: skip
    assert (told["kind"], told["id"], told["found_by"]) == ("task", "call", "TaskId")
    assert told["row"]["phase"] == "pending"
    assert [one["command_id"] for one in told["waiting"]] == ["press", "release"]
    assert told["agents"][0]["ended_at"] == "2020-01-01T00:01:00+00:00"
    past = await find(database, "forgotten")
    assert past is not None
    assert json.loads(as_json(past))["row"] is None


@pytest.mark.parametrize("width", [80, 120, 200])
async def test_a_report_fits_the_terminal_and_has_everything(
    database: Database, width: int
) -> None:
    await write(database)
    await run(database, *LEDGER)
    found = await find(database, "call")
    assert found is not None
    out = Console(width=width, record=True, force_terminal=True, file=io.StringIO())
    for line in report(found, "call", width):
        out.print(line)
    text = out.export_text()
    assert max(map(len, text.splitlines())) <= width
    words = ("call: task of account acc", "press", "R-call", "T1", "may run", "00:01:00Z")
    assert [word for word in words if word not in text] == []


async def fill(url: str) -> None:
    database = open_database(url)
    await write(database)
    await database.close()


def invoke(url: str, folder: Path, *args: str) -> Any:
    file = folder / "config.toml"
    file.write_text(f'[database]\nurl = "{url}"\n', "utf-8")
    return CliRunner().invoke(app, ["explain", *args, "-c", str(file)], obj=_Asked())


def test_it_is_printed(sqlite_url: str, tmp_path: Path) -> None:
    anyio.run(fill, sqlite_url)
    told = invoke(sqlite_url, tmp_path, "call")
    assert told.exit_code == 0
    about, sentence, press, release, _, title, heading, wish, command = told.output.splitlines()
    assert about == "call: task of account acc"
    assert sentence.startswith("not started yet")
    assert press.startswith("    press: start_listening of human, queued since")
    assert release.startswith("    release: stop_listening of human, queued since")
    assert title == "History"
    assert heading.split() == ["at", "what", "outcome", "and"]
    assert wish.endswith("wish insert")
    assert command.split()[-3:] == ["TaskEnded", "command", "gone"]


def test_a_command_is_printed_with_its_own_history(sqlite_url: str, tmp_path: Path) -> None:
    anyio.run(fill, sqlite_url)
    about, sentence, *_, only = invoke(sqlite_url, tmp_path, "gone").output.splitlines()
    assert about == "gone: command of account acc"
    assert sentence.startswith("interrupt, failed at")
    assert "TaskEnded" in only


def test_machines_get_one_line(sqlite_url: str, tmp_path: Path) -> None:
    anyio.run(fill, sqlite_url)
    told = invoke(sqlite_url, tmp_path, "call", "--json")
    assert json.loads(told.output)["id"] == "call"
    assert len(told.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [("calll", "did you mean call?"), ("zzz", "`orchestrator status` shows the tasks")],
)
def test_a_name_that_nobody_has_is_a_line_and_exits_1(
    sqlite_url: str, tmp_path: Path, name: str, told: str
) -> None:
    anyio.run(fill, sqlite_url)
    asked = invoke(sqlite_url, tmp_path, name)
    assert getattr(asked.exception, "exit_code", None) == 1
    assert str(asked.exception).endswith(told)
    assert "\n" not in str(asked.exception)
