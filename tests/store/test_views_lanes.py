"""What the views tell of lanes and commands: each row is written by the real claim and settle."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from orchestrator.core.outcome import Done, Indefinite, Refused
from orchestrator.store import daemons, dossier
from orchestrator.store.engine import Connection, Database
from orchestrator.store.engine import now as database_now
from tests.store.claiming import Daemon, make_book, make_desk, want
from tests.store.rows import insert, query, quoted, run, update, value
from tests.store.test_lanes import PRESSES, ZEGO_SPEC, Speaker, fill_lanes, press, walks
from tests.store.test_plans import fill, plans, tidy

pytestmark = pytest.mark.anyio

PAST, FUTURE = "'2020-01-01 00:00:00'", "'2040-01-01 00:00:00'"
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")


@pytest.fixture
async def speaker(database: Database) -> Speaker:
    """A live daemon whose agent `call` runs."""
    daemon = await Daemon(database, make_desk(make_book("zego"))).ready()
    await want(database, "call", account="zego", spec=ZEGO_SPEC, labels="""'{"shop": 7}'""")
    await daemon.start("call")
    await database.write(sign_on)
    return Speaker(database, "one")


def sign_on(connection: Connection) -> None:
    one = daemons.Daemon(
        id="one", name="one", host="here", pid=1, version="1", wake="poll", accounts=["zego"]
    )
    daemons.register(connection, one, database_now(connection))


async def say(database: Database, **literals: str) -> None:
    """Insert a command to `call`, a press if nothing else is said."""
    values = {"task_id": "'call'", "kind": "'start_listening'", **literals}
    await run(database, insert("agent_command", **values))


async def claim_without_room(speaker: Speaker) -> None:
    """Claim while as many calls are in flight as there may be: nothing is sent."""
    claimed = await speaker.claim(room={})
    assert claimed.orders == []
    assert claimed.lacking


async def send(speaker: Speaker, number: int) -> None:
    """Let the vendor take a press under this number."""
    await press(speaker.database, number)
    await speaker.settle(await speaker.claim_one(), Done())


async def lane(database: Database, user_id: str = "human") -> Mapping[str, Any]:
    """Return what the view tells of a lane of `call`."""

    def look(connection: Connection) -> Mapping[str, Any]:
        found = connection.exec_driver_sql(
            f"SELECT * FROM listening_lane WHERE task_id = 'call' AND user_id = {quoted(user_id)}"  # noqa: S608 - a test's own words
        )
        return dict(found.mappings().one())

    return await database.read(look)


async def told(database: Database, id_: str) -> str:
    """Return a command's sentence, with `T` for each time."""
    found = await value(
        database,
        f"SELECT explanation FROM command_explain WHERE command_id = {quoted(id_)}",  # noqa: S608 - a test's own words
    )
    return TIME.sub("T", found)


# --- the columns of a lane


async def test_a_lane_at_rest(speaker: Speaker) -> None:
    await send(speaker, 57)
    row = dict(await lane(speaker.database))
    assert "shop" in str(row.pop("labels"))
    assert row == {
        "task_id": "call",
        "user_id": "human",
        "account": "zego",
        "incarnation": 1,
        "numbering": "given",
        "last_sequence": 57,
        "queued": 0,
        "next_sequence": None,
        "gap": 0,
        "gap_since": None,
        "oldest_at": None,
        "oldest_s": None,
        "waiting_for": None,
        "until_at": None,
        "reason": None,
    }


async def test_a_press_that_nobody_has_looked_at_has_a_lane_already(speaker: Speaker) -> None:
    await press(speaker.database, 57)
    row = await lane(speaker.database)
    assert (row["last_sequence"], row["queued"], row["next_sequence"]) == (None, 1, 57)
    assert (row["gap"], row["waiting_for"]) == (0, "rate_limit")


async def test_what_is_on_its_way_counts_until_it_is_settled(speaker: Speaker) -> None:
    await press(speaker.database, 1, 2)
    order = await speaker.claim_one()
    row = await lane(speaker.database)
    assert (row["last_sequence"], row["queued"], row["next_sequence"]) == (1, 2, 2)
    assert (row["gap"], row["waiting_for"]) == (0, "answer")
    assert row["until_at"] is not None
    await speaker.settle(order, Done())
    row = await lane(speaker.database)
    assert (row["queued"], row["next_sequence"], row["waiting_for"]) == (1, 2, "rate_limit")


