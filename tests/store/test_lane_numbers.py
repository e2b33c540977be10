"""Numbers of a lane at the database: two daemons, what retention forgets, and what is no number."""

from datetime import timedelta

import anyio
import pytest

from orchestrator.core.outcome import Done, Indefinite, Refused
from orchestrator.daemon.lane_claim import ClaimedLanes
from orchestrator.store import retention
from orchestrator.store.engine import Database, StatementError
from orchestrator.store.engine import now as database_now
from orchestrator.store.retention import Cutoffs
from tests.store.rows import insert, query, quoted, run, update, value
from tests.store.test_lanes import Speaker, end_leases, speaker_to

pytestmark = pytest.mark.anyio

AHEAD = 9_000_000_000_000
"""A number that milliseconds since 1970 reach in the year 2255."""
HIGHEST = 2**62
"""The highest number that an application may give."""
ROUNDS = 6


@pytest.fixture
async def pair(database: Database) -> tuple[Speaker, Speaker]:
    """Two daemons, and an agent `call` that runs."""
    return await speaker_to(database, "call"), Speaker(database, "two")


async def command(
    database: Database, id_: str, sequence: int | None = None, kind: str = "start_listening"
) -> None:
    numbered = {} if sequence is None else {"sequence": str(sequence)}
    own = {"id": quoted(id_), "task_id": "'call'", "kind": quoted(kind)}
    await run(database, insert("agent_command", **own, **numbered))


async def verdict(database: Database, id_: str) -> tuple[str, str | None]:
    """Return the state of a command, and why it is in it."""
    rows = await query(
        database,
        f"SELECT state, reason FROM agent_command WHERE id = {quoted(id_)}",  # noqa: S608 - a test's own words
    )
    ((state, reason),) = rows
    return state, reason


# --- two daemons


async def test_two_daemons_that_number_one_lane_never_use_a_number_twice(
    pair: tuple[Speaker, Speaker],
) -> None:
    numbers: list[int] = []
    for n in range(ROUNDS):
        await command(pair[0].database, f"c{n}")
        claimed = await claim_at_once(*pair)
        ((speaker, order),) = [(s, o) for s, one in claimed for o in one.orders]
        assert order.flight.sequence is not None
        numbers.append(order.flight.sequence)
        await speaker.settle(order, Done())
    assert numbers == sorted(set(numbers))
    drawn = await query(pair[0].database, "SELECT sequence FROM agent_command ORDER BY position")
    assert [number for (number,) in drawn] == numbers


async def claim_at_once(*speakers: Speaker) -> list[tuple[Speaker, ClaimedLanes]]:
    """Let several daemons claim at the same time; return what each got."""
    claimed: list[tuple[Speaker, ClaimedLanes]] = []

    async def claim(speaker: Speaker) -> None:
        claimed.append((speaker, await speaker.claim()))

    async with anyio.create_task_group() as group:
        for speaker in speakers:
            group.start_soon(claim, speaker)
    return claimed


async def test_who_takes_a_lane_over_sends_the_drawn_number_again(
    pair: tuple[Speaker, Speaker],
) -> None:
    one, two = pair
    await command(one.database, "p")
    lost = await one.claim_one()
    await end_leases(one.database)
    again = await two.claim_one()
    assert again.flight.sequence == lost.flight.sequence
    await two.settle(again, Done())
    await command(one.database, "r", kind="stop_listening")
    following = (await one.claim_one()).flight.sequence
    assert lost.flight.sequence is not None
    assert following is not None
    assert following > lost.flight.sequence


# --- what retention forgets


async def test_numbers_go_on_when_the_last_command_of_a_lane_is_forgotten(
    pair: tuple[Speaker, Speaker],
) -> None:
    speaker, database = pair[0], pair[0].database
    await command(database, "p")
    await speaker.settle(await speaker.claim_one(), Done())
    await run(database, update("lane", f"last_sequence = {AHEAD}"))
    await forget_commands(database)
    assert await value(database, "SELECT count(*) FROM agent_command") == 0
    await command(database, "next")
    assert (await speaker.claim_one()).flight.sequence == AHEAD + 1


async def forget_commands(database: Database) -> None:
    """Let the janitor find every command that has ended old enough."""
    now = await database.read(database_now)
    before = Cutoffs(events=now, commands=now + timedelta(days=1), turns=now, ended=None)
    await database.write(retention.prune, before, 100)


