"""Lanes as values: what a row of `lane` holds, what a decision about it sees and can be.

A lane is one (task, user) for its listening commands; the other kinds share one lane per task,
whose user is ''. The lane is claimed, never the command.

Rule 1: `last_sequence` is the number on the wire of the command in flight. It is durable before the
request leaves and never falls, whatever becomes of the command. Where it had to leave the
application's numbers behind, those still say what is in order, missing or too late.
Rule 2: a command has `sent_at` if and only if it may have had an effect under the lane's present
number. So it is the command in flight, and a send of it is a re-send.
Rule 3: what was passed over is never sent later either: a press that turns up after its release was
settled would open a microphone that nobody closes. A press that is settled unsent passes over
nothing but itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from orchestrator.core.command import OTHERS, Command, CommandState
from orchestrator.core.model import Account, Agent, Row


class Numbering(StrEnum):
    """`lane.numbering`: who numbers a lane's commands. A lane is all one or all the other."""

    GIVEN = "given"
    DRAWN = "drawn"


class Reason(StrEnum):
    """`agent_command.reason` where it is the daemon's own word; else it is the vendor's code."""

    EXPIRED = "Expired"
    AGENT_ENDED = "AgentEnded"  # its incarnation ended while it was queued, or on its way
    TASK_ENDED = "TaskEnded"  # nothing ran any more, and nothing was to come
    SUPERSEDED = "Superseded"  # a number at or below one that was sent or passed over
    CANCELLED = "Cancelled"
    STALE_SEQUENCE = "StaleSequence"
    MIXED_SEQUENCE = "MixedSequence"
    INVALID_SEQUENCE = "InvalidSequence"
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    UNSUPPORTED = "Unsupported"
    INVALID_PAYLOAD = "InvalidPayload"


class Pause(StrEnum):
    """Why a lane that has commands sends none."""

    GAP = "gap"
    AGENT = "agent"
    RETRY = "retry"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A row of `lane`, less its lease."""

    task_id: str
    user_id: str
    incarnation: int = 0
    """The incarnation that its newest command went to."""
    last_sequence: int | None = None
    """The highest number that was sent, or may have been: for the life of the task."""
    given_sequence: int | None = None
    """The application's number of the newest command sent, where it left under a higher one."""
    passed_sequence: int | None = None
    """The highest number an application gave that was settled unsent, and that bars what is below:
    a release, or a press before which nothing is missing."""
    numbering: Numbering | None = None
    """Fixed by the first command that was sent."""
    command_id: str | None = None
    """The command in flight: announced, and not settled."""
    listening: bool = False
    """A start was sent, or may have been, and no later stop is known to have been taken."""
    renumber: bool = False
    """The command in flight goes out under a new number next time."""
    jumped: bool = False
    """A "stale" has already made the command in flight jump ahead."""
    attempt: int = 0
    retry_at: datetime | None = None
    gap_since: datetime | None = None
    version: int = 0
    """Counts the announces: the fence."""

    @property
    def listens(self) -> bool:
        """Whether it is a user's lane, ordered by Sequence, and not the one for the other kinds."""
        return self.user_id != OTHERS

    @property
    def newest_given(self) -> int | None:
        """Return the application's number of the newest command sent, whatever it left under."""
        return self.last_sequence if self.given_sequence is None else self.given_sequence

    @property
    def floor(self) -> int | None:
        """Return the highest of the application's numbers that was sent or passed over.

        Nothing at or below it is ever sent.
        """
        known = [n for n in (self.newest_given, self.passed_sequence) if n is not None]
        return max(known, default=None)

    def release(self) -> "Lane":
        """Return the lane with no command in flight."""
        return replace(
            self, command_id=None, renumber=False, jumped=False, attempt=0, retry_at=None
        )


# --- what is true of the task


