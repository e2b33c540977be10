"""docs/sql.md, run as it stands there: every idiom with its effect, every question with its answer.

On Postgres an application's statements run as `orchestrator_app`, questions as
`orchestrator_reader`, and what is the operator's as `orchestrator_operator`.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import asyncpg
import pytest

from orchestrator.core.outcome import Refused
from orchestrator.store.engine import Database
from tests.daemon.application import SQLITE
from tests.store.duty import Duty, begin_duty
from tests.store.night import tell
from tests.store.rows import Rows, query, run
from tests.store.sql_client import APP, OPERATOR, Answer, run_as
from tests.store.sql_document import (
    IDIOMS,
    PATH,
    QUESTIONS,
    Block,
    ask,
    blocks,
    from_text,
    is_alike,
    questions,
    to_text,
)

pytestmark = pytest.mark.anyio

TEXT = PATH.read_text(encoding="utf-8")
BLOCKS = blocks(TEXT)
TASKS = "SELECT task_id, phase, incarnation FROM agent_status ORDER BY task_id"
COMMANDS = "SELECT id, state FROM agent_command ORDER BY id"
OWN_TABLE = "CREATE TABLE customer_call (id TEXT PRIMARY KEY, customer TEXT NOT NULL)"
GRANT = "GRANT SELECT, INSERT ON customer_call TO orchestrator_app"

START, RESTART, CHANGE = "Start once", "Start again", "Change what runs"
PRESS, SAY = "Press and release", "Say, interrupt, tell"


@dataclass(frozen=True)
class Idiom:
    """What is to be true after an idiom, wherever it stands among retries."""

    look: str
    """The query that shows its effect."""
    then: Rows
    """What that shows when the daemon has done its part."""
    after: Sequence[str] = (START,)
    """The idioms that come before it, each carried out."""
    is_refused_twice: bool = False
    """It is one that is written for once only."""


EFFECTS: dict[str, Idiom] = {
    START: Idiom(TASKS, [("call-17", "running", 1)], after=()),
    "Start at a time, in time, and not for ever": Idiom(
        "SELECT task_id, phase, waiting_for FROM agent_status",
        [("call-30", "pending", "start_at")],
        after=(),
    ),
    "Stop": Idiom(
        "SELECT phase, end_reason, incarnation FROM agent_status", [("stopped", "requested", 1)]
    ),
    "Stop and forget": Idiom(
        "SELECT (SELECT count(*) FROM agent_task), evidence FROM vendor_agent", [(0, "stopped")]
    ),
    RESTART: Idiom(TASKS, [("call-17", "running", 2)]),
    CHANGE: Idiom(TASKS, [("call-17", "running", 2)]),
    "One heartbeat for all agents of a process": Idiom(
        "SELECT task_id, phase, stop_due_at IS NOT NULL FROM agent_status",
        [("call-31", "running", True)],
        after=(),
    ),
    "A heartbeat for one call": Idiom(
        "SELECT s.phase, s.stop_due_at IS NOT NULL, t.heartbeat_at IS NOT NULL"
        " FROM agent_status s JOIN agent_task t ON t.id = s.task_id",
        [("running", True, True)],
    ),
    PRESS: Idiom(
        "SELECT c.id, c.state, l.numbering FROM agent_command c"
        " JOIN lane l ON l.user_id = c.user_id ORDER BY c.id",
        [
            ("press-1", "done", "drawn"),
            ("press-2", "done", "given"),
            ("release-1", "done", "drawn"),
            ("release-2", "done", "given"),
        ],
    ),
    SAY: Idiom(
        COMMANDS, [(f"{id_}-1", "done") for id_ in ("brief", "hush", "prompt", "say", "update")]
    ),
    "Several agents in one room": Idiom(
        "SELECT s.task_id, s.phase, (SELECT count(DISTINCT agent_user_id) FROM agent_status)"
        " FROM agent_status s ORDER BY s.task_id",
        [("room-9-anna", "running", 2), ("room-9-ben", "running", 2)],
        after=(),
    ),
    "Keep a key out of the row": Idiom(TASKS, [("call-32", "running", 1)], after=()),
    "Your own tables in the same commit": Idiom(
        "SELECT c.customer, s.phase FROM customer_call c JOIN agent_status s ON s.task_id = c.id",
        [("acme", "running")],
        after=(),
        is_refused_twice=True,
    ),
}
TOLD_BY_A_STORY = {
    "Wait until it runs",
    "Find out why it failed",
    "Wait for what became of a command",
    "Take a command back",
    "Hear of changes",
    "What is refused",
}
"""Idioms that only read, or whose effect depends on when they come: each has a test of its own."""


@pytest.fixture
async def duty(database: Database, database_url: str) -> Duty:
    """A daemon on duty for whom nobody has written anything yet."""
    return await begin_duty(database, database_url)


@pytest.fixture
async def night(duty: Duty) -> Duty:
    """The same at ten past two."""
    await tell(duty)
    return duty


def idiom(heading: str, url: str, marks: frozenset[str] = frozenset()) -> list[Block]:
    """Return an idiom's blocks for this database, those that bear all of these marks."""
    found = [block for block in BLOCKS if (block.part, block.heading) == (IDIOMS, heading)]
    assert found, f"the document has no idiom {heading}"
    return [
        block
        for block in found
        if block.is_for(url) and block.marks - {"sqlite", "postgresql"} == marks
    ]


