"""What holds a claim back: tickets, room in a class, places in an account, names that are taken."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import asyncpg
import pytest

from orchestrator.clock import boot_ns
from orchestrator.core.model import Verb, WorkClass
from orchestrator.core.outcome import Done, Indefinite, NotSent
from orchestrator.daemon import claim as claim_file
from orchestrator.daemon.claim import DECIDE_NS_MAX, Claimed
from orchestrator.store.engine import Database, open_database
from orchestrator.store.queue import Queue
from tests.store.claiming import (
    Daemon,
    draw_name,
    full_room,
    inbox,
    ledger,
    make_book,
    make_desk,
    settled,
    status,
    ticket,
    want,
)
from tests.store.rows import query, run

pytestmark = pytest.mark.anyio

START = ("volc", Verb.START)


@pytest.fixture
async def daemon(database: Database) -> Daemon:
    return await Daemon(database).ready()


def called(claimed: Claimed) -> list[str]:
    return [order.flight.task_id for order in claimed.orders]


# --- tickets


async def test_each_start_takes_one_ticket_and_those_left_over_stay(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    drawn = [ticket() for _ in range(3)]
    tickets = {START: list(drawn)}
    claimed = await daemon.claim("a", "b", tickets=tickets)
    assert [order.ticket for order in claimed.orders] == drawn[:2]
    assert tickets == {START: drawn[2:]}


async def test_a_row_without_a_ticket_is_parked_once(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b", priority="7")
    claimed = await daemon.claim("a", "b", tickets={START: [ticket()]})
    assert called(claimed) == ["a"]
    assert claimed.queues == {Queue("volc", WorkClass.START, Verb.START)}
    columns = ("waiting_for", "parked_class", "parked_verb", "priority", "lease_owner")
    found = await status(daemon.database, "b", *columns)
    assert found == ("rate_limit", "start", "start", 7, None)
    assert await inbox(daemon.database) == []


async def test_a_call_that_needs_no_ticket_takes_none(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    tickets = {("volc", Verb.STOP): [ticket()], ("other", Verb.START): [ticket()]}
    (order,) = (await daemon.claim("a", tickets=tickets)).orders
    assert order.ticket is None
    assert [len(left) for left in tickets.values()] == [1, 1]


async def test_a_start_that_is_refused_here_spends_no_ticket(daemon: Daemon) -> None:
    await want(daemon.database, "a", spec="""'{"Config": 1}'""")
    tickets = {START: [ticket()]}
    assert called(await daemon.claim("a", tickets=tickets)) == []
    assert len(tickets[START]) == 1


# --- room


async def test_a_full_class_leaves_its_rows_as_they_are(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    room = full_room() | {("volc", WorkClass.START): 1}
    claimed = await daemon.claim("a", "b", room=room)
    assert (called(claimed), claimed.written) == (["a"], 1)
    assert room["volc", WorkClass.START] == 0
    assert await inbox(daemon.database) == ["b"]
    assert await status(daemon.database, "b", "version", "generation") == (0, 0)


async def test_starts_without_room_hold_no_stop_back(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    await daemon.start("b")
    await run(daemon.database, "UPDATE agent_task SET desired_state = 'stopped' WHERE id = 'b'")
    claimed = await daemon.claim("a", "b", room={("volc", WorkClass.STOP): 1})
    assert called(claimed) == ["b"]


async def test_a_start_that_missed_its_slot_does_not_wait_for_its_own_place(
    database: Database,
) -> None:
    book = make_book(max_agents=1)
    daemon = await Daemon(database, make_desk(book)).ready()
    await want(database, "a")
    order = await daemon.claim_one("a")
    await daemon.settle(settled(order, NotSent(code="RateLimited")))
    await run(database, "UPDATE agent_status SET retry_at = NULL")
    assert called(await daemon.claim("a")) == ["a"]


async def test_an_account_without_room_holds_no_other_back(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await want(daemon.database, "b", account="other")
    claimed = await daemon.claim("a", "b", room=full_room("other"))
    assert called(claimed) == ["b"]
    assert await inbox(daemon.database) == ["a"]


async def test_what_time_does_not_allow_is_left_as_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_file, "DECIDE_NS_MAX", DECIDE_NS_MAX)

    def slow_name() -> str:
        until_ns = boot_ns() + DECIDE_NS_MAX + 1
        while boot_ns() < until_ns:
            pass
        return draw_name()

    daemon = await Daemon(database, make_desk(make_book(), draw_name=slow_name)).ready()
    await want(database, "a", "b", "c")
    claimed = await daemon.claim("a", "b", "c")
    assert (called(claimed), claimed.written) == (["a"], 1)
    assert await inbox(database) == ["b", "c"]


# --- places


async def limited(database: Database, most: int, name: str = "d1") -> Daemon:
    return await Daemon(database, make_desk(make_book(max_agents=most), name)).ready()


async def test_no_more_agents_than_the_account_may_have(database: Database) -> None:
    daemon = await limited(database, 2)
    await want(database, "a", "b", "c")
    assert called(await daemon.claim("a", "b", "c")) == ["a", "b"]
    found = await status(database, "c", "waiting_for", "parked_class")
    assert found == ("capacity", "start")
    assert called(await daemon.claim("c")) == []


async def test_two_claims_at_once_share_the_places(database: Database) -> None:
    first, second = await limited(database, 3), await limited(database, 3, "d2")
    ids = [f"t{n}" for n in range(8)]
    await want(database, *ids)
    orders: list[str] = []

    async def claim(daemon: Daemon, *some: str) -> None:
        orders.extend(called(await daemon.claim(*some)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(claim, first, *ids[:4])
        tasks.start_soon(claim, second, *ids[4:])
    assert len(orders) == 3


async def test_a_place_is_free_again_only_by_evidence(database: Database) -> None:
    daemon = await limited(database, 1)
    await want(database, "a", "b")
    await daemon.start("a")
    await run(database, "UPDATE agent_task SET desired_state = 'stopped' WHERE id = 'a'")
    stop = await daemon.claim_one("a")
    assert called(await daemon.claim("b")) == []
    await daemon.settle(settled(stop, Done()))
    assert called(await daemon.claim("b")) == ["b"]


async def test_an_unknown_start_is_sent_again_though_its_account_is_full(
    database: Database,
) -> None:
    daemon = await limited(database, 1)
    await want(database, "a")
    await daemon.run_to_end("a", Indefinite(code="Timeout"))
    await run(database, "UPDATE agent_status SET retry_at = NULL")
    assert called(await daemon.claim("a")) == ["a"]


async def test_the_operator_s_number_of_agents_wins(database: Database) -> None:
    daemon = await limited(database, 1)
    await run(database, "UPDATE account_control SET max_agents = 2")
    await want(database, "a", "b", "c")
    assert called(await daemon.claim("a", "b", "c")) == ["a", "b"]


@pytest.mark.parametrize(("switch", "word"), [("paused", "paused"), ("frozen", "frozen")])
async def test_a_switch_of_the_operator_s_parks_starts(
    daemon: Daemon, switch: str, word: str
) -> None:
    await run(daemon.database, f"UPDATE account_control SET {switch} = true WHERE account = 'volc'")  # noqa: S608 - one of two words
    await want(daemon.database, "a")
    await want(daemon.database, "b", account="other")
    assert called(await daemon.claim("a", "b")) == ["b"]
    assert await status(daemon.database, "a", "waiting_for", "parked_verb") == (word, "start")


async def test_frozen_holds_stops_and_paused_does_not(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await daemon.start("a")
    await run(daemon.database, "UPDATE agent_task SET desired_state = 'stopped'")
    await run(daemon.database, "UPDATE account_control SET frozen = true, paused = true")
    assert called(await daemon.claim("a")) == []
    assert await status(daemon.database, "a", "waiting_for", "parked_class") == ("frozen", "stop")
    await run(daemon.database, "UPDATE account_control SET frozen = false")
    assert called(await daemon.claim("a")) == ["a"]


# --- names that are taken

NAMED = """'{"AgentConfig": {"UserId": "bot"},
    "Config": {"LLMConfig": {"Mode": "ArkV3", "EndPointId": "ep"}}}'"""