async def test_only_listening_commands_of_the_lane_count(speaker: Speaker) -> None:
    await say(speaker.database, sequence="1")
    await say(speaker.database, sequence="7", user_id="'guest'")
    await say(speaker.database, kind="'interrupt'")
    rows = await query(
        speaker.database,
        "SELECT user_id, queued, next_sequence FROM listening_lane ORDER BY user_id",
    )
    assert rows == [("guest", 1, 7), ("human", 1, 1)]


async def test_the_oldest_that_waits_gives_the_age(speaker: Speaker) -> None:
    await say(speaker.database, sequence="2")
    assert (await lane(speaker.database))["oldest_s"] in range(60)
    await say(speaker.database, sequence="1", created_at=PAST)
    row = await lane(speaker.database)
    assert row["oldest_s"] > 86_400 * 365
    assert str(row["oldest_at"]).startswith("2020-01-01 00:00:00")


async def test_the_trouble_of_what_waits_to_be_tried_again(speaker: Speaker) -> None:
    await press(speaker.database, 1)
    order = await speaker.claim_one()
    await speaker.settle(order, Refused(code="410001046", message="not publishing"))
    await run(speaker.database, update("lane", f"retry_at = {FUTURE}"))
    row = await lane(speaker.database)
    assert (row["waiting_for"], row["reason"]) == ("retry", "410001046")
    assert str(row["until_at"]).startswith("2040-01-01")


async def test_a_parked_lane_waits_for_its_turn_and_for_no_time(speaker: Speaker) -> None:
    await press(speaker.database, 1)
    await claim_without_room(speaker)
    row = await lane(speaker.database)
    assert (row["queued"], row["waiting_for"], row["until_at"]) == (1, "rate_limit", None)
    await speaker.settle(await speaker.claim_one(), Done())
    assert (await lane(speaker.database))["waiting_for"] is None


# --- gaps


async def test_a_gap_is_counted_while_it_is_waited_for(speaker: Speaker) -> None:
    await send(speaker, 1)
    await press(speaker.database, 4, 5)
    assert (await speaker.claim()).orders == []
    row = await lane(speaker.database)
    assert (row["gap"], row["next_sequence"], row["waiting_for"]) == (2, 4, "gap")
    assert row["gap_since"] is not None
    assert row["until_at"] > row["gap_since"]


async def test_a_filled_gap_is_none(speaker: Speaker) -> None:
    await send(speaker, 1)
    await press(speaker.database, 3)
    await speaker.claim()
    await press(speaker.database, 2)
    order = await speaker.claim_one()
    row = await lane(speaker.database)
    assert (row["gap"], row["gap_since"], order.flight.sequence) == (0, None, 2)


async def test_what_was_passed_over_is_not_missing(speaker: Speaker) -> None:
    """A release of a closed microphone that comes too late is dealt with, like all below it."""
    await send(speaker, 1)
    await press(speaker.database, 2, kind="stop_listening")
    await speaker.settle(await speaker.claim_one(), Done())
    await say(speaker.database, kind="'stop_listening'", sequence="4", expires_at=PAST)
    await press(speaker.database, 6)
    assert (await speaker.claim()).orders == []
    passed = "SELECT last_sequence, passed_sequence FROM lane WHERE user_id = 'human'"
    assert await query(speaker.database, passed) == [(2, 4)]
    row = await lane(speaker.database)
    assert (row["gap"], row["next_sequence"]) == (1, 6)
    assert "waits for sequence 5, which is missing" in await told(speaker.database, "c6")


async def test_what_comes_too_late_is_not_what_comes_next(speaker: Speaker) -> None:
    await send(speaker, 5)
    await press(speaker.database, 4, 8)
    row = await lane(speaker.database)
    assert (row["queued"], row["next_sequence"], row["gap"]) == (2, 8, 2)


async def test_where_the_daemon_numbers_nothing_is_missing(speaker: Speaker) -> None:
    await say(speaker.database)
    await speaker.settle(await speaker.claim_one(), Done())
    last = (await lane(speaker.database))["last_sequence"]
    await say(speaker.database)
    row = await lane(speaker.database)
    assert (row["numbering"], row["next_sequence"], row["gap"]) == ("drawn", None, 0)
    await say(speaker.database, sequence=str(last + 10))
    assert (await lane(speaker.database))["gap"] == 0


