"""Lanes at the database: claimed by one, settled by who still owns them, found by an index."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from orchestrator.core.command import Command, Kind
from orchestrator.core.outcome import Done, Indefinite, Outcome, Settled
from orchestrator.daemon.errand import Answer
from orchestrator.daemon.lane_claim import ClaimedLanes, CommandOrder, LaneDesk, claim_lanes
from orchestrator.daemon.lane_settle import CommandSettlement, LaneSettling, settle_lanes
from orchestrator.store import lane_queue, lanes
from orchestrator.store.engine import Connection, Database
from orchestrator.store.engine import now as database_now
from orchestrator.store.lane_queue import LaneCandidate, LaneScope
from orchestrator.store.lanes import COMMANDS_MAX
from tests.store.claiming import Daemon, make_book, make_desk, want
from tests.store.rows import insert, query, quoted, run, update, value
from tests.store.test_plans import NOW, fill, plans, tidy

pytestmark = pytest.mark.anyio

TTL, GAP = timedelta(seconds=60), timedelta(seconds=30)
PRESSES = 20_000
ZEGO_SPEC = """'{"AgentId": "fake", "RTC": {"UserStreamId": "mic"}}'"""


class Speaker:
    """The lanes' side of one daemon, without the loop that moves it."""

    def __init__(self, database: Database, name: str) -> None:
        self.database = database
        self.name = name
        self.book = make_book("zego")
        self.elsewhere: tuple[str, ...] = ()

    async def look(self, most: int = 64) -> list[LaneCandidate]:
        return await self.database.read(_peek, LaneScope(most=most, elsewhere=self.elsewhere))

    async def claim(self) -> ClaimedLanes:
        desk = LaneDesk(
            daemon_id=self.name,
            daemon_name=self.name,
            book=self.book,
            gap_timeout=GAP,
            command_ttl=TTL,
        )
        room = {("zego", listens): 64 for listens in (True, False)}
        return await self.database.write(claim_lanes, desk, await self.look(), {}, room)

    async def claim_one(self) -> CommandOrder:
        (order,) = (await self.claim()).orders
        return order

    async def settle(self, order: CommandOrder, outcome: Outcome) -> None:
        settling = LaneSettling(daemon_id=self.name, daemon_name=self.name)
        at = order.flight.announced_at
        answer = Answer(
            settled=Settled(outcome=outcome, asked_at=at, answered_at=at),
            action="Listening",
            latency_ms=3,
        )
        left = await self.database.write(
            settle_lanes, settling, [CommandSettlement(order=order, answer=answer)]
        )
        assert left == []


def _peek(connection: Connection, scope: LaneScope) -> list[LaneCandidate]:
    return lane_queue.peek(connection, scope)


@pytest.fixture
async def speaker(database: Database) -> Speaker:
    """A daemon whose agent `call` runs."""
    daemon = await Daemon(database, make_desk(make_book("zego"))).ready()
    await want(database, "call", account="zego", spec=ZEGO_SPEC)
    await daemon.start("call")
    return Speaker(database, "one")


async def press(database: Database, *numbers: int, kind: str = "start_listening") -> None:
    """Insert numbered presses `c<number>`, in this order."""
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


async def test_the_commands_of_a_forgotten_task_are_settled(speaker: Speaker) -> None:
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
