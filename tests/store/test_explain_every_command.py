"""Every state that a command can be in has its sentence, and both databases the same."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, insert, update

from orchestrator.core.command import CommandState, Kind
from orchestrator.core.model import Phase
from orchestrator.store.engine import Database, open_database
from orchestrator.store.schema import agent_command, lane
from tests.store.rows import query, run
from tests.store.rows import update as update_all
from tests.store.test_explain_every_state import (
    FUTURE,
    MADE_BADLY,
    PAST,
    spelled,
    write_accounts,
    write_tasks,
)

pytestmark = pytest.mark.anyio

Values = Mapping[str, Any]
LISTENING = (Kind.START_LISTENING, Kind.STOP_LISTENING)
OPEN = (CommandState.QUEUED, CommandState.SENDING)
ACCOUNTS = ("acc", "frozen", "elsewhere")
LANES: Mapping[str, Values | None] = {
    "none": None,
    "new": {},
    "in flight": {"command_id": "sending", "lease_until": FUTURE, "last_sequence": 1},
    "to be sent again": {"command_id": "sending", "retry_at": FUTURE, "last_sequence": 1},
    "with a gap": {"gap_since": PAST, "due_at": FUTURE, "last_sequence": 7, "numbering": "given"},
    "with a gap of nothing": {"gap_since": PAST, "due_at": FUTURE},
    "listening": {"listening": True, "last_sequence": 3, "numbering": "given"},
}
"""By how a lane stands. `sending`: the command that is in flight."""
_LANE: Values = dict.fromkeys(
    ("command_id", "lease_until", "retry_at", "gap_since", "due_at", "last_sequence", "numbering")
) | {"listening": False}
TROUBLE: Sequence[Values] = ({}, {"reason": "Code", "message": "words"})
Agent = tuple[Phase, str, str]
AGENTS: Mapping[str, Agent] = {
    f"t{n}": each for n, each in enumerate(product(Phase, ACCOUNTS, LANES))
}


def commands_of(task_id: str) -> Iterator[dict[str, Any]]:
    """Yield commands of every kind, state and trouble, as they were asked for."""
    every = product(Kind, CommandState, range(len(TROUBLE)))
    for number, (kind, state, trouble) in enumerate(every):
        yield {
            "id": f"{task_id}-{kind.value}-{state.value}-{trouble}",
            "task_id": task_id,
            "kind": kind.value,
            "user_id": "human",
            "sequence": number if kind in LISTENING and state is not CommandState.DONE else None,
            "created_at": PAST,
            "expires_at": FUTURE if trouble else None,
        }


def lanes_of(task_id: str, values: Values | None) -> Iterator[dict[str, Any]]:
    """Yield the lane of the button and that of all else, if there are any."""
    if values is None:
        return
    for user_id, kind in (("human", Kind.START_LISTENING), ("", Kind.SAY)):
        row = {**_LANE, **values, "task_id": task_id, "user_id": user_id}
        if row["command_id"] is not None:
            row["command_id"] = f"{task_id}-{kind.value}-sending-0"
        yield row


def write_commands(connection: Connection, agents: Mapping[str, Agent]) -> None:
    """Give each agent, by its phase, account and lane, commands in every state."""
    write_accounts(connection)
    tasks: list[tuple[Values, Values]] = [
        ({"task_id": id_, "phase": phase.value, "account": account}, {})
        for id_, (phase, account, _) in agents.items()
    ]
    write_tasks(connection, tasks)
    commands = [command for id_ in agents for command in commands_of(id_)]
    connection.execute(insert(agent_command), commands)
    for state, (trouble, values) in product(CommandState, enumerate(TROUBLE)):
        of_it = agent_command.c.id.like(f"%-{state.value}-{trouble}")
        times = {
            "sent_at": None if state is CommandState.QUEUED else PAST,
            "done_at": None if state in OPEN else PAST,
        }
        told = {"state": state.value, **times, **values}
        connection.execute(update(agent_command).where(of_it).values(told))
    lanes = [row for id_, (*_, how) in agents.items() for row in lanes_of(id_, LANES[how])]
    connection.execute(insert(lane), lanes)


async def explained(database: Database) -> dict[str, str]:
    rows = await query(database, "SELECT command_id, explanation FROM command_explain")
    return {id_: spelled(str(sentence)) for id_, sentence in rows}


async def test_every_state_of_a_command_has_a_sentence(sqlite_url: str, postgres_url: str) -> None:
    """While daemons run, when they have fallen silent, and when there is none."""
    told = []
    for url in (sqlite_url, postgres_url):
        database = open_database(url)
        await database.write(write_commands, AGENTS)
        told.append([await explained(database)])
        silent = update_all("daemon", "heartbeat_at = '2020-01-01 00:00:00.000000'")
        for silence in (silent, "DELETE FROM daemon"):
            await run(database, silence)
            told[-1].append(await explained(database))
        await database.close()
    for sentences in told[0]:
        assert len(sentences) == len(AGENTS) * len(Kind) * len(CommandState) * len(TROUBLE)
        assert [one for one in sentences.values() if MADE_BADLY.search(one)] == []
    assert told[0] == told[1]


async def test_whether_anybody_sends_it_is_said(database: Database) -> None:
    """Presses of one agent, when its daemons have fallen silent and when there is none."""
    await database.write(write_commands, {"t0": (Phase.PENDING, "acc", "new")})
    press = "t0-start_listening-queued-0"
    alive = "waits for its agent to run, which is pending"
    silent = "waits for a daemon that has the account: none has said that it runs since PAST,"
    none = "waits for a daemon that has the account: none runs, start one"
    subject = "start_listening 0 of human, queued since PAST; "
    assert (await explained(database))[press] == subject + alive
    await run(database, update_all("daemon", "heartbeat_at = '2020-01-01 00:00:00.000000'"))
    assert (await explained(database))[press] == subject + silent + " start one"
    await run(database, "DELETE FROM daemon")
    assert (await explained(database))[press] == subject + none
