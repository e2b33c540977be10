"""Turns of the LLM gateway: what is written of them, how long it stays, what views tell of it."""

from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from orchestrator.core.turn import TurnOutcome, TurnReason
from orchestrator.store import llm_tasks, llm_turns, retention
from orchestrator.store.engine import Database
from orchestrator.store.engine import now as database_now
from orchestrator.store.llm_turns import Turn
from orchestrator.store.retention import Cutoffs
from tests.store.rows import TASK, query, run, update, value

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)


async def ago(database: Database, **since: float) -> datetime:
    """Return a moment of the past, by the database's clock."""
    return await database.read(database_now) - timedelta(**since)


async def a_turn(database: Database, **values: Any) -> Turn:
    """Return a turn that was answered just now; `values` are its other fields."""
    usual: dict[str, Any] = {
        "at": await ago(database, seconds=1),
        "task_id": "t1",
        "account": "acc",
        "incarnation": 1,
        "agent_id": "agent-1",
        "round": None,
        "try_": 1,
        "upstream": "main",
        "is_fallback": False,
        "outcome": TurnOutcome.ANSWERED,
        "reason": None,
        "first_token_ms": None,
        "total_ms": 900,
        "prompt_tokens": None,
        "completion_tokens": None,
        "finish_reason": None,
        "user_text": None,
        "agent_text": None,
    }
    return Turn(**{**usual, **values})


async def add(database: Database, *turns: Turn) -> None:
    await database.write(llm_turns.add, turns)


async def tell(database: Database, *told: llm_tasks.Told) -> None:
    await database.write(llm_tasks.note, told)


MAIN = llm_tasks.Told(task_id="t1", account="acc", upstream="main")


# --- rows


async def test_a_turn_is_written_as_it_was(database: Database) -> None:
    """Every field under its own name; `try` alone is called otherwise in Python."""
    whole = await a_turn(
        database,
        incarnation=3,
        round="round-1",
        try_=2,
        upstream="spare",
        is_fallback=True,
        reason=TurnReason.NO_WORD.value,
        first_token_ms=0,
        prompt_tokens=2**40,
        completion_tokens=0,
        finish_reason="stop",
        user_text="good day",
        agent_text="中🙂",
    )
    await add(database, whole)
    names = [one.name.rstrip("_") for one in fields(Turn) if one.name not in {"at", "is_fallback"}]
    (row,) = await query(database, f"SELECT {', '.join(names)} FROM llm_turn")  # noqa: S608 - names of ours
    wanted = {name: getattr(whole, "try_" if name == "try" else name) for name in names}
    assert dict(zip(names, row, strict=True)) == wanted
    assert await value(database, "SELECT count(*) FROM llm_turn WHERE is_fallback") == 1


async def test_turns_of_a_batch_keep_their_order_and_what_is_null_stays_null(
    database: Database,
) -> None:
    one = await a_turn(database)
    await add(database, *(replace(one, agent_id=f"agent-{number}") for number in range(5)))
    found = await query(database, "SELECT agent_id, round, user_text FROM llm_turn ORDER BY id")
    assert found == [(f"agent-{number}", None, None) for number in range(5)]
    await add(database)
    assert await value(database, "SELECT count(*) FROM llm_turn") == 5


@pytest.mark.parametrize("outcome", TurnOutcome)
async def test_each_trouble_is_one_event_and_nothing_else_is(
    database: Database, outcome: TurnOutcome
) -> None:
    turn = await a_turn(
        database, outcome=outcome, incarnation=2, reason="UpstreamStatus429", user_text="a word"
    )
    await add(database, turn)
    events = await query(
        database,
        "SELECT task_id, account, incarnation, event, action, outcome, code, message, latency_ms"
        " FROM agent_event",
    )
    told = ("t1", "acc", 2, "llm_turn", "main", outcome.value, "UpstreamStatus429", None, 900)
    is_well = outcome in {TurnOutcome.ANSWERED, TurnOutcome.INTERRUPTED}
    assert events == ([] if is_well else [told])


async def test_of_a_batch_only_what_went_wrong_is_told(database: Database) -> None:
    one = await a_turn(database)
    await add(database, *(replace(one, outcome=outcome) for outcome in TurnOutcome))
    found = await query(database, "SELECT outcome FROM agent_event ORDER BY id")
    assert found == [("cut",), ("failed",), ("refused",), ("ended",)]


async def test_an_outcome_that_nobody_knows_is_not_written(database: Database) -> None:
    await add(database, await a_turn(database))
    with pytest.raises(IntegrityError):
        await run(database, update("llm_turn", "outcome = 'lost'"))


# --- how long they stay


