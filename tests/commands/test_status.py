import json
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection, text
from typer.testing import CliRunner

from orchestrator.cli import _Asked, app
from orchestrator.examples import EXAMPLES
from orchestrator.store import demo, dossier, migrate, snapshot
from orchestrator.store.engine import Database, open_database
from orchestrator.store.schema import REVISION
from orchestrator.store.snapshot import Snapshot, Wanted
from tests.store.rows import insert, run, update

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
    found = await database.read(snapshot.take, Wanted())
    (task,) = found.tasks
    assert task["task_id"] == "a"
    assert task["labels"] == {"k": 1}
    assert isinstance(task["phase_since"], datetime)
    assert task["phase_since"].tzinfo is not None
    assert [row["tasks"] for row in found.convergence] == [1]
    assert found.health == []


async def test_a_task_is_explained_with_its_history_oldest_first(database: Database) -> None:
    await database.write(write_rows)
    explained = await database.read(dossier.find, "a")
    assert explained is not None
    assert "not started yet" in explained.sentence
    assert [event["event"] for event in explained.events] == ["first", "second"]
    assert await database.read(dossier.find, "b") is None


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


TASKS = {
    # phase, desired_state, waiting_for, reason
    "ended": ("stopped", "stopped", None, None),
    "calm": ("running", "running", None, None),
    "begun": ("starting", "running", None, None),
    "early": ("pending", "running", "start_at", None),
    "full": ("pending", "running", "capacity", None),
    "ending": ("stopping", "stopped", None, None),
    "bad": ("failed", "running", None, "InvalidSpec"),
    "unknown": ("quarantined", "running", "proof", "Indefinite"),
}


def literal(value: str | None) -> str:
    return "NULL" if value is None else f"'{value}'"


async def write_tasks(database: Database) -> None:
    for id_, (phase, desired, waits, reason) in TASKS.items():
        row = {"id": id_, "account": "b" if id_ == "calm" else "a", "room_id": "r", "user_id": "u"}
        await run(
            database,
            insert(
                "agent_task",
                desired_state=literal(desired),
                **{k: f"'{v}'" for k, v in row.items()},
            ),
            update(
                "agent_status",
                f"phase = '{phase}', waiting_for = {literal(waits)}, reason = {literal(reason)},"
                " due_at = '2030-01-01 00:00:00'",
            )
            + f" WHERE task_id = '{id_}'",
        )
    await run(database, "DELETE FROM task_change")


async def look(database: Database, wanted: Wanted) -> Snapshot:
    return await database.read(snapshot.take, wanted)


async def test_trouble_comes_first_and_what_ended_last(database: Database) -> None:
    await write_tasks(database)
    found = await look(database, Wanted())
    ids = [row["task_id"] for row in found.tasks]
    assert set(ids[:2]) == {"bad", "unknown"}
    assert set(ids[2:4]) == {"early", "full"}
    assert set(ids[4:6]) == {"begun", "ending"}
    assert ids[6:] == ["calm", "ended"]
    assert found.totals == {
        "failed": 1, "pending": 2, "quarantined": 1,
        "running": 1, "starting": 1, "stopped": 1, "stopping": 1,
    }  # fmt: skip
    assert found.unconverged == 4  # begun, full, ending, unknown


async def test_only_trouble_and_only_one_account(database: Database) -> None:
    await write_tasks(database)
    troubled = await look(database, Wanted(trouble=True))
    assert {row["task_id"] for row in troubled.tasks} == {"full", "ending", "bad", "unknown"}
    await run(
        database,
        insert("account_control", account="'a'"),
        insert("account_control", account="'b'"),
        insert("orphan_task", account="'a'"),
        insert("call_minute", account="'a'", action="'x'", minute="CURRENT_TIMESTAMP", bucket="1"),
    )
    other = await look(database, Wanted(account="b"))
    assert [row["task_id"] for row in other.tasks] == ["calm"]
    assert other.totals == {"running": 1}
    assert [row["account"] for row in other.accounts] == ["b"]
    assert (other.orphans, other.convergence, other.health) == ([], [], [])
    nobody = await look(database, Wanted(account="' OR 1 = 1 --"))
    assert nobody.tasks == []