class Standing(StrEnum):
    """How a task's agent stands, as its lanes see it."""

    COMING = "coming"  # not running, and will be as far as is known: commands wait
    RUNNING = "running"
    ENDED = "ended"  # it ended or must, or the task is deleted, and nothing is to come


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a lane needs to know of its task."""

    standing: Standing
    agent: Agent | None = None
    """Whom commands go to: set if and only if `standing` is running."""
    retired: int = 0
    """Incarnations up to this one have ended, or must: `agent_status.retired`."""
    ended_at: datetime | None = None
    """When the last incarnation ended, or the next was asked for if that was earlier: what was
    queued then expires, and what came later is for the next."""


def situation_of(row: Row, ended_at: datetime | None, *, is_told_more: bool) -> Situation:
    """Return how a task stands.

    `ended_at`: when an incarnation was last found ended, or to be ended: `agent_status.retired_at`.
    `is_told_more`: changes of the row are not absorbed yet, so what looks ended may be about to
    begin. A task and its first command may have been inserted together.
    """
    retired, agent = row.status.retired, row.wanted[-1] if row.wanted else None
    asked_at = row.status.asked_at
    if ended_at is not None and asked_at is not None and not row.status.retires:
        # The end may be found, or carried out, long after somebody asked for the next.
        ended_at = min(ended_at, asked_at)
    if row.task is None:
        return Situation(standing=Standing.ENDED, retired=retired, ended_at=ended_at)
    if agent is not None and agent.is_known:
        return Situation(standing=Standing.RUNNING, agent=agent, retired=retired, ended_at=ended_at)
    is_over = row.status.retires and not is_told_more
    standing = Standing.ENDED if is_over else Standing.COMING
    return Situation(standing=standing, retired=retired, ended_at=ended_at)


# --- what a decision sees


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a command cannot be made a call of: `Unsupported` or `InvalidPayload`, and a sentence."""

    reason: Reason
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneView:
    """All that a decision about one lane sees. Nobody else has a live call of it in flight."""

    lane: Lane
    commands: tuple[Command, ...]
    """The queued and sending ones: the one in flight, and the first of the others by `sequence`,
    then `position`."""
    situation: Situation
    account: Account
    gap_timeout: timedelta
    now: datetime
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    """By the command's id: what the vendor has no call for, or would refuse unasked."""
    cancelled: frozenset[str] = frozenset()
    """Ids of commands that the application takes back."""
    is_cut: bool = False
    """There are more than these, all of them later in the order: the lane is to be looked at again
    even when all of these are settled."""

    @property
    def head(self) -> Command | None:
        """Return the command in flight. With state `sending` nobody knows what became of it."""
        return next((c for c in self.commands if c.id == self.lane.command_id), None)

    @property
    def queue(self) -> tuple[Command, ...]:
        """Return the others in the order in which they are to leave."""
        waiting = [c for c in self.commands if c.id != self.lane.command_id]
        if self.lane.listens:
            return tuple(sorted(waiting, key=lambda c: (c.sequence or 0, c.position)))
        return tuple(sorted(waiting, key=lambda c: c.position))

    @property
    def numbering(self) -> Numbering:
        """Return who numbers this lane: fixed by what was sent, else by what was inserted first."""
        if self.lane.numbering is not None:
            return self.lane.numbering
        first = min(self.commands, key=lambda c: c.position, default=None)
        is_given = first is not None and first.sequence is not None
        return Numbering.GIVEN if is_given else Numbering.DRAWN

    @property
    def may_listen(self) -> bool:
        """Whether the microphone may be open: of an agent that ended it is not."""
        return self.lane.listening and self.lane.incarnation > self.situation.retired

    def after(self, settle: "Settle") -> "LaneView":
        """Return the view once these verdicts are written."""
        settled = {command.id for command in settle.commands}
        left = tuple(c for c in self.commands if c.id not in settled)
        return replace(self, lane=settle.lane, commands=left)


# --- what a decision can be


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send this command to this agent."""

    command: Command
    agent: Agent
    sequence: int | None
    """The number on the wire; null in the lane of the other kinds."""
    skipped: tuple[int, int] | None = None
    """The first and last number of a gap that was waited for in vain."""

    @property
    def is_resend(self) -> bool:
        """Whether it may have been sent before, under this number."""
        return self.command.sent_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Write these verdicts, with nothing sent, and decide again."""

    lane: Lane
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Nothing to send before `until`: null if and only if the lane has no commands, seen or not."""

    lane: Lane
    until: datetime | None = None
    why: Pause | None = None


LaneAction = Send | Settle | Rest


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandFlight:
    """A command that was announced and has no outcome yet."""

    command: Command
    """As announced."""
    sequence: int | None
    agent: Agent
    sent_before: datetime | None
    """The command's `sent_at` before this announce: what holds if this send had no effect."""
    listening_before: bool
    """The lane's `listening` before this announce, for the same reason."""
    announced_at: datetime
    version: int

    @property
    def outgoing(self) -> Command:
        """Return the command as it goes to the vendor, under the number on the wire."""
        return replace(self.command, sequence=self.sequence)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStep:
    """A lane and its command after an outcome."""

    lane: Lane
    command: Command
    is_gone: bool = False
    """The vendor does not know the agent: the task's row should be looked at now."""


def is_awaited(lane: Lane, flight: CommandFlight) -> bool:
    """Return whether a lane still waits for this flight: the fence, beside the lease's owner.

    An outcome that lost it is dropped: whoever took the lane over knows that it is unknown.
    """
    return (lane.version, lane.command_id) == (flight.version, flight.command.id)


def broken(lane: Lane, commands: tuple[Command, ...]) -> Iterator[str]:
    """Yield a sentence for each invariant that a lane with its unsettled commands breaks."""
    for command in commands:
        is_head = command.id == lane.command_id
        is_sending = command.state is CommandState.SENDING
        if is_sending != (command.sent_at is not None):
            yield f"{command.id} is {command.state}, and was sent at {command.sent_at}"
        if is_sending and not is_head:
            yield f"{command.id} is sending, and its lane is not waiting for it"
        if is_head and lane.listens and lane.last_sequence is None:
            yield f"{command.id} is in flight without a number"
        if command.state not in {CommandState.QUEUED, CommandState.SENDING}:
            yield f"{command.id} is settled, and still in its lane"
