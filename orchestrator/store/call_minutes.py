"""Statements about how calls go: the per-minute sums behind `account_health`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.store.engine import dialect_of, upsert
from orchestrator.store.schema import call_minute


@dataclass(frozen=True, kw_only=True)
class Sum:
    """Calls of one action that ended in one minute, with latencies of one bucket."""

    account: str
    action: str
    minute: datetime
    bucket: int
    calls: int
    failures: int


def add(connection: Connection, sums: Sequence[Sum]) -> None:
    """Add to the sums. They come in the order of their keys, so that two daemons never cross."""
    if not sums:
        return
    insert = upsert(call_minute, dialect_of(connection))
    statement = insert.on_conflict_do_update(
        index_elements=["account", "action", "minute", "bucket"],
        set_={
            "calls": call_minute.c.calls + insert.excluded.calls,
            "failures": call_minute.c.failures + insert.excluded.failures,
        },
    )
    connection.execute(statement, [asdict(one) for one in sums])
