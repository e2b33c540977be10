"""What `check` asks of a database.

May we do what the daemon does, does a commit last, are keys lying about, does somebody else use our
prefix.

Rule 1: nothing here changes a row.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select, text

from orchestrator.secret import names_secret
from orchestrator.store import schema
from orchestrator.store.engine import dialect_of
from orchestrator.store.version import VERSION_TABLE

_STEP: Final = 1_000
"""Rows that a walk over all tasks reads at a time."""

_WRITTEN: Final = (
    schema.task_change, schema.agent_command, schema.orphan_task, schema.agent_status,
    schema.vendor_agent, schema.lane, schema.vendor_fact, schema.agent_event, schema.account_state,
    schema.rate_limit, schema.call_minute, schema.daemon, schema.llm_task, schema.llm_turn,
)  # fmt: skip
"""The tables that the daemon inserts into, updates and prunes."""
_VIEWS: Final = ("convergence", "orphan_overview")
"""What the metrics are read from."""

NEEDED: Final[frozenset[tuple[str, str]]] = frozenset(
    {
        *((right, table.name) for table in _WRITTEN for right in ("INSERT", "UPDATE", "DELETE")),
        *(("SELECT", name) for name in (*schema.metadata.tables, VERSION_TABLE, *_VIEWS)),
        ("DELETE", "agent_task"),
        ("INSERT", "account_control"),
        ("UPDATE", "installation"),
    }
)
"""Right and table (or view): what the role orchestrator_daemon has, and what the daemon needs."""

_MISSING_RIGHTS: Final = text(
    "SELECT need.right_name || ' on ' || need.table_name"
    " FROM unnest(CAST(:rights AS text[]), CAST(:tables AS text[])) AS need(right_name, table_name)"
    " WHERE NOT has_table_privilege(need.table_name, need.right_name) ORDER BY 1"
)
# To lock a task that is about to be forgotten, Postgres asks for the right to update any column.
_MISSING_LOCK: Final = text(
    "SELECT 'UPDATE (updated_at) on agent_task'"
    " WHERE NOT has_column_privilege('agent_task', 'updated_at', 'UPDATE')"
)
# Row security hides rows in silence: who is under no policy sees an empty table.
_HIDDEN_ROWS: Final = text(
    "SELECT 'the rows of task_change: its policy is for orchestrator_daemon'"
    " WHERE row_security_active('task_change') AND NOT EXISTS ("
    "  SELECT FROM pg_policy AS policy, unnest(policy.polroles) AS member"
    "  WHERE policy.polrelid = CAST('task_change' AS regclass) AND policy.polcmd = '*'"
    "   AND (member = 0 OR pg_has_role(member, 'USAGE')))"
)
_SCHEMA: Final = text(
    "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :name"
)
_NOTIFY: Final = text("SELECT pg_notify(:channel, :payload)")
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
            rights, tables = zip(*sorted(NEEDED), strict=True)
            needed = {"rights": list(rights), "tables": list(tables)}
            missing = list(connection.execute(_MISSING_RIGHTS, needed).scalars())
            for question in (_MISSING_LOCK, _HIDDEN_ROWS):
                missing.extend(connection.execute(question).scalars())
            return missing


def may_use_schema(connection: Connection, name: str) -> bool | None:
    """Return whether this user may use a schema of Postgres; null: there is none of that name."""
    usable: bool | None = connection.execute(_SCHEMA, {"name": name}).scalar_one_or_none()
    return usable


def notify(connection: Connection, channel: str, payload: str) -> None:
    """Send a notification (Postgres). It leaves with the commit."""
    connection.execute(_NOTIFY, {"channel": channel, "payload": payload})


def count_namesakes(connection: Connection, owner_prefix: str) -> int:
    """Return how many agents were seen that have our prefix, and another database's mark."""
    orphan = schema.orphan_task.c
    chosen = select(func.count()).where(
        orphan.ours.is_(False), orphan.agent_user_id.startswith(owner_prefix, autoescape=True)
    )
    count: int = connection.execute(chosen).scalar_one()
    return count


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
