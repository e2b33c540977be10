"""Ends sessions that frozen daemons of ours have left in a transaction (Postgres before 17).

A daemon that freezes while its driver prepares a statement leaves a server that waits for the rest
of a command: in a transaction, with the rows that it has locked, and beyond the reach of the limits
of `store.postgres`. From Postgres 17 on the server ends such a transaction by itself; before, a
daemon that lives has to.

Rule 1: only sessions like the one that asks are ended: of its role, in its database, and of its
application's name. A migration has another name, and may take its time.
Rule 2: only a session that waits for its client is ended, never one that works or waits for a lock.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import INTERVAL

from orchestrator.store.engine import Connection, dialect_of

LONGEST_TRANSACTION: Final = timedelta(seconds=15)
"""Longer than any one statement may take. Postgres 17 and later hold to it themselves."""
BOUNDS_TRANSACTIONS: Final = 17
"""The first version of Postgres that does (`transaction_timeout`)."""

# The list of a SELECT is worked out for what the condition has let through, and for nothing else.
_END: Final = text("""
    SELECT pid, clock_timestamp() - xact_start AS age, pg_terminate_backend(pid) AS ended
    FROM pg_stat_activity
    WHERE usename = session_user
        AND datname = current_database()
        AND application_name = current_setting('application_name')
        AND state IN ('active', 'idle in transaction')
        AND wait_event = 'ClientRead'
        AND clock_timestamp() - xact_start > :longest
        AND pid <> pg_backend_pid()
""").columns(age=INTERVAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A session that is no more."""

    pid: int
    """Of the server's process."""
    age: timedelta
    """Of its transaction."""


def end_sessions(connection: Connection, longest: timedelta) -> list[Ended]:
    """End our sessions that wait for a client in a transaction older than `longest`; return them.

    No row is changed, so it may be run as a read. On SQLite, where a lock goes by the file, and on
    a Postgres that needs no help it does nothing.
    """
    if not _needs_help(connection):
        return []
    found = connection.execute(_END, {"longest": longest})
    return [Ended(pid=row.pid, age=row.age) for row in found if row.ended]


def _needs_help(connection: Connection) -> bool:
    if dialect_of(connection) == "sqlite":
        return False
    version = connection.dialect.server_version_info
    return version is not None and version < (BOUNDS_TRANSACTIONS,)
