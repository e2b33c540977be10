"""A clock that was set: how that is told from one that went on, and what is in flight meanwhile.

A horizon is a time by the database's clock. If that clock is set ahead, the time comes too soon:
"gone" is believed while a late start may still take effect. So what was still to come at that
moment is put off by as much. What a clock that is set back makes late is late, and nothing moves.
"""

from datetime import datetime, timedelta
from typing import Final

from orchestrator.core.action import Flight
from orchestrator.core.model import Agent, Row
from orchestrator.core.outcome import Indefinite, Outcome, Settled
from orchestrator.core.replace import replace

NOTICED: Final = timedelta(seconds=2)
"""Less than this is no step. `clock_margin` has room for it."""
DRIFT: Final = 1000
"""Two clocks that nobody sets part by less than a thousandth: the kernel corrects one by half."""


def set_by(went: timedelta, passed: timedelta, noticed: timedelta) -> timedelta:
    """Return by how much a clock was set that went on by `went` while `passed` passed.

    Ahead is positive, back is negative. Zero if it is no more than `noticed` and what clocks part
    by anyway.
    """
    step = went - passed
    return step if abs(step) > noticed + abs(passed) / DRIFT else timedelta(0)


def put_off(
    row: Row, flight: Flight, settled: Settled, step: timedelta
) -> tuple[Row, Flight, Settled]:
    """Return a call and what it came to as if its claim had read a clock set ahead by `step`.

    Its row is that of the claim. What the ledger holds by now was put off already.
    """
    at = flight.announced_at
    row = replace(row, agents=tuple(_put_off(agent, at, step) for agent in row.agents))
    flight = replace(
        flight,
        agent=_put_off(flight.agent, at, step),
        announced_at=at + step,
        horizon_before=_later(flight.horizon_before, at, step),
    )
    settled = replace(
        settled,
        outcome=_put_off_outcome(settled.outcome, step),
        asked_at=settled.asked_at + step,
        answered_at=settled.answered_at + step,
    )
    return row, flight, settled


def _put_off_outcome(outcome: Outcome, step: timedelta) -> Outcome:
    if isinstance(outcome, Indefinite) and outcome.reset_at is not None:
        return replace(outcome, reset_at=outcome.reset_at + step)
    return outcome


def _put_off(agent: Agent, since: datetime, step: timedelta) -> Agent:
    return replace(agent, horizon_at=_later(agent.horizon_at, since, step))


def _later(horizon_at: datetime | None, since: datetime, step: timedelta) -> datetime | None:
    """Return a horizon that was still to come at `since`, put off; any other as it is."""
    if horizon_at is None or horizon_at <= since:
        return horizon_at
    return horizon_at + step