async def write(duty: Duty, heading: str) -> list[Answer]:
    """Run an idiom as the application, in one sitting."""
    sql = [one for block in idiom(heading, duty.url) for one in block.statements]
    return await run_as(APP, duty.url, [duty.clock.real(one) for one in sql])


async def read(duty: Duty, heading: str) -> Rows:
    """Return what the first statement of an idiom answers."""
    return (await write(duty, heading))[0].rows


# --- idioms


def test_every_idiom_has_a_test() -> None:
    told = {block.heading for block in BLOCKS if block.part == IDIOMS}
    assert told == EFFECTS.keys() | TOLD_BY_A_STORY


@pytest.mark.parametrize("heading", EFFECTS)
async def test_an_idiom_does_what_it_says_however_often_it_is_sent(
    duty: Duty, heading: str
) -> None:
    """Sent twice before anybody looks, as after a lost answer, and once more when all is done."""
    told = EFFECTS[heading]
    await make_own_table(duty)
    for before in told.after:
        await write(duty, before)
        await duty.carry_out()
    for _ in range(1 if told.is_refused_twice else 2):
        await write(duty, heading)
    await duty.carry_out()
    assert await query(duty.database, told.look) == told.then
    if not told.is_refused_twice:
        await write(duty, heading)
        await duty.carry_out()
    assert await query(duty.database, told.look) == told.then


async def make_own_table(duty: Duty) -> None:
    """Make the table that is the application's own."""
    grant = () if duty.url.startswith(SQLITE) else (GRANT,)
    await run(duty.database, OWN_TABLE, *grant)


async def test_a_wait_ends_when_it_runs_and_not_by_what_was_before(duty: Duty) -> None:
    heading = "Wait until it runs"
    await write(duty, START)
    assert await read(duty, heading) == []
    await duty.carry_out()
    ((phase, *_),) = await read(duty, heading)
    assert phase == "running"
    await write(duty, RESTART)
    assert await read(duty, heading) == []
    await duty.carry_out()
    assert len(await read(duty, heading)) == 1


async def test_a_wait_ends_when_it_has_failed_and_the_reason_is_found(duty: Duty) -> None:
    await write(duty, START)
    await duty.answer("call-17", Refused(code="410001009", message="not found", request_id="r-1"))
    ((phase, *_),) = await read(duty, "Wait until it runs")
    assert phase == "failed"
    reason, sentence = await write(duty, "Find out why it failed")
    assert reason.rows == [("410001009", "not found", "r-1")]
    ((explanation,),) = sentence.rows
    assert "410001009" in explanation


