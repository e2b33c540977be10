"""Everything that is known about one thing, for `explain`, under whatever name a person has.

A person has the id of a task, a command or an orphan; or what a bill, a vendor's console or a log
shows: a vendor's TaskId, the name that we gave an agent, a RequestId.

Rule 1: nothing here changes a row, and every statement has a bound.
Rule 2: our own ids go before the vendors' names, and those before RequestIds, which are looked for
among the newest events only, since no index has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal

from sqlalchemy import Connection, Select, and_, select, text

from orchestrator.store import status_id
from orchestrator.store.schema import (
    account_state,
    agent_event,
    agent_status,
    orphan_task,
    vendor_agent,
)
from orchestrator.store.views import View, read_rows

Kind = Literal["task", "command", "orphan", "past"]
"""`past`: a task that is forgotten, of which the ledger or the history still tell."""

SHOWN_EVENTS: Final = 500
"""Events of one thing that are read at most: of a task the newest, of the rest the oldest."""
SHOWN_COMMANDS: Final = 20
"""Waiting commands of one task that are read at most, the oldest of them."""
SHOWN_AGENTS: Final = 50
"""Ledger rows of one thing that are read at most, the newest of them."""
SHOWN_BEGINNING: Final = 100
"""Ids that begin as a person has begun them, at most."""
SEARCHED_EVENTS: Final = 1_000_000
"""Events among which a RequestId is looked for, the newest."""
_ALIKE_READ: Final = 2_000
"""Ids among which near matches are looked for."""
_ALIKE_SHOWN: Final = 3
_ALIKE_CHARS: Final = 4
"""Characters at the beginning that a near match has in common with what was asked for."""

_LEDGER: Final = (
    vendor_agent.c.task_id,
    vendor_agent.c.orphan_id,
    vendor_agent.c.incarnation,
    vendor_agent.c["try"],
    vendor_agent.c.account,
    vendor_agent.c.room_id,
    vendor_agent.c.user_id,
    vendor_agent.c.name,
    vendor_agent.c.session_name,
    vendor_agent.c.stream_id,
    vendor_agent.c.vendor_task_id,
    vendor_agent.c.announced_at,
    vendor_agent.c.horizon_at,
    vendor_agent.c.seen_at,
    vendor_agent.c.ended_at,
    vendor_agent.c.evidence,
)
"""Columns of the ledger that mean something to a person."""
_TASK: Final = text("SELECT * FROM task_explain WHERE task_id = :id")
_COMMAND: Final = text("SELECT * FROM command_explain WHERE command_id = :id")
_ORPHAN: Final = text("SELECT * FROM orphan_overview WHERE id = :id")
_WAITING: Final = text(
    "SELECT * FROM command_explain WHERE task_id = :id AND state IN ('queued', 'sending')"
    " ORDER BY position LIMIT :shown"
)
_HISTORY: Final = text(
    "SELECT * FROM (SELECT * FROM task_history WHERE task_id = :id"
    " ORDER BY id DESC LIMIT :shown) AS newest ORDER BY id"
)
_COMMAND_HISTORY: Final = text(
    "SELECT * FROM task_history WHERE task_id = :task_id AND command_id = :id"
    " ORDER BY id LIMIT :shown"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """One task, command or orphan."""

    kind: Kind
    id: str
    row: View
    """Of `task_explain`, `command_explain` or `orphan_overview`; empty for what is past."""
    sentence: str
    """What the view says; empty for an orphan and for what is past, which have no such view."""
    leads: str = ""
    """By what it was found, if not by its own id: `TaskId`, `name` or `RequestId`."""
    waiting: Sequence[View] = ()
    """A task's commands that are not settled, oldest first."""
    events: Sequence[View] = ()
    """What happened to it, oldest first."""
    agents: Sequence[View] = ()
    """Its rows of the ledger, oldest first."""


def find(connection: Connection, name: str) -> Dossier | None:
    """Return what is known under a name, or None if nobody has it."""
    return (
        _known(connection, name, "") or _by_agent(connection, name) or _by_request(connection, name)
    )


def alike(connection: Connection, name: str) -> Sequence[str]:
    """Return ids of tasks that look like the name and begin as it does, the likest first."""
    longer = beginning(connection, name)
    if longer:
        return longer[:_ALIKE_SHOWN]
    ids = beginning(connection, name[:_ALIKE_CHARS], _ALIKE_READ)
    return get_close_matches(name, ids, n=_ALIKE_SHOWN)


def beginning(connection: Connection, name: str, most: int = SHOWN_BEGINNING) -> Sequence[str]:
    """Return ids of tasks that begin with the name, some if there are more than `most`."""
    begins = agent_status.c.task_id.startswith(name, autoescape=True)
    is_task = status_id.is_task_column(agent_status.c.task_id)
    chosen = select(agent_status.c.task_id).where(begins, is_task).limit(most)
    return sorted(connection.execute(chosen).scalars())


def _known(connection: Connection, id_: str, leads: str) -> Dossier | None:
    return (
        _task(connection, id_, leads)
        or _command(connection, id_, leads)
        or _orphan(connection, id_, leads)
        or _past(connection, id_, leads)
    )


