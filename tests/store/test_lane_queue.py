"""Which lanes a look finds, and whose turn it is: none hides another, none is looked at in vain."""

import pytest

from orchestrator.core.command import Kind
from orchestrator.core.outcome import Done, Throttled
from orchestrator.daemon.limiter import Action
from orchestrator.store import lane_queue, lanes
from orchestrator.store.engine import Database
from orchestrator.store.lane_queue import NEW_MAX
from orchestrator.store.lanes import COMMANDS_MAX
from tests.store.claiming import ticket, want
from tests.store.rows import Rows, insert, query, quoted, run, update, value
from tests.store.test_lanes import TTL, ZEGO_SPEC, Speaker, press, speaker_to, state

pytestmark = pytest.mark.anyio

PAST = "'2020-01-01 00:00:00'"
START = Action(account="zego", name="StartListening")
MANY = 3 * COMMANDS_MAX
"""Commands of one lane: more than a claim sees of it."""
BACKLOG = 2 * NEW_MAX
"""And more than a look walks past."""


@pytest.fixture
async def speaker(database: Database) -> Speaker:
    """A daemon whose agent `call` runs, and whose agent `later` is to come."""
    speaker = await speaker_to(database, "call")
    await want(database, "later", account="zego", spec=ZEGO_SPEC)
    return speaker


async def say_many(database: Database, task_id: str, count: int) -> None:
    """Insert words `<task><n>`, in this order."""
    words = ", ".join(
        f"({quoted(f'{task_id}{n}')}, {quoted(task_id)}, 'say', " + """'{"Text": "hello"}')"""
        for n in range(count)
    )
    await run(database, f"INSERT INTO agent_command (id, task_id, kind, payload) VALUES {words}")  # noqa: S608 - a test's own words


async def press_of(speaker: Speaker, task_id: str) -> None:
    """Insert a press that the daemon numbers, under the task's name."""
    values = {"id": quoted(task_id), "task_id": quoted(task_id)}
    await run(speaker.database, insert("agent_command", **values, kind="'start_listening'"))


async def parked(speaker: Speaker) -> Rows:
    """Return the lanes that wait for a slot, and for what, in the order of their turns."""
    return await query(
        speaker.database,
        "SELECT task_id, parked_kind FROM lane WHERE parked_kind IS NOT NULL ORDER BY due_at",
    )


async def tasks_found(speaker: Speaker) -> list[str]:
    return [one.task_id for one in await speaker.look()]


# --- a backlog of one lane


async def test_a_backlog_that_waits_for_its_agent_hides_no_press(speaker: Speaker) -> None:
    await say_many(speaker.database, "later", MANY)
    await speaker.claim()
    await press(speaker.database, 1)
    assert await tasks_found(speaker) == ["call"]


async def test_a_backlog_counts_as_one_lane(speaker: Speaker) -> None:
    await say_many(speaker.database, "later", MANY)
    await press(speaker.database, 1)
    assert [one.task_id for one in await speaker.look(most=2)] == ["later", "call"]


async def test_a_backlog_that_waits_for_its_agent_is_looked_at_once(speaker: Speaker) -> None:
    await say_many(speaker.database, "later", MANY)
    await speaker.claim()
    unseen = "SELECT count(*) FROM agent_command WHERE seen_at IS NULL"
    assert await value(speaker.database, unseen) == 0
    assert await speaker.look() == []


async def test_a_claim_of_a_backlog_writes_the_command_that_it_sends(speaker: Speaker) -> None:
    """What is new is marked as seen once. Besides, the length of the backlog costs nothing."""
    await say_many(speaker.database, "call", BACKLOG)
    order = await speaker.claim_one()
    while await speaker.look():
        assert (await speaker.claim()).orders == []
    for n in range(1, 4):
        before = await commands(speaker.database)
        await speaker.settle(order, Done())
        order = await speaker.claim_one()
        changed = set(await commands(speaker.database)) - set(before)
        assert {row[0] for row in changed} == {f"call{n - 1}", f"call{n}"}
        seen = await speaker.database.read(lanes.read_commands, ["call"], TTL)
        assert len(seen) == COMMANDS_MAX


