"""What the constraints refuse, on both databases."""

from collections.abc import Mapping

import pytest
from sqlalchemy import Connection, select
from sqlalchemy import insert as insert_into
from sqlalchemy.exc import DBAPIError, IntegrityError

from orchestrator.core.model import EndReason, Phase, Verb, WaitingFor, What, WorkClass
from orchestrator.store.engine import Database, now, open_database
from orchestrator.store.schema import agent_status, agent_task, installation
from tests.store.rows import TASK, insert, query, quoted, run, value

pytestmark = pytest.mark.anyio


def insert_task(id_: str = "'t1'", **columns: str) -> str:
    row = {"id": id_, "account": "'a'", "room_id": "'r'", "user_id": "'u'", **columns}
    return insert("agent_task", **row)


GOOD_IDS = ["a", "A-Z_09", "x" * 64, "-", "_"]
BAD_IDS = ["", "x" * 65, "a b", "a.b", "ä", "~a", "a\n", "a'", "a/b"]


@pytest.mark.parametrize("id_", GOOD_IDS)
async def test_an_id_may_be(database: Database, id_: str) -> None:
    await run(database, insert_task(quoted(id_)))
    assert await value(database, "SELECT id FROM agent_task") == id_


@pytest.mark.parametrize("id_", BAD_IDS)
async def test_an_id_may_not_be(database: Database, id_: str) -> None:
    with pytest.raises(DBAPIError):
        await run(database, insert_task(quoted(id_)))


async def test_an_id_may_not_be_null(database: Database) -> None:
    with pytest.raises(IntegrityError):
        await run(database, insert_task("NULL"))


async def test_ids_are_drawn(database: Database) -> None:
    statement = "INSERT INTO agent_task (account, room_id, user_id) VALUES ('a', 'r', 'u')"
    await run(database, statement, statement)
    drawn = [row[0] for row in await query(database, "SELECT id FROM agent_task")]
    assert len(set(drawn)) == len(drawn) == 2
    assert await query(database, "SELECT task_id FROM agent_status ORDER BY 1") == [
        (id_,) for id_ in sorted(drawn)
    ]


REFUSED = [
    {"spec": "'[]'"},
    {"spec": "'1'"},
    {"spec": "'{'"},
    {"spec": "'null'"},
    {"spec": "NULL"},
    {"labels": "'[]'"},
    {"desired_state": "'Running'"},
    {"desired_state": "NULL"},
    {"restart_policy": "'sometimes'"},
    {"heartbeat_timeout_s": "0"},
    {"heartbeat_timeout_s": "-1"},
    {"heartbeat_timeout_s": "'soon'"},
    {"priority": "'high'"},
]


@pytest.mark.parametrize("columns", REFUSED, ids=str)
async def test_a_task_is_refused(database: Database, columns: dict[str, str]) -> None:
    with pytest.raises(DBAPIError):
        await run(database, insert_task(**columns))
    assert await query(database, "SELECT * FROM agent_status") == []


STATUS = {"task_id": "t1", "account": "a", "room_id": "r", "user_id": "u"}


def insert_status(connection: Connection, columns: Mapping[str, object]) -> None:
    connection.execute(insert_into(agent_status).values({**STATUS, **columns}))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("end_reason", EndReason),
        ("waiting_for", WaitingFor),
        ("parked_class", WorkClass),
        ("parked_verb", Verb),
        ("intent", Verb),
    ],
)
async def test_every_word_of_the_core_is_taken_and_no_other(
    database: Database, column: str, words: type[EndReason]
) -> None:
    for number, word in enumerate([*words, None]):
        await database.write(insert_status, {column: word, "task_id": f"t{number}"})
    with pytest.raises(IntegrityError):
        await database.write(insert_status, {column: "other", "task_id": "t99"})


