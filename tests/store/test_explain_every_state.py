"""Every state that a task or a command can be in has its sentence, and both databases the same.

The words come from the enums of the core: a new one without a phrase fails here.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from orchestrator.core.model import EndReason, Phase, Verb, WaitingFor
from orchestrator.store.engine import Database, now, open_database
from orchestrator.store.schema import (
    account_control,
    account_state,
    agent_status,
    agent_task,
    daemon,
    orphan_task,
    task_change,
    task_owner,
    vendor_agent,
)
from tests.store.rows import query, run, update

pytestmark = pytest.mark.anyio

PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
SPELLED = {"2020-01-01 00:00:00 UTC": "PAST", "2040-01-01 00:00:00 UTC": "FUTURE"}

Values = Mapping[str, Any]


def spelled(sentence: str) -> str:
    """Return a sentence with the two times of this file as words."""
    for time, word in SPELLED.items():
        sentence = sentence.replace(time, word)
    return sentence


# --- rows as they can stand


def write_accounts(connection: Connection) -> None:
    """Add accounts in every state that an account can be in, and owners."""
    names = ["acc", "quiet", "paused", "frozen", "denied", "elsewhere"]
    connection.execute(
        insert(account_control),
        [{"account": a, "paused": a == "paused", "frozen": a == "frozen"} for a in names],
    )
    connection.execute(
        insert(account_state),
        [
            {
                "account": a,
                "denied_code": "Overdue" if a == "denied" else None,
                "probe_at": FUTURE if a == "denied" else None,
            }
            for a in names
        ],
    )
    owners = [{"name": name, "heartbeat_timeout_s": 10} for name in ("well", "silent", "gone")]
    connection.execute(insert(task_owner), owners)
    served = [a for a in names if a not in {"quiet", "elsewhere"}]
    for id_, accounts, draining in (("one", served, False), ("two", ["quiet"], True)):
        row = {"id": id_, "name": id_, "host": "here", "pid": 1, "version": "1"}
        times = {"heartbeat_at": now(connection) + timedelta(hours=1)}
        connection.execute(
            insert(daemon).values(**row, **times, accounts=accounts, draining=draining)
        )


def write_tasks(connection: Connection, rows: Sequence[tuple[Values, Values | None]]) -> None:
    """Add statuses, each with its task; null: the task is deleted. Nobody's change waits."""
    place = {"room_id": "room", "user_id": "human"}
    known = {c.name for c in agent_status.columns}
    statuses = [
        {**dict.fromkeys(sorted(known & _WRITTEN)), **_CALM, **place, **status}
        for status, _ in rows
    ]
    connection.execute(insert(agent_status), statuses)
    tasks = [
        {**_TASK, **place, "id": s["task_id"], "account": s.get("account", "acc"), **t}
        for s, t in rows
        if t is not None
    ]
    if tasks:
        connection.execute(insert(agent_task), tasks)
    connection.execute(task_change.delete())


_WRITTEN = {"reason", "message", "waiting_for", "end_reason", "intent", "intent_at", "lease_until"}
_WRITTEN |= {"confirmed_at", "retry_at", "stop_due_at"}
_CALM: Values = {
    "account": "acc",
    "phase_since": PAST,
    "due_at": FUTURE,
    "incarnation": 1,
    "retired": 0,
    "update_due": False,
}
_TASK: Values = dict.fromkeys(("owner", "stop_at", "start_at", "heartbeat_timeout_s")) | {
    "desired_state": "running"
}
UNSTAMPED = {
    "sqlite": "DROP TRIGGER task_owner_stamp_update",
    "postgresql": "DROP TRIGGER task_owner_stamp ON task_owner",
}


async def lose_owners(database: Database) -> None:
    """Let one owner be silent since 2020, which the database prevents, and one be gone."""
    silent = update("task_owner", "heartbeat_at = '2020-01-01 00:00:00.000000'")
    await run(
        database,
        UNSTAMPED[database.dialect],
        f"{silent} WHERE name = 'silent'",
        "DELETE FROM task_owner WHERE name = 'gone'",
        "DELETE FROM task_change",
    )


@pytest.fixture
async def peopled(database: Database) -> Database:
    """A database with accounts, owners and daemons, and no task."""
    await database.write(write_accounts)
    return database


# --- sentences as they read

