"""Tasks whose agents ask the LLM gateway, and who asks: from the announce to the last trace."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import asyncpg
import pytest

from orchestrator.core.model import Verb
from orchestrator.core.outcome import Done
from orchestrator.core.turn import Caller, Standing, stand
from orchestrator.daemon.book import Book, Keys
from orchestrator.daemon.listening import Listen
from orchestrator.daemon.llm.frame import LlmFrame, Upstream
from orchestrator.store import llm_tasks, retention
from orchestrator.store.columns import write_json
from orchestrator.store.engine import Database, open_database
from orchestrator.store.engine import now as database_now
from orchestrator.store.llm_tasks import Told
from orchestrator.store.retention import Cutoffs
from tests.store.claiming import SPEC, Daemon, make_desk, providers, runtime, want
from tests.store.rows import insert, query, quoted, run, update, value

pytestmark = pytest.mark.anyio

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
OLD = "'2020-01-01 00:00:00.000000'"


def told(task_id: str, upstream: str | None, account: str = "acc") -> Told:
    return Told(task_id=task_id, account=account, upstream=upstream)


async def note(database: Database, *these: Told) -> None:
    await database.write(llm_tasks.note, these)


async def noted(database: Database) -> dict[str, tuple[str, str]]:
    """Return account and upstream of each task that asks."""
    found = await query(database, "SELECT task_id, account, upstream FROM llm_task")
    return {task_id: (account, upstream) for task_id, account, upstream in found}


async def talked(database: Database) -> dict[str, str | None]:
    """Return when each task last asked, to the second."""
    found = await query(database, "SELECT task_id, talked_at FROM llm_task")
    return {id_: None if at is None else str(at)[:19] for id_, at in found}


# --- which upstream a task asks


async def test_what_agents_were_told_is_noted_and_the_last_word_counts(database: Database) -> None:
    await note(database, told("b", "main"), told("a", "spare"))
    assert await noted(database) == {"a": ("acc", "spare"), "b": ("acc", "main")}
    await note(database, told("b", "spare", "other"), told("a", None), told("none", None))
    assert await noted(database) == {"b": ("other", "spare")}
    await note(database)
    assert await noted(database) == {"b": ("other", "spare")}


async def test_another_upstream_does_not_make_a_talk_forgotten(database: Database) -> None:
    await note(database, told("a", "main"))
    await database.write(llm_tasks.note_talk, {"a": T0})
    await note(database, told("a", "spare"))
    assert (await talked(database))["a"] == "2026-01-01 00:00:00"


async def test_what_is_forgotten_leaves_the_others(database: Database) -> None:
    await note(database, *(told(id_, "main") for id_ in ("a", "b", "c")))
    await database.write(llm_tasks.forget, ["a", "c", "never"])
    await database.write(llm_tasks.forget, [])
    assert list(await noted(database)) == ["b"]


# --- when somebody talked


async def test_a_talk_is_noted_for_who_asks_and_for_nobody_else(database: Database) -> None:
    await note(database, told("a", "main"), told("b", "main"))
    # Who waited for a task that asks no more would wait for ever.
    assert await database.write(llm_tasks.note_talk, {"a": T0, "gone": T0}) == set()
    assert await talked(database) == {"a": "2026-01-01 00:00:00", "b": None}


@pytest.mark.parametrize(("later_s", "kept_s"), [(-5, 0), (0, 0), (5, 5)])
async def test_a_talk_that_comes_late_takes_nothing_back(
    database: Database, later_s: int, kept_s: int
) -> None:
    await note(database, told("a", "main"))
    for at in (T0, T0 + later_s * SECOND):
        await database.write(llm_tasks.note_talk, {"a": at})
    assert await talked(database) == {"a": f"2026-01-01 00:00:0{kept_s}"}


@pytest.fixture
async def two(postgres_url: str, anyio_backend: str) -> AsyncIterator[tuple[Database, Any]]:
    """A database where others can hold rows, and one of these others."""
    del anyio_backend  # asked for, so that it is there before this
    database, other = open_database(postgres_url), await asyncpg.connect(postgres_url)
    try:
        yield database, other
    finally:
        await other.close()
        await database.close()


async def test_a_row_that_others_hold_is_waited_for_by_nobody(two: tuple[Database, Any]) -> None:
    database, other = two
    await note(database, told("held", "main"), told("free", "main"))
    async with other.transaction():
        await other.execute("SELECT * FROM llm_task WHERE task_id = 'held' FOR UPDATE")
        left = await database.write(llm_tasks.note_talk, {"held": T0, "free": T0})
    assert left == {"held"}
    assert await talked(database) == {"held": None, "free": "2026-01-01 00:00:00"}
    assert await database.write(llm_tasks.note_talk, {"held": T0}) == set()
    assert (await talked(database))["held"] == "2026-01-01 00:00:00"


# --- who asks

WISHES = ("running", "stopped", "deleted")
STATUSES: Mapping[str, str] = {
    "of this start": update("agent_status", "incarnation = 2, retired = 1"),
    "of a start after it": update("agent_status", "incarnation = 3, retired = 2"),
    "lost": "DELETE FROM agent_status",
}
AXES = tuple(product(WISHES, STATUSES, (False, True), (False, True)))


def arrange(wish: str, status: str, *, has_ended: bool, is_seen: bool) -> Iterator[str]:
    """Yield what brings an agent of the second incarnation there."""
    yield insert("agent_task", id="'t'", account="'acc'", room_id="'r'", user_id="'u'")
    yield insert(
        "vendor_agent",
        id="'agent'",
        task_id="'t'",
        incarnation="2",
        account="'acc'",
        site="''",
        ended_at=OLD if has_ended else "NULL",
        vendor_task_id="'V1'" if is_seen else "NULL",
    )
    if is_seen:
        yield update("agent_status", f"confirmed_at = {OLD}")
    if wish == "stopped":
        yield update("agent_task", "desired_state = 'stopped'")
    if wish == "deleted":
        yield "DELETE FROM agent_task"
    yield STATUSES[status]


def expected(wish: str, status: str, *, has_ended: bool) -> Standing:
    if has_ended:
        return Standing.GONE
    if wish != "running" or status == "lost":
        return Standing.STOPPED
    return Standing.WANTED if status == "of this start" else Standing.SUPERSEDED


async def find(database: Database, *ids: str) -> dict[str, Caller]:
    return await database.read(llm_tasks.find_callers, ids)


@pytest.mark.parametrize(("wish", "status", "has_ended", "is_seen"), AXES)
async def test_every_standing_of_who_asks(
    database: Database, wish: str, status: str, *, has_ended: bool, is_seen: bool
) -> None:
    await run(database, *arrange(wish, status, has_ended=has_ended, is_seen=is_seen))
    found = await find(database, "agent", "nobody")
    assert list(found) == ["agent"]
    caller = found["agent"]
    assert stand(caller) is expected(wish, status, has_ended=has_ended)
    assert replace(caller, ended_at=None) == Caller(
        vendor_task_id="V1" if is_seen else None,
        ended_at=None,
        incarnation=2,
        retired={"of this start": 1, "of a start after it": 2, "lost": None}[status],
        is_wanted=wish == "running",
        is_confirmed=is_seen and status != "lost",
    )
    assert (caller.ended_at is not None) is has_ended


async def test_the_agent_of_an_orphan_is_nobody_s(database: Database) -> None:
    agent = {"id": "'agent'", "orphan_id": "'o'", "account": "'acc'", "site": "''"}
    await run(database, insert("vendor_agent", **agent))
    assert stand((await find(database, "agent"))["agent"]) is Standing.STOPPED


async def test_many_are_looked_up_at_once_each_by_its_own_row(database: Database) -> None:
    for number in range(3):
        id_ = quoted(f"t{number}")
        place = {"account": "'acc'", "room_id": "'r'", "user_id": "'u'"}
        agent = {"id": quoted(f"a{number}"), "task_id": id_, "incarnation": f"{number}"}
        await run(
            database,
            insert("agent_task", id=id_, **place),
            insert("vendor_agent", **agent, account="'acc'", site="''"),
        )
    found = await find(database, "a2", "a0", "a2", "nobody")
    assert {id_: one.incarnation for id_, one in found.items()} == {"a0": 0, "a2": 2}
    assert await find(database) == {}


# --- from the announce to the last trace

GATEWAY_SPEC = {"Config": {"LLMConfig": {"$llm_gateway": "main"}}}


def book_with_gateway() -> Book:
    known = providers()["volc"]
    upstream = Upstream(
        name="main",
        url="https://models.invalid/v1/chat/completions",
        headers={},
        model=None,
        fallback=None,
        pass_fields=(),
        pass_headers=(),
        counts_tokens=True,
    )
    keys = Keys(accounts={"volc": runtime("volc", known)}, secrets={}, upstreams={"main": upstream})
    return Book(
        keys,
        LlmFrame(
            listen=Listen(key="llm_gateway.listen", host="127.0.0.1", port=1),
            public_url="https://bots.invalid",
            token_secrets=("fake-token-secret",),
            max_body_bytes=1_000,
            first_token_timeout=4 * SECOND,
            total_timeout=60 * SECOND,
            apology="",
            keep_text=False,
        ),
    )


@pytest.fixture
async def daemon(database: Database) -> Daemon:
    return await Daemon(database, make_desk(book_with_gateway())).ready()


async def want_words(daemon: Daemon, *ids: str) -> None:
    await want(daemon.database, *ids, spec=quoted(write_json(GATEWAY_SPEC)))


async def test_a_start_notes_whom_its_agent_asks(daemon: Daemon) -> None:
    await want_words(daemon, "asks")
    await want(daemon.database, "asks-not")
    assert await noted(daemon.database) == {}
    # At its announce: it may ask before its start has been answered.
    for id_ in ("asks", "asks-not"):
        assert (await daemon.claim_one(id_)).flight.verb is Verb.START
    assert await noted(daemon.database) == {"asks": ("volc", "main")}


async def test_a_start_without_the_gateway_takes_the_note_away(daemon: Daemon) -> None:
    database = daemon.database
    await want_words(daemon, "a")
    await daemon.start("a")
    await run(database, update("agent_task", f"spec = {quoted(write_json(SPEC))}"))
    assert await daemon.run_to_end("a", Done(), Done(handle="h2")) == [Verb.STOP, Verb.START]
    assert await noted(database) == {}


async def test_the_note_goes_with_a_task_that_is_deleted(daemon: Daemon) -> None:
    database = daemon.database
    await want_words(daemon, "a", "stays")
    await daemon.start("a")
    await daemon.start("stays")
    await run(database, "DELETE FROM agent_task WHERE id = 'a'")
    # While its agent may run, somebody may want to know whom it asks.
    assert await daemon.run_to_end("a", Done()) == [Verb.STOP]
    await daemon.claim("a")
    assert await value(database, "SELECT count(*) FROM agent_status WHERE task_id = 'a'") == 0
    assert list(await noted(database)) == ["stays"]


async def test_the_note_goes_with_a_task_that_is_forgotten(daemon: Daemon) -> None:
    database = daemon.database
    await want_words(daemon, "a", "stays")
    await daemon.start("a")
    await daemon.start("stays")
    await run(database, "UPDATE agent_task SET desired_state = 'stopped' WHERE id = 'a'")
    assert await daemon.run_to_end("a", Done()) == [Verb.STOP]
    assert set(await noted(database)) == {"a", "stays"}
    later = await database.read(database_now) + timedelta(days=1)
    before = Cutoffs(events=later, commands=later, turns=later, ended=later)
    await database.write(retention.prune, before, 100)
    assert list(await noted(database)) == ["stays"]