@pytest.mark.parametrize("phase", Phase)
async def test_a_phase_in_which_something_may_live_has_a_time(
    database: Database, phase: Phase
) -> None:
    timed = {"phase": phase, "due_at": await database.read(now)}
    await database.write(insert_status, timed)
    bare = {"phase": phase, "task_id": "t2"}
    if phase in {Phase.PENDING, Phase.STOPPED, Phase.FAILED}:
        await database.write(insert_status, bare)
        return
    with pytest.raises(IntegrityError):
        await database.write(insert_status, bare)


@pytest.mark.parametrize("what", What)
async def test_every_wish_can_be_written(database: Database, what: What) -> None:
    await run(database, insert("task_change", task_id="'t1'", what=quoted(what)))


async def test_an_unknown_wish_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError):
        await run(database, "INSERT INTO task_change (task_id, what) VALUES ('t1', 'explode')")


async def test_only_orphans_statuses_begin_with_a_tilde(database: Database) -> None:
    await database.write(insert_status, {"task_id": "~" + "x" * 64})
    for bad in ("~", "~~a", "a~"):
        with pytest.raises(IntegrityError):
            await database.write(insert_status, {"task_id": bad})


def marks(connection: Connection) -> list[str]:
    return list(connection.execute(select(installation.c.mark)).scalars())


async def test_there_is_one_mark(database: Database) -> None:
    (mark,) = await database.read(marks)
    assert len(mark) == 5
    assert set(mark) <= set("abcdefghijklmnopqrstuvwxyz234567")
    with pytest.raises(IntegrityError):
        await run(database, "INSERT INTO installation (mark) VALUES ('aaaaa')")


def specs(connection: Connection) -> list[object]:
    return list(connection.execute(select(agent_task.c.spec)).scalars())


async def test_json_comes_back_as_it_was(database: Database) -> None:
    spec = {"文": "é", "list": [1, 2.5, None, True], "deep": {"a": {"b": "'"}}, "empty": {}}

    def write(connection: Connection) -> None:
        row = {"id": "t1", "account": "a", "room_id": "r", "user_id": "u", "spec": spec}
        connection.execute(insert_into(agent_task).values(row))

    await database.write(write)
    assert await database.read(specs) == [spec]


async def test_json_too_deep_to_parse_harms_no_other_row(database: Database) -> None:
    depth = 900 if database.dialect == "sqlite" else 3_000
    deep = '{"a":' * depth + "1" + "}" * depth
    await run(database, insert_task("'t1'"), insert_task("'t2'", spec=f"'{deep}'"))
    shallow, other = await database.read(specs)
    assert shallow == {}
    assert isinstance(other, dict | str)


REPLACE = [
    insert_task(account="'b'").replace("INSERT", verb) for verb in ("INSERT OR REPLACE", "REPLACE")
]


@pytest.mark.parametrize("statement", REPLACE)
@pytest.mark.parametrize("recursive", ["ON", "OFF"])
async def test_replace_cannot_take_a_tasks_place(
    sqlite_url: str, statement: str, recursive: str
) -> None:
    database = open_database(sqlite_url)
    await run(database, f"PRAGMA recursive_triggers = {recursive}", TASK)
    await run(database, f"{TASK} ON CONFLICT DO NOTHING", "UPDATE agent_task SET priority = 1")
    with pytest.raises(DBAPIError, match="INSERT OR REPLACE would forget a running agent"):
        await run(database, statement)
    assert await query(database, "SELECT account FROM agent_task") == [("acc",)]
    await run(database, "DELETE FROM agent_task", statement)
    assert await query(database, "SELECT account FROM agent_task") == [("b",)]
    assert await query(database, "SELECT account FROM agent_status") == [("acc",)]
    await database.close()


@pytest.mark.parametrize("table", ["agent_task", "task_owner", "agent_command"])
async def test_truncate_is_refused(postgres_url: str, table: str) -> None:
    database = open_database(postgres_url)
    with pytest.raises(DBAPIError, match="TRUNCATE would forget running agents: use DELETE FROM"):
        await run(database, f"TRUNCATE {table}")
    await database.close()