async def test_the_end_of_a_command_is_waited_for(duty: Duty) -> None:
    heading = "Wait for what became of a command"
    await write(duty, START)
    await duty.carry_out()
    await write(duty, PRESS)
    ended, explained = await write(duty, heading)
    assert (ended.rows, len(explained.rows)) == ([], 1)
    await duty.carry_out()
    ((state, *_),) = await read(duty, heading)
    assert state == "done"


async def test_a_command_is_taken_back(duty: Duty) -> None:
    await write(duty, START)
    await duty.carry_out()
    await write(duty, PRESS)
    await write(duty, "Take a command back")
    await duty.carry_out()
    look = "SELECT state, reason FROM agent_command WHERE id = 'press-1'"
    assert await query(duty.database, look) == [("superseded", "Cancelled")]


async def test_what_is_refused_is_refused_and_changes_nothing(duty: Duty) -> None:
    await write(duty, START)
    await write(duty, PRESS)
    before = await query(duty.database, "SELECT * FROM agent_task")
    told = idiom("What is refused", duty.url, frozenset({"refused"}))
    statements = [one for block in told for one in block.statements]
    assert len(statements) > 6
    for statement in statements:
        with pytest.raises((sqlite3.IntegrityError, asyncpg.PostgresError)):
            await run_as(APP, duty.url, [statement])
    assert await query(duty.database, "SELECT * FROM agent_task") == before
    assert await query(duty.database, "SELECT count(*) FROM agent_status") == [(1,)]


async def test_changes_are_heard(duty: Duty) -> None:
    (block,) = idiom("Hear of changes", duty.url)
    if duty.url.startswith(SQLITE):
        await see_changes(duty, block)
    else:
        await hear_changes(duty, block)


async def see_changes(duty: Duty, block: Block) -> None:
    with closing(sqlite3.connect(duty.url.removeprefix(SQLITE))) as eyes:
        seen = [eyes.execute(block.text).fetchone() for _ in range(2)]
        await write(duty, START)
        seen.append(eyes.execute(block.text).fetchone())
    assert seen[0] == seen[1] != seen[2]


async def hear_changes(duty: Duty, block: Block) -> None:
    heard: list[tuple[object, ...]] = []
    ears = await asyncpg.connect(duty.url)
    for statement in block.statements:
        verb, channel = statement.split()
        assert verb == "LISTEN"
        await ears.add_listener(channel, lambda *told: heard.append(told[2:]))
    for heading in (START, PRESS):
        await write(duty, heading)
        await duty.carry_out()
    await ears.execute("SELECT 1")  # notifications come before the answer
    await ears.close()
    assert {("orchestrator_status", "call-17"), ("orchestrator_command", "press-1")} <= set(heard)


# --- questions


async def test_every_question_has_the_answer_that_is_printed(night: Duty) -> None:
    """To print new ones: `python -m tests.store.sql_document --write`."""
    wrong = []
    for question in questions(TEXT):
        found = await ask(night, question)
        if not is_alike(from_text(question.answer.text), found):
            wrong.append(f"{question.name}\n{to_text(found)}")
    assert not wrong, "\n\n".join(wrong)


async def test_what_the_operator_writes_ends_the_orphans_of_the_night(night: Duty) -> None:
    told = [block for block in BLOCKS if block.part == QUESTIONS and "operator" in block.marks]
    statements = [one for block in told for one in block.statements]
    assert [answer.touched for answer in await run_as(OPERATOR, night.url, statements)] == [1, 1]
    await night.look_for_orphans()
    await night.carry_out()
    look = "SELECT source, phase FROM orphan_task ORDER BY id = 'demo-1', id = 'bill-7'"
    assert await query(night.database, look) == [
        ("callback", "stopped"),
        ("operator", "stopped"),
        ("operator", "stopped"),
    ]
    evidence = "SELECT evidence FROM vendor_agent WHERE orphan_id = 'bill-7'"
    assert await query(night.database, evidence) == [("assumed",)]
