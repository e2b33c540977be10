"""Statements that find the facts a claim applies, and those that nobody knows what to do with.

What callbacks told is written by `facts`; here it is read and taken. A fact is found by the handle
or the name in it, in the open rows of the ledger.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    exists,
    insert,
    or_,
    select,
    tuple_,
    union,
    union_all,
    update,
)

from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import EndReason, What
from orchestrator.store import status_id
from orchestrator.store.engine import lock_rows, one_of
from orchestrator.store.schema import task_change, vendor_agent, vendor_fact

FACT_COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(Fact))
_FACT = tuple(vendor_fact.c[name] for name in FACT_COLUMNS)
_is_open = vendor_agent.c.ended_at.is_(None)
_is_untaken = vendor_fact.c.taken_at.is_(None)

_SPEAKS = (
    vendor_fact.c.vendor_task_id == vendor_agent.c.vendor_task_id,
    vendor_fact.c.name == vendor_agent.c.name,
    vendor_fact.c.name == vendor_agent.c.id,
)
"""The ways in which a fact speaks of a ledger row, each with an index of its own. A ledger row's id
is the session name that was announced."""


def _told(owner: ColumnElement[Any], among: ColumnElement[bool]) -> list[Select[Any]]:
    return [
        select(owner.label("owner"), vendor_fact.c.account, *_FACT).where(
            vendor_fact.c.account == vendor_agent.c.account,
            among,
            _is_open,
            _is_untaken,
            speaks,
        )
        for speaks in _SPEAKS
    ]


_READ = union(
    *_told(vendor_agent.c.task_id, one_of(vendor_agent.c.task_id, "ids")),
    *_told(
        status_id.of_orphan_column(vendor_agent.c.orphan_id),
        one_of(vendor_agent.c.orphan_id, "orphans"),
    ),
)


def read(connection: Connection, ids: Sequence[str]) -> dict[str, list[tuple[str, Fact]]]:
    """Return, by row, the untaken facts about its open agents, each with its account.

    An orphan's row has a `~` before the orphan's id.
    """
    found: dict[str, list[tuple[str, Fact]]] = {}
    values = {
        "ids": status_id.to_tasks(ids),
        "orphans": status_id.to_orphans(ids),
    }
    for row in connection.execute(_READ, values):
        found.setdefault(row[0], []).append((row[1], to_fact(row[2:])))
    return found


_PAST = select(vendor_agent.c.account, vendor_agent.c.vendor_task_id).where(
    one_of(vendor_agent.c.account, "accounts"),
    one_of(vendor_agent.c.vendor_task_id, "handles"),
    vendor_agent.c.ended_at.is_not(None),
)


def read_past(
    connection: Connection, told: Iterable[tuple[str, Fact]]
) -> dict[str, frozenset[str]]:
    """Return, by account, the handles in these facts that the ledger knows of ended agents."""
    told = [(account, fact) for account, fact in told if fact.vendor_task_id is not None]
    if not told:
        return {}
    values = {
        "accounts": sorted({account for account, _ in told}),
        "handles": sorted({fact.vendor_task_id or "" for _, fact in told}),
    }
    past: dict[str, frozenset[str]] = {}
    for account, handle in connection.execute(_PAST, values):
        past[account] = past.get(account, frozenset()) | {handle}
    return past


def to_fact(row: Sequence[Any]) -> Fact:
    """Return the fact of a row selected as `FACT_COLUMNS`."""
    values = dict(zip(FACT_COLUMNS, row, strict=True))
    reason = values["end_reason"]
    return Fact(
        **values
        | {
            "event": Event(values["event"]),
            "end_reason": EndReason(reason) if reason is not None else None,
            "is_signed": bool(values["is_signed"]),
        }
    )


_TAKE = (
    update(vendor_fact)
    .where(vendor_fact.c.account == bindparam("b_account"), vendor_fact.c.key == bindparam("b_key"))
    .values(taken_at=bindparam("b_now"))
)


def take(connection: Connection, taken: Iterable[tuple[str, str]], now: datetime) -> None:
    """Write that these facts, each by its account and key, have been applied."""
    rows = [{"b_account": account, "b_key": key, "b_now": now} for account, key in taken]
    if rows:
        connection.execute(_TAKE, rows)


_PARKED = select(vendor_fact.c.account, vendor_fact.c.vendor_task_id).where(
    one_of(vendor_fact.c.account, "accounts"),
    one_of(vendor_fact.c.vendor_task_id, "handles"),
    _is_untaken,
)


def tell_parked(connection: Connection, learnt: Iterable[tuple[str, str, str]], actor: str) -> None:
    """Let rows be looked at again whose new handle has been spoken of before it was known.

    `learnt`: account, handle and the row's id.
    """
    owners = {(account, handle): id_ for account, handle, id_ in learnt}
    if not owners:
        return
    values = {
        "accounts": sorted({account for account, _ in owners}),
        "handles": sorted({handle for _, handle in owners}),
    }
    parked = {(row[0], row[1]) for row in connection.execute(_PARKED, values)}
    tell(connection, (owners[key] for key in parked & owners.keys()), actor)


def tell(connection: Connection, ids: Iterable[str], actor: str) -> None:
    """Write that something was told of these rows."""
    rows = [
        {"task_id": id_, "what": What.FACT.value, "urgent": False, "actor": actor}
        for id_ in sorted(set(ids))
    ]
    if rows:
        connection.execute(insert(task_change), rows)


# --- what nobody has taken ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Loose:
    """A fact that was not taken, and what the ledger knows of what it speaks of."""

    account: str
    fact: Fact
    received_at: datetime
    owner: str | None
    """The row whose open agent it speaks of (`~` before an orphan's id); null: none."""
    is_announced: bool
    """A change tells `owner` of it already."""
    ended_at: datetime | None
    """When the agent it speaks of ended, if the ledger knows one that has."""
    is_start_open: bool
    """A start of the account in that room is open: the handle may be its."""
    is_elsewhere: bool
    """An open agent of another account bears the name."""


_UNTAKEN = select(vendor_fact.c.account, vendor_fact.c.received_at, *_FACT).where(_is_untaken)
_LOOSE = (
    _UNTAKEN.where(
        one_of(vendor_fact.c.account, "accounts"),
        # Ends of agents that nobody knows are no orphans. Many may wait, and stand in no way.
        or_(
            vendor_fact.c.event != Event.ENDED.value,
            vendor_fact.c.received_at <= bindparam("ended_by"),
        ),
        tuple_(vendor_fact.c.received_at, vendor_fact.c.key)
        > tuple_(
            bindparam("after_at", type_=vendor_fact.c.received_at.type),
            bindparam("after_key", type_=vendor_fact.c.key.type),
        ),
    )
    .order_by(vendor_fact.c.received_at, vendor_fact.c.key)
    .limit(bindparam("most"))
)
_LOCK_LOOSE = lock_rows(
    _UNTAKEN.where(
        vendor_fact.c.account == bindparam("account"), vendor_fact.c.key == bindparam("key")
    ),
    of=vendor_fact,
)
Cursor = tuple[datetime, str]
"""When a fact was received, and its key: where to go on."""
BEGIN: Final[Cursor] = (datetime(2, 1, 1, tzinfo=UTC), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which facts to look at."""

    accounts: Sequence[str]
    ended_by: datetime
    """Ends are left out that were told after that."""
    after: Cursor = BEGIN
    most: int


def loose(connection: Connection, page: Page) -> list[Loose]:
    """Return facts that nobody has taken, the oldest first. Locks nothing."""
    values = {
        "accounts": list(page.accounts),
        "ended_by": page.ended_by,
        "after_at": page.after[0],
        "after_key": page.after[1],
        "most": page.most,
    }
    found = connection.execute(_LOOSE, values).all()
    return [_explain(connection, row[0], row[1], to_fact(row[2:]), page.accounts) for row in found]


def lock_loose(
    connection: Connection, account: str, key: str, accounts: Sequence[str]
) -> Loose | None:
    """Lock a fact and return it; null if somebody has taken it, or is about to."""
    row = connection.execute(_LOCK_LOOSE, {"account": account, "key": key}).first()
    return None if row is None else _explain(connection, row[0], row[1], to_fact(row[2:]), accounts)


_SPOKEN_OF = union_all(
    *(
        select(vendor_agent.c.task_id, vendor_agent.c.orphan_id, vendor_agent.c.ended_at).where(
            vendor_agent.c.account == bindparam("account"), column == bindparam(value)
        )
        for column, value in (
            (vendor_agent.c.vendor_task_id, "handle"),
            (vendor_agent.c.name, "name"),
            (vendor_agent.c.id, "name"),
        )
    )
)
_START_OPEN = select(
    exists().where(
        vendor_agent.c.account == bindparam("account"),
        vendor_agent.c.room_id == bindparam("room_id"),
        _is_open,
        and_(vendor_agent.c.vendor_task_id.is_(None), vendor_agent.c.horizon_at.is_not(None)),
    )
)
_ELSEWHERE = union_all(
    select(vendor_agent.c.id).where(vendor_agent.c.id == bindparam("name"), _is_open),
    select(vendor_agent.c.id).where(
        one_of(vendor_agent.c.account, "accounts"),
        vendor_agent.c.name == bindparam("name"),
        _is_open,
    ),
)
_ANNOUNCED = select(
    exists().where(task_change.c.task_id == bindparam("id"), task_change.c.what == What.FACT.value)
)


def _explain(
    connection: Connection,
    account: str,
    received_at: datetime,
    fact: Fact,
    accounts: Sequence[str],
) -> Loose:
    values = {"account": account, "handle": fact.vendor_task_id, "name": fact.name}
    agents = connection.execute(_SPOKEN_OF, values).all()
    owners = [status_id.of_row(task, orphan) for task, orphan, ended_at in agents if not ended_at]
    ended = [ended_at for _, _, ended_at in agents if ended_at is not None]
    room = {"account": account, "room_id": fact.room_id}
    owner = owners[-1] if owners else None
    elsewhere = {"accounts": list(accounts), "name": fact.name}
    return Loose(
        account=account,
        fact=fact,
        received_at=received_at,
        owner=owner,
        is_announced=bool(owner and connection.execute(_ANNOUNCED, {"id": owner}).scalar()),
        ended_at=max(ended, default=None),
        is_start_open=bool(fact.room_id and connection.execute(_START_OPEN, room).scalar()),
        is_elsewhere=bool(fact.name and connection.execute(_ELSEWHERE, elsewhere).first()),
    )
