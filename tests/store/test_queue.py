"""What a look finds: stops first, changes, what is due, and who waits longest in which queue."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from orchestrator.core.model import Verb, WorkClass
from orchestrator.store import queue
from orchestrator.store.engine import Database
from orchestrator.store.engine import now as database_now
from orchestrator.store.queue import Candidate, Queue, Scope
from tests.store.claiming import Daemon, ticket, wait_out_lease, want
from tests.store.rows import quoted, run, update

pytestmark = pytest.mark.anyio

PAST, FUTURE = "'2020-01-01 00:00:00.000000'", "'2099-01-01 00:00:00.000000'"
STARTS = Queue("volc", WorkClass.START, Verb.START)


ALL = Scope(most=128, most_polls=128, without={})


def without(account: str, *classes: WorkClass) -> Scope:
    """Leave out what an account wants of these classes."""
    return replace(ALL, without=dict.fromkeys(classes, frozenset({account})))


async def found(database: Database, scope: Scope = ALL) -> list[tuple[str, Verb]]:
    now = await database.read(database_now)
    return [(c.task_id, c.verb) for c in await database.read(queue.peek, now, scope)]


async def next_due(database: Database) -> datetime | None:
    return await database.read(lambda c: queue.next_due(c, database_now(c)))


async def rest(database: Database, id_: str, **columns: str) -> None:
    """Write a status as SQL literals say, its changes taken."""
    listed = ", ".join(f"{name} = {literal}" for name, literal in columns.items())
    await run(
        database,
        f"UPDATE agent_status SET {listed} WHERE task_id = {quoted(id_)}",  # noqa: S608 - a test's own words
        f"DELETE FROM task_change WHERE task_id = {quoted(id_)}",  # noqa: S608 - as above
    )


async def test_stops_come_before_changes_and_changes_before_what_is_due(
    database: Database,
) -> None:
    await want(database, "due", "change", "late", "stop")
    await rest(database, "due", phase="'running'", due_at=PAST)
    await rest(database, "late", phase="'running'", stop_due_at=PAST, due_at=FUTURE)
    await rest(database, "stop", phase="'running'", due_at=FUTURE)
    await run(database, "UPDATE agent_task SET desired_state = 'stopped' WHERE id = 'stop'")
    assert await found(database) == [
        ("stop", Verb.STOP),
        ("late", Verb.STOP),
        ("change", Verb.START),
        ("due", Verb.POLL),
    ]


@pytest.mark.parametrize(
    ("phase", "verb"),
    [
        ("pending", Verb.START),
        ("starting", Verb.START),
        ("running", Verb.POLL),
        ("stopping", Verb.FIND),
        ("quarantined", Verb.FIND),
    ],
)
async def test_the_phase_tells_which_slot_a_row_most_likely_needs(
    database: Database, phase: str, verb: Verb
) -> None:
    await want(database, "a")
    await rest(database, "a", phase=quoted(phase), due_at=PAST)
    assert await found(database) == [("a", verb)]


async def test_a_task_is_found_once_and_for_what_is_most_urgent(database: Database) -> None:
    await want(database, "a")
    await run(database, "UPDATE agent_task SET desired_state = 'stopped'")
    await run(database, f"UPDATE agent_status SET due_at = {PAST}, stop_due_at = {PAST}")  # noqa: S608 - a test's own words
    assert await found(database) == [("a", Verb.STOP)]


async def test_each_kind_is_bounded_and_none_hides_another(database: Database) -> None:
    await want(database, "a", "b", "c", "d")
    for id_ in ("a", "b", "c"):
        await rest(database, id_, phase="'running'", due_at=PAST)
    assert await found(database, replace(ALL, most=1, most_polls=2)) == [
        ("d", Verb.START),
        ("a", Verb.POLL),
        ("b", Verb.POLL),
    ]


async def test_polls_that_are_due_hide_no_start_that_is(database: Database) -> None:
    older = "'2019-01-01 00:00:00.000000'"
    await want(database, "a", "b", "c")
    for id_ in ("a", "b"):
        await rest(database, id_, phase="'running'", due_at=older)
    await rest(database, "c", due_at=PAST)
    one_each = replace(ALL, most=1, most_polls=1)
    assert await found(database, one_each) == [("c", Verb.START), ("a", Verb.POLL)]
    assert await found(database, replace(one_each, most_polls=0)) == [("c", Verb.START)]


@pytest.mark.parametrize(
    ("work_class", "columns", "wish"),
    [
        (WorkClass.START, {"due_at": PAST}, None),
        (WorkClass.START, {}, "restart_token = 'again'"),
        (WorkClass.STOP, {"phase": "'running'", "due_at": FUTURE, "stop_due_at": PAST}, None),
        (WorkClass.STOP, {"phase": "'running'", "due_at": FUTURE}, "desired_state = 'stopped'"),
        (WorkClass.STOP, {"phase": "'running'", "due_at": FUTURE}, "restart_token = 'again'"),
        (WorkClass.OBSERVE, {"phase": "'running'", "due_at": PAST}, None),
    ],
)
async def test_an_account_that_is_left_out_hides_no_other(
    database: Database, work_class: WorkClass, columns: dict[str, str], wish: str | None
) -> None:
    await want(database, "a", "b", account="full")
    await want(database, "c")
    for id_ in ("a", "b", "c"):
        await rest(database, id_, **({"due_at": "NULL"} | columns))
    if wish:
        await run(database, update("agent_task", wish))
    few = replace(without("full", work_class), most=1, most_polls=1)
    assert [id_ for id_, _ in await found(database, few)] == ["c"]
    others = [each for each in WorkClass if each is not work_class]
    few = replace(without("full", *others), most=1, most_polls=1)
    assert [id_ for id_, _ in await found(database, few)] == ["a"]


async def test_what_rests_or_is_leased_is_not_found(database: Database) -> None:
    daemon = await Daemon(database).ready()
    await want(database, "a", "b")
    await rest(database, "b", phase="'running'", due_at=FUTURE, stop_due_at=FUTURE)
    await daemon.claim_one("a")
    await run(database, "UPDATE agent_task SET desired_state = 'stopped' WHERE id = 'a'")
    assert await found(database) == []
    await wait_out_lease(database, "a")
    assert await found(database) == [("a", Verb.STOP)]


async def test_a_change_without_a_status_is_found_without_an_account(database: Database) -> None:
    await want(database, "a")
    await run(database, "DELETE FROM agent_status")
    now = await database.read(database_now)
    assert await database.read(queue.peek, now, without("volc", *WorkClass)) == [
        Candidate(task_id="a", account=None, verb=Verb.START)
    ]


# --- queues


async def park(daemon: Daemon, *ids: str, account: str = "volc") -> None:
    """Let these rows wait for a slot, one after the other."""
    for id_ in ids:
        await daemon.claim(id_, tickets={(account, Verb.START): []})


async def parked(database: Database, one: Queue = STARTS, most: int = 9) -> list[str]:
    now = await database.read(database_now)
    return await database.read(queue.peek_parked, one, now, most)


async def test_the_highest_priority_waits_least_then_the_oldest(database: Database) -> None:
    daemon = await Daemon(database).ready()
    await want(database, "old", "new")
    await want(database, "high", "higher", priority="5")
    await run(database, "UPDATE agent_task SET priority = 9 WHERE id = 'higher'")
    await park(daemon, "old", "new", "high", "higher")
    assert await parked(database) == ["higher", "high", "old", "new"]
    assert await parked(database, most=1) == ["higher"]
    assert await found(database) == []


async def test_a_parked_row_that_gets_a_slot_leaves_its_queue(database: Database) -> None:
    daemon = await Daemon(database).ready()
    await want(database, "a")
    await park(daemon, "a")
    assert await database.read(queue.find_queues) == {STARTS}
    await daemon.claim("a", tickets={("volc", Verb.START): [ticket()]})
    assert await parked(database) == []
    assert await database.read(queue.find_queues) == set()


async def test_queues_are_apart_by_account_and_call(database: Database) -> None:
    daemon = await Daemon(database).ready()
    await want(database, "a", "s")
    await want(database, "b", account="other")
    await daemon.start("s")
    await park(daemon, "a")
    await park(daemon, "b", account="other")
    await run(database, "UPDATE agent_task SET desired_state = 'stopped' WHERE id = 's'")
    await daemon.claim("s", tickets={("volc", Verb.STOP): []})
    stops = Queue("volc", WorkClass.STOP, Verb.STOP)
    others = Queue("other", WorkClass.START, Verb.START)
    assert await database.read(queue.find_queues) == {STARTS, stops, others}
    assert [await parked(database, one) for one in (STARTS, stops, others)] == [["a"], ["s"], ["b"]]


async def test_a_parked_row_keeps_its_deadline(database: Database) -> None:
    daemon = await Daemon(database).ready()
    await want(database, "a", start_by=FUTURE)
    await park(daemon, "a")
    now = await database.read(database_now)
    due = await next_due(database)
    assert due is not None
    # The account's own limit for starting comes before the row's.
    assert timedelta(minutes=50) < due - now <= timedelta(hours=1)


async def test_the_next_time_is_the_earliest_of_both_kinds(database: Database) -> None:
    assert await next_due(database) is None
    times = {"a": ("'running'", "due_at", 2099), "b": ("'running'", "stop_due_at", 2098)}
    times |= {"c": ("'pending'", "due_at", 2097)}
    for id_, (phase, column, year) in times.items():
        await want(database, id_)
        time = f"'{year}-01-01 00:00:00.000000'"
        await rest(database, id_, **{"phase": phase, "due_at": FUTURE, column: time})
        due = await next_due(database)
        assert due is not None
        assert due.year == year


async def test_what_is_due_already_asks_for_no_look_later(database: Database) -> None:
    await want(database, "a", "b")
    await rest(database, "a", phase="'running'", due_at=PAST, stop_due_at=PAST)
    await rest(database, "b", due_at=PAST)
    assert await next_due(database) is None