def _task(connection: Connection, id_: str, leads: str) -> Dossier | None:
    found = read_rows(connection, _TASK.bindparams(id=id_))
    if not found:
        return None
    return Dossier(
        kind="task",
        id=id_,
        row=found[0],
        sentence=found[0]["explanation"],
        leads=leads,
        waiting=read_rows(connection, _WAITING.bindparams(id=id_, shown=SHOWN_COMMANDS)),
        events=_history_of_task(connection, id_),
        agents=_agents_of_task(connection, id_),
    )


def _command(connection: Connection, id_: str, leads: str) -> Dossier | None:
    found = read_rows(connection, _COMMAND.bindparams(id=id_))
    if not found:
        return None
    told = _COMMAND_HISTORY.bindparams(id=id_, task_id=found[0]["task_id"], shown=SHOWN_EVENTS)
    return Dossier(
        kind="command",
        id=id_,
        row=found[0],
        sentence=found[0]["explanation"],
        leads=leads,
        events=read_rows(connection, told),
    )


def _orphan(connection: Connection, id_: str, leads: str) -> Dossier | None:
    found = read_rows(connection, _ORPHAN.bindparams(id=id_))
    if not found:
        return None
    agents = select(*_LEDGER).where(vendor_agent.c.orphan_id == id_)
    told = (
        select(agent_event)
        .where(agent_event.c.at >= found[0]["first_seen_at"], agent_event.c.orphan_id == id_)
        .order_by(agent_event.c.id)
        .limit(SHOWN_EVENTS)
    )
    return Dossier(
        kind="orphan",
        id=id_,
        row=found[0],
        sentence="",
        leads=leads,
        events=read_rows(connection, told),
        agents=_read_agents(connection, agents),
    )


def _past(connection: Connection, id_: str, leads: str) -> Dossier | None:
    """Return what is left of a task that was deleted, and has gone with its status."""
    events = _history_of_task(connection, id_)
    agents = _agents_of_task(connection, id_)
    if not events and not agents:
        return None
    return Dossier(
        kind="past", id=id_, row={}, sentence="", leads=leads, events=events, agents=agents
    )


def _by_agent(connection: Connection, name: str) -> Dossier | None:
    """Return whose agent has this handle at the vendor, or this name of ours."""
    ledger = vendor_agent.c
    # By account, as the indexes are; every account that ever had an agent has a state.
    of_accounts = ledger.account.in_(select(account_state.c.account))
    asked = (
        ("TaskId", and_(of_accounts, ledger.vendor_task_id == name)),
        ("name", ledger.id == name),
        ("name", and_(of_accounts, ledger.name == name)),
    )
    for leads, condition in asked:
        chosen = select(ledger.task_id, ledger.orphan_id).where(condition)
        newest = chosen.order_by(ledger.announced_at.desc()).limit(1)
        if found := connection.execute(newest).one_or_none():
            return _known(connection, found.task_id or found.orphan_id, leads)
    return _reported(connection, name)


def _reported(connection: Connection, handle: str) -> Dossier | None:
    """Return the orphan of this handle that was only written down."""
    reported = orphan_task.c
    chosen = (
        select(reported.id)
        .where(
            reported.account.in_(select(account_state.c.account)),
            reported.vendor_task_id == handle,
        )
        .order_by(reported.first_seen_at.desc())
        .limit(1)
    )
    id_ = connection.execute(chosen).scalar_one_or_none()
    return None if id_ is None else _known(connection, id_, "TaskId")


def _by_request(connection: Connection, request_id: str) -> Dossier | None:
    """Return what a call was about, if it is among the newest."""
    newest = select(agent_event).order_by(agent_event.c.id.desc()).limit(SEARCHED_EVENTS).subquery()
    chosen = (
        select(newest.c.command_id, newest.c.task_id, newest.c.orphan_id)
        .where(newest.c.request_id == request_id)
        .order_by(newest.c.id.desc())
        .limit(1)
    )
    found = connection.execute(chosen).one_or_none()
    # The narrowest first; a command may be forgotten while its task is not.
    about = [id_ for id_ in found or () if id_ is not None]
    dossiers = (_known(connection, id_, "RequestId") for id_ in about)
    return next((dossier for dossier in dossiers if dossier is not None), None)


def _history_of_task(connection: Connection, id_: str) -> Sequence[View]:
    return read_rows(connection, _HISTORY.bindparams(id=id_, shown=SHOWN_EVENTS))


def _agents_of_task(connection: Connection, id_: str) -> Sequence[View]:
    return _read_agents(connection, select(*_LEDGER).where(vendor_agent.c.task_id == id_))


def _read_agents(connection: Connection, chosen: Select[Any]) -> Sequence[View]:
    ledger = vendor_agent.c
    newest = chosen.order_by(
        ledger.announced_at.desc(), ledger.incarnation.desc(), ledger["try"].desc()
    )
    return read_rows(connection, newest.limit(SHOWN_AGENTS))[::-1]
