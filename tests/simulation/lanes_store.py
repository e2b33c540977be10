"""The tables `lane` and `agent_command` as plain Python, with the situation of their one task.

Every method is one transaction.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.core.command import Command
from orchestrator.core.lane import (
    Lane,
    LaneView,
    Reason,
    Refusal,
    Situation,
    Standing,
)
from orchestrator.core.model import Account
from tests.simulation.lanes_checkers import Key, LaneCheckers

GAP = timedelta(milliseconds=300)
BATCH = 3
"""Commands that one look at a lane sees."""


@dataclass(slots=True, kw_only=True)
class LaneStore:
    """One database, shared by all daemons."""

    account: Account
    checkers: LaneCheckers
    situation: Situation = field(default_factory=lambda: Situation(standing=Standing.COMING))
    lanes: dict[Key, Lane] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    written: dict[str, Command] = field(default_factory=dict)
    """Commands as the application wrote them."""
    refusals: dict[str, Refusal] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    leases: dict[Key, tuple[str, datetime]] = field(default_factory=dict)
    due_at: dict[Key, datetime | None] = field(default_factory=dict)

    # --- the application's side

    def insert(self, command: Command) -> None:
        key = (command.task_id, command.lane_user)
        self.lanes.setdefault(key, Lane(task_id=key[0], user_id=key[1]))
        self.commands[command.id] = self.written[command.id] = command
        if command.sequence is not None:
            self.checkers.inserted[key].add(command.sequence)
        self.due_at[key] = command.created_at

    def refuse(self, command: Command) -> None:
        """Let a command be one that the vendor has no call for."""
        self.refusals[command.id] = Refusal(reason=Reason.INVALID_PAYLOAD)
        self.insert(command)

    def cancel(self, command: Command, now: datetime) -> None:
        self.cancelled.add(command.id)
        self.due_at[command.task_id, command.user_id] = now

    def move(self, situation: Situation, now: datetime) -> None:
        """The task's agent stands otherwise: every lane of it is due."""
        self.situation = situation
        self.due_at = dict.fromkeys(self.lanes, now)

    # --- the daemons' side

    def is_leased(self, key: Key, now: datetime) -> bool:
        lease = self.leases.get(key)
        return lease is not None and lease[1] > now

    def due(self, now: datetime) -> list[Key]:
        return [
            key
            for key, due_at in self.due_at.items()
            if due_at is not None and due_at <= now and not self.is_leased(key, now)
        ]

    def next_due(self) -> datetime | None:
        """Return when a lane is due, or its lease ends."""
        times = [
            max(due_at, self.leases[key][1]) if key in self.leases else due_at
            for key, due_at in self.due_at.items()
            if due_at is not None
        ]
        return min(times, default=None)

    def read(self, key: Key, now: datetime) -> LaneView:
        self.leases.pop(key, None)
        lane = self.lanes[key]
        commands = self.open_commands(lane)
        return LaneView(
            lane=lane,
            commands=commands[:BATCH],
            is_cut=len(commands) > BATCH,
            situation=self.situation,
            account=self.account,
            gap_timeout=GAP,
            now=now,
            refusals=self.refusals,
            cancelled=frozenset(self.cancelled),
        )

    def open_commands(self, lane: Lane) -> tuple[Command, ...]:
        """The command in flight, and the queue in its order."""
        mine = [
            command
            for command in self.commands.values()
            if command.done_at is None and command.lane_user == lane.user_id
        ]
        mine.sort(key=lambda c: (c.id != lane.command_id, c.sequence or 0, c.position))
        return tuple(mine)

    def write(self, lane: Lane, commands: tuple[Command, ...]) -> None:
        """Write a lane and commands of it, and let the checkers look."""
        self.lanes[lane.task_id, lane.user_id] = lane
        for command in commands:
            self.commands[command.id] = command
        self.checkers.committed(lane, self.open_commands(lane), None)

    def lease(self, key: Key, name: str, until: datetime) -> None:
        self.leases[key] = (name, until)

    def holds(self, key: Key, name: str) -> bool:
        lease = self.leases.get(key)
        return lease is not None and lease[0] == name

    def release(self, key: Key) -> None:
        self.leases.pop(key)