async def commands(database: Database) -> Rows:
    return await query(
        database, "SELECT id, state, seen_at, sent_at, done_at FROM agent_command ORDER BY position"
    )


async def test_a_command_beyond_what_a_claim_sees_is_taken_back(speaker: Speaker) -> None:
    await say_many(speaker.database, "later", COMMANDS_MAX + 2)
    await speaker.claim()
    last = f"later{COMMANDS_MAX + 1}"
    await run(
        speaker.database, insert("task_change", task_id=quoted(last), what="'cancel_command'")
    )
    await speaker.claim()
    assert await state(speaker.database, last) == "superseded"
    assert await speaker.look() == []


async def test_what_was_seen_and_pushed_out_of_view_is_not_forgotten(speaker: Speaker) -> None:
    """The lane has a time for as long as it has a command, also one that no claim sees now."""
    database = speaker.database
    await press_later(database, range(101, 103))
    await speaker.claim()
    await press_later(database, range(1, COMMANDS_MAX + 1), expires_at=PAST)
    await speaker.claim()
    assert await value(database, "SELECT count(*) FROM agent_command WHERE state = 'queued'") == 2
    assert await value(database, "SELECT due_at FROM lane WHERE user_id = 'human'") is not None


async def press_later(database: Database, numbers: range, **literals: str) -> None:
    """Insert presses to the agent that is to come."""
    own = {"task_id": "'later'", "kind": "'start_listening'", **literals}
    await run(database, *(insert("agent_command", sequence=str(n), **own) for n in numbers))


# --- what is on its way


async def test_new_commands_of_a_lane_on_its_way_are_seen_and_not_lost(speaker: Speaker) -> None:
    await press(speaker.database, 1)
    order = await speaker.claim_one()
    await press(speaker.database, 2)
    assert await tasks_found(speaker) == ["call"]
    assert (await speaker.claim()).orders == []
    assert await speaker.look() == []
    await speaker.settle(order, Done())
    assert (await speaker.claim_one()).flight.command.id == "c2"


# --- other daemons' lanes


@pytest.fixture
async def elsewhere(speaker: Speaker) -> Speaker:
    """The same daemon, and a task `theirs` of an account that only another daemon has."""
    speaker.elsewhere = ("volc",)
    await want(speaker.database, "theirs", account="volc")
    return speaker


async def test_a_command_of_theirs_is_not_ours_to_find(elsewhere: Speaker) -> None:
    await say_many(elsewhere.database, "theirs", 1)
    assert await elsewhere.look() == []


async def test_a_command_of_theirs_is_not_ours_to_take_back(elsewhere: Speaker) -> None:
    await say_many(elsewhere.database, "theirs", 1)
    word = insert("task_change", task_id="'theirs0'", what="'cancel_command'")
    await run(elsewhere.database, word)
    assert await elsewhere.look() == []


@pytest.mark.parametrize("parked_kind", ["NULL", "'start_listening'"])
async def test_a_lane_of_theirs_asks_for_no_look(elsewhere: Speaker, parked_kind: str) -> None:
    row = {"task_id": "'theirs'", "user_id": "'human'", "due_at": PAST}
    await run(elsewhere.database, insert("lane", **row, parked_kind=parked_kind))
    assert await elsewhere.look() == []
    assert await elsewhere.database.read(lane_queue.until_next) is None


async def test_a_lane_of_an_account_that_nobody_has_is_everybody_s(speaker: Speaker) -> None:
    """Nothing of it is sent, and what is too late expires all the same."""
    await want(speaker.database, "lost", account="nowhere")
    own = {"task_id": "'lost'", "kind": "'say'"}
    await run(
        speaker.database,
        insert("agent_command", id="'late'", **own, expires_at=PAST),
        insert("agent_command", id="'waits'", **own),
        insert("agent_command", id="'unwanted'", **own),
        insert("task_change", task_id="'unwanted'", what="'cancel_command'"),
    )
    assert (await speaker.claim()).orders == []
    states = [await state(speaker.database, id_) for id_ in ("late", "waits", "unwanted")]
    assert states == ["expired", "queued", "superseded"]
    assert await speaker.look() == []


