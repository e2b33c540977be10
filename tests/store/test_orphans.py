"""Orphans in the database: who is the same, what is written, what nobody may change."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.model import Agent, Orphan, Row
from orchestrator.core.orphan import attend
from orchestrator.store import orphans
from orchestrator.store.engine import Connection, Database, StatementError
from orchestrator.store.orphans import Found, Other
from tests.store.claiming import OWNER, status
from tests.store.rows import changes, insert, query, quoted, run, update, value
from tests.store.test_facts import open_row
from tests.store.test_triggers_notify import Listener

pytestmark = pytest.mark.anyio

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = AT + timedelta(hours=1)
OURS = f"{OWNER.prefix}{OWNER.mark}{'a' * 16}"


async def add_orphan(database: Database, id_: str, **columns: str) -> None:
    """Insert an orphan as an operator would, unless the columns say otherwise."""
    given = {"id": id_, "account": "acc", **columns}
    await run(database, insert("orphan_task", **{k: quoted(v) for k, v in given.items()}))


async def seen(database: Database, id_: str, *columns: str) -> tuple[Any, ...]:
    """Return columns of one orphan."""
    (row,) = await query(
        database,
        f"SELECT {', '.join(columns)} FROM orphan_task WHERE id = {quoted(id_)}",  # noqa: S608 - a test's own words
    )
    return row


def found(id_: str = "o1", **changes: Any) -> Found:
    given = Found(
        id=id_,
        account="acc",
        room_id="r1",
        user_id="",
        agent_user_id="",
        vendor_task_id="h1",
        source="callback",
        ours=False,
        stop=False,
        first_seen_at=AT,
    )
    return replace(given, **changes)


def agent_of(one: Found) -> Agent:
    return Agent(
        id=f"~{one.id}",
        incarnation=1,
        try_=1,
        account=one.account,
        site="{}",
        room_id=one.room_id,
        user_id=one.user_id,
        name=one.agent_user_id,
        session_name="",
        stream_id="",
        vendor_task_id=one.vendor_task_id,
        announced_at=AT,
        horizon_at=AT,
    )


def take_up_now(connection: Connection, one: Found) -> Row:
    """Write down an orphan that was found, with all that stands for it."""
    agent = agent_of(one)
    stands = attend(agent, f"~{one.id}", AT, stop=one.stop)
    orphans.insert_found(connection, one)
    orphans.take_up(connection, one, agent, stands)
    orphan = Orphan(id=one.id, stop=one.stop)
    return Row(status=stands, task=None, orphan=orphan, agents=(agent,))


async def take_up(database: Database, one: Found | None = None) -> Row:
    """Write one down in a transaction of its own."""
    return await database.write(take_up_now, one or found())


# --- what people inserted


async def test_what_is_to_be_stopped_is_taken_up_in_order(database: Database) -> None:
    await add_orphan(database, "o2", first_seen_at="2026-01-02 00:00")
    await add_orphan(database, "o1", first_seen_at="2026-01-01 00:00", room_id="r", user_id="u")
    await add_orphan(database, "o3", account="other")
    await add_orphan(database, "o4", source="callback", action="report")
    await add_orphan(database, "o5", phase="ignored")
    assert await database.read(orphans.unseen, ["acc"], 9) == ["o1", "o2"]
    assert await database.read(orphans.unseen, ["acc"], 1) == ["o1"]
    first = await database.write(orphans.lock_unseen, "o1")
    second = await database.write(orphans.lock_unseen, "o2")
    assert first is not None
    assert second is not None
    assert (first.id, first.room_id, first.user_id, first.vendor_task_id) == ("o1", "r", "u", None)
    assert (second.id, second.agent_user_id, second.stop, second.ours) == ("o2", "", True, False)
    await run(database, update("orphan_task", "phase = 'stopped'"))
    assert await database.read(orphans.unseen, ["acc"], 9) == []
    assert await database.write(orphans.lock_unseen, "o1") is None


BY_PLACE: dict[str, Any] = {"vendor_task_id": None, "agent_user_id": "bot"}
SAME: list[tuple[str, dict[str, str], dict[str, Any], bool, bool]] = [
    (
        "its handle",
        {"vendor_task_id": "h1"},
        {},
        False,
        True,
    ),
    ("no handle alike", {"vendor_task_id": "h2"}, {}, False, False),
    ("one that ended", {"vendor_task_id": "h1", "ended_at": "2026-01-01 00:00"}, {}, False, False),
    ("another account's", {"vendor_task_id": "h1", "account": "b"}, {}, False, False),
    ("a name of ours, not answered", {"account": "b"}, {"vendor_task_id": "n1"}, False, True),
    (
        "a name of ours that ended",
        {"ended_at": "2026-01-01 00:00"},
        {"vendor_task_id": "n1"},
        False,
        False,
    ),
    (
        "its place",
        {"name": "bot", "room_id": "r1"},
        {"vendor_task_id": None, "agent_user_id": "bot"},
        False,
        True,
    ),
    (
        "its name elsewhere",
        {"name": "bot", "room_id": "r2"},
        {"vendor_task_id": None, "agent_user_id": "bot"},
        False,
        False,
    ),
    ("nothing to go by", {"name": "", "room_id": "r1"}, {"vendor_task_id": None}, False, False),
    (
        "its user, where stops go by it",
        {"room_id": "r1", "user_id": "u"},
        {"user_id": "u"},
        True,
        True,
    ),
    (
        "its user, where not",
        {"room_id": "r1", "user_id": "u"},
        {"user_id": "u"},
        False,
        False,
    ),
]


@pytest.mark.parametrize(
    ("columns", "asked", "one_per_user", "is_same"),
    [case[1:] for case in SAME],
    ids=[case[0] for case in SAME],
)
async def test_the_same_agent_is_known(
    database: Database,
    columns: dict[str, str],
    asked: dict[str, Any],
    *,
    one_per_user: bool,
    is_same: bool,
) -> None:
    await open_row(database, "n1", **columns)

    def look(connection: Connection) -> list[Other]:
        return orphans.same_agent(connection, found(**asked), one_per_user=one_per_user)

    task = Other(task_id="t1", orphan_id=None, stop=False)
    assert await database.read(look) == [task] * is_same


@pytest.mark.parametrize("stop", [True, False])
async def test_another_orphan_is_the_same_if_it_is_to_be_stopped(
    database: Database, *, stop: bool
) -> None:
    await take_up(database, found("o1", stop=stop))

    def look(connection: Connection) -> list[Other]:
        return orphans.same_agent(connection, found("o2"), one_per_user=False)

    assert await database.read(look) == [Other(task_id=None, orphan_id="o1", stop=stop)]


async def test_what_nobody_can_stop_is_said_and_forgotten(database: Database) -> None:
    await add_orphan(database, "o1")
    await add_orphan(database, "o2")
    await database.write(orphans.ignore, "o1", "because")
    assert await seen(database, "o1", "phase", "reason") == ("ignored", "because")
    assert await changes(database) == [("~o2", "stop", True)]


async def test_an_account_that_nobody_has_is_said_once(database: Database) -> None:
    await add_orphan(database, "o1", account="gone")
    await add_orphan(database, "o2")
    await add_orphan(database, "o3", account="gone", action="report", source="callback")
    assert await database.read(orphans.is_any_strange, ["acc"])
    await database.write(orphans.delay_strange, ["acc"])
    assert not await database.read(orphans.is_any_strange, ["acc"])
    reason = "UnknownAccount: it is not under [accounts] of any running daemon"
    assert await seen(database, "o1", "phase", "reason") == ("seen", reason)
    assert await seen(database, "o2", "reason") == (None,)
    assert await seen(database, "o3", "reason") == (None,)
    assert await database.read(orphans.unseen, ["gone"], 9) == ["o1"]


# --- what stands for it, and what people see


@pytest.mark.parametrize(
    ("stop", "phase", "shown"), [(True, "stopping", "stop"), (False, "seen", "report")]
)
async def test_an_orphan_is_taken_up_whole(
    database: Database, phase: str, shown: str, *, stop: bool
) -> None:
    await take_up(database, found(stop=stop, ours=stop, user_id="", room_id=""))
    columns = ("room_id", "user_id", "agent_user_id", "vendor_task_id", "source", "action", "phase")
    assert await seen(database, "o1", *columns) == (
        *(None, None, None, "h1", "callback"),
        *(shown, phase),
    )
    assert bool((await seen(database, "o1", "ours"))[0]) is stop
    (agent,) = await query(database, "SELECT id, task_id, orphan_id FROM vendor_agent")
    assert agent == ("~o1", None, "o1")
    due = await status(database, "~o1", "stop_due_at IS NOT NULL", "due_at IS NOT NULL")
    assert [bool(one) for one in due] == [stop, not stop]
    events = await query(
        database, "SELECT orphan_id, event, action, outcome, code FROM agent_event"
    )
    assert events == [("o1", "orphan", "callback", shown, "h1")]


async def test_what_a_daemon_learns_is_shown_and_never_less(database: Database) -> None:
    row = await take_up(database, found(vendor_task_id=None, agent_user_id="bot"))
    (agent,) = row.agents
    heard = replace(agent, vendor_task_id="h7", seen_at=LATER)
    first = replace(row.status, reason="HTTP502", last_request_id="r-1")
    await database.write(orphans.write, [replace(row, status=first, agents=(heard,))])
    columns = ("vendor_task_id", "reason", "request_id")
    assert await seen(database, "o1", *columns) == ("h7", "HTTP502", "r-1")
    before = await seen(database, "o1", "last_seen_at")
    other = replace(agent, vendor_task_id="h8", seen_at=AT)
    await database.write(orphans.write, [replace(row, agents=(other,))])
    assert await seen(database, "o1", *columns) == ("h7", None, "r-1")
    assert await seen(database, "o1", "last_seen_at") == before
    await database.write(orphans.write, [])


async def test_only_orphans_are_read_as_such(database: Database) -> None:
    await take_up(database, found("o1", stop=True))
    await take_up(database, found("o2"))
    read = await database.read(orphans.read, ["t1", "~o1", "~o2", "~o3"])
    assert read == {"~o1": Orphan(id="o1", stop=True), "~o2": Orphan(id="o2", stop=False)}
    assert await database.read(orphans.read, ["t1"]) == {}


REPORTS: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("its handle", {}, {}, True),
    ("another's", {"vendor_task_id": "h2"}, {}, False),
    ("another account's", {"account": "b"}, {}, False),
    ("its place", {"vendor_task_id": None, "agent_user_id": "bot"}, {"agent_user_id": "bot"}, True),
    (
        "its name in another room",
        {"vendor_task_id": None, "agent_user_id": "bot", "room_id": "r2"},
        {"agent_user_id": "bot"},
        False,
    ),
    ("one that is stopped itself", {"stop": True}, {}, False),
]


@pytest.mark.parametrize(
    ("report", "stopped", "closes"), [case[1:] for case in REPORTS], ids=[c[0] for c in REPORTS]
)
async def test_the_end_of_one_closes_its_reports(
    database: Database, report: dict[str, Any], stopped: dict[str, Any], *, closes: bool
) -> None:
    await take_up(database, found("report", **report))
    await take_up(database, found("o1", stop=True, **stopped))
    await database.write(orphans.close, ["~o1", "t1"], LATER)
    assert (await seen(database, "o1", "phase", "reason"))[0] == "stopped"
    assert (await seen(database, "o1", "stopped_at"))[0] is not None
    assert await changes(database) == ([("~report", "assume_gone", False)] if closes else [])


async def test_what_was_dismissed_leaves_its_report_alone(database: Database) -> None:
    row = await take_up(database, found(stop=True))
    await take_up(database, found("o2"))
    await database.write(orphans.dismiss, row, "Incomplete")
    assert await seen(database, "o1", "phase", "reason") == ("ignored", "Incomplete")
    assert await query(database, "SELECT task_id FROM agent_status") == [("~o2",)]
    assert await query(database, "SELECT id FROM vendor_agent") == [("~o2",)]


# --- triggers


CHANGED = ["id", "account", "room_id", "user_id", "agent_user_id", "source", "vendor_task_id"]


@pytest.mark.parametrize("column", CHANGED)
async def test_nobody_changes_what_an_orphan_is(database: Database, column: str) -> None:
    await take_up(database, found(user_id="u", agent_user_id="a", stop=True))
    new = "'gateway'" if column == "source" else "'other'"
    with pytest.raises(StatementError, match="orphan_task cannot change"):
        await run(database, update("orphan_task", f"{column} = {new}"))
    await run(database, update("orphan_task", f"{column} = {column}"))


async def test_a_handle_may_be_learnt(database: Database) -> None:
    await add_orphan(database, "o1")
    await run(database, update("orphan_task", "vendor_task_id = 'h1', phase = 'stopping'"))
    assert await seen(database, "o1", "vendor_task_id") == ("h1",)


@pytest.mark.parametrize("phase", ["seen", "stopping", "stopped", "ignored"])
async def test_what_is_being_stopped_cannot_be_deleted(database: Database, phase: str) -> None:
    await add_orphan(database, "o1", phase=phase)
    if phase != "stopping":
        await run(database, "DELETE FROM orphan_task")
        assert await value(database, "SELECT count(*) FROM orphan_task") == 0
        return
    with pytest.raises(StatementError, match="assume_gone"):
        await run(database, "DELETE FROM orphan_task")


async def test_nobody_listens_for_orphans(postgres_url: str) -> None:
    places = {"account": "'a'", "room_id": "''", "user_id": "''", "due_at": "now()"}
    makes = insert("agent_status", task_id="'~o1'", **places)
    other = insert("agent_status", task_id="'t1'", **places)
    changed = update("agent_status", "phase = 'running', reason = 'x', confirmed_at = now()")
    heard = await Listener(postgres_url).hear(makes, other, changed)
    assert heard == [("orchestrator_status", "t1")]