IN_FLIGHT: Values = {"intent_at": PAST, "lease_until": FUTURE}
ENDS: Values = {"phase": "stopping", "retired": 1}
SENTENCES: Mapping[str, tuple[Values, Values | None, str]] = {
    "new": (
        {"phase": "pending"},
        {},
        "not started yet, since PAST; looked at again at FUTURE",
    ),
    "later": (
        {"phase": "pending", "waiting_for": "start_at"},
        {"start_at": FUTURE},
        "not started yet, since PAST; waits for its start_at, until FUTURE",
    ),
    "in the queue": (
        {"phase": "pending", "waiting_for": "rate_limit"},
        {},
        (
            "not started yet, since PAST; waits for its turn in the account's rate limit;"
            " given up at FUTURE if not started by then"
        ),
    ),
    "refused for now": (
        {
            "phase": "pending",
            "waiting_for": "retry",
            "retry_at": FUTURE,
            "reason": "Busy",
            "message": "too many",
        },
        {},
        "not started yet, since PAST; waits to be tried again, until FUTURE; Busy: too many",
    ),
    "nothing answers": (
        {"phase": "pending", "waiting_for": "circuit_open", "reason": "Timeout"},
        {},
        (
            "not started yet, since PAST; waits, since the vendor does not answer, until FUTURE;"
            " Timeout"
        ),
    ),
    "full at the vendor": (
        {"phase": "pending", "waiting_for": "capacity", "retry_at": FUTURE, "reason": "410000011"},
        {},
        (
            "not started yet, since PAST; waits, since the account has as many agents as it may,"
            " until FUTURE; 410000011"
        ),
    ),
    "full with us": (
        {"phase": "pending", "waiting_for": "capacity"},
        {},
        (
            "not started yet, since PAST; waits, since the account has as many agents as it may;"
            " end another, or raise max_agents; given up at FUTURE if not started by then"
        ),
    ),
    "denied": (
        {"phase": "pending", "account": "denied", "waiting_for": "denied", "reason": "Overdue"},
        {},
        (
            "not started yet, since PAST; waits, since the vendor denies the account (Overdue),"
            " until FUTURE; mend its keys, rights or balance, and to try at once set"
            " account_control.retry_at; Overdue"
        ),
    ),
    "paused": (
        {"phase": "pending", "account": "paused", "waiting_for": "paused"},
        {},
        (
            "not started yet, since PAST; waits, since the account is paused; to let it start, set"
            " account_control.paused to false; given up at FUTURE if not started by then"
        ),
    ),
    "again": (
        {"phase": "pending", "end_reason": "vendor_fault", "incarnation": 2, "retired": 1},
        {},
        (
            "not started again yet, since PAST (the last one ended, because the vendor had a"
            " fault); looked at again at FUTURE"
        ),
    ),
    "on its way": (
        {"phase": "starting", "intent": "start", **IN_FLIGHT},
        {},
        "starting since PAST; a start is on its way since PAST, an answer is awaited until FUTURE",
    ),
    "its daemon died": (
        {"phase": "starting", "intent": "start", "intent_at": PAST, "lease_until": PAST},
        {},
        "starting since PAST; a start was sent at PAST, and nobody knows what became of it",
    ),
    "its answer was lost": (
        {"phase": "starting", "waiting_for": "retry", "retry_at": FUTURE, "reason": "Timeout"},
        {},
        (
            "starting since PAST; a start was sent, and nobody knows what became of it;"
            " waits to be tried again, until FUTURE; Timeout"
        ),
    ),
    "running": (
        {"phase": "running", "confirmed_at": PAST},
        {},
        "running since PAST, seen in the room",
    ),
    "not seen": ({"phase": "running"}, {}, "running since PAST, not yet seen in the room"),
    "until its deadline": (
        {"phase": "running", "confirmed_at": PAST, "stop_due_at": FUTURE},
        {"stop_at": FUTURE},
        "running since PAST, seen in the room; ends at FUTURE, its stop_at",
    ),
    "while its owner lives": (
        {"phase": "running", "confirmed_at": PAST, "stop_due_at": FUTURE},
        {"owner": "well"},
        "running since PAST, seen in the room; ends at FUTURE, unless a heartbeat comes",
    ),
    "not for ever": (
        {"phase": "running", "confirmed_at": PAST, "stop_due_at": FUTURE},
        {},
        "running since PAST, seen in the room; ends at FUTURE, after its longest duration",
    ),
    "its owner was lost": (
        {"phase": "running", "confirmed_at": PAST},
        {"owner": "gone"},
        "running since PAST, seen in the room; its owner gone is gone",
    ),
    "its owner is silent": (
        {"phase": "running", "confirmed_at": PAST},
        {"owner": "silent"},
        "running since PAST, seen in the room; no heartbeat of its owner silent since PAST",
    ),
    "deaf": (
        {"phase": "running", "confirmed_at": PAST, "reason": "ASRError", "message": "no audio"},
        {},
        "running since PAST, seen in the room; ASRError: no audio",
    ),
    "to be changed": (
        {"phase": "running", "confirmed_at": PAST, "update_due": True, "waiting_for": "retry"},
        {},
        (
            "running since PAST, seen in the room; waits to be tried again, until FUTURE;"
            " its changed spec is not brought to it yet"
        ),
    ),
    "frozen while it runs": (
        {"phase": "running", "account": "frozen", "confirmed_at": PAST, "stop_due_at": FUTURE},
        {"stop_at": FUTURE},
        (
            "running since PAST, seen in the room; ends at FUTURE, its stop_at;"
            " the account is frozen, so no call leaves"
        ),
    ),
    "stopped by its row": (
        {**ENDS, "end_reason": "requested", "intent": "stop", **IN_FLIGHT},
        {"desired_state": "stopped"},
        (
            "stopping since PAST, because its row asked for that;"
            " a stop is on its way since PAST, an answer is awaited until FUTURE"
        ),
    ),
    "not believed yet": (
        {**ENDS, "end_reason": "deadline", "waiting_for": "proof"},
        {},
        (
            "stopping since PAST, because its time was over;"
            " waits for proof that nothing runs, until FUTURE"
        ),
    ),
    "cannot be stopped": (
        {**ENDS, "account": "frozen", "end_reason": "requested", "waiting_for": "frozen"},
        {"desired_state": "stopped"},
        (
            "stopping since PAST, because its row asked for that; waits, since the account is"
            " frozen; to let calls leave, set account_control.frozen to false"
        ),
    ),
    "replaced": (
        {**ENDS, "incarnation": 2, "end_reason": "superseded", "waiting_for": "proof"},
        {},
        (
            "stopping since PAST, because another was to take its place; after that the next one"
            " starts; waits for proof that nothing runs, until FUTURE"
        ),
    ),
    "deleted": (
        {**ENDS, "end_reason": "deleted", "waiting_for": "retry", "reason": "InternalError"},
        None,
        (
            "stopping since PAST, because its row was deleted; waits to be tried again,"
            " until FUTURE; InternalError"
        ),
    ),
    "whose account was removed": (
        {**ENDS, "account": "elsewhere", "end_reason": "requested", "waiting_for": "account"},
        {"desired_state": "stopped"},
        (
            "stopping since PAST, because its row asked for that; waits for a daemon that has the"
            " account elsewhere; add the account to a daemon's configuration;"
            " who knows that it is gone inserts assume_gone into task_change"
        ),
    ),
    "whose daemon leaves": (
        {"phase": "running", "account": "quiet", "confirmed_at": PAST},
        {},
        "running since PAST, seen in the room; every daemon that has the account is shutting down",
    ),
    "lost": (
        {"phase": "quarantined", "retired": 1, "end_reason": "requested", "waiting_for": "proof"},
        {"desired_state": "stopped"},
        (
            "perhaps running, nobody knows, since PAST, because its row asked for that;"
            " waits for proof that nothing runs, until FUTURE;"
            " who knows that it is gone inserts assume_gone into task_change"
        ),
    ),
    "over": (
        {"phase": "stopped", "retired": 1, "end_reason": "requested"},
        {"desired_state": "stopped"},
        "ended at PAST, because its row asked for that",
    ),
    "over by itself": (
        {"phase": "stopped", "retired": 1, "end_reason": "idle"},
        {},
        "ended at PAST, because nobody talked to it; to run it again, set another restart_token",
    ),
    "over and deleted": (
        {"phase": "stopped", "retired": 1, "end_reason": "deleted"},
        None,
        "ended at PAST, because its row was deleted; its row is deleted, so it will be forgotten",
    ),
    "failed": (
        {
            "phase": "failed",
            "retired": 1,
            "end_reason": "start_failed",
            "reason": "InvalidParameter",
            "message": "no such model",
        },
        {},
        (
            "failed at PAST, because it could not be started; not tried again until its row"
            " changes: set another restart_token, or mend its spec; InvalidParameter: no such model"
        ),
    ),
}