# --- what is no number, or no number any more


async def test_zero_fails_and_the_lane_goes_on(pair: tuple[Speaker, Speaker]) -> None:
    speaker, database = pair[0], pair[0].database
    await command(database, "zero", 0)
    await command(database, "good", 1)
    assert (await speaker.claim_one()).flight.command.id == "good"
    assert await verdict(database, "zero") == ("failed", "InvalidSequence")


@pytest.mark.parametrize("kind", ["start_listening", "say"])
async def test_a_number_below_zero_is_no_row(pair: tuple[Speaker, Speaker], kind: str) -> None:
    with pytest.raises(StatementError):
        await command(pair[0].database, "below", -1, kind)
    assert await value(pair[0].database, "SELECT count(*) FROM agent_command") == 0


async def test_above_the_highest_number_is_room_for_a_release(
    pair: tuple[Speaker, Speaker],
) -> None:
    """The vendor says that it has seen a higher one: the next must fit into the row as well."""
    speaker, database = pair[0], pair[0].database
    await command(database, "r", HIGHEST, "stop_listening")
    await speaker.settle(await speaker.claim_one(), Refused(code="410001043"))
    assert (await speaker.claim_one()).flight.sequence == HIGHEST + 1


@pytest.mark.parametrize("number", [HIGHEST + 1, 2**63 - 1])
async def test_a_number_above_the_highest_fails_and_the_lane_goes_on(
    pair: tuple[Speaker, Speaker], number: int
) -> None:
    speaker, database = pair[0], pair[0].database
    await command(database, "above", number, "stop_listening")
    await command(database, "good", 1)
    assert (await speaker.claim_one()).flight.command.id == "good"
    assert await verdict(database, "above") == ("failed", "InvalidSequence")


async def test_an_application_that_counts_from_one_again_gets_a_state_and_no_error(
    pair: tuple[Speaker, Speaker],
) -> None:
    speaker, database = pair[0], pair[0].database
    for number in (1, 2):
        await command(database, f"c{number}", number)
        await speaker.settle(await speaker.claim_one(), Done())
    await command(database, "again", 1)
    assert (await speaker.claim()).orders == []
    assert await verdict(database, "again") == ("superseded", "Superseded")
    await command(database, "next", 3)
    assert (await speaker.claim_one()).flight.sequence == 3


# --- the other kinds


@pytest.mark.parametrize("kind", ["say", "prompt"])
async def test_what_was_on_its_way_when_a_daemon_died_is_not_said_twice(
    pair: tuple[Speaker, Speaker], kind: str
) -> None:
    one, two = pair
    await speak(one.database, "first", kind)
    await speak(one.database, "second", kind)
    assert (await one.claim_one()).flight.command.id == "first"
    await end_leases(one.database)
    assert (await two.claim_one()).flight.command.id == "second"
    assert await verdict(one.database, "first") == ("failed", "OutcomeUnknown")


@pytest.mark.parametrize(("kind", "state"), [("say", "failed"), ("interrupt", "sending")])
async def test_only_what_does_no_harm_twice_waits_for_its_next_try(
    pair: tuple[Speaker, Speaker], kind: str, state: str
) -> None:
    speaker, database = pair[0], pair[0].database
    await speak(database, "c", kind)
    await speaker.settle(await speaker.claim_one(), Indefinite(code="Timeout"))
    assert (await verdict(database, "c"))[0] == state


async def test_a_prompt_and_what_is_said_after_it_leave_in_that_order(
    pair: tuple[Speaker, Speaker],
) -> None:
    speaker, database = pair[0], pair[0].database
    kinds = ("prompt", "say", "interrupt", "prompt")
    for n, kind in enumerate(kinds):
        await speak(database, f"c{n}", kind)
    left = []
    for _ in kinds:
        order = await speaker.claim_one()
        left.append(order.flight.command.id)
        await speaker.settle(order, Done())
    assert left == ["c0", "c1", "c2", "c3"]


async def speak(database: Database, id_: str, kind: str) -> None:
    payload = {} if kind == "interrupt" else {"payload": """'{"Text": "hello"}'"""}
    await run(
        database,
        insert("agent_command", id=quoted(id_), task_id="'call'", kind=quoted(kind), **payload),
    )
