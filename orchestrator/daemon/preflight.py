"""What a start or an update must pass before its announce: the spec, the names, the neighbours.

No call is spent on a start that the vendor would refuse, or that would hit somebody else's agent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2s
from typing import Any

from orchestrator.core.announce import Draw, new_agent
from orchestrator.core.model import Agent, Row, Task
from orchestrator.core.replace import replace
from orchestrator.daemon.book import Book
from orchestrator.daemon.spelling import Misspelt, Speaker, connect, resolve, say, spell
from orchestrator.providers.base import Provider, Spec
from orchestrator.store import ledger
from orchestrator.store.engine import Connection
from orchestrator.store.reading import UNREAD, Read


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """Why a start will not be sent, as `agent_status.reason` and `message` say it."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The start would not be the same as the one whose outcome is unknown: a secret changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A start as it was written: for whom, with what, by which account."""

    row: Row
    task: Task
    agent: Agent | None
    """The ledger row that is sent again; null: a new one."""
    spec: Any
    provider: Provider
    name: str
    """Drawn for a new ledger row."""
    neighbours: Sequence[Agent]
    """What the same transaction announced for other tasks: the ledger does not show it yet."""


def check(
    connection: Connection, start: Start, book: Book, now: datetime
) -> Agent | Unfit | Changed:
    """Return the ledger row to announce, or why not."""
    if not isinstance(start.spec, dict):
        return Unfit(reason="InvalidSpec", message="spec: expected a JSON object")
    resolved = resolve(start.spec, book)
    if isinstance(resolved, Misspelt):
        return _unfit(resolved)
    agent = start.agent or _draw(start, resolved, now)
    speaker = Speaker(task_id=start.task.id, agent=agent, provider=start.provider)
    spec = connect(resolved, book, speaker)
    if isinstance(spec, Misspelt):
        return _unfit(spec)
    problems = start.provider.problems(agent, spec)
    if problems:
        return Unfit(reason="InvalidSpec", message=say(problems))
    named = replace(
        agent,
        body_digest=_digest(start.provider.body(agent, spec)),
        fixed_digest=_digest(start.provider.fixed_body(agent, spec)),
    )
    if agent.is_known:
        return named if named.fixed_digest == agent.fixed_digest else Changed()
    if not agent.is_idle and agent.body_digest != named.body_digest:
        return Changed()
    return _conflict(connection, start, spec, agent) or named


def measure(one: Read, book: Book) -> Row:
    """Return the row with what its spec fixes, to tell whether its agent can be brought to it."""
    row, runtime = one.row, book.runtimes.get(one.row.task.account) if one.row.task else None
    newest = row.wanted[-1] if row.wanted else None
    if row.task is None or newest is None or runtime is None or one.spec is UNREAD:
        return row
    if not newest.is_known:
        return row
    provider = runtime.provider.at(newest.site)
    speaker = Speaker(task_id=row.task.id, agent=newest, provider=provider)
    digest = _fixed_digest(speaker, one.spec, book)
    return replace(row, task=replace(row.task, fixed_digest=digest))


def _fixed_digest(speaker: Speaker, spec: Any, book: Book) -> str | None:
    """Return what no update can change of a spec; null if the vendor would refuse it, or all."""
    if not isinstance(spec, dict):
        return None
    provider, agent = speaker.provider, speaker.agent
    spelt = spell(spec, book, speaker)
    if isinstance(spelt, Misspelt) or provider.problems(agent, spelt):
        return None
    fixed = provider.fixed_body(agent, spelt)
    return None if fixed == provider.body(agent, spelt) else _digest(fixed)


def _digest(body: bytes) -> str:
    return blake2s(body, digest_size=8).hexdigest()


def _draw(start: Start, spec: Spec, now: datetime) -> Agent:
    provider = start.provider
    draw = Draw(name=start.name, site=provider.site, agent_user_id=provider.agent_user_id(spec))
    return new_agent(start.row, start.task, draw, now)


def _unfit(misspelt: Misspelt) -> Unfit:
    return Unfit(reason=misspelt.reason, message=misspelt.message)


def _conflict(connection: Connection, start: Start, spec: Spec, agent: Agent) -> Unfit | None:
    """Look for another task's agent that this one would evict, or that a stop would hit."""
    caps, task = start.provider.caps, start.task
    if caps.one_per_user and _is_pair_taken(connection, start):
        said = f"room {task.room_id} and user {task.user_id} have an agent of another task"
        return Unfit(reason="Conflict", message=f"{said}; this API version stops by room and user")
    if start.provider.agent_user_id(spec) is None:
        return None
    rooms = [
        *ledger.rooms_of_agent_user(connection, task, agent.name),
        *(a.room_id for a in start.neighbours if (a.account, a.name) == (task.account, agent.name)),
    ]
    if caps.agent_user_scope == "room":
        rooms = [room for room in rooms if room == task.room_id]
    if not rooms:
        return None
    said = f"agent user id {agent.name} is in use by another task in room {rooms[0]}"
    return Unfit(reason="AgentUserIdTaken", message=said)


def _is_pair_taken(connection: Connection, start: Start) -> bool:
    task = start.task
    pair = (task.account, task.room_id, task.user_id)
    if any((a.account, a.room_id, a.user_id) == pair for a in start.neighbours):
        return True
    return ledger.is_pair_taken(connection, task)


def needs_account_lock(provider: Provider, spec: Any) -> bool:
    """Return whether two claims at once could both find the place free."""
    if provider.caps.one_per_user:
        return True
    return isinstance(spec, dict) and provider.agent_user_id(spec) is not None
