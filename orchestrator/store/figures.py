"""Statements about how everything stands, in numbers: what every daemon tells metrics alike.

Rule 1: what a view defines is asked of the view, so that a graph and a query never disagree.
Rule 2: it costs what is not at rest, and one walk along an index: tasks are counted in
`ix_agent_status_phase_account`, what waits is found in `ix_agent_status_parked` and
`ix_agent_command_open`.
Rule 3: an account is a name that a daemon has or had in its configuration (`account_state`). What
applications write instead is summed under '', so that they do not choose how many there are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, func, select, text

from orchestrator.core.model import Phase, WaitingFor
from orchestrator.store.engine import now as database_now
from orchestrator.store.schema import account_control, account_state, agent_command, agent_status

NOBODY: Final = ""
"""Stands for all accounts that no daemon ever had."""
PARKED: Final = (
    WaitingFor.RATE_LIMIT,
    WaitingFor.CIRCUIT_OPEN,
    WaitingFor.CAPACITY,
    WaitingFor.DENIED,
    WaitingFor.PAUSED,
    WaitingFor.FROZEN,
)
"""What rows are parked for."""

_ACCOUNTS: Final = select(
    account_state.c.account,
    account_state.c.denied_code.is_not(None),
    func.coalesce(account_control.c.paused, False),
    func.coalesce(account_control.c.frozen, False),
).select_from(
    account_state.outerjoin(account_control, account_control.c.account == account_state.c.account)
)
_TASKS: Final = text(
    "SELECT account, phase, count(*) FROM agent_status"
    " WHERE task_id NOT LIKE '~%' GROUP BY phase, account"
)
_UNCONVERGED: Final = text(
    "SELECT account, sum(tasks), max(oldest_s) FROM convergence GROUP BY account"
)
_ORPHANS: Final = text(
    "SELECT account, ours, sum(CASE WHEN stopped_at IS NULL THEN 1 ELSE 0 END), sum(leaked_s)"
    " FROM orphan_overview WHERE leaked_s IS NOT NULL GROUP BY account, ours"
)
_PARKED: Final = (
    select(
        agent_status.c.account,
        agent_status.c.waiting_for,
        func.count(),
        func.min(agent_status.c.parked_at, type_=agent_status.c.parked_at.type),
    )
    .where(agent_status.c.parked_class.is_not(None), agent_status.c.waiting_for.is_not(None))
    .group_by(agent_status.c.account, agent_status.c.waiting_for)
)
_PRESSES: Final = (
    select(
        agent_status.c.account,
        func.count(),
        func.min(agent_command.c.created_at, type_=agent_command.c.created_at.type),
    )
    .join(agent_status, agent_status.c.task_id == agent_command.c.task_id)
    .where(
        text("agent_command.state IN ('queued', 'sending')"),
        agent_command.c.kind.in_(("start_listening", "stop_listening")),
    )
    .group_by(agent_status.c.account)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How many wait, and for how long the oldest has."""

    count: int
    oldest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFigures:
    """How one account stands."""

    account: str
    """Empty: all that no daemon ever had, together."""
    denied: bool
    paused: bool
    frozen: bool
    tasks: Mapping[Phase, int]
    """Every phase is there."""
    unconverged: Waiting
    """Tasks not as desired (view `convergence`); the age in whole seconds."""
    orphans: Mapping[bool, int]
    """Those that may run now, by whether they are ours; both are there."""
    leaked_s: int
    """Seconds that all known orphans, ended ones too, have run (view `orphan_overview`). It falls
    when retention forgets one."""
    parked: Mapping[WaitingFor, Waiting]
    """Rows parked; every reason for which rows are is there."""
    presses: Waiting
    """Listening commands that are queued or on their way."""


def read_figures(connection: Connection) -> list[AccountFigures]:
    """Return how every account stands, by name; '' comes first, if there is anything under it."""
    now = database_now(connection)
    standings = {row[0]: tuple(map(bool, row[1:])) for row in connection.execute(_ACCOUNTS)}
    gathered = _Gathered(frozenset(standings))
    for account, phase, count in connection.execute(_TASKS):
        gathered.of(account).tasks[Phase(phase)] += count
    for account, count, oldest_s in connection.execute(_UNCONVERGED):
        gathered.of(account).unconverged.add(int(count), float(oldest_s))
    for account, ours, count, leaked_s in connection.execute(_ORPHANS):
        one = gathered.of(account)
        one.orphans[bool(ours)] += int(count)
        one.leaked_s += int(leaked_s)
    for account, waiting_for, count, since in connection.execute(_PARKED):
        parked = gathered.of(account).parked
        parked.setdefault(WaitingFor(waiting_for), _Sum()).add(count, _age_s(now, since))
    for account, count, since in connection.execute(_PRESSES):
        gathered.of(account).presses.add(count, _age_s(now, since))
    return [
        one.figures(name, standings.get(name, (False, False, False)))
        for name, one in sorted(gathered.accounts.items())
    ]


def _age_s(now: datetime, since: datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (now - since) / timedelta(seconds=1))


class _Sum:
    """A number of things that wait, added up."""

    def __init__(self) -> None:
        self.count = 0
        self.oldest_s = 0.0

    def add(self, count: int, oldest_s: float) -> None:
        self.count += count
        self.oldest_s = max(self.oldest_s, oldest_s)

    def waiting(self) -> Waiting:
        return Waiting(count=self.count, oldest_s=self.oldest_s)


class _Account:
    """What the statements found of one account, so far."""

    def __init__(self) -> None:
        self.tasks: Counter[Phase] = Counter()
        self.unconverged = _Sum()
        self.orphans: Counter[bool] = Counter()
        self.leaked_s = 0
        self.parked = {reason: _Sum() for reason in PARKED}
        self.presses = _Sum()

    def figures(self, name: str, standing: tuple[bool, ...]) -> AccountFigures:
        denied, paused, frozen = standing
        return AccountFigures(
            account=name,
            denied=denied,
            paused=paused,
            frozen=frozen,
            tasks={phase: self.tasks[phase] for phase in Phase},
            unconverged=self.unconverged.waiting(),
            orphans={ours: self.orphans[ours] for ours in (False, True)},
            leaked_s=self.leaked_s,
            parked={reason: one.waiting() for reason, one in self.parked.items()},
            presses=self.presses.waiting(),
        )


class _Gathered:
    """What the statements found, by account; a name that nobody has is `NOBODY`'s."""

    def __init__(self, known: Iterable[str]) -> None:
        self.known = frozenset(known)
        self.accounts = {name: _Account() for name in self.known}

    def of(self, account: Any) -> _Account:
        """Return the account's."""
        name = account if account in self.known else NOBODY
        return self.accounts.setdefault(name, _Account())