# --- slots and places


async def test_a_lane_without_a_slot_is_parked_once(speaker: Speaker) -> None:
    await press(speaker.database, 1)
    claimed = await speaker.claim({START: []})
    assert (claimed.orders, claimed.lacking) == ([], {("zego", Kind.START_LISTENING): 1})
    assert await parked(speaker) == [("call", "start_listening")]
    before = await query(speaker.database, "SELECT * FROM lane")
    assert (await speaker.claim({START: []})).written == 0
    assert await query(speaker.database, "SELECT * FROM lane") == before


@pytest.mark.parametrize(
    ("closed", "found"),
    [
        ([], ["call"]),
        ([("zego", Kind.START_LISTENING)], []),
        ([("zego", Kind.STOP_LISTENING), ("volc", Kind.START_LISTENING)], ["call"]),
    ],
    ids=["open", "closed", "others are closed"],
)
async def test_a_parked_lane_is_found_when_a_call_can_be_made(
    speaker: Speaker, closed: list[tuple[str, Kind]], found: list[str]
) -> None:
    await press(speaker.database, 1)
    await speaker.claim(room={})
    assert await speaker.database.read(lane_queue.until_next) is None
    assert [one.task_id for one in await speaker.look(closed=closed)] == found


async def test_a_parked_lane_is_found_for_what_is_new_in_it(speaker: Speaker) -> None:
    """A release has slots of its own, and may come before the press that waits."""
    await press(speaker.database, 2)
    await speaker.claim({START: []})
    await press(speaker.database, 1, kind="stop_listening")
    closed = [("zego", Kind.START_LISTENING)]
    assert [one.task_id for one in await speaker.look(closed=closed)] == ["call"]
    (order,) = (await speaker.claim({START: []})).orders
    assert order.flight.command.id == "c1"
    assert await parked(speaker) == []


async def test_the_only_slot_goes_to_who_came_first(database: Database) -> None:
    speaker = await speaker_to(database, "zz", "aa")
    await press_of(speaker, "zz")
    await press_of(speaker, "aa")
    assert await sent_with_one_slot(speaker) == ["zz"]


async def test_slots_go_to_who_has_waited_longest(database: Database) -> None:
    speaker = await speaker_to(database, "zz", "mm", "aa")
    for id_ in ("zz", "mm"):
        await press_of(speaker, id_)
        assert (await speaker.claim({START: []})).orders == []
    await press_of(speaker, "aa")
    sent = [await sent_with_one_slot(speaker) for _ in range(3)]
    assert sent == [["zz"], ["mm"], ["aa"]]


async def test_who_is_parked_together_keeps_the_order_in_which_they_came(
    database: Database,
) -> None:
    users = ["zz", "mm", "aa", "ff", "bb"]
    speaker = await speaker_to(database, *users)
    for task_id in users:
        await press_of(speaker, task_id)
    assert (await speaker.claim({START: []})).orders == []
    assert [task_id for task_id, _ in await parked(speaker)] == users
    assert await tasks_found(speaker) == users


async def test_fresh_presses_come_before_those_that_were_put_off(database: Database) -> None:
    """Those that the vendor refused for the moment would use up every slot there is."""
    speaker = await speaker_to(database, "again", "fresh")
    await press_of(speaker, "again")
    await speaker.settle(await speaker.claim_one(), Throttled(code="TooMany"))
    await run(database, update("lane", f"retry_at = {PAST}, due_at = {PAST}"))
    await press_of(speaker, "fresh")
    assert [await sent_with_one_slot(speaker) for _ in range(2)] == [["fresh"], ["again"]]


async def sent_with_one_slot(speaker: Speaker) -> list[str]:
    """Claim with a single slot for presses; return whose commands left."""
    claimed = await speaker.claim({START: [ticket("zego", "StartListening")]})
    return [order.lane.task_id for order in claimed.orders]
