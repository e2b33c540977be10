"""The SQL of docs/sql.md, as it stands there, by the drivers that an application has.

A block that only one of the databases understands says so behind the word `sql` of its fence.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from orchestrator.core.fact import Event, Fact
from orchestrator.core.outcome import Done
from orchestrator.store import facts
from orchestrator.store.engine import Database
from tests.daemon.application import SQLITE
from tests.store.claiming import Daemon, make_book, make_desk, want
from tests.store.rows import query, run, value
from tests.store.test_lanes import ZEGO_SPEC, Speaker
from tests.store.test_views_lanes import sign_on

pytestmark = pytest.mark.anyio

TEXT = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```sql ?(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STARTED_AT = datetime(2026, 3, 1, tzinfo=UTC)
HEADING = "## `agent_command`"
PRESS = (
    "INSERT INTO agent_command (id, task_id, kind) VALUES ('press-1', 'call-17', 'start_listening')"
)


@dataclass(frozen=True)
class Block:
    """A fenced block of SQL."""

    only: str
    """The database that understands it; empty: both."""
    text: str

    @property
    def statements(self) -> list[str]:
        bare = re.sub(r"--.*", "", self.text)
        return [one.strip() for one in bare.split(";") if one.strip()]

    def inserts(self, table: str, id_: str) -> bool:
        """Return whether it inserts this row itself."""
        return any(
            one.startswith(f"INSERT INTO {table} ") and f"('{id_}'" in one
            for one in self.statements
        )

    def is_for(self, url: str) -> bool:
        return self.only in {"", "sqlite" if url.startswith(SQLITE) else "postgresql"}


def blocks(text: str) -> list[Block]:
    return [Block(only, sql) for only, sql in FENCED.findall(text)]


BLOCKS = blocks(TEXT)
COMMANDS = blocks(TEXT[TEXT.index(HEADING) :].partition("\n## ")[0])


def block_with(words: str) -> Block:
    """Return the only block about commands that has these words."""
    (found,) = [block for block in COMMANDS if words in block.text]
    return found


async def execute(url: str, statements: Sequence[str]) -> list[str]:
    """Run statements one by one; return the first word of each and how many rows it was about."""
    if not url.startswith(SQLITE):
        return await _execute_postgres(url, statements)
    with closing(sqlite3.connect(url.removeprefix(SQLITE), timeout=5)) as connection:
        connection.isolation_level = None
        return list(_execute_sqlite(connection, statements))


def _execute_sqlite(connection: sqlite3.Connection, statements: Sequence[str]) -> Iterator[str]:
    for statement in statements:
        cursor = connection.execute(statement)
        rows = cursor.fetchall()
        yield f"{statement.split()[0]} {max(len(rows), cursor.rowcount)}"


async def _execute_postgres(url: str, statements: Sequence[str]) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [await _execute_one(connection, one) for one in statements]
    finally:
        await connection.close()


async def _execute_one(connection: "asyncpg.Connection[asyncpg.Record]", statement: str) -> str:
    prepared = await connection.prepare(statement)
    await prepared.fetch()
    told = (prepared.get_statusmsg() or "").split()
    return f"{told[0]} {told[-1]}"


async def run_agent(database: Database) -> Speaker:
    """Let the agent of `call-17` run, and a daemon that hears its commands."""
    daemon = await Daemon(database, make_desk(make_book("zego"))).ready()
    await want(database, "call-17", account="zego", spec=ZEGO_SPEC, user_id="'user-17'")
    await daemon.start("call-17")
    handle = await value(database, "SELECT vendor_task_id FROM agent_status")
    started = Fact(key="k1", event=Event.STARTED, event_at=STARTED_AT, vendor_task_id=handle)
    await database.write(facts.receive, [facts.Told(account="zego", facts=(started,))], "one")
    await database.write(sign_on)
    return Speaker(database, "one")


async def work(speaker: Speaker) -> None:
    """Let the vendor take everything that is sent, until nothing is."""
    while orders := (await speaker.claim()).orders:
        for order in orders:
            await speaker.settle(order, Done(request_id="r1"))


async def states(database: Database) -> dict[str, str]:
    return dict(await query(database, "SELECT id, state FROM agent_command"))


# --- they run


def test_there_is_something_to_run() -> None:
    assert len(BLOCKS) > len(COMMANDS) > 5
    assert TEXT.count("```sql") == len(BLOCKS)
    assert PRESS in TEXT


@pytest.mark.parametrize("block", BLOCKS, ids=[block.text[:40] for block in BLOCKS])
async def test_every_statement_is_about_a_row(
    database: Database, database_url: str, block: Block
) -> None:
    """As they follow one another in their block, in a database in which the rest has happened."""
    if not block.is_for(database_url):
        return
    if not block.inserts("agent_task", "call-17"):
        speaker = await run_agent(database)
        if not block.inserts("agent_command", "press-1"):
            await run(database, PRESS)
            await work(speaker)
    told = await execute(database_url, block.statements)
    assert len(told) == len(block.statements)
    assert [one for one in told if one.endswith((" 0", " -1"))] == []


# --- and do what they say


async def test_the_documented_commands_are_sent(database: Database, database_url: str) -> None:
    speaker = await run_agent(database)
    told = [block for block in COMMANDS if "INSERT INTO agent_command" in block.text]
    ours = [block for block in told if block.is_for(database_url)]
    await execute(database_url, [one for block in ours for one in block.statements])
    await work(speaker)
    assert await states(database) == dict.fromkeys(
        [
            *("press-1", "release-1", "press-2", "release-2"),
            *("hush-1", "say-1", "prompt-1", "update-1", "brief-1"),
        ],
        "done",
    )
    lanes = "SELECT user_id, numbering FROM lane WHERE user_id <> '' ORDER BY user_id"
    assert await query(database, lanes) == [("guest", "given"), ("user-17", "drawn")]


async def test_a_retried_press_is_harmless(database: Database, database_url: str) -> None:
    await run_agent(database)
    press, release, *_ = block_with("'press-1', 'call-17'").statements
    assert await execute(database_url, [press, release]) == ["INSERT 1", "INSERT 1"]
    assert await execute(database_url, [press, release]) == ["INSERT 0", "INSERT 0"]
    assert await states(database) == {"press-1": "queued", "release-1": "queued"}


async def test_the_end_of_a_command_is_waited_for(database: Database, database_url: str) -> None:
    speaker = await run_agent(database)
    wait = block_with("NOT IN ('queued', 'sending')").statements
    await run(database, PRESS)
    assert await execute(database_url, wait) == ["SELECT 0"]
    order = await speaker.claim_one()
    assert await execute(database_url, wait) == ["SELECT 0"]
    await speaker.settle(order, Done())
    assert await execute(database_url, wait) == ["SELECT 1"]


async def test_a_command_is_taken_back(database: Database, database_url: str) -> None:
    speaker = await run_agent(database)
    await run(database, PRESS)
    await execute(database_url, block_with("cancel_command").statements)
    await work(speaker)
    reason = "SELECT reason FROM agent_command WHERE id = 'press-1'"
    assert (await states(database), await value(database, reason)) == (
        {"press-1": "superseded"},
        "Cancelled",
    )


async def test_a_press_that_waits_is_explained(database: Database) -> None:
    speaker = await run_agent(database)
    await run(database, "UPDATE account_control SET frozen = true", PRESS)
    await work(speaker)
    sentence, lane = block_with("command_explain").statements
    assert "waits, since the account is frozen" in await value(database, sentence)
    ((last, queued, following, gap, _, waiting_for, _),) = await query(database, lane)
    assert (last, queued, following, gap, waiting_for) == (None, 1, None, 0, "frozen")
