"""Lanes at the database: claimed by one, settled by who still owns them, found by an index."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy.util import await_only

from orchestrator.core.command import Command, Kind
from orchestrator.core.outcome import Done, Indefinite, Outcome, Settled
from orchestrator.daemon.errand import Answer
from orchestrator.daemon.lane_claim import (
    ClaimedLanes,
    CommandOrder,
    LaneDesk,
    LaneRoom,
    LaneTickets,
    claim_lanes,
)
from orchestrator.daemon.lane_settle import CommandSettlement, LaneSettling, settle_lanes
from orchestrator.daemon.settle import Settling, settle
from orchestrator.store import lane_queue, lanes
from orchestrator.store import rows as task_rows
from orchestrator.store.columns import write_json
from orchestrator.store.engine import Connection, Database, StatementError, open_database
from orchestrator.store.engine import now as database_now
from orchestrator.store.lane_queue import LaneCandidate, LaneScope
from orchestrator.store.lanes import COMMANDS_MAX
from tests.daemon.customers import TENCENT
from tests.store.claiming import OWNER, SPEC, Daemon, make_book, make_desk, settled, status, want
from tests.store.rows import insert, query, quoted, run, update, value
from tests.store.test_plans import NOW, fill, plans, tidy

pytestmark = pytest.mark.anyio

TTL, GAP = timedelta(seconds=60), timedelta(seconds=30)
PRESSES = 20_000
DEPTH = 990
"""Objects in one another that a database takes, and our reader does not."""
ZEGO_SPEC = """'{"AgentId": "fake", "RTC": {"UserStreamId": "mic"}}'"""


class Speaker:
    """The lanes' side of one daemon, without the loop that moves it."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.name = name
        self.book = make_book("zego")
        self.elsewhere: tuple[str, ...] = ()

    @property
    def settling(self) -> LaneSettling:
        return LaneSettling(daemon_id=self.name, daemon_name=self.name)

    async def look(
        self, most: int = 64, closed: Collection[tuple[str, Kind]] = ()
    ) -> list[LaneCandidate]:
        scope = LaneScope(most=most, elsewhere=self.elsewhere, closed=closed)
        return await self.database.read(lane_queue.peek, scope)

    async def claim(
        self, tickets: LaneTickets | None = None, room: LaneRoom | None = None
    ) -> ClaimedLanes:
        """Claim what a look finds; without limits, and with room for all, if nothing is said."""
        desk = LaneDesk(
            daemon_id=self.name,
            daemon_name=self.name,
            book=self.book,
            gap_timeout=GAP,
            command_ttl=TTL,
        )
        if room is None:
            room = {(name, listens): 64 for name in self.book.names for listens in (True, False)}
        found = await self.look()
        return await self.database.write(claim_lanes, desk, found, tickets or {}, room)

    async def claim_one(self) -> CommandOrder:
        (order,) = (await self.claim()).orders
        return order

    async def settle(self, order: CommandOrder, outcome: Outcome) -> None:
        left = await self.database.write(settle_lanes, self.settling, [came_to(order, outcome)])
        assert left == []


def came_to(order: CommandOrder, outcome: Outcome) -> CommandSettlement:
    """Return what an order came to, asked and answered at its announce."""
    at = order.flight.announced_at
    heard = Settled(outcome=outcome, asked_at=at, answered_at=at)
    return CommandSettlement(
        order=order, answer=Answer(settled=heard, action="Listening", latency_ms=3)
    )


async def speaker_to(database: Database, *tasks: str) -> Speaker:
    """Return a daemon to whose account these tasks belong, and run."""
    daemon = await Daemon(database, make_desk(make_book("zego"))).ready()
    await want(database, *tasks, account="zego", spec=ZEGO_SPEC)
    for id_ in tasks:
        await daemon.start(id_)
    return Speaker(database, "one")


@pytest.fixture
async def speaker(database: Database) -> Speaker:
    """A daemon whose agent `call` runs."""
    return await speaker_to(database, "call")


