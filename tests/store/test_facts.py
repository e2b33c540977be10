"""What vendors tell: stored once and as it is, and the rows that it concerns are made due."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.clock import utc_now
from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import EndReason
from orchestrator.store import facts
from orchestrator.store.engine import Database
from orchestrator.store.facts import Told
from tests.store.rows import changes, insert, query, quoted, run, value

pytestmark = pytest.mark.anyio

AT = utc_now().replace(microsecond=0) - timedelta(hours=1)
STAMP = f"{AT:%Y-%m-%d %H:%M:%S}"
STARTED = Fact(key="k1", event=Event.STARTED, event_at=AT, vendor_task_id="h1")
STORED = "SELECT key FROM vendor_fact ORDER BY key"


def told(*some: Fact, account: str = "acc") -> Told:
    return Told(account=account, facts=some)


async def receive(database: Database, *some: Told) -> int:
    return await database.write(facts.receive, some, "one")


async def open_row(database: Database, id_: str, **columns: str) -> None:
    """Write a ledger row of the account; it is open unless the columns say otherwise."""
    given = {"id": id_, "task_id": "t1", "account": "acc", "site": "{}", "name": f"name-{id_}"}
    texts = {name: quoted(text) for name, text in {**given, **columns}.items() if text}
    await run(database, insert("vendor_agent", **texts))


async def told_rows(database: Database) -> list[str]:
    """Return whose inbox got something, and empty it."""
    rows = await changes(database)
    assert {(what, urgent) for _, what, urgent in rows} <= {("fact", False)}
    return [task_id for task_id, _, _ in rows]


async def stored(database: Database) -> list[str]:
    return [key for (key,) in await query(database, STORED)]


async def test_every_column_is_stored_as_it_was_told(database: Database) -> None:
    fact = Fact(
        key="k1",
        event=Event.ENDED,
        event_at=AT,
        position=2**62,
        vendor_task_id="h1",
        name="n1",
        room_id="r",
        user_id="u",
        code="1202",
        message="nobody was there",
        end_reason=EndReason.IDLE,
        is_signed=True,
    )
    await receive(database, told(fact))
    columns = "key, event, position, vendor_task_id, name, room_id, user_id, code, message"
    (row,) = await query(database, f"SELECT {columns}, end_reason, is_signed FROM vendor_fact")  # noqa: S608 - our own words
    assert row[:-1] == (
        *("k1", "ended", 2**62, "h1", "n1", "r", "u", "1202", "nobody was there"),
        "idle",
    )
    assert row[-1] == 1
    assert await query(database, "SELECT account, taken_at FROM vendor_fact") == [("acc", None)]


@pytest.mark.parametrize(
    ("told_at", "is_kept"), [(AT, True), (datetime(2200, 1, 1, tzinfo=UTC), False)]
)
async def test_what_lies_in_the_future_happened_just_now(
    database: Database, told_at: datetime, is_kept: bool
) -> None:
    await receive(database, told(replace(STARTED, event_at=told_at)))
    rows = await query(database, "SELECT event_at = received_at FROM vendor_fact")
    assert [bool(row[0]) for row in rows] == [not is_kept]
    assert await value(database, "SELECT count(*) FROM vendor_fact WHERE event_at < '2100-01-01'")


async def test_a_fact_is_stored_once_and_tells_once(database: Database) -> None:
    await open_row(database, "n1", vendor_task_id="h1")
    assert await receive(database, told(STARTED), told(STARTED)) == 1
    assert await receive(database, told(replace(STARTED, code="other"))) == 0
    assert await query(database, "SELECT key, code FROM vendor_fact") == [("k1", None)]
    assert await told_rows(database) == ["t1"]


async def test_accounts_have_keys_of_their_own(database: Database) -> None:
    await receive(database, told(STARTED), told(STARTED, account="other"))
    rows = await query(database, "SELECT account, key FROM vendor_fact ORDER BY account")
    assert rows == [("acc", "k1"), ("other", "k1")]


MATCHES = [
    ("its handle", {"vendor_task_id": "h1"}, {"vendor_task_id": "h1"}, True),
    ("its agent's user id", {"name": "bot"}, {"name": "bot"}, True),
    ("its session", {"name": ""}, {"name": "n1"}, True),
    ("a name, with a handle that nobody knows", {"name": "bot"}, {"vendor_task_id": "h9"}, False),
    (
        "a name with a handle that nobody knows",
        {"name": "bot"},
        {"vendor_task_id": "h9", "name": "bot"},
        True,
    ),
    ("another's handle", {"vendor_task_id": "h1"}, {"vendor_task_id": "h2"}, False),
    ("another account's", {"account": "other", "vendor_task_id": "h1"}, {}, False),
    ("what has ended", {"ended_at": "2026-03-01 00:00:00", "vendor_task_id": "h1"}, {}, False),
    ("nothing at all", {}, {"vendor_task_id": None}, False),
]


@pytest.mark.parametrize(("columns", "changed", "is_its"), [case[1:] for case in MATCHES])
async def test_a_fact_concerns_the_open_row_that_it_names(
    database: Database, columns: dict[str, str], changed: dict[str, Any], is_its: bool
) -> None:
    await open_row(database, "n1", **columns)
    fact = replace(STARTED, **changed)
    assert await receive(database, told(fact)) == is_its
    assert await told_rows(database) == ["t1"] * is_its
    assert await stored(database) == ["k1"]


async def test_an_orphan_is_told_under_its_mark(database: Database) -> None:
    await open_row(database, "n1", task_id="", orphan_id="o1", vendor_task_id="h1")
    await receive(database, told(STARTED))
    assert await told_rows(database) == ["~o1"]


async def test_a_row_is_told_once_of_all_that_came_together(database: Database) -> None:
    await open_row(database, "n1", vendor_task_id="h1", name="bot")
    await open_row(database, "n2", task_id="t2", vendor_task_id="h2")
    other = replace(STARTED, key="k3", vendor_task_id="h2")
    batch = [told(STARTED, replace(STARTED, key="k2", name="bot")), told(other)]
    assert await receive(database, *batch) == 2
    assert await told_rows(database) == ["t1", "t2"]


async def test_the_daemon_stands_in_the_inbox(database: Database) -> None:
    await open_row(database, "n1", vendor_task_id="h1")
    await receive(database, told(STARTED))
    assert await query(database, "SELECT actor FROM task_change") == [("one",)]


ALIVE = replace(STARTED, event=Event.ALIVE)
SIGNS_OF_LIFE = [
    (ALIVE, "h1", []),
    (replace(ALIVE, vendor_task_id=None, name="bot"), "h1", []),
    # It tells the handle of a start whose answer was lost.
    (replace(ALIVE, name="bot"), "", ["k1"]),
    # Another agent of the same name.
    (replace(ALIVE, name="bot", vendor_task_id="h2"), "h1", ["k1"]),
    (replace(ALIVE, name="nobody", vendor_task_id="h2"), "h1", ["k1"]),
    (STARTED, "h1", ["k1"]),
]


@pytest.mark.parametrize(("fact", "handle", "kept"), SIGNS_OF_LIFE)
async def test_that_a_known_agent_lives_is_no_news(
    database: Database, fact: Fact, handle: str, kept: list[str]
) -> None:
    await open_row(database, "n1", vendor_task_id=handle, name="bot")
    news = await database.read(facts.select_news, [told(fact)])
    assert [one.key for each in news for one in each.facts] == kept
    await receive(database, told(fact))
    assert await stored(database) == kept


async def test_what_cannot_be_stored_stores_nothing(database: Database) -> None:
    poison = replace(STARTED, key="k2", position=2**70)
    with pytest.raises(Exception, match=r".*int"):
        await receive(database, told(STARTED), told(poison))
    assert await stored(database) == []


async def test_many_at_once(database: Database) -> None:
    many = [told(replace(STARTED, key=f"k{n:04}", vendor_task_id=f"h{n}")) for n in range(500)]
    for n in range(0, 500, 2):
        await open_row(database, f"n{n}", task_id=f"t{n}", vendor_task_id=f"h{n}")
    assert await receive(database, *many) == 250
    assert len(await stored(database)) == 500


async def test_a_time_of_long_ago_is_a_lie(database: Database) -> None:
    await receive(database, told(replace(STARTED, event_at=AT - timedelta(days=9000))))
    age = "strftime('%s', 'now') - strftime('%s', event_at)"
    if database.dialect == "postgresql":
        age = "extract(epoch FROM clock_timestamp() - event_at)"
    seconds = await value(database, f"SELECT {age} FROM vendor_fact")  # noqa: S608 - our own words
    assert float(seconds) == pytest.approx(facts.OLDEST.total_seconds(), abs=60)


async def test_what_another_account_looks_after_is_no_news(database: Database) -> None:
    await open_row(database, "n1", account="other")
    alive = replace(STARTED, event=Event.ALIVE, name="n1")
    assert await database.read(facts.select_news, [told(alive)]) == []
    assert await database.read(facts.select_news, [told(replace(alive, name="n2"))]) != []
