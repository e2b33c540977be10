"""What the application's changes mean: the one place where a wish becomes a new state of a row.

Wishes are applied in the order in which they were committed, so that a stop is carried out even
if the row wants to run again a moment later. After the last one the row as it stands now has the
last word: a lost or disabled trigger may cost a restart, never a stop.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from orchestrator.core.incarnation import ask_anew, begin, close_all, close_idle, retire, supersede
from orchestrator.core.model import Agent, Change, EndReason, Evidence, Row, Step, What
from orchestrator.core.replace import replace

_END_REASONS = {What.DELETE: EndReason.DELETED, What.STOP: EndReason.REQUESTED}


def absorb(row: Row, changes: Sequence[Change], now: datetime) -> Step:
    """Apply changes in order. `generation` counts them; nothing is called yet."""
    ended: list[Agent] = []
    for change in changes:
        step = _apply(row, change, now)
        row, ended = step.row, [*ended, *step.ended]
    step = _obey(row, now)
    status = step.row.status
    status = replace(status, generation=status.generation + len(changes))
    row = replace(step.row, status=status)
    return Step(row=row, ended=(*ended, *step.ended))


def _apply(row: Row, change: Change, now: datetime) -> Step:
    match change.what:
        case What.INSERT:
            return supersede(row, EndReason.DELETED, now, asked_at=change.at, start_by_holds=True)
        case What.RESTART:
            return _replace(row, change.at, now)
        case What.DELETE | What.STOP:
            return retire(row, _END_REASONS[change.what], now)
        case What.RUN:
            return _run(row, change.at)
        case What.SPEC:
            return _respec(row, change.at, now)
        case What.START_BY:
            return _retry_failed(row, change.at)
        case What.ASSUME_GONE:
            return _assume_gone(row, now)
        case What.LEDGER:
            return close_idle(_ask_known_anew(row), now)
        case What.TIMING | What.OWNER | What.FACT | What.CANCEL_COMMAND:
            return Step(row=row)
        case _:
            assert_never(change.what)


def _ask_known_anew(row: Row) -> Row:
    """Forget hints that were given before a handle turned up: it can be stopped by it at once."""
    agents = tuple(ask_anew(agent) if agent.is_known else agent for agent in row.agents)
    return replace(row, agents=agents)


def _run(row: Row, asked_at: datetime) -> Step:
    if not row.status.retires:
        return Step(row=row)
    return Step(row=begin(row, asked_at, start_by_holds=True))


def _replace(row: Row, asked_at: datetime, now: datetime) -> Step:
    return supersede(row, EndReason.SUPERSEDED, now, asked_at=asked_at, start_by_holds=False)


def _respec(row: Row, asked_at: datetime, now: datetime) -> Step:
    """A live one is replaced, a failed one tried again; a pending one just takes the new spec."""
    if row.status.retires:
        return _retry_failed(row, asked_at)
    if all(agent.is_idle for agent in row.wanted):
        # What was never sent may have another name under the new spec: it is drawn again.
        step = close_all(row, row.wanted, Evidence.NEVER_STARTED, now)
        status = replace(step.row.status, reason=None, message=None, attempt=0, retry_at=None)
        return replace(step, row=replace(step.row, status=status))
    if _fits_in_place(row):
        return Step(row=replace(row, status=replace(row.status, update_due=True)))
    return _replace(row, asked_at, now)


def _fits_in_place(row: Row) -> bool:
    """Return whether the one agent that runs can be brought to the new spec as it is."""
    if row.task is None or len(row.wanted) != 1:
        return False
    agent = row.wanted[0]
    return agent.is_known and row.task.fixed_digest == agent.fixed_digest


def _retry_failed(row: Row, asked_at: datetime) -> Step:
    status = row.status
    if not (status.retires and status.end_reason is EndReason.START_FAILED):
        return Step(row=row)
    return Step(row=begin(row, asked_at, start_by_holds=True))


def _assume_gone(row: Row, now: datetime) -> Step:
    """Take a person's word that nothing of this row runs at the vendor."""
    lived = any(agent.is_known for agent in row.wanted)
    step = close_all(row, row.agents, Evidence.ASSUMED, now)
    if not lived:
        return step
    return replace(step, row=retire(step.row, EndReason.VENDOR_GONE, now).row)


def _obey(row: Row, now: datetime) -> Step:
    """Retire what the row as it stands does not want, whatever the changes said."""
    if row.is_reported:
        return Step(row=row)
    if row.task is None:
        return retire(row, EndReason.DELETED if row.orphan is None else EndReason.REQUESTED, now)
    if not row.task.running:
        return retire(row, EndReason.REQUESTED, now)
    return Step(row=row)
