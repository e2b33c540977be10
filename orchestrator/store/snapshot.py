"""How everything stands at one moment, for `status`: tasks, orphans, accounts, daemons.

Rule 1: nothing here changes a row.
Rule 2: a row has the names of its view's or table's columns; times are aware UTC instants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, TextClause, func, select, text

from orchestrator.store import status_id
from orchestrator.store.daemons import SILENT_AFTER
from orchestrator.store.engine import now
from orchestrator.store.schema import account_control, account_state, agent_status, daemon
from orchestrator.store.views import View, read_rows

SHOWN: Final = 1_000
"""Tasks, and orphans, that are read for a person at most: trouble comes first, and nobody reads
further."""

_OF_ACCOUNT: Final = "(CAST(:account AS text) IS NULL OR account = :account)"
_IN_TROUBLE: Final = (
    "(reason IS NOT NULL OR phase = 'quarantined'"
    " OR coalesce(waiting_for, 'start_at') <> 'start_at'"
    " OR (desired_state <> 'running' AND phase NOT IN ('stopped', 'failed')))"
)
_TROUBLE_FIRST: Final = (
    " ORDER BY CASE WHEN phase = 'stopped' THEN 4 WHEN reason IS NOT NULL THEN 0"
    " WHEN waiting_for IS NOT NULL THEN 1 WHEN phase <> 'running' THEN 2 ELSE 3 END,"
    " phase_since DESC, task_id"
)
"""What ended well is of the least interest, and what has a reason of the most."""


def _statement(view: str, condition: str = "", rest: str = "") -> TextClause:
    conditions = f"{_OF_ACCOUNT} AND {condition}" if condition else _OF_ACCOUNT
    return text(f"SELECT * FROM {view} WHERE {conditions}{rest}")  # noqa: S608 - words of this file


_TASKS: Final = _statement("task_overview", rest=_TROUBLE_FIRST)
_TROUBLED: Final = _statement("task_overview", _IN_TROUBLE, _TROUBLE_FIRST)
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
    tasks = _cut(_TROUBLED if wanted.trouble else _TASKS, wanted).bindparams(**whose)
    orphans = _cut(_ORPHANS, wanted).bindparams(**whose)
    totals, accounts = _TOTALS, _ACCOUNTS
    if wanted.account is not None:
        totals = totals.where(agent_status.c.account == wanted.account)
        accounts = accounts.where(account_control.c.account == wanted.account)
    return Snapshot(
        at=at,
        totals=dict(iter(connection.execute(totals))),
        tasks=read_rows(connection, tasks),
        convergence=read_rows(connection, _CONVERGENCE.bindparams(**whose)),
        health=read_rows(connection, _HEALTH.bindparams(**whose)),
        accounts=read_rows(connection, accounts),
        orphans=read_rows(connection, orphans),
        daemons=[
            {**row, "is_alive": at - row["heartbeat_at"] < SILENT_AFTER}
            for row in read_rows(connection, _DAEMONS)
        ],
    )


def _cut(statement: TextClause, wanted: Wanted) -> TextClause:
    """Return the statement that reads no more rows than are wanted."""
    return statement if wanted.whole else text(f"{statement.text} LIMIT {SHOWN}")