# --- why it is not sent


async def in_flight(speaker: Speaker) -> None:
    await press(speaker.database, 1)
    await speaker.claim_one()


async def without_an_answer(speaker: Speaker) -> None:
    await press(speaker.database, 1)
    await speaker.settle(await speaker.claim_one(), Indefinite(code="Timeout"))
    await run(speaker.database, update("lane", f"retry_at = {FUTURE}"))


async def not_publishing(speaker: Speaker) -> None:
    await press(speaker.database, 1)
    order = await speaker.claim_one()
    await speaker.settle(order, Refused(code="410001046", message="not publishing"))
    await run(speaker.database, update("lane", f"retry_at = {FUTURE}"))


async def with_a_gap(speaker: Speaker) -> None:
    await send(speaker, 7)
    await say(speaker.database, id="'c1'", sequence="9")
    assert (await speaker.claim()).orders == []


async def without_an_agent(speaker: Speaker) -> None:
    await want(speaker.database, "next", account="zego", spec=ZEGO_SPEC)
    await say(speaker.database, id="'c1'", task_id="'next'", sequence="1", expires_at=FUTURE)
    await speaker.claim()


async def without_an_agent_at_the_first_look(speaker: Speaker) -> None:
    await want(speaker.database, "next", account="zego", spec=ZEGO_SPEC)
    await say(speaker.database, id="'c1'", task_id="'next'")


async def frozen(speaker: Speaker) -> None:
    await run(speaker.database, update("account_control", "frozen = true"))
    await press(speaker.database, 1)
    assert (await speaker.claim()).orders == []


async def without_a_slot(speaker: Speaker) -> None:
    await press(speaker.database, 1)
    await claim_without_room(speaker)


async def without_a_daemon(speaker: Speaker) -> None:
    await run(speaker.database, update("daemon", f"heartbeat_at = {PAST}"))
    await press(speaker.database, 1)


WAITS: Mapping[Callable[[Speaker], Awaitable[None]], str] = {
    in_flight: "sent at T, and nobody knows yet if it was taken; waits for the vendor's answer,"
    " until T",
    without_an_answer: "sent at T, and nobody knows yet if it was taken; waits to be tried again,"
    " until T; Timeout",
    not_publishing: "queued since T; waits to be tried again, until T; 410001046: not publishing",
    with_a_gap: "queued since T; waits for sequence 8, which is missing, until T",
    without_an_agent: "queued since T; waits for its agent to run, which is pending, until T",
    without_an_agent_at_the_first_look: (
        "queued since T; waits for its agent to run, which is pending"
    ),
    frozen: "queued since T; waits, since the account is frozen; to let calls leave, set"
    " account_control.frozen to false",
    without_a_slot: "queued since T; waits for its turn in the account's rate limit",
    without_a_daemon: "queued since T; waits for a daemon that has the account: none has said that"
    " it runs since T, start one",
}


@pytest.mark.parametrize(
    ("scene", "sentence"), WAITS.items(), ids=lambda x: getattr(x, "__name__", "")
)
async def test_why_a_press_is_not_sent(
    speaker: Speaker, scene: Callable[[Speaker], Awaitable[None]], sentence: str
) -> None:
    await scene(speaker)
    subject = await told(speaker.database, "c1")
    assert re.sub(r"^start_listening( \d+)? of human, ", "", subject) == sentence


async def test_what_is_before_it_in_its_lane_is_counted(speaker: Speaker) -> None:
    await press(speaker.database, 3, 2, 1)
    await say(speaker.database, id="'other'", kind="'interrupt'")
    await say(speaker.database, id="'guest'", user_id="'guest'", sequence="9")
    before = [await told(speaker.database, id_) for id_ in ("c1", "c2", "c3", "other", "guest")]
    counted = [re.findall(r"behind [^;]+", sentence) for sentence in before]
    assert counted == [[], ["behind another one"], ["behind 2 others"], [], []]


async def test_what_is_in_flight_is_before_all_others(speaker: Speaker) -> None:
    for id_ in ("'first'", "'second'"):
        await say(speaker.database, id=id_)
    assert (await speaker.claim_one()).flight.command.id == "first"
    assert "behind" not in await told(speaker.database, "first")
    assert "behind another one; waits for the vendor" in await told(speaker.database, "second")


