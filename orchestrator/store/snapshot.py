"""How everything stands at one moment, for `status`: tasks, orphans, accounts, daemons.

Rule 1: nothing here changes a row.
Rule 2: a row has the names of its view's or table's columns; times are aware UTC instants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Text, TextClause, column, func, select, table, text

from orchestrator.store import foremost, status_id
from orchestrator.store.daemons import SILENT_AFTER
from orchestrator.store.engine import now, one_of
from orchestrator.store.foremost import Page
from orchestrator.store.schema import account_control, account_state, agent_status, daemon
from orchestrator.store.views import View, read_rows

SHOWN: Final = 1_000
"""Tasks, and orphans, that are read for a person at most: trouble comes first, and nobody reads
further."""
_ALL: Final = 2**31 - 1

_OF_ACCOUNT: Final = "(CAST(:account AS text) IS NULL OR account = :account)"


def _statement(view: str, rest: str = "") -> TextClause:
    return text(f"SELECT * FROM {view} WHERE {_OF_ACCOUNT}{rest}")  # noqa: S608 - words of this file


_TASKS: Final = _statement("task_overview")
_THESE: Final = (
    select(text("*"))
    .select_from(table("task_overview"))
    .where(one_of(column("task_id", Text()), "ids"))
)
_CONVERGENCE: Final = _statement("convergence", rest=" ORDER BY account, age")
_HEALTH: Final = _statement("account_health", rest=" ORDER BY account, action")
_ORPHANS: Final = _statement(
    "orphan_overview", rest=" ORDER BY stopped_at IS NOT NULL, phase = 'ignored', first_seen_at, id"
)
_ACCOUNTS: Final = (
    select(
        account_control.c.account,
        account_control.c.paused,
        account_control.c.frozen,
        account_control.c.max_agents,
        account_state.c.live_agents,
        account_state.c.breaker,
        account_state.c.denied_code,
        account_state.c.denied_since,
        account_state.c.probe_at,
        account_state.c.clock_offset_ms,
    )
    .select_from(
        account_control.outerjoin(
            account_state, account_state.c.account == account_control.c.account
        )
    )
    .order_by(account_control.c.account)
)
_TOTALS: Final = (
    select(agent_status.c.phase, func.count())
    .where(status_id.is_task_column(agent_status.c.task_id))
    .group_by(agent_status.c.phase)
)
_DAEMONS: Final = select(daemon).order_by(daemon.c.name, daemon.c.started_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for."""

    account: str | None = None
    """Only of this account; null: of all."""
    trouble: bool = False
    """Only tasks that are in trouble, wait, or are to end."""
    whole: bool = False
    """All tasks, however many there are, and not only as many as anybody reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How everything stands at one moment."""

    at: datetime
    """The database's clock."""
    totals: Mapping[str, int]
    """Tasks by phase; of a phase that is not here there is none."""
    tasks: Sequence[View]
    """Rows of `task_overview`, trouble first."""
    convergence: Sequence[View]
    health: Sequence[View]
    """Rows of `account_health`."""
    accounts: Sequence[View]
    """What the operator set (`account_control`) and what the daemons say (`account_state`)."""
    orphans: Sequence[View]
    """Rows of `orphan_overview`, those that run first."""
    daemons: Sequence[View]
    """Rows of `daemon`, and whether each `is_alive`."""

    @property
    def unconverged(self) -> int:
        """How many tasks are not as desired."""
        return sum(row["tasks"] for row in self.convergence)

    @property
    def leaking(self) -> Sequence[View]:
        """The orphans that run, or may run, and that somebody has to look after."""
        return [row for row in self.orphans if row["phase"] in {"seen", "stopping"}]


def take(connection: Connection, wanted: Wanted) -> Snapshot:
    """Return how everything stands."""
    at = now(connection)
    whose = {"account": wanted.account}
    orphans = _cut(_ORPHANS, wanted).bindparams(**whose)
    totals, accounts = _TOTALS, _ACCOUNTS
    if wanted.account is not None:
        totals = totals.where(agent_status.c.account == wanted.account)
        accounts = accounts.where(account_control.c.account == wanted.account)
    return Snapshot(
        at=at,
        totals=dict(iter(connection.execute(totals))),
        tasks=_read_tasks(connection, at, wanted),
        convergence=read_rows(connection, _CONVERGENCE.bindparams(**whose)),
        health=read_rows(connection, _HEALTH.bindparams(**whose)),
        accounts=read_rows(connection, accounts),
        orphans=read_rows(connection, orphans),
        daemons=[
            {**row, "is_alive": at - row["heartbeat_at"] < SILENT_AFTER}
            for row in read_rows(connection, _DAEMONS)
        ],
    )


def _read_tasks(connection: Connection, at: datetime, wanted: Wanted) -> Sequence[View]:
    if wanted.whole and not wanted.trouble:
        # The view's own order is an index's: a million rows are read and not sorted.
        return read_rows(connection, _TASKS.bindparams(account=wanted.account))
    most = _ALL if wanted.whole else SHOWN
    page = Page(most=most, account=wanted.account, trouble=wanted.trouble)
    ids = foremost.find(connection, at, page)
    rows = {row["task_id"]: row for row in read_rows(connection, _THESE.params(ids=ids))}
    return [rows[id_] for id_ in ids if id_ in rows]


def _cut(statement: TextClause, wanted: Wanted) -> TextClause:
    """Return the statement that reads no more rows than are wanted."""
    return statement if wanted.whole else text(f"{statement.text} LIMIT {SHOWN}")