async def test_turns_have_a_time_of_their_own(database: Database) -> None:
    now = await ago(database)
    before = Cutoffs(events=now - 30 * DAY, commands=now, turns=now - 7 * DAY, ended=None)
    days = (1, 6, 8, 40)
    turns = [
        await a_turn(database, at=now - day * DAY, agent_id=f"{day}", outcome=TurnOutcome.FAILED)
        for day in days
    ]
    await add(database, *turns)
    # Two turns, and the event of the one that is older than events are kept.
    assert await database.write(retention.prune, before, 100) == 3
    kept = await query(database, "SELECT agent_id FROM llm_turn ORDER BY at")
    assert kept == [("6",), ("1",)]
    assert await value(database, "SELECT count(*) FROM agent_event") == 3
    assert await database.write(retention.prune, before, 100) == 0


# --- views


async def look(database: Database, view: str, *columns: str) -> list[tuple[Any, ...]]:
    return await query(database, f"SELECT {', '.join(columns)} FROM {view} ORDER BY 1, 2")  # noqa: S608 - a test's own words


COUNTS = (
    "turns", "rounds", "answered", "interrupted", "broken", "first_token_avg_ms",
    "first_token_max_ms", "prompt_tokens", "completion_tokens", "last_outcome", "last_reason",
)  # fmt: skip


async def talk(database: Database, *told: dict[str, Any]) -> None:
    """Write turns of one task, each a second after the one before."""
    for number, values in enumerate(told):
        at = await ago(database, seconds=100 - number)
        await add(database, await a_turn(database, at=at, **values))


async def test_what_the_overview_says_of_a_task(database: Database) -> None:
    await run(database, TASK, update("agent_task", 'labels = \'{"team": "a"}\''))
    await tell(database, MAIN)
    interrupted, failed = TurnOutcome.INTERRUPTED, TurnOutcome.FAILED
    await talk(
        database,
        {"round": "r1", "outcome": interrupted, "first_token_ms": 100},
        {"round": "r1", "first_token_ms": 301, "prompt_tokens": 10, "completion_tokens": 20},
        {"first_token_ms": 200, "prompt_tokens": 5, "completion_tokens": 5},
        {"outcome": failed, "reason": "UpstreamSilent"},
        {"round": "r2", "outcome": TurnOutcome.CUT, "first_token_ms": 401},
        {"outcome": TurnOutcome.REFUSED, "reason": "NotChat"},
        {"outcome": TurnOutcome.ENDED, "reason": "TaskStopped"},
    )
    await add(database, await a_turn(database, task_id="t2", outcome=failed))
    # Two rounds with a name, four without; an average of 250.5 ms.
    assert await look(database, "llm_overview", *COUNTS) == [
        (7, 6, 2, 1, 3, 251, 401, 15, 25, "ended", "TaskStopped")
    ]
    about = ("task_id", "account", "phase", "upstream", "talked_at", "silent_s")
    assert await look(database, "llm_overview", *about) == [
        ("t1", "acc", "pending", "main", None, None)
    ]
    labels = await value(database, "SELECT CAST(labels AS text) FROM llm_overview")
    assert "team" in labels


async def test_a_task_that_never_asked_and_one_that_is_gone_are_there_too(
    database: Database,
) -> None:
    await tell(database, MAIN)
    assert await look(database, "llm_overview", "task_id", "phase", *COUNTS) == [
        ("t1", None, 0, 0, 0, 0, 0, None, None, None, None, None, None)
    ]


async def test_how_long_nobody_has_talked(database: Database) -> None:
    await tell(database, MAIN)
    await database.write(llm_tasks.note_talk, {"t1": await ago(database, seconds=90)})
    silent_s = await value(database, "SELECT silent_s FROM llm_overview")
    assert 90 <= silent_s < 600


async def test_how_each_upstream_does(database: Database) -> None:
    first, spare = {"first_token_ms": 100}, {"upstream": "spare", "is_fallback": True}
    await talk(
        database,
        {**first, "prompt_tokens": 1, "completion_tokens": 2},
        {"first_token_ms": 201, "outcome": TurnOutcome.INTERRUPTED},
        {"outcome": TurnOutcome.FAILED},
        {"outcome": TurnOutcome.CUT},
        {"outcome": TurnOutcome.REFUSED},
        spare,
        {"account": "other", **first},
    )
    # Who is not wanted says nothing about an upstream, and what is past nothing about now.
    await add(
        database,
        await a_turn(database, upstream="none", outcome=TurnOutcome.ENDED),
        await a_turn(database, upstream="old", at=await ago(database, minutes=6)),
    )
    names = ("account", "upstream", "turns", "answered", "interrupted", "broken", "fallbacks")
    assert await look(database, "llm_health", *names) == [
        ("acc", "main", 5, 1, 1, 3, 0),
        ("acc", "spare", 1, 1, 0, 0, 1),
        ("other", "main", 1, 1, 0, 0, 0),
    ]
    figures = ("account", "upstream", *COUNTS[5:9])
    assert await look(database, "llm_health", *figures) == [
        ("acc", "main", 151, 201, 1, 2),
        ("acc", "spare", None, None, None, None),
        ("other", "main", 100, 100, None, None),
    ]
