"""Facts that claims apply, and those that nobody has taken: which, in which order, and of whom."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.core.fact import Event, Fact
from orchestrator.store import fact_reading
from orchestrator.store.engine import Connection, Database
from orchestrator.store.fact_reading import BEGIN, Cursor, Loose, Page
from tests.store.rows import changes
from tests.store.test_facts import AT, STAMP, STARTED, open_row, receive, told
from tests.store.test_orphans import found, take_up_now

pytestmark = pytest.mark.anyio

TOLD = replace(STARTED, room_id="r1")
FAR = datetime(2999, 1, 1, tzinfo=UTC)
"""Ends that were told up to then count."""


# --- facts, found by what they speak of


SPEAKS: list[tuple[str, dict[str, str], Fact, bool]] = [
    ("its handle", {"vendor_task_id": "h1"}, TOLD, True),
    ("its user id", {"name": "bot"}, replace(TOLD, name="bot"), True),
    ("its session", {}, replace(TOLD, name="n1"), True),
    ("another handle", {"vendor_task_id": "h2"}, TOLD, False),
    ("an end of its row", {"vendor_task_id": "h1", "ended_at": "2026-01-01 00:00"}, TOLD, False),
    ("another account", {"vendor_task_id": "h1", "account": "other"}, TOLD, False),
]


@pytest.mark.parametrize("owner", ["t1", "~o1"])
@pytest.mark.parametrize(
    ("columns", "fact", "is_its"), [case[1:] for case in SPEAKS], ids=[case[0] for case in SPEAKS]
)
async def test_a_claim_reads_the_facts_that_speak_of_its_agents(
    database: Database, owner: str, columns: dict[str, str], fact: Fact, *, is_its: bool
) -> None:
    named = {"task_id": "", "orphan_id": "o1"} if owner == "~o1" else {"task_id": "t1"}
    await open_row(database, "n1", **named, **columns)
    await receive(database, told(fact))
    read = await database.read(fact_reading.read, [owner, "t9", "~o9"])
    assert read == ({owner: [("acc", fact)]} if is_its else {})


async def test_a_fact_that_was_taken_is_not_read_again(database: Database) -> None:
    await open_row(database, "n1", vendor_task_id="h1")
    await receive(database, told(TOLD, replace(TOLD, key="k2", name="n1")))
    await database.write(fact_reading.take, [("acc", "k1")], AT)
    left = await database.read(fact_reading.read, ["t1"])
    assert [fact.key for _, fact in left["t1"]] == ["k2"]
    await database.write(fact_reading.take, [("acc", "k2")], AT)
    assert await database.read(fact_reading.read, ["t1"]) == {}
    assert await keys(database, Looked()) == []


async def test_who_learns_a_handle_is_told_of_what_was_parked_under_it(database: Database) -> None:
    await receive(database, told(TOLD), told(replace(TOLD, vendor_task_id="h2"), account="b"))
    learnt = [("acc", "h1", "t1"), ("acc", "h2", "t2"), ("b", "h2", "t3"), ("acc", "h9", "t4")]
    await database.write(fact_reading.tell_parked, learnt, "d1")
    assert [task for task, _, _ in await changes(database)] == ["t1", "t3"]
    await database.write(fact_reading.tell_parked, [], "d1")
    assert await changes(database) == []


# --- facts that nobody has taken


@dataclass(frozen=True)
class Looked:
    accounts: Sequence[str] = ("acc",)
    ended_by: datetime = FAR
    most: int = 10
    after: Cursor = BEGIN


async def loose(database: Database, by: Looked | None = None) -> list[Loose]:
    by = by or Looked()
    page = Page(accounts=by.accounts, ended_by=by.ended_by, after=by.after, most=by.most)
    return await database.read(fact_reading.loose, page)


async def keys(database: Database, by: Looked) -> list[str]:
    return [one.fact.key for one in await loose(database, by)]


async def test_what_nobody_has_taken_comes_oldest_first(database: Database) -> None:
    for key in ("k3", "k1", "k2"):
        await receive(database, told(replace(TOLD, key=key)))
    await receive(database, told(replace(TOLD, key="k9"), account="other"))
    assert await keys(database, Looked()) == ["k3", "k1", "k2"]
    assert await keys(database, Looked(most=2)) == ["k3", "k1"]
    assert await keys(database, Looked(accounts=["other", "acc"], most=9)) == [
        "k3",
        "k1",
        "k2",
        "k9",
    ]
    assert await keys(database, Looked(accounts=[])) == []


async def test_pages_of_facts_of_one_moment(database: Database) -> None:
    await receive(database, told(*(replace(TOLD, key=f"k{n}") for n in range(5))))
    first = await loose(database, Looked(most=2))
    cursor = (first[-1].received_at, first[-1].fact.key)
    assert await keys(database, Looked(after=cursor)) == ["k2", "k3", "k4"]


async def test_a_fact_is_judged_once(database: Database) -> None:
    await receive(database, told(TOLD))
    found = await database.write(fact_reading.lock_loose, "acc", "k1", ["acc"])
    assert found == (await loose(database))[0]
    await database.write(fact_reading.take, [("acc", "k1")], AT)
    assert await database.write(fact_reading.lock_loose, "acc", "k1", ["acc"]) is None


async def test_ends_that_may_have_to_wait_stand_in_no_way(database: Database) -> None:
    ended = replace(TOLD, event=Event.ENDED)
    await receive(database, told(*(replace(ended, key=f"e{n}") for n in range(9))))
    await receive(database, told(TOLD))
    assert await keys(database, Looked(ended_by=AT, most=1)) == ["k1"]
    assert len(await keys(database, Looked())) == 10


NOTHING = {"owner": None, "ended_at": None, "is_start_open": False, "is_elsewhere": False}
KNOWN: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("nothing", {"vendor_task_id": "h2", "room_id": "r2"}, {}),
    ("its task", {"vendor_task_id": "h1"}, {"owner": "t1"}),
    ("its orphan", {"vendor_task_id": "h1", "task_id": "", "orphan_id": "o1"}, {"owner": "~o1"}),
    ("its end", {"vendor_task_id": "h1", "ended_at": STAMP}, {"ended_at": AT}),
    ("another account's", {"vendor_task_id": "h1", "account": "b"}, {}),
    (
        "a start in that room",
        {"room_id": "r1", "horizon_at": STAMP},
        {"is_start_open": True},
    ),
    ("an announce that was never sent", {"room_id": "r1"}, {}),
    (
        "a start in another room",
        {"room_id": "r2", "horizon_at": STAMP},
        {},
    ),
    (
        "a start that was answered",
        {"room_id": "r1", "horizon_at": STAMP, "vendor_task_id": "h2"},
        {},
    ),
]


@pytest.mark.parametrize(
    ("columns", "fact", "is_elsewhere"),
    [
        ({"account": "b"}, replace(TOLD, name="n1"), True),
        ({"account": "b", "name": "bot"}, replace(TOLD, name="bot"), True),
        ({"account": "c", "name": "bot"}, replace(TOLD, name="bot"), False),
        ({"account": "b", "ended_at": STAMP}, replace(TOLD, name="n1"), False),
        ({"account": "b", "vendor_task_id": "h1"}, TOLD, False),
    ],
)
async def test_a_name_that_another_account_bears_is_found(
    database: Database, columns: dict[str, str], fact: Fact, *, is_elsewhere: bool
) -> None:
    await open_row(database, "n1", **columns)
    await receive(database, told(fact))
    (one,) = await loose(database, Looked(accounts=["acc", "b"]))
    assert (one.is_elsewhere, one.owner) == (is_elsewhere, None)


@pytest.mark.parametrize(
    ("columns", "expected"), [case[1:] for case in KNOWN], ids=[case[0] for case in KNOWN]
)
async def test_what_the_ledger_knows_of_it_is_said(
    database: Database, columns: dict[str, str], expected: dict[str, Any]
) -> None:
    await open_row(database, "n1", **columns)
    await receive(database, told(TOLD))
    one = (await loose(database))[-1]
    given = NOTHING | expected
    assert {name: getattr(one, name) for name in given} == given


async def test_whether_its_row_was_told_of_it_is_said(database: Database) -> None:
    await receive(database, told(TOLD))
    await open_row(database, "n1", vendor_task_id="h1")
    assert [one.is_announced for one in await loose(database)] == [False]
    await database.write(fact_reading.tell, ["t1"], "d1")
    assert [one.is_announced for one in await loose(database)] == [True]


async def test_what_was_done_about_one_fact_is_seen_by_the_next(database: Database) -> None:
    await receive(database, told(TOLD, replace(TOLD, key="k2", event=Event.ALIVE)))

    def judge(connection: Connection) -> list[str | None]:
        owners = []
        for key in ("k1", "k2"):
            one = fact_reading.lock_loose(connection, "acc", key, ["acc"])
            assert one is not None
            owners.append(one.owner)
            if one.owner is None:
                take_up_now(connection, found())
        return owners

    assert await database.write(judge) == [None, "~o1"]