async def test_machines_get_all_rows_and_people_as_many_as_they_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SHOWN", 3)
    await write_tasks(database)
    orphans = [insert("orphan_task", id=f"'o{n}'", account="'a'") for n in range(4)]
    await run(database, *orphans)
    few, all_ = await look(database, Wanted()), await look(database, Wanted(whole=True))
    assert (len(few.tasks), len(few.orphans)) == (3, 3)
    assert (len(all_.tasks), len(all_.orphans)) == (len(TASKS), 4)


async def test_orphans_that_run_come_first(database: Database) -> None:
    def row(id_: str, phase: str) -> str:
        ours = "true" if id_ == "o1" else "false"
        ended = "CURRENT_TIMESTAMP" if phase == "stopped" else "NULL"
        values = {"id": id_, "account": "a", "phase": phase}
        quoted = {name: f"'{value}'" for name, value in values.items()}
        return insert("orphan_task", ours=ours, stopped_at=ended, **quoted)

    phases = {"o1": "stopped", "o2": "ignored", "o3": "stopping", "o4": "seen"}
    await run(database, *(row(id_, phase) for id_, phase in phases.items()))
    found = await look(database, Wanted())
    assert {row["id"] for row in found.orphans[:2]} == {"o3", "o4"}
    assert [row["id"] for row in found.orphans[2:]] == ["o2", "o1"]
    assert [row["ours"] for row in found.orphans[2:]] == [False, True]
    assert found.leaking == found.orphans[:2]


async def test_a_daemon_that_is_silent_is_not_alive(database: Database) -> None:
    def begin(connection: Connection) -> None:
        connection.execute(DAEMON, {"id": "one", "pid": 1})

    await database.write(begin)
    (one,) = (await look(database, Wanted())).daemons
    assert one["is_alive"] is True
    assert one["accounts"] == []
    await run(database, update("daemon", "heartbeat_at = '2020-01-01 00:00:00.000000'"))
    (one,) = (await look(database, Wanted())).daemons
    assert one["is_alive"] is False
    assert one["heartbeat_at"].tzinfo is not None


async def test_the_page_is_as_old_as_the_database_says(database: Database) -> None:
    first = (await look(database, Wanted())).at
    second = (await look(database, Wanted())).at
    assert timedelta() <= second - first


def test_status_and_explain_say_it_on_a_terminal(config_path: str, sqlite_url: str) -> None:
    anyio.run(filled, sqlite_url)
    code, told = invoke("status", "-c", config_path)
    assert code == 0
    assert told.startswith("1 task: pending 1 · 1 not as desired")
    code, told = invoke("explain", "a", "-c", config_path)
    assert code == 0
    about, sentence, _, title, _, first, second = told.splitlines()
    assert about == "a: task of account m"
    assert sentence.startswith("not started yet")
    assert title == "History"
    assert first.endswith("  first   [red]said")
    assert second.endswith("second  [red]said")


def test_machines_read_status_as_one_object(config_path: str, sqlite_url: str) -> None:
    anyio.run(filled, sqlite_url)
    code, told = invoke("status", "--json", "-c", config_path)
    assert code == 0
    found = json.loads(told)
    assert [*found] == [
        "at", "totals", "unconverged", "tasks", "convergence", "account_health",
        "orphan_overview", "accounts", "daemons",
    ]  # fmt: skip
    assert [task["task_id"] for task in found["tasks"]] == ["a"]
    assert found["tasks"][0]["labels"] == {"k": 1}
    assert datetime.fromisoformat(found["at"]).utcoffset() == timedelta()
    assert found["totals"] == {"pending": 1}


def test_who_looks_needs_no_vendor_s_keys(config_path: str) -> None:
    with Path(config_path).open("a", encoding="utf-8") as file:
        file.write('[accounts.a]\nprovider = "zego"\nserver_secret = {credential = "not-there"}\n')
    code, told = invoke("status", "-c", config_path)
    assert code == 0
    assert told.startswith("0 tasks")


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
    assert 'is called "nope"' in str(told.exception)
    assert getattr(told.exception, "exit_code", None) == 1
