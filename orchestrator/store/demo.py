"""The statements of `dev`, which stands in for an application: its tasks and its commands.

Rule 1: they are what any application would write, and touch nothing that is the daemon's.
"""

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, exists, func, insert, select, update

from orchestrator.core.command import CommandState
from orchestrator.core.model import Phase
from orchestrator.examples import Command, Example
from orchestrator.store.engine import dialect_of, upsert
from orchestrator.store.schema import agent_command, agent_status, agent_task, daemon, task_change


def ask_for(connection: Connection, examples: Iterable[Example], token: str) -> None:
    """Want these tasks running: new ones are inserted, known ones begin anew, as they are now.

    Args:
        connection: of a write transaction.
        examples: the tasks.
        token: a `restart_token` that was never used before.
    """
    add = upsert(agent_task, dialect_of(connection)).on_conflict_do_nothing()
    for example in examples:
        again = (
            update(agent_task)
            .where(agent_task.c.id == example.id)
            .values(desired_state="running", restart_token=token, spec=example.spec)
        )
        # An insert must not be followed by a restart: it would begin, end and begin again.
        if connection.execute(again).rowcount == 0:
            row = {
                "id": example.id,
                "account": example.account,
                "room_id": example.room_id,
                "user_id": example.user_id,
                "spec": example.spec,
            }
            connection.execute(add, row)


def tell(connection: Connection, command: Command, id_: str) -> None:
    """Insert a command under this id. The daemon draws its Sequence."""
    row = {
        "id": id_,
        "task_id": command.task_id,
        "kind": command.kind,
        "payload": command.payload,
    }
    connection.execute(insert(agent_command), row)


def settled_state(connection: Connection, id_: str) -> str | None:
    """Return what became of a command, and why; null while nothing has."""
    asked = select(agent_command.c.state, agent_command.c.reason).where(agent_command.c.id == id_)
    state, reason = connection.execute(asked).one()
    if state in {CommandState.QUEUED, CommandState.SENDING}:
        return None
    return f"{state} ({reason})" if reason else str(state)


def are_running(connection: Connection, ids: Collection[str], pid: int) -> bool:
    """Return whether the daemon of this process runs, and all of these tasks as they want now.

    What they were at the end of an earlier `dev` does not count.
    """
    as_wanted = (
        select(func.count())
        .select_from(agent_status)
        .where(
            agent_status.c.task_id.in_(ids),
            agent_status.c.phase == Phase.RUNNING,
            agent_status.c.observed_generation == agent_status.c.generation,
            ~exists().where(task_change.c.task_id == agent_status.c.task_id),
        )
    )
    running = connection.execute(as_wanted).scalar_one()
    return running == len(ids) and has_daemon(connection, pid)


def has_daemon(connection: Connection, pid: int) -> bool:
    """Return whether the daemon of this process has told that it runs."""
    here = select(func.max(daemon.c.started_at)).scalar_subquery()
    newest = exists().where(daemon.c.pid == pid, daemon.c.started_at == here)
    return bool(connection.execute(select(newest)).scalar_one())
