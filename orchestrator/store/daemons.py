"""Statements about daemons: who runs, who listens, and this database's own mark."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from orchestrator.store.engine import now as database_now
from orchestrator.store.schema import daemon, installation, orphan_task, vendor_agent

SILENT_AFTER = timedelta(seconds=30)
"""A daemon that has not said so for this long is not running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A row of `daemon`."""

    id: str
    name: str
    host: str
    pid: int
    version: str
    wake: str
    accounts: Sequence[str]


GAP: timedelta = timedelta(seconds=5)
"""Longer than this without a heartbeat of any daemon, and no application is blamed for its own."""


def is_gap(last: datetime | None, now: datetime) -> bool:
    """Return whether the daemons were away so long that nobody's silence means anything."""
    return last is None or now - last > GAP


_BEAT = (
    update(daemon)
    .where(daemon.c.id == bindparam("b_id"))
    .values(heartbeat_at=bindparam("b_now"), draining=bindparam("b_draining"))
)
_ASLEEP = (
    update(daemon).where(daemon.c.id == bindparam("b_id")).values(asleep=bindparam("b_asleep"))
)
_LIVE = select(daemon.c.id, daemon.c.accounts).where(daemon.c.heartbeat_at > bindparam("b_since"))
_LAST_BEAT = select(daemon.c.heartbeat_at).order_by(daemon.c.heartbeat_at.desc()).limit(1)
_AMNESTY = select(_LAST_BEAT.scalar_subquery(), installation.c.amnesty_at)


def register(connection: Connection, one: Daemon, now: datetime) -> None:
    """Write this daemon's row, and drop those of daemons that have long been silent."""
    connection.execute(delete(daemon).where(daemon.c.heartbeat_at < now - timedelta(days=1)))
    connection.execute(
        insert(daemon).values(
            id=one.id,
            name=one.name,
            host=one.host,
            pid=one.pid,
            version=one.version,
            wake=one.wake,
            accounts=list(one.accounts),
            started_at=now,
            heartbeat_at=now,
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """A daemon that has read its configuration again."""

    daemon_id: str
    accounts: Sequence[str]


def renew(connection: Connection, one: Renewed) -> None:
    """Write which accounts a daemon has now."""
    values = {"accounts": list(one.accounts)}
    connection.execute(update(daemon).where(daemon.c.id == one.daemon_id).values(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a heartbeat says."""

    daemon_id: str
    draining: bool


def beat(connection: Connection, said: Beat, now: datetime) -> None:
    """Say that this daemon runs."""
    values = {"b_id": said.daemon_id, "b_now": now, "b_draining": said.draining}
    connection.execute(_BEAT, values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Whether a daemon has nothing to do and wants to be notified."""

    daemon_id: str
    asleep: bool


def say_asleep(connection: Connection, said: Sleep) -> None:
    """Say whether this daemon sleeps; the triggers read it."""
    connection.execute(_ASLEEP, {"b_id": said.daemon_id, "b_asleep": said.asleep})


def sign_off(connection: Connection, daemon_id: str) -> None:
    """Remove this daemon's row: it has ended in good order."""
    connection.execute(delete(daemon).where(daemon.c.id == daemon_id))


def accounts_of_others(connection: Connection, daemon_id: str, now: datetime) -> set[str]:
    """Return the accounts that other live daemons have."""
    rows = connection.execute(_LIVE, {"b_since": now - SILENT_AFTER})
    return {name for id_, accounts in rows if id_ != daemon_id for name in accounts}


def live_on(connection: Connection, host: str) -> list[str]:
    """Return the live daemons of a machine, as `name (pid 123)`."""
    chosen = (
        select(daemon.c.name, daemon.c.pid)
        .where(daemon.c.host == host, daemon.c.heartbeat_at > bindparam("b_since"))
        .order_by(daemon.c.name)
    )
    rows = connection.execute(chosen, {"b_since": database_now(connection) - SILENT_AFTER})
    return [f"{row.name} (pid {row.pid})" for row in rows]


def last_heartbeat(connection: Connection) -> datetime | None:
    """Return when any daemon last said that it runs."""
    return connection.execute(_LAST_BEAT).scalar()


def read_mark(connection: Connection) -> str:
    """Return this database's mark."""
    mark: str = connection.execute(select(installation.c.mark)).scalar_one()
    return mark


def read_amnesty(connection: Connection, now: datetime) -> datetime | None:
    """Return the end of the daemons' last own gap, which is now while one lasts.

    Whoever works first after a gap may do so before any daemon has said again that it runs, and
    each gap is ended by one daemon for all.
    """
    last, ended = connection.execute(_AMNESTY).one()
    return now if last is not None and is_gap(last, now) else ended


def grant_amnesty(connection: Connection, at: datetime) -> None:
    """Write down the end of a gap of ours: heartbeats could not be written before it."""
    connection.execute(update(installation).values(amnesty_at=at))


def accounts_without_keys(connection: Connection, one: Renewed, now: datetime) -> list[str]:
    """Return the accounts in which agents may run, and which no live daemon has, by name."""
    held = accounts_of_others(connection, one.daemon_id, now).union(one.accounts)
    return sorted(accounts_with_open_agents(connection) - held)


def accounts_with_open_agents(connection: Connection) -> set[str]:
    """Return the accounts of all open ledger rows, less those of agents that are only reported."""
    reported = select(orphan_task.c.id).where(orphan_task.c.action == "report")
    chosen = (
        select(vendor_agent.c.account)
        .where(
            vendor_agent.c.ended_at.is_(None),
            or_(vendor_agent.c.orphan_id.is_(None), vendor_agent.c.orphan_id.not_in(reported)),
        )
        .distinct()
    )
    return set(connection.execute(chosen).scalars())