@pytest.mark.parametrize(("status", "task", "sentence"), SENTENCES.values(), ids=SENTENCES)
async def test_a_task_is_explained(
    peopled: Database, status: Values, task: Values | None, sentence: str
) -> None:
    await peopled.write(write_tasks, [({"task_id": "t1", **status}, task)])
    await lose_owners(peopled)
    assert await explained(peopled) == {"t1": sentence}


async def explained(database: Database) -> dict[str, str]:
    rows = await query(database, "SELECT task_id, explanation FROM task_explain")
    return {id_: spelled(str(sentence)) for id_, sentence in rows}


SILENCE = {
    update("daemon", "heartbeat_at = '2020-01-01 00:00:00'"): (
        "no daemon has said that it runs since PAST: start one"
    ),
    "DELETE FROM daemon": "no daemon runs: start one",
    update("daemon", "accounts = '[]'"): "no running daemon has the account acc",
    update("daemon", "draining = true"): "every daemon that has the account is shutting down",
}


@pytest.mark.parametrize(("statement", "told"), SILENCE.items(), ids=SILENCE.values())
async def test_a_task_that_nobody_looks_after_says_so(
    peopled: Database, statement: str, told: str
) -> None:
    rows: list[tuple[Values, Values]] = [
        ({"task_id": "t1", "phase": "running", "confirmed_at": PAST}, {}),
        ({"task_id": "t2", "phase": "stopped", "retired": 1}, {"desired_state": "stopped"}),
    ]
    await peopled.write(write_tasks, rows)
    await run(peopled, statement)
    # Where nothing is left to do, nobody is missed.
    assert await explained(peopled) == {
        "t1": f"running since PAST, seen in the room; {told}",
        "t2": "ended at PAST",
    }


