"""What a decision can be: one call, or nothing until a time.

A decision never holds two calls: one row has one call in flight.
"""

from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.model import Agent, Verb, WaitingFor, WorkClass


@dataclass(frozen=True, kw_only=True)
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

    `parked` is the call that waits for something that is not time: a slot, capacity, the end of a
    pause.
    """

    until: datetime | None = None
    waiting_for: WaitingFor | None = None
    parked: Call | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """The task is deleted and every agent of it has ended: the status may go."""


Action = Call | Wait | Forget


@dataclass(frozen=True, kw_only=True)
class Flight:
    """A call that was announced and has no outcome yet."""

    task_id: str
    verb: Verb
    agent: Agent
    """As announced, its horizon as late as this send can make it."""
    horizon_before: datetime | None
    """The horizon of all earlier sends of this agent: what holds if this send had no effect."""
    announced_at: datetime
    version: int
    """The fence: only the daemon that holds this version of the status settles the call."""
    work_class: WorkClass
