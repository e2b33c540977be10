"""Every kind of call and command has its place: what a closed set lists, each of its readers knows.

A kind that one of them forgot would wait for ever, and nothing would say so.
"""

import pytest

from orchestrator.core.command import CommandState, Kind
from orchestrator.core.lane import Numbering
from orchestrator.core.model import Verb
from orchestrator.daemon.choose import class_of
from orchestrator.daemon.gateway import COMMAND_TIMEOUT, SETTLE_RESERVE_NS, SHORTEST_COMMAND
from orchestrator.daemon.lane_claim import LEASE
from orchestrator.providers.base import Provider
from orchestrator.store import lane_queue, queue
from orchestrator.store.engine import Database
from orchestrator.store.lane_queue import LaneScope
from orchestrator.store.queue import Queue
from orchestrator.store.wishes import COMMAND_KINDS, COMMAND_STATES
from tests.core.lane_builders import command
from tests.store.claiming import Daemon, make_book, make_desk, providers, want
from tests.store.rows import insert, quoted, run, value

LISTENING = {Kind.START_LISTENING, Kind.STOP_LISTENING}
AT_MOST_ONCE = {Kind.SAY, Kind.PROMPT, Kind.FUNCTION_RESULT}
MISSING = {
    "zego": {Kind.FUNCTION_RESULT},
    "tencent": {*LISTENING, Kind.INTERRUPT, Kind.FUNCTION_RESULT},
    "volc": {*LISTENING, Kind.UPDATE},
    "other": {*LISTENING, Kind.UPDATE},
    "first": set(Kind) - {Kind.INTERRUPT, Kind.FUNCTION_RESULT},
}


# --- commands


def test_the_schema_and_the_core_know_the_same_words() -> None:
    assert set(COMMAND_KINDS) == {kind.value for kind in Kind}
    assert set(COMMAND_STATES) == {state.value for state in CommandState}


def test_what_listens_and_what_may_be_repeated() -> None:
    assert {kind for kind in Kind if kind.listens} == LISTENING
    assert {kind for kind in Kind if not kind.repeatable} == AT_MOST_ONCE


@pytest.mark.anyio
@pytest.mark.parametrize("kind", list(Kind))
async def test_every_kind_is_a_row(database: Database, kind: Kind) -> None:
    await want(database, "call")
    await run(database, insert("agent_command", task_id="'call'", kind=quoted(kind.value)))
    assert await value(database, "SELECT kind FROM agent_command") == kind.value


@pytest.mark.anyio
@pytest.mark.parametrize("kind", list(Kind))
async def test_whatever_a_lane_is_parked_for_it_is_found(database: Database, kind: Kind) -> None:
    await Daemon(database, make_desk(make_book("zego"))).ready()
    await want(database, "call", account="zego")
    row = {"task_id": "'call'", "user_id": quoted("human" if kind.listens else "")}
    await run(
        database,
        insert("lane", **row, parked_kind=quoted(kind.value), due_at="'2020-01-01 00:00:00'"),
    )
    (found,) = await database.read(lane_queue.peek, LaneScope(most=1))
    assert found.kind is kind
    closed = LaneScope(most=1, closed=[("zego", kind)])
    assert await database.read(lane_queue.peek, closed) == []


@pytest.mark.anyio
@pytest.mark.parametrize("numbering", list(Numbering))
async def test_every_numbering_is_a_row(database: Database, numbering: Numbering) -> None:
    row = {"task_id": "'call'", "user_id": "'human'", "numbering": quoted(numbering.value)}
    await run(database, insert("lane", **row))
    assert await value(database, "SELECT numbering FROM lane") == numbering.value


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(("name", "provider"), list(providers().items()))
def test_every_vendor_has_a_call_for_a_kind_or_none(
    name: str, provider: Provider, kind: Kind
) -> None:
    asked = command(kind, 1)
    action = provider.command_action(asked)
    assert (action is None) is (kind in MISSING[name])
    if action is not None:
        provider.command_problems(asked)  # whatever it finds: it knows the kind


# --- calls


@pytest.mark.anyio
@pytest.mark.parametrize("verb", list(Verb))
async def test_whatever_a_row_waits_for_its_queue_is_found(database: Database, verb: Verb) -> None:
    daemon = await Daemon(database, make_desk(make_book("volc"))).ready()
    await want(database, "a")
    await daemon.claim("a", tickets={("volc", Verb.START): []})
    one = Queue("volc", class_of(verb), verb)
    await run(
        database,
        f"UPDATE agent_status SET parked_class = {quoted(one.work_class.value)}, "  # noqa: S608 - a test's own words
        f"parked_verb = {quoted(verb.value)}",
    )
    assert await database.read(queue.find_queues) == {one}


# --- time


def test_a_commands_call_and_its_settle_fit_into_the_lanes_lease() -> None:
    assert LEASE.total_seconds() == 3
    assert COMMAND_TIMEOUT.total_seconds() == 2
    assert COMMAND_TIMEOUT.total_seconds() + SETTLE_RESERVE_NS / 1e9 <= LEASE.total_seconds()
    assert SHORTEST_COMMAND < COMMAND_TIMEOUT