SAME_ROOM = {"room_id": "'same'", "spec": NAMED}


async def test_an_agent_user_id_in_use_in_the_room_is_refused(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b", **SAME_ROOM)
    await want(daemon.database, "c", spec=NAMED)
    await want(daemon.database, "d", account="other", **SAME_ROOM)
    assert called(await daemon.claim("a", "b", "c", "d")) == ["a", "c", "d"]
    found = await status(daemon.database, "b", "phase", "reason")
    assert found == ("failed", "AgentUserIdTaken")


ZEGO = """'{"AgentId": "agent", "RTC": {"AgentUserId": "bot", "UserStreamId": "s"}}'"""


async def test_at_zego_an_agent_user_id_is_taken_in_the_whole_account(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b", account="zego", spec=ZEGO)
    assert called(await daemon.claim("a", "b")) == ["a"]
    assert await status(daemon.database, "b", "reason") == ("AgentUserIdTaken",)


async def test_an_agent_user_id_is_free_again_after_evidence(daemon: Daemon) -> None:
    await want(daemon.database, "a", **SAME_ROOM)
    await daemon.start("a")
    await run(daemon.database, "DELETE FROM agent_task")
    await daemon.run_to_end("a", Done())
    await want(daemon.database, "b", **SAME_ROOM)
    assert called(await daemon.claim("b")) == ["b"]


async def test_a_version_that_stops_by_user_takes_one_row_of_each_pair(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b", account="first", room_id="'same'")
    await want(daemon.database, "c", account="first", room_id="'same'", user_id="'someone'")
    assert called(await daemon.claim("a", "b", "c")) == ["a", "c"]
    assert await status(daemon.database, "b", "phase", "reason") == ("failed", "Conflict")


async def test_two_claims_at_once_never_take_one_name(database: Database) -> None:
    first = await Daemon(database).ready()
    second = Daemon(database, make_desk(make_book(), "d2"))
    await want(database, "a", "b", **SAME_ROOM)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.claim, "a")
        tasks.start_soon(second.claim, "b")
    assert len(await query(database, "SELECT id FROM vendor_agent")) == 1


async def test_names_are_drawn_anew_and_written_with_their_site(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    order = await daemon.claim_one("a")
    ((name, site, ended),) = await ledger(daemon.database, "a", "name", "site", "ended_at")
    assert (name, site, ended) == (order.flight.agent.name, order.flight.agent.site, None)
    assert site == daemon.desk.book.runtimes["volc"].provider.site


# --- accounts that nobody has


async def test_a_row_of_an_unknown_account_fails_and_says_so(daemon: Daemon) -> None:
    await want(daemon.database, "a", account="typo")
    assert called(await daemon.claim("a")) == []
    found = await status(daemon.database, "a", "phase", "reason")
    assert found == ("failed", "UnknownAccount")


async def test_an_agent_of_an_unknown_account_is_never_given_up(database: Database) -> None:
    former = await Daemon(database).ready()
    await want(database, "a")
    await former.start("a")
    await run(database, "UPDATE agent_task SET desired_state = 'stopped'")
    poorer = Daemon(database, make_desk(make_book("other")))
    assert called(await poorer.claim("a")) == []
    waiting, stop_due, due = await status(
        database, "a", "waiting_for", "stop_due_at IS NULL", "due_at IS NOT NULL"
    )
    assert (waiting, bool(stop_due), bool(due)) == ("account", True, True)
    assert await ledger(database, "a", "ended_at") == [(None,)]
    assert called(await former.claim("a")) == ["a"]


# --- what a claim leaves alone (Postgres)


@pytest.fixture
async def held(postgres_url: str) -> AsyncIterator[tuple[Daemon, "asyncpg.Connection[Any]"]]:
    database = open_database(postgres_url)
    other = await asyncpg.connect(postgres_url)
    try:
        yield await Daemon(database).ready(), other
    finally:
        await other.close()
        await database.close()


async def test_neither_claim_nor_settle_touches_the_rate_limit(
    held: tuple[Daemon, "asyncpg.Connection[Any]"],
) -> None:
    daemon, other = held
    await other.execute(
        "INSERT INTO rate_limit (account, action) VALUES ('volc', 'StartVoiceChat')"
    )
    await want(daemon.database, "a", "b")
    async with other.transaction():
        await other.execute("LOCK TABLE rate_limit IN ACCESS EXCLUSIVE MODE")
        (order,) = (await daemon.claim("a", "b", tickets={START: [ticket()]})).orders
        await daemon.settle(settled(order, Done(handle="h")))
    assert await status(daemon.database, "a", "phase") == ("running",)


async def test_an_operator_who_forgot_to_commit_delays_nobody(
    held: tuple[Daemon, "asyncpg.Connection[Any]"],
) -> None:
    daemon, other = held
    await want(daemon.database, "a")
    async with other.transaction():
        await other.execute("UPDATE account_control SET paused = true")
        (order,) = (await daemon.claim("a")).orders
        await daemon.settle(settled(order, Done(handle="h")))