async def test_what_is_not_taken_yet_is_told_of_what_ended_too(peopled: Database) -> None:
    await peopled.write(write_tasks, [({"task_id": "t1", "phase": "stopped", "retired": 1}, {})])
    await run(
        peopled,
        update("agent_task", "restart_token = 'x'"),
        update("task_change", "at = '2020-01-01 00:00:00'"),
        "DELETE FROM daemon",
    )
    assert await explained(peopled) == {
        "t1": "ended at PAST; no daemon runs: start one; a change of PAST is not taken yet"
    }


async def test_proof_is_awaited_until_the_last_horizon(peopled: Database) -> None:
    await peopled.write(
        write_tasks, [({"task_id": "t1", **ENDS, "waiting_for": "proof", "due_at": PAST}, {})]
    )

    def write_agents(connection: Connection) -> None:
        for id_, horizon_at in (("a1", PAST), ("a2", FUTURE)):
            row = {"id": id_, "task_id": "t1", "account": "acc", "site": "{}"}
            connection.execute(insert(vendor_agent).values(**row, horizon_at=horizon_at))

    await peopled.write(write_agents)
    assert (await explained(peopled))["t1"].endswith("that nothing runs, until FUTURE")


async def test_a_time_that_an_application_wrote_reads_like_any_other(peopled: Database) -> None:
    await peopled.write(
        write_tasks, [({"task_id": "t1", "phase": "pending", "waiting_for": "start_at"}, {})]
    )
    await run(
        peopled,
        update("agent_task", "start_at = '2040-01-01T02:00:00+02:00'"),
        "DELETE FROM task_change",
    )
    assert (await explained(peopled))["t1"].endswith("waits for its start_at, until FUTURE")


# --- every state there is

DESIRED: Sequence[Values | None] = ({}, {"desired_state": "stopped"}, None)
WAITS = (None, *(each.value for each in WaitingFor))
ENDS_BY = (None, *(each.value for each in EndReason))
CALLS: Sequence[Values] = (
    {},
    *(
        {"intent": verb.value, "intent_at": PAST, "lease_until": until}
        for verb in Verb
        for until in (PAST, FUTURE)
    ),
)
TROUBLE: Sequence[Values] = ({}, {"reason": "Code"}, {"reason": "Code", "message": "words"})
SEEN: Sequence[Values] = ({}, {"confirmed_at": PAST, "stop_due_at": FUTURE})
LIVES: Sequence[Values] = ({}, {"incarnation": 2, "retired": 1}, {"retired": 1})
OWNERS: Sequence[Values] = ({}, *({"owner": name} for name in ("well", "silent", "gone")))
ACCOUNTS = ("acc", "quiet", "paused", "frozen", "denied", "elsewhere")
Row = tuple[dict[str, Any], Values | None]


