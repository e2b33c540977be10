"""Statements about a clock that was set: how far, and what was still to come then.

`installation.clock_set_ms` is the fence. Each daemon knows by how much the clock was set since it
last agreed with that number, so what others have made up for already is never made up for twice.
"""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from orchestrator.store.schema import installation, vendor_agent

_MS: Final = timedelta(milliseconds=1)

_READ = select(installation.c.clock_set_ms)
_LOCK = _READ.with_for_update()
_RECORD = update(installation).values(clock_set_ms=bindparam("b_ms"))
_TO_COME = (
    select(vendor_agent.c.id, vendor_agent.c.horizon_at)
    .where(
        vendor_agent.c.ended_at.is_(None),
        vendor_agent.c.horizon_at > bindparam("b_before"),
        # Nothing that was announced by the clock as it is now.
        vendor_agent.c.announced_at <= bindparam("b_before"),
    )
    .order_by(vendor_agent.c.id)
    .with_for_update()
)
_PUT_OFF = (
    update(vendor_agent)
    .where(vendor_agent.c.id == bindparam("b_id"))
    .values(horizon_at=bindparam("b_horizon_at"))
)


def read(connection: Connection) -> timedelta:
    """Return by how much the clock was set in all, ahead less back, as it is recorded."""
    recorded: int = connection.execute(_READ).scalar_one()
    return recorded * _MS


def lock(connection: Connection) -> timedelta:
    """Return the same, and let nobody else record anything until the end of the transaction.

    Take it before any other row: this waits for other daemons.
    """
    recorded: int = connection.execute(_LOCK).scalar_one()
    return recorded * _MS


def record(connection: Connection, total: timedelta) -> None:
    """Write by how much the clock was set in all, to a millisecond."""
    connection.execute(_RECORD, {"b_ms": round(total / _MS)})


def put_off_horizons(connection: Connection, now: datetime, step: timedelta) -> int:
    """Put off by `step` what was still to come when the clock was set ahead; return how many.

    It walks through all open ledger rows, once for each time that a clock is set.
    """
    found = connection.execute(_TO_COME, {"b_before": now - step}).all()
    rows = [{"b_id": id_, "b_horizon_at": horizon_at + step} for id_, horizon_at in found]
    if rows:
        connection.execute(_PUT_OFF, rows)
    return len(rows)