async def test_a_release_that_must_go_has_no_end_of_its_wait(speaker: Speaker) -> None:
    await send(speaker, 1)
    await say(speaker.database, id="'r'", kind="'stop_listening'", sequence="2", expires_at=FUTURE)
    assert "until" not in await told(speaker.database, "r")
    await say(speaker.database, id="'p'", sequence="3", expires_at=FUTURE)
    assert "until T" in await told(speaker.database, "p")


# --- what became of it


async def settle_all(speaker: Speaker) -> None:
    """Let the vendor take everything that is sent, until nothing is."""
    while orders := (await speaker.claim()).orders:
        for order in orders:
            await speaker.settle(order, Done())


SETTLED: Mapping[str, tuple[dict[str, str], str]] = {
    "done": ({"sequence": "6"}, "start_listening 6 of human, done at T"),
    "too late": (
        {"sequence": "6", "expires_at": PAST},
        "start_listening 6 of human, expired at T; Expired: it is too late",
    ),
    "passed": (
        {"sequence": "5"},
        (
            "start_listening 5 of human, superseded at T;"
            " Superseded: sequence 5 is not above 5, where its lane is"
        ),
    ),
    "mixed": (
        {},
        (
            "start_listening of human, failed at T;"
            " MixedSequence: the numbers of this lane are given, all or none"
        ),
    ),
    "no such call": (
        {"kind": "'function_result'"},
        "function_result, failed at T; Unsupported: the vendor has no function_result",
    ),
}


@pytest.mark.parametrize(("literals", "sentence"), SETTLED.values(), ids=SETTLED)
async def test_what_became_of_a_command(
    speaker: Speaker, literals: dict[str, str], sentence: str
) -> None:
    await send(speaker, 5)
    await say(speaker.database, id="'c'", **literals)
    await settle_all(speaker)
    assert await told(speaker.database, "c") == sentence


async def test_a_command_that_was_taken_back(speaker: Speaker) -> None:
    await say(speaker.database, id="'c'", sequence="1")
    await run(speaker.database, insert("task_change", task_id="'c'", what="'cancel_command'"))
    await settle_all(speaker)
    assert await told(speaker.database, "c") == (
        "start_listening 1 of human, superseded at T; Cancelled: taken back before it was sent"
    )


async def test_words_that_may_have_been_said(speaker: Speaker) -> None:
    await say(speaker.database, id="'c'", kind="'say'", payload="""'{"Text": "Hello"}'""")
    await speaker.settle(await speaker.claim_one(), Indefinite(code="Timeout"))
    assert await told(speaker.database, "c") == "say, failed at T; OutcomeUnknown: Timeout"


# --- the task's sentence


async def test_a_task_tells_how_many_commands_wait(speaker: Speaker) -> None:
    sentence = "SELECT explanation FROM task_explain WHERE task_id = 'call'"
    assert "wait" not in await value(speaker.database, sentence)
    await press(speaker.database, 1)
    assert (await value(speaker.database, sentence)).endswith("; 1 command waits")
    await say(speaker.database, kind="'interrupt'")
    assert (await value(speaker.database, sentence)).endswith("; 2 commands wait")
    await settle_all(speaker)
    assert "wait" not in await value(speaker.database, sentence)


# --- by index


def look(connection: Connection) -> None:
    dossier.find(connection, "t9")
    dossier.find(connection, "ct9")
    for one in ("task_id = 't9'", "task_id = 't9' AND user_id = 'human'"):
        connection.exec_driver_sql(f"SELECT * FROM listening_lane WHERE {one}")  # noqa: S608 - a test's own words


def look_at_all_lanes(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT * FROM listening_lane")


async def test_one_of_many_is_explained_by_an_index(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.store.test_plans.BIG", ("agent_command", "lane"))
    await database.write(fill, 0, PRESSES)
    await database.write(fill_lanes)
    await database.read(tidy)
    steps = await database.write(plans, look)
    assert steps
    assert walks(steps) == []
    # All lanes are looked at where all are asked for, and of the commands those that wait.
    steps = await database.write(plans, look_at_all_lanes)
    assert steps
    assert [step for step in walks(steps) if "agent_command" in step] == []