def of_the_task() -> Iterator[Row]:
    """Yield what the row, its wishes, its trouble and its call can be together."""
    for phase, task, wait, end, trouble in product(Phase, DESIRED, WAITS, ENDS_BY, TROUBLE[::2]):
        status = {"phase": phase.value, "waiting_for": wait, "end_reason": end, **trouble}
        yield status, task
    for phase, task, call, life, trouble in product(Phase, DESIRED, CALLS, LIVES, TROUBLE):
        yield {"phase": phase.value, **call, **life, **trouble}, task


def of_its_surroundings() -> Iterator[Row]:
    """Yield what its account, its owner and its daemons can be together with how it stands."""
    present = [task for task in DESIRED if task is not None]
    for phase, wait, account, seen in product(Phase, WAITS, ACCOUNTS, SEEN):
        status = {"phase": phase.value, "waiting_for": wait, "account": account, **seen}
        yield from ((status, task) for task in DESIRED)
    for phase, task, seen, owner, due in product(Phase, present, SEEN, OWNERS, (False, True)):
        yield {"phase": phase.value, "update_due": due, **seen}, {**task, **owner}


STATES: Sequence[Row] = [
    ({"task_id": f"t{n}", **status}, task)
    for n, (status, task) in enumerate([*of_the_task(), *of_its_surroundings()])
]
MADE_BADLY = re.compile(r"None|null|NULL|  |\(\)|; ;|,,|, ;|: ;|^\W|[\s;,:]$")


@pytest.fixture
async def both(sqlite_url: str, postgres_url: str) -> AsyncIterator[list[Database]]:
    """A database of each kind."""
    opened = [open_database(url) for url in (sqlite_url, postgres_url)]
    yield opened
    for database in opened:
        await database.close()


async def test_every_state_of_a_task_has_a_sentence(both: list[Database]) -> None:
    told = []
    for database in both:
        await database.write(write_accounts)
        await database.write(write_tasks, STATES)
        past = "heartbeat_at = '2020-01-01 00:00:00'"
        await lose_owners(database)
        told.append([await explained(database)])
        for silence in (update("daemon", past), "DELETE FROM daemon"):
            await run(database, silence)
            told[-1].append(await explained(database))
    for sentences in told[0]:
        assert len(sentences) == len(STATES)
        assert [one for one in sentences.values() if MADE_BADLY.search(one)] == []
    assert told[0] == told[1]


WORDS: Mapping[str, type[StrEnum]] = {
    "phase": Phase,
    "waiting_for": WaitingFor,
    "end_reason": EndReason,
    "intent": Verb,
}


@pytest.mark.parametrize("column", WORDS)
async def test_every_word_has_a_phrase(peopled: Database, column: str) -> None:
    """Its own: no two words read alike, and none is shown as it is in the row."""
    words = list(WORDS[column])
    calm: Values = {"phase": "pending" if column == "waiting_for" else "stopping", **IN_FLIGHT}
    rows: list[Row] = [({"task_id": w.value, **calm, column: w.value}, {}) for w in words]
    await peopled.write(write_tasks, rows)
    sentences = await explained(peopled)
    assert len(set(sentences.values())) == len(words)
    shown = {
        w.value
        for w in words
        if re.search(rf"(for|because|;) {w.value}( is| was|[;,]|$)", sentences[w.value])
    }
    assert shown == set()


async def test_an_orphan_is_no_task(peopled: Database) -> None:
    await peopled.write(write_tasks, [({"task_id": "~o1", "phase": "stopping"}, None)])

    def write_orphan(connection: Connection) -> None:
        connection.execute(insert(orphan_task).values(id="o1", account="acc"))

    await peopled.write(write_orphan)
    for view in ("task_explain", "task_overview", "convergence"):
        assert await query(peopled, f"SELECT * FROM {view}") == []  # noqa: S608 - from the line above
    assert [row[0] for row in await query(peopled, "SELECT id FROM orphan_overview")] == ["o1"]
