"""What `check` asks of a database: may we write, does a commit last, are keys lying about.

Rule 1: nothing here changes a row.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, text

from orchestrator.secret import names_secret
from orchestrator.store import schema
from orchestrator.store.engine import dialect_of

_STEP: Final = 1_000
"""Rows that a walk over all tasks reads at a time."""

_WRITTEN: Final = (
    schema.account_state, schema.agent_event, schema.agent_status, schema.call_minute,
    schema.daemon, schema.lane, schema.rate_limit, schema.vendor_agent, schema.vendor_fact,
)  # fmt: skip
"""The tables that the daemon inserts into, updates and prunes."""

_MISSING_RIGHTS: Final = text(
    "SELECT priv || ' on ' || tab FROM unnest(CAST(:tables AS text[])) AS tab,"
    " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS priv"
    " WHERE NOT has_table_privilege(tab, priv) ORDER BY 1"
)
_POSTGRES_SETTINGS: Final = text(
    "SELECT name, setting FROM pg_settings"
    " WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"
)
_SQLITE_FULL: Final = 2


def missing_rights(connection: Connection) -> Sequence[str]:
    """Return the rights that the daemon needs and this user lacks, like `UPDATE on agent_status`.

    Meant to be run as a write: on SQLite, where a file has no finer rights, that it began is proof.
    """
    match dialect_of(connection):
        case "sqlite":
            return ()
        case "postgresql":
            tables = [table.name for table in _WRITTEN]
            return connection.execute(_MISSING_RIGHTS, {"tables": tables}).scalars().all()


def lost_by_power_cut(connection: Connection) -> Sequence[str]:
    """Return the settings of this write transaction under which a commit may not outlive one."""
    match dialect_of(connection):
        case "sqlite":
            return tuple(_weak_pragmas(connection))
        case "postgresql":
            settings = connection.execute(_POSTGRES_SETTINGS).all()
            # All values of synchronous_commit but this one wait for our own disk at least.
            return [f"{name} = {value}" for name, value in settings if value == "off"]


def _weak_pragmas(connection: Connection) -> Iterator[str]:
    journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    if journal != "wal":
        yield f"journal_mode = {journal}"
    synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    if synchronous < _SQLITE_FULL:
        yield f"synchronous = {synchronous}"


def count_plain_secrets(connection: Connection) -> int:
    """Return how many rows of `agent_task` hold, in their spec, what looks like a plain key."""
    return sum(map(holds_plain_secret, _specs(connection)))


def holds_plain_secret(spec: Any) -> bool:
    """Return whether text stands under a key that looks secret; `{"$secret": …}` is no text."""
    match spec:
        case dict():
            return any(_is_plain_secret(key, value) for key, value in spec.items())
        case list():
            return any(map(holds_plain_secret, spec))
        case _:
            return False


def _is_plain_secret(key: str, value: Any) -> bool:
    if isinstance(value, str):
        return bool(value) and key != "$secret" and names_secret(key)
    return holds_plain_secret(value)


def _specs(connection: Connection) -> Iterator[Any]:
    task = schema.agent_task.c
    step = select(task.id, task.spec).order_by(task.id).limit(_STEP)
    after = step.where(task.id > bindparam("after"))
    rows = connection.execute(step).all()
    while rows:
        yield from (row.spec for row in rows)
        rows = connection.execute(after, {"after": rows[-1].id}).all()