@pytest.fixture
async def postgres(postgres_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """A database on which two transactions write at once."""
    del anyio_backend  # asked for, so that it is there before this
    opened = open_database(postgres_url)
    yield opened
    await opened.close()


async def press(database: Database, *numbers: int, kind: str = "start_listening") -> None:
    """Insert numbered presses `c<number>` to `call`, in this order."""
    for n in numbers:
        await run(
            database,
            insert(
                "agent_command",
                id=quoted(f"c{n}"),
                task_id="'call'",
                kind=quoted(kind),
                sequence=str(n),
            ),
        )


async def state(database: Database, id_: str) -> str:
    found: str = await value(database, f"SELECT state FROM agent_command WHERE id = {quoted(id_)}")  # noqa: S608 - a test's own words
    return found


async def end_leases(database: Database) -> None:
    past = "'2020-01-01 00:00:00'"
    await run(database, update("lane", f"lease_until = {past}, due_at = {past}"))


# --- one in flight, durable, fenced


async def test_a_claim_writes_everything_before_the_call_leaves(speaker: Speaker) -> None:
    await press(speaker.database, 1, 2)
    order = await speaker.claim_one()
    assert (order.flight.command.id, order.flight.sequence) == ("c1", 1)
    rows = await query(
        speaker.database, "SELECT last_sequence, command_id, lease_owner, version FROM lane"
    )
    assert rows == [(1, "c1", "one", 1)]
    assert [await state(speaker.database, id_) for id_ in ("c1", "c2")] == ["sending", "queued"]
    assert (await speaker.claim()).orders == []


async def test_what_was_looked_at_is_not_new_any_more(speaker: Speaker) -> None:
    await press(speaker.database, 1, 2)
    assert len(await speaker.look()) == 1
    await speaker.claim_one()
    seen = "SELECT count(*) FROM agent_command WHERE seen_at IS NOT NULL"
    assert await value(speaker.database, seen) == 2
    assert await speaker.look() == []


async def test_a_settle_frees_the_lane_for_the_next(speaker: Speaker) -> None:
    await press(speaker.database, 1, 2)
    await speaker.settle(await speaker.claim_one(), Done(request_id="r1", result={"Round": 7}))
    ended = "SELECT state, request_id FROM agent_command WHERE id = 'c1'"
    assert await query(speaker.database, ended) == [("done", "r1")]
    assert (await speaker.claim_one()).flight.command.id == "c2"


async def test_a_lane_is_taken_over_when_its_lease_ends(speaker: Speaker) -> None:
    await press(speaker.database, 1, 2)
    other = Speaker(speaker.database, "two")
    lost = await speaker.claim_one()
    assert (await other.claim()).orders == []
    await end_leases(speaker.database)
    again = await other.claim_one()
    assert (again.flight.command.id, again.flight.sequence) == ("c1", 1)
    assert again.flight.sent_before == lost.flight.command.sent_at
    await speaker.settle(lost, Done(request_id="of the first"))
    assert await state(speaker.database, "c1") == "sending"
    await other.settle(again, Done(request_id="of the second"))
    told = "SELECT state, request_id FROM agent_command WHERE id = 'c1'"
    assert await query(speaker.database, told) == [("done", "of the second")]


@pytest.mark.parametrize(
    "change", ["version = version + 1", "command_id = 'c9'", "lease_owner = 'two'"]
)
async def test_an_outcome_without_its_fence_changes_nothing(speaker: Speaker, change: str) -> None:
    await press(speaker.database, 1)
    order = await speaker.claim_one()
    await run(speaker.database, update("lane", change))
    before = await query(speaker.database, "SELECT * FROM lane")
    await speaker.settle(order, Done())
    assert await query(speaker.database, "SELECT * FROM lane") == before
    assert await state(speaker.database, "c1") == "sending"


async def test_an_unknown_outcome_keeps_the_number_and_the_place(speaker: Speaker) -> None:
    await press(speaker.database, 1, 2)
    await speaker.settle(await speaker.claim_one(), Indefinite(code="Timeout"))
    rows = await query(
        speaker.database, "SELECT last_sequence, command_id, lease_owner, listening FROM lane"
    )
    assert [(*row[:3], bool(row[3])) for row in rows] == [(1, "c1", None, True)]
    await end_leases(speaker.database)
    await run(speaker.database, update("lane", "retry_at = NULL"))
    again = await speaker.claim_one()
    assert (again.flight.sequence, again.flight.sent_before is None) == (1, False)


# --- taken back, forgotten, elsewhere


async def test_words_that_take_back_are_taken_once(speaker: Speaker) -> None:
    await press(speaker.database, 1)
    words = [
        insert("task_change", task_id=quoted(id_), what="'cancel_command'")
        for id_ in ("c1", "nobody")
    ]
    await run(speaker.database, *words)
    assert (await speaker.claim()).orders == []
    ended = "SELECT state, reason FROM agent_command"
    assert await query(speaker.database, ended) == [("superseded", "Cancelled")]
    left = "SELECT count(*) FROM task_change WHERE what = 'cancel_command'"
    assert await value(speaker.database, left) == 0


async def test_a_word_about_a_command_with_a_task_s_name_is_not_the_task_s(
    database: Database,
) -> None:
    daemon = await Daemon(database, make_desk(make_book("zego"))).ready()
    await want(database, "call", account="zego", spec=ZEGO_SPEC)
    await run(
        database,
        insert("agent_command", id="'call'", task_id="'call'", kind="'start_listening'"),
        insert("task_change", task_id="'call'", what="'cancel_command'"),
    )
    await daemon.start("call")
    assert (await Speaker(database, "one").claim()).orders == []
    assert await state(database, "call") == "superseded"


async def test_the_commands_of_a_forgotten_task_are_buried_with_their_lane(
    speaker: Speaker,
) -> None:
    await press(speaker.database, 1)
    await run(
        speaker.database,
        "UPDATE vendor_agent SET ended_at = announced_at",
        "DELETE FROM agent_task",
        "DELETE FROM agent_status",
    )
    assert (await speaker.claim()).orders == []
    ended = "SELECT state, reason FROM agent_command"
    assert await query(speaker.database, ended) == [("failed", "TaskEnded")]
    assert await query(speaker.database, "SELECT * FROM lane") == []
    assert await speaker.look() == []


async def test_a_lane_with_more_than_one_claim_can_bury_goes_in_the_end(speaker: Speaker) -> None:
    await press(speaker.database, *range(1, COMMANDS_MAX + 2))
    await run(speaker.database, "DELETE FROM agent_task", "DELETE FROM agent_status")
    for _ in range(2):
        assert (await speaker.claim()).orders == []
    states = "SELECT state, count(*) FROM agent_command GROUP BY state"
    assert await query(speaker.database, states) == [("failed", COMMANDS_MAX + 1)]
    assert await query(speaker.database, "SELECT * FROM lane") == []


async def test_an_idle_lane_goes_when_its_task_is_forgotten(speaker: Speaker) -> None:
    """One that has a time yet is left: its commands are settled first."""
    database = speaker.database
    daemon = Daemon(database, make_desk(make_book("zego")))
    await press(database, 1)
    await speaker.settle(await speaker.claim_one(), Done())
    guest = {"task_id": "'call'", "user_id": "'guest'"}
    await run(
        database,
        insert("agent_command", id="'g'", kind="'start_listening'", **guest),
        insert("lane", **guest, due_at="'2020-01-01 00:00:00'"),
        "DELETE FROM agent_task",
    )
    await daemon.run_to_end("call", Done())
    await daemon.claim("call")
    assert await query(database, "SELECT * FROM agent_status") == []
    assert await query(database, "SELECT user_id FROM lane") == [("guest",)]
    assert (await speaker.claim()).orders == []
    assert await state(database, "g") == "failed"
    assert await query(database, "SELECT * FROM lane") == []


async def test_the_commands_of_a_task_inserted_anew_are_not_buried(speaker: Speaker) -> None:
    """The old one's status is forgotten, and the new one's is about to be made."""
    await press(speaker.database, 1)
    await run(speaker.database, "DELETE FROM agent_status")
    assert (await speaker.claim()).orders == []
    assert await state(speaker.database, "c1") == "queued"
    assert await value(speaker.database, "SELECT due_at FROM lane") is not None
    assert await speaker.look() == []


async def test_the_lanes_of_others_accounts_crowd_nobody_out(speaker: Speaker) -> None:
    speaker.elsewhere = ("volc",)
    await want(speaker.database, "elsewhere", account="volc")
    await run(
        speaker.database,
        *(insert("agent_command", task_id="'elsewhere'", kind="'say'") for _ in range(8)),
    )
    await press(speaker.database, 1)
    assert [one.task_id for one in await speaker.look(most=4)] == ["call"]


# --- one lane's trouble


@pytest.mark.parametrize(
    ("account", "spec", "good"),
    [
        ("volc", SPEC, {"kind": "'interrupt'"}),
        ("tencent", TENCENT.spec, {"kind": "'say'", "payload": """'{"Text": "hello"}'"""}),
    ],
    ids=["volc", "tencent"],
)
async def test_a_payload_too_deep_to_be_read_fails_alone(
    database: Database, account: str, spec: Mapping[str, Any], good: Mapping[str, str]
) -> None:
    book = make_book(account)
    daemon = await Daemon(database, make_desk(book)).ready()
    await want(database, "call", account=account, spec=quoted(write_json(spec)))
    await daemon.start("call")
    deep = '{"a":' * DEPTH + "1" + "}" * DEPTH
    await run(
        database,
        insert(
            "agent_command", id="'deep'", task_id="'call'", kind="'prompt'", payload=quoted(deep)
        ),
        insert("agent_command", id="'good'", task_id="'call'", **good),
    )
    speaker = Speaker(database, "one")
    speaker.book = book
    assert (await speaker.claim_one()).flight.command.id == "good"
    told = "SELECT state, reason FROM agent_command WHERE id = 'deep'"
    assert await query(database, told) == [("failed", "InvalidPayload")]


async def test_bytes_are_no_user(sqlite_url: str) -> None:
    """SQLite would take them for a text, and every look at new commands would stumble over them."""
    database = open_database(sqlite_url)
    try:
        speaker = await speaker_to(database, "call")
        press_of_bytes = {"task_id": "'call'", "kind": "'start_listening'", "user_id": "x'ff'"}
        with pytest.raises(StatementError):
            await run(database, insert("agent_command", **press_of_bytes))
        assert await speaker.look() == []
    finally:
        await database.close()


# --- two transactions at once


async def test_a_lane_claimed_while_its_agent_s_start_is_settled_is_looked_at_again(
    postgres: Database,
) -> None:
    """The claim does not see yet that the agent runs, and the settle saw nothing to touch."""
    daemon = await Daemon(postgres, make_desk(make_book("zego"))).ready()
    await want(postgres, "call", account="zego", spec=ZEGO_SPEC)
    start = await daemon.claim_one("call")
    await run(postgres, insert("lane", task_id="'call'", user_id="'human'"))
    await press(postgres, 1)
    speaker = Speaker(postgres, "one")

    def settle_while_claimed(connection: Connection) -> None:
        assert settle(connection, settling_of(daemon), [settled(start, Done(handle="h"))]) == []
        assert await_only(speaker.claim()).orders == []

    await postgres.write(settle_while_claimed)
    assert await status(postgres, "call", "phase") == ("running",)
    wait = await postgres.read(lane_queue.until_next)
    assert wait is not None
    assert wait <= timedelta(seconds=1)


def settling_of(daemon: Daemon) -> Settling:
    book = daemon.desk.book
    accounts = {name: book.account(name, None, None) for name in book.names}
    return Settling(
        daemon_id="d1",
        daemon_name="d1",
        accounts=accounts,
        denied=frozenset(),
        timekeeper=book.timekeeper,
        owner=OWNER,
    )


async def test_the_settle_of_a_start_waits_for_no_lane_that_is_locked(
    postgres: Database, postgres_url: str
) -> None:
    """As when another daemon is frozen in its claim of the lane."""
    daemon = await Daemon(postgres, make_desk(make_book("zego"))).ready()
    await want(postgres, "call", account="zego", spec=ZEGO_SPEC)
    await press(postgres, 1)
    await Speaker(postgres, "one").claim()
    start = await daemon.claim_one("call")
    frozen = await asyncpg.connect(postgres_url)
    try:
        async with frozen.transaction():
            await frozen.execute("SELECT * FROM lane FOR UPDATE")
            await daemon.settle(settled(start, Done(handle="h")))
    finally:
        await frozen.close()
    assert await status(postgres, "call", "phase") == ("running",)


async def test_a_task_that_is_absorbed_between_two_statements_has_not_ended(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status was read as it was before, and the change that will begin it is gone already."""
    daemon = await Daemon(postgres, make_desk(make_book("zego"))).ready()
    await want(postgres, "call", account="zego", spec=ZEGO_SPEC)
    await press(postgres, 1)
    real = task_rows.read_statuses

    def absorb_afterwards(connection: Connection, ids: Sequence[str]) -> list[Sequence[Any]]:
        found = real(connection, ids)
        monkeypatch.setattr(task_rows, "read_statuses", real)
        await_only(daemon.claim_one("call"))
        return found

    monkeypatch.setattr(task_rows, "read_statuses", absorb_afterwards)
    await Speaker(postgres, "one").claim()
    assert await status(postgres, "call", "phase") == ("starting",)
    assert await state(postgres, "c1") == "queued"


# --- an agent begins or ceases to run


@pytest.mark.parametrize("parked_kind", ["NULL", "'start_listening'"])
async def test_a_touched_lane_is_looked_at_now(speaker: Speaker, parked_kind: str) -> None:
    row = {"task_id": "'call'", "user_id": "'human'", "due_at": "'2040-01-01 00:00:00'"}
    await run(speaker.database, insert("lane", **row, parked_kind=parked_kind))
    await touch(speaker.database)
    (found,) = await speaker.look()
    assert (found.key, found.kind) == (("call", "human"), None)


async def test_a_touched_lane_at_rest_stays_at_rest(speaker: Speaker) -> None:
    await run(speaker.database, insert("lane", task_id="'call'", user_id="'human'"))
    await touch(speaker.database)
    assert await speaker.look() == []


async def test_a_touched_lane_on_its_way_waits_for_its_answer(speaker: Speaker) -> None:
    await press(speaker.database, 1)
    await speaker.claim_one()
    before = await query(speaker.database, "SELECT * FROM lane")
    await touch(speaker.database)
    assert await query(speaker.database, "SELECT * FROM lane") == before
    assert await speaker.look() == []


async def touch(database: Database) -> None:
    await database.write(lanes.touch, ["call"], await database.read(database_now))


# --- bounds and plans


async def test_a_claim_sees_so_many_of_a_lane_in_their_order(speaker: Speaker) -> None:
    await press(speaker.database, *range(COMMANDS_MAX + 6, 0, -1))
    found = await speaker.database.read(lanes.read_commands, ["call"], TTL)
    assert sorted(c.sequence or 0 for c in found) == list(range(1, COMMANDS_MAX + 1))
    assert (await speaker.claim_one()).flight.sequence == 1


SOME = Command(
    id="c",
    position=1,
    task_id="t0",
    kind=Kind.SAY,
    user_id="human",
    sequence=None,
    created_at=NOW,
    expires_at=NOW,
)
FILL = """
INSERT INTO agent_command (id, task_id, kind, sequence)
    SELECT 'c' || task_id, task_id, 'start_listening', 1 FROM agent_status;
INSERT INTO lane (task_id, user_id, last_sequence) SELECT task_id, 'human', 1 FROM agent_status;
UPDATE agent_command SET state = 'done', seen_at = created_at, done_at = created_at
"""


def fill_lanes(connection: Connection) -> None:
    for statement in FILL.split(";"):
        connection.exec_driver_sql(statement)


def lane_plans(connection: Connection) -> list[str]:
    ids = [f"t{n}" for n in range(0, 300, 3)]
    closed = [("acc", Kind.START_LISTENING)]

    def everything(connection: Connection) -> None:
        lane_queue.peek(connection, LaneScope(most=64, elsewhere=["a"], closed=closed))
        lane_queue.until_next(connection)
        lanes.lock(connection, ids)
        lanes.read_commands(connection, ids, TTL)
        lanes.read_taken_back(connection, ids, TTL)
        lanes.has_others(connection, SOME)
        lanes.take_words(connection, [1])
        lanes.touch(connection, ids, NOW)
        lanes.see(connection, [f"c{id_}" for id_ in ids], NOW)
        lanes.see_all(connection, [(id_, "human") for id_ in ids], NOW)

    return plans(connection, everything)


def walks(steps: Sequence[str]) -> list[str]:
    """Return the steps that look at every lane or every command."""
    scans = [step for step in steps if step.startswith(("SCAN ", "Seq Scan "))]
    return [s for s in scans if "USING" not in s and ("agent_command" in s or "lane" in s)]


async def test_lanes_are_found_by_an_index(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.store.test_plans.BIG", ("agent_command", "lane"))
    await database.write(fill, 0, PRESSES)
    await database.write(fill_lanes)
    await database.read(tidy)
    steps = await database.write(lane_plans)
    assert steps
    assert walks(steps) == []
