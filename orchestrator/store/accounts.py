"""Statements about accounts: what the operator set, how the vendor treats them, how full they are.

`account_control` is the operator's; only missing rows are added here. `account_state` is the
daemons'.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, literal, or_, select, true, update

from orchestrator.store.columns import clock
from orchestrator.store.engine import dialect_of, one_of, upsert
from orchestrator.store.schema import account_control, account_state, vendor_agent


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an account stands in the database at this moment."""

    account: str
    paused: bool
    frozen: bool
    max_agents: int | None
    """The operator's; null: the configuration's."""
    retry_at: datetime | None
    """The operator's: try a denied account at this time."""
    denied_code: str | None
    denied_since: datetime | None
    probe_at: datetime | None
    """When one start is let through to see whether the account is still denied."""
    undated: bool


_ALWAYS = select(literal(1).label("one")).subquery("always")
_PRESENT = select(
    clock(),
    account_control.c.account,
    account_control.c.paused,
    account_control.c.frozen,
    account_control.c.max_agents,
    account_control.c.retry_at,
    account_state.c.denied_code,
    account_state.c.denied_since,
    account_state.c.probe_at,
    account_state.c.undated,
).select_from(
    _ALWAYS.outerjoin(
        account_control.join(account_state, account_state.c.account == account_control.c.account),
        true(),
    )
)
_LOCK_STATE = (
    select(account_state.c.account)
    .where(one_of(account_state.c.account, "names"))
    .order_by(account_state.c.account)
    .with_for_update()
)
_may_live = and_(
    vendor_agent.c.ended_at.is_(None),
    or_(vendor_agent.c.horizon_at.is_not(None), vendor_agent.c.vendor_task_id.is_not(None)),
)
"""Something of it may be at the vendor. A ledger row of which nothing ever left takes no place, or
a start that missed its slot would wait for the place that it holds itself."""
_is_counted = vendor_agent.c.task_id.is_not(None)
"""What no task of ours stands for fills the vendor's limit, and not one of ours."""
_LIVE = (
    select(vendor_agent.c.account, func.count())
    .where(one_of(vendor_agent.c.account, "names"), _may_live, _is_counted)
    .group_by(vendor_agent.c.account)
)
_DENY = (
    update(account_state)
    .where(account_state.c.account == bindparam("b_account"))
    .values(
        denied_code=bindparam("b_code"),
        denied_since=func.coalesce(account_state.c.denied_since, bindparam("b_at")),
        probe_at=bindparam("b_probe_at"),
        updated_at=bindparam("b_at"),
    )
)
_ALLOW = (
    update(account_state)
    .where(account_state.c.account == bindparam("b_account"))
    .values(denied_code=None, denied_since=None, probe_at=None, updated_at=bindparam("b_at"))
)
_PROBE = (
    update(account_state)
    .where(account_state.c.account == bindparam("b_account"))
    .values(probe_at=bindparam("b_probe_at"), updated_at=bindparam("b_at"))
)
_UNDATE = (
    update(account_state)
    .where(account_state.c.account == bindparam("b_account"))
    .values(undated=True, updated_at=bindparam("b_at"))
)
_OBSERVE = (
    update(account_state)
    .where(account_state.c.account == bindparam("b_account"))
    .values(
        breaker=bindparam("b_breaker"),
        clock_offset_ms=bindparam("b_offset"),
        updated_at=bindparam("b_at"),
    )
)


def ensure(connection: Connection, names: Iterable[str], now: datetime) -> None:
    """Add the rows of configured accounts that are not there yet; change none."""
    rows = [{"account": name} for name in names]
    if rows:
        dialect = dialect_of(connection)
        connection.execute(upsert(account_control, dialect).on_conflict_do_nothing(), rows)
        states = [{**row, "updated_at": now} for row in rows]
        connection.execute(upsert(account_state, dialect).on_conflict_do_nothing(), states)


def read_present(connection: Connection) -> tuple[datetime, dict[str, Standing]]:
    """Return the database's clock, and how every account stands, by name.

    Every pass begins with both, so they come by one statement.
    """
    rows = connection.execute(_PRESENT).all()
    standings = [_to_standing(row[1:]) for row in rows if row.account is not None]
    return rows[0][0], {one.account: one for one in standings}


def _to_standing(row: Sequence[Any]) -> Standing:
    account, paused, frozen, max_agents, retry_at, code, since, probe_at, undated = row
    return Standing(
        account=account,
        paused=bool(paused),
        frozen=bool(frozen),
        max_agents=max_agents,
        retry_at=retry_at,
        denied_code=code,
        denied_since=since,
        probe_at=probe_at,
        undated=bool(undated),
    )


def lock_states(connection: Connection, names: Sequence[str]) -> None:
    """Lock the states of accounts, in the order of their names: no two claims of them at once.

    This waits for other daemons, at most the session's lock time-out; never for an application.
    """
    if names:
        connection.execute(_LOCK_STATE, {"names": sorted(names)}).all()


def count_live(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """Return how many agents may live in each of these accounts that has any."""
    if not names:
        return {}
    found = connection.execute(_LIVE, {"names": list(names)})
    return {row[0]: row[1] for row in found}


def deny(
    connection: Connection, account: str, code: str, now: datetime, probe_at: datetime
) -> None:
    """Write down that the vendor denies this account, since when, and when to try again."""
    values = {"b_account": account, "b_code": code, "b_at": now, "b_probe_at": probe_at}
    connection.execute(_DENY, values)


def allow(connection: Connection, account: str, now: datetime) -> None:
    """Write down that the vendor takes calls of this account again."""
    connection.execute(_ALLOW, {"b_account": account, "b_at": now})


def move_probe(connection: Connection, account: str, now: datetime, probe_at: datetime) -> None:
    """Let nobody else try a denied account before this time: a probe is on its way."""
    values = {"b_account": account, "b_at": now, "b_probe_at": probe_at}
    connection.execute(_PROBE, values)


def undate(connection: Connection, account: str, now: datetime) -> None:
    """Write down that backdated signatures are not believed for this account."""
    connection.execute(_UNDATE, {"b_account": account, "b_at": now})


_PROBE_DENIED = (
    update(account_state)
    .where(one_of(account_state.c.account, "names"), account_state.c.denied_code.is_not(None))
    .values(probe_at=bindparam("b_probe_at"))
)


def probe_denied(connection: Connection, names: Sequence[str], now: datetime) -> None:
    """Let one start of each denied account be tried now: its keys may be others."""
    connection.execute(_PROBE_DENIED, {"names": list(names), "b_probe_at": now})


_COUNT = (
    update(account_state)
    .where(one_of(account_state.c.account, "names"))
    .values(
        live_agents=select(func.count())
        .where(vendor_agent.c.account == account_state.c.account, _may_live, _is_counted)
        .scalar_subquery()
    )
)


def recount(connection: Connection, names: Sequence[str]) -> None:
    """Write how many agents may live in these accounts. It counts them all: call it seldom."""
    connection.execute(_COUNT, {"names": list(names)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a daemon tells of an account, for people and metrics."""

    account: str
    breaker: str | None
    clock_offset_ms: int | None


def observe(connection: Connection, observed: Iterable[Observed], now: datetime) -> None:
    """Write what this daemon sees of its accounts."""
    rows = [
        {
            "b_account": one.account,
            "b_breaker": one.breaker,
            "b_offset": one.clock_offset_ms,
            "b_at": now,
        }
        for one in observed
    ]
    if rows:
        connection.execute(_OBSERVE, rows)
