"""Orphans that are only reported, claimed and settled on a real database; and nets under all."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.fact import Fact
from orchestrator.core.model import Verb
from orchestrator.core.outcome import Done, Gone
from orchestrator.store import housekeeping, reported, retention
from orchestrator.store.engine import Connection, Database
from orchestrator.store.engine import now as database_now
from orchestrator.store.housekeeping import Swept
from orchestrator.store.retention import Cutoffs
from tests.store.claiming import OWNER, Daemon, ledger, settled, want
from tests.store.rows import changes, query, run, update, value
from tests.store.test_facts import STARTED
from tests.store.test_orphans import AT, LATER, add_orphan, found, seen, take_up
from tests.store.test_orphans import take_up_now as write_down

pytestmark = pytest.mark.anyio

OURS = f"{OWNER.prefix}{OWNER.mark}{'a' * 16}"


@pytest.fixture
async def daemon(database: Database) -> Daemon:
    return await Daemon(database).ready()


# --- what is reported is looked at, and no more


async def test_a_report_is_looked_at_under_its_mark(daemon: Daemon) -> None:
    await take_up(daemon.database, found(account="tencent"))
    assert await daemon.run_to_end("~o1", Done(name="somebody", request_id="r1")) == [Verb.POLL]
    assert await seen(daemon.database, "o1", "phase", "request_id") == ("seen", "r1")
    assert (await daemon.claim("~o1")).orders == []
    events = await query(
        daemon.database,
        "SELECT DISTINCT task_id, orphan_id FROM agent_event WHERE event = 'call'",
    )
    assert events == [(None, "o1")]


async def test_a_report_that_is_gone_has_ended(daemon: Daemon) -> None:
    await take_up(daemon.database, found(account="tencent"))
    await daemon.run_to_end("~o1", Gone(request_id="r1"))
    row = await seen(daemon.database, "o1", "phase", "action", "request_id")
    assert row == ("stopped", "report", "r1")
    assert await query(daemon.database, "SELECT task_id FROM agent_status") == []


async def test_a_deleted_report_is_dropped_before_anything_is_decided(daemon: Daemon) -> None:
    """Else it would be a row without a task, and be stopped (see `core`)."""
    await take_up(daemon.database, found(account="tencent"))
    await run(daemon.database, "DELETE FROM orphan_task")
    assert (await daemon.claim("~o1")).orders == []
    assert await query(daemon.database, "SELECT id FROM vendor_agent") == []
    assert await query(daemon.database, "SELECT task_id FROM agent_status") == []


async def test_a_report_that_is_deleted_while_it_is_looked_at_is_not_stopped(
    daemon: Daemon,
) -> None:
    await take_up(daemon.database, found(account="tencent"))
    order = await daemon.claim_one("~o1")
    await run(daemon.database, "DELETE FROM orphan_task")
    assert await daemon.settle(settled(order, Done())) == []
    await run(daemon.database, "UPDATE agent_status SET due_at = '2020-01-01 00:00:00'")
    assert (await daemon.claim("~o1")).orders == []
    assert await query(daemon.database, "SELECT id FROM vendor_agent") == []


# --- who it is after all


async def test_what_bears_our_name_is_stopped(daemon: Daemon) -> None:
    await take_up(daemon.database, found(account="tencent"))
    verbs = await daemon.run_to_end("~o1", Done(name=OURS), Done(request_id="r2"))
    assert verbs == [Verb.POLL, Verb.STOP]
    row = await seen(daemon.database, "o1", "phase", "action", "request_id")
    assert row == ("stopped", "stop", "r2")
    assert bool((await seen(daemon.database, "o1", "ours"))[0])


async def test_what_is_ours_is_told_once(daemon: Daemon) -> None:
    row = await take_up(daemon.database, found(account="tencent"))
    for _ in range(2):
        await daemon.database.write(reported.claim_as_ours, row.status.task_id, "d1")
    assert await changes(daemon.database) == [("~o1", "stop", True)]


async def test_the_agent_of_a_lost_answer_goes_to_its_task(daemon: Daemon) -> None:
    database = daemon.database
    await want(database, "t1")
    order = await daemon.claim_one("t1")
    name = order.flight.agent.id
    row = await take_up(database, found(account="volc", vendor_task_id="h9"))
    assert await database.write(reported.dismiss_known, row, name)
    reason = "HasTask: it is the agent of task t1; stop that"
    assert await seen(database, "o1", "phase", "reason") == ("ignored", reason)
    assert [agent for (agent,) in await query(database, "SELECT id FROM vendor_agent")] == [name]


@pytest.mark.parametrize(
    "columns",
    ["ended_at = announced_at", "task_id = NULL, orphan_id = 'o9'"],
)
async def test_a_name_that_is_no_open_task_s_is_no_task_s(daemon: Daemon, columns: str) -> None:
    database = daemon.database
    await want(database, "t1")
    await daemon.start("t1")
    ((name,),) = await ledger(database, "t1", "id")
    await run(database, update("vendor_agent", columns))
    row = await take_up(database, found(account="volc"))
    assert not await database.write(reported.dismiss_known, row, name)
    assert await seen(database, "o1", "phase") == ("seen",)


# --- the configuration says that it is to be stopped


def _stop(connection: Connection) -> int:
    accounts, named = ["acc", "named"], ["named"]
    is_any = reported.is_any_reported(connection, accounts, named)
    count = reported.stop_reported(connection, accounts, named, "d1", 9)
    assert is_any is (count > 0)
    return count


STRANGERS: list[tuple[str, dict[str, Any], str, bool]] = [
    ("of whom nothing is known", {}, "", False),
    ("whose name is known", {"agent_user_id": "bot"}, "", True),
    ("that was asked about", {}, "seen_at = '2026-01-01 00:00'", True),
    ("whose handle is a name", {"account": "named"}, "", True),
    ("of an account of others", {"account": "b", "agent_user_id": "bot"}, "", False),
    ("that has ended", {"agent_user_id": "bot"}, "ended_at = announced_at", False),
    ("that is stopped already", {"agent_user_id": "bot", "stop": True}, "", False),
]


@pytest.mark.parametrize(
    ("orphan", "agent", "stops"), [case[1:] for case in STRANGERS], ids=[c[0] for c in STRANGERS]
)
async def test_only_a_stranger_of_whom_enough_is_known_is_stopped(
    database: Database, orphan: dict[str, Any], agent: str, *, stops: bool
) -> None:
    await take_up(database, found(**orphan))
    if agent:
        await run(database, update("vendor_agent", agent))
    assert await database.write(_stop) == stops
    assert await changes(database) == ([("~o1", "stop", True)] if stops else [])
    assert await database.write(_stop) == 0


# --- seen again


TOLD = replace(STARTED, room_id="r1")
PLACELESS = replace(STARTED, room_id=None)
IGNORED: list[tuple[str, dict[str, str], Fact, bool]] = [
    ("with its room", {"room_id": "r1"}, TOLD, True),
    ("without a room, as before", {}, PLACELESS, True),
    ("its room is known now", {}, TOLD, False),
    ("by its name", {}, replace(PLACELESS, vendor_task_id=None, name="h1"), True),
    ("one that was stopped", {"phase": "stopped", "room_id": "r1"}, TOLD, False),
    ("another account's", {"account": "b", "room_id": "r1"}, TOLD, False),
    ("another", {"vendor_task_id": "h2", "room_id": "r1"}, TOLD, False),
]


@pytest.mark.parametrize(
    ("columns", "told", "is_there"), [case[1:] for case in IGNORED], ids=[c[0] for c in IGNORED]
)
async def test_what_is_ignored_is_not_found_anew(
    database: Database, columns: dict[str, str], told: Fact, *, is_there: bool
) -> None:
    given = {"vendor_task_id": "h1", "phase": "ignored", "last_seen_at": "2026-03-01 12:00:00"}
    await add_orphan(database, "o1", **(given | columns))
    for at in (LATER, AT):
        assert await database.write(reported.see_again, "acc", told, at) is is_there
    later = "SELECT count(*) FROM orphan_task WHERE last_seen_at > '2026-03-01 12:30:00'"
    assert await value(database, later) == is_there


# --- nets


CLEAN = Swept(last=None, mended=0)
MENDED = Swept(last=None, mended=1)


async def sweep(database: Database) -> Swept:
    return await database.write(housekeeping.sweep_orphans, "", "d1")


@pytest.mark.parametrize(("stop", "verb"), [(True, Verb.STOP), (False, Verb.POLL)])
async def test_an_orphan_without_a_status_gets_one(
    daemon: Daemon, verb: Verb, *, stop: bool
) -> None:
    await take_up(daemon.database, found(account="tencent", stop=stop))
    assert await sweep(daemon.database) == CLEAN
    await run(daemon.database, "DELETE FROM agent_status")
    assert await sweep(daemon.database) == MENDED
    assert (await daemon.claim_one("~o1")).flight.verb is verb
    assert await sweep(daemon.database) == CLEAN


async def test_an_orphan_that_nothing_is_left_of_is_taken_up_anew(database: Database) -> None:
    await take_up(database, found(stop=True))
    await take_up(database, found("reported"))
    await run(database, "DELETE FROM agent_status", "DELETE FROM vendor_agent")
    assert await sweep(database) == MENDED
    assert await seen(database, "o1", "phase", "action") == ("seen", "stop")
    assert await seen(database, "reported", "phase", "action") == ("seen", "report")
    assert await query(database, "SELECT task_id FROM agent_status") == []


@pytest.mark.parametrize("phase", ["seen", "stopped", "ignored"])
async def test_an_orphan_that_needs_no_status_gets_none(database: Database, phase: str) -> None:
    await add_orphan(database, "o1", phase=phase)
    assert await sweep(database) == CLEAN
    assert await seen(database, "o1", "phase") == (phase,)


async def test_the_walk_over_orphans_goes_on_where_it_was(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "STEP", 2)
    for number in range(3):
        await take_up(database, found(f"o{number}", vendor_task_id=f"h{number}"))
    await run(database, "DELETE FROM agent_status")
    assert await sweep(database) == Swept(last="o1", mended=2)
    rest = await database.write(housekeeping.sweep_orphans, "o1", "d1")
    assert rest == Swept(last=None, mended=1)


KEPT = timedelta(days=1)


@pytest.mark.parametrize("forever", [True, False])
async def test_an_orphan_that_ended_long_ago_is_forgotten(
    database: Database, *, forever: bool
) -> None:
    for id_, at in (("old", "2020-01-01 00:00"), ("young", "2099-01-01 00:00")):
        await add_orphan(database, id_, phase="stopped", stopped_at=at)
    await add_orphan(database, "ignored", phase="ignored")
    await database.write(write_down, found("open", stop=True))
    now = await database.read(database_now)
    before = Cutoffs(
        events=now - KEPT,
        commands=now - KEPT,
        turns=now - KEPT,
        ended=None if forever else now - KEPT,
    )
    assert await database.write(retention.prune, before, 100) == (0 if forever else 1)
    left = await query(database, "SELECT id FROM orphan_task ORDER BY id")
    assert ("old",) in left or not forever
    assert len(left) == (4 if forever else 3)
