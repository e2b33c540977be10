"""What a decision can be: one call, or nothing until a time.

A decision never holds two calls: one row has one call in flight.
"""

from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.model import Agent, EndReason, Row, Verb, WaitingFor, WorkClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Make one call to the vendor about one agent.

    `agent` null: a start under names that are yet to be drawn.
    """

    verb: Verb
    agent: Agent | None
    work_class: WorkClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to call before `until` (null: until something changes).

    `parked` names the queue where the row waits for something that is not time.
    """

    until: datetime | None
    waiting_for: WaitingFor | None
    parked: WorkClass | None = None
    verb: Verb | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """The task is deleted and every agent of it has ended: the status may go."""


Action = Call | Wait | Forget


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A ledger row that evidence has closed."""

    agent: Agent
    evidence: str
    end_reason: EndReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A row after something happened to it, and what is to be told of it."""

    row: Row
    ended: tuple[Agent, ...] = ()
    """Ledger rows closed by this step, with `ended_at` and `evidence`."""
