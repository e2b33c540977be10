"""The values the daemon reasons about, named as the SQL interface names them.

Rule 1: a value here holds what a row holds and nothing that waits.
Rule 2: what differs between vendors reaches the core only as `Caps`.
Rule 3: time is `datetime` (UTC, from the database's clock) and `timedelta`, never a number.
Rule 4: what is replaced all the time has no slots, because `replace` copies it as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from orchestrator.core.caps import Caps
from orchestrator.core.replace import replace


class Phase(StrEnum):
    """`agent_status.phase`."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    QUARANTINED = "quarantined"


class EndReason(StrEnum):
    """`agent_status.end_reason`: why an incarnation ended, the same words for every vendor."""

    REQUESTED = "requested"
    DELETED = "deleted"
    DEADLINE = "deadline"
    HEARTBEAT_LOST = "heartbeat_lost"
    IDLE = "idle"
    KICKED = "kicked"
    ROOM_CLOSED = "room_closed"
    VENDOR_FAULT = "vendor_fault"
    VENDOR_GONE = "vendor_gone"
    SUPERSEDED = "superseded"
    START_FAILED = "start_failed"


class WaitingFor(StrEnum):
    """`agent_status.waiting_for`: why nothing is happening right now."""

    START_AT = "start_at"
    RATE_LIMIT = "rate_limit"
    RETRY = "retry"
    CIRCUIT_OPEN = "circuit_open"
    CAPACITY = "capacity"
    DENIED = "denied"
    PAUSED = "paused"
    FROZEN = "frozen"
    ACCOUNT = "account"
    PROOF = "proof"


class WorkClass(StrEnum):
    """`agent_status.parked_class`: the queues, highest first.

    None uses what is kept for a higher one.
    """

    STOP = "stop"
    LISTENING = "listening"
    START = "start"
    OBSERVE = "observe"


class Verb(StrEnum):
    """`agent_status.intent`: what a call is for. Each vendor has its own action for each."""

    START = "start"
    STOP = "stop"
    FIND = "find"
    KICK = "kick"
    POLL = "poll"
    UPDATE = "update"


class What(StrEnum):
    """`task_change.what`: what the application, or a person, asked for."""

    INSERT = "insert"
    DELETE = "delete"
    STOP = "stop"
    RUN = "run"
    SPEC = "spec"
    RESTART = "restart"
    START_BY = "start_by"
    TIMING = "timing"
    OWNER = "owner"
    LEDGER = "ledger"  # the daemon's own word: the ledger learnt something out of turn
    FACT = "fact"  # the daemon's own word: the vendor told something (see `core.fact`)
    ASSUME_GONE = "assume_gone"
    CANCEL_COMMAND = "cancel_command"


class Evidence(StrEnum):
    """`vendor_agent.evidence`: what proved that nothing of this name runs any more."""

    NEVER_STARTED = "never_started"  # nothing of it ever left us, or the vendor refused it all
    STOPPED = "stopped"  # the vendor carried out a stop that no earlier send can outlive
    ABSENT = "absent"  # asked after the horizon, the vendor knows nothing of it
    EVICTED = "evicted"  # a later agent under the same user id was alive after its horizon
    TOLD = "told"  # the vendor said so by itself, signed, after its newest send had run out
    ASSUMED = "assumed"  # a person said so


class RestartPolicy(StrEnum):
    """`agent_task.restart_policy`."""

    NEVER = "never"
    ON_FAILURE = "on_failure"
    ALWAYS = "always"


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a decision needs to know of an account: its configuration, and how it stands now."""

    name: str
    caps: Caps
    signature_life: timedelta = timedelta(seconds=90)
    clock_margin: timedelta = timedelta(seconds=15)
    settle_in: timedelta = timedelta(seconds=10)
    reset_margin: timedelta = timedelta(seconds=10)
    poll: timedelta = timedelta(seconds=60)
    start_within: timedelta = timedelta(hours=1)
    max_duration: timedelta | None = None
    retry_base: timedelta = timedelta(milliseconds=500)
    retry_cap: timedelta = timedelta(seconds=60)
    backdated: bool = True
    """False once the vendor answered "expired" to a backdated signature: the full window counts."""
    paused: bool = False
    frozen: bool = False
    denied_until: datetime | None = None
    circuit_open_until: datetime | None = None
    has_room: bool = True
    """False while `max_agents` live agents exist."""
    idle_timeout: timedelta | None = None
    """How long an agent may run to which nobody talks, where its model is asked through us."""
    amnesty_at: datetime | None = None
    """The end of our own last gap: heartbeats could not be written before it, and count from it."""

    @property
    def send_life(self) -> timedelta:
        """How long after its announce a send of a start can still be honoured by the vendor."""
        return self.signature_life if self.backdated else self.caps.signature_window


@dataclass(frozen=True, kw_only=True)
class Task:
    """A row of `agent_task`, with its owner's heartbeat beside it."""

    id: str
    account: str
    room_id: str
    user_id: str
    running: bool
    spec: Mapping[str, Any] = field(default_factory=dict)
    start_at: datetime | None = None
    start_by: datetime | None = None
    stop_at: datetime | None = None
    restart_policy: RestartPolicy = RestartPolicy.NEVER
    priority: int = 0
    fixed_digest: str | None = None
    """Of the spec as it is now (see `Agent.fixed_digest`); null: nobody asked."""
    created_at: datetime
    heartbeat_at: datetime | None = None
    heartbeat_timeout: timedelta | None = None
    owner_heartbeat_at: datetime | None = None
    owner_timeout: timedelta | None = None
    owner_missing: bool = False
    """The row names an owner that is not there any more."""
    upstream: str | None = None
    """Where its newest agent's words come from, if it was told to ask our LLM gateway for them."""
    talked_at: datetime | None = None
    """When an agent of it last asked the gateway."""


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An open row of `vendor_agent`, the ledger: one name announced, or one handle seen.

    `horizon_at` null: nothing of it can exist at the vendor (never sent, or definitely without
    effect). Set and `vendor_task_id` null: nobody knows. `vendor_task_id` set: it ran when last
    heard of.
    """

    id: str
    incarnation: int
    try_: int
    account: str
    site: str
    room_id: str
    user_id: str
    name: str
    session_name: str
    stream_id: str
    vendor_task_id: str | None = None
    spec_generation: int = 0
    body_digest: str = ""
    fixed_digest: str = ""
    """Of what no update can change: a spec with another one needs another agent."""
    announced_at: datetime
    horizon_at: datetime | None = None
    hinted_at: datetime | None = None
    """When it was last asked to go, or asked for, and the answer was a hint but no proof."""
    kicked_at: datetime | None = None
    """When its user id was last removed from the room, unless it was seen there since."""
    seen_at: datetime | None = None
    """When it was last found where a poll looks for it."""
    is_hearsay: bool = False
    """Its handle was told by a post that proves nothing, least of all about its name."""
    spent_at: datetime | None = None
    """From when on such a handle is of no more use: it goes by its name."""
    told_at: datetime | None = None
    """When the vendor last told something of it by itself."""
    retry_at: datetime | None = None
    attempt: int = 0
    ended_at: datetime | None = None
    evidence: Evidence | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it can exist: it was never sent, or definitely without effect."""
        return self.horizon_at is None and self.vendor_task_id is None

    @property
    def is_known(self) -> bool:
        """Whether the vendor took its start and the stop handle is known."""
        return self.vendor_task_id is not None

    @property
    def goes_by_handle(self) -> bool:
        """Whether to ask about its handle, and not about its name."""
        return self.is_known and self.spent_at is None

    def is_past_horizon(self, at: datetime) -> bool:
        """Whether no send of it can still take effect after `at`."""
        return self.horizon_at is None or self.horizon_at <= at


@dataclass(frozen=True, kw_only=True)
class Status:
    """A row of `agent_status`."""

    task_id: str
    account: str
    room_id: str
    user_id: str
    agent_user_id: str | None = None
    vendor_task_id: str | None = None
    phase: Phase = Phase.PENDING
    phase_since: datetime
    generation: int = 0
    observed_generation: int = 0
    incarnation: int = 0
    """The newest incarnation asked for, announced or not."""
    retired: int = 0
    """Incarnations up to this one have ended for good, or must."""
    retired_at: datetime | None = None
    """When `retired` last rose: what was asked of an agent before then is for one that ended."""
    update_due: bool = False
    """The spec changed in a way that the running agent can be brought to in place."""
    reason: str | None = None
    message: str | None = None
    waiting_for: WaitingFor | None = None
    end_reason: EndReason | None = None
    attempt: int = 0
    retry_at: datetime | None = None
    due_at: datetime | None = None
    stop_due_at: datetime | None = None
    parked_class: WorkClass | None = None
    parked_verb: Verb | None = None
    intent: Verb | None = None
    intent_agent: str | None = None
    intent_at: datetime | None = None
    intent_tries: int = 0
    last_request_id: str | None = None
    version: int = 0
    asked_at: datetime | None = None
    """When the present incarnation was asked for: `start_within` counts from here."""
    restarts: int = 0
    """How often in a row `restart_policy` began anew what had ended too soon."""
    start_by_holds: bool = True
    """`start_by` holds for what an insert or `stopped` to `running` asked for, not for restarts."""
    started_at: datetime | None = None
    confirmed_at: datetime | None = None
    polled_at: datetime | None = None
    stopped_at: datetime | None = None
    ran_s: int = 0

    @property
    def retires(self) -> bool:
        """Whether the newest incarnation is one that must end, or has."""
        return self.incarnation <= self.retired


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A row of `orphan_task`: an agent without a task, to be stopped or only watched."""

    id: str
    stop: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """All that a decision about one task sees: what is, what should be, what may run."""

    status: Status
    task: Task | None
    orphan: Orphan | None = None
    agents: tuple[Agent, ...] = ()
    """Open ledger rows, oldest first."""

    @property
    def is_reported(self) -> bool:
        """Whether it stands for an agent that is only reported: nobody may stop it."""
        return self.orphan is not None and not self.orphan.stop

    @property
    def unwanted(self) -> tuple[Agent, ...]:
        """Those that must end."""
        return tuple(a for a in self.agents if a.incarnation <= self.status.retired)

    @property
    def wanted(self) -> tuple[Agent, ...]:
        """Those of the present incarnation, oldest first."""
        return tuple(a for a in self.agents if a.incarnation > self.status.retired)

    @property
    def is_open(self) -> bool:
        """Whether nobody knows what became of a start that is still wanted."""
        return any(not agent.is_idle and not agent.is_known for agent in self.wanted)

    def replace_agent(self, agent: Agent) -> "Row":
        """Return the row with this ledger row in place of its earlier self, or added at the end."""
        if any(a.id == agent.id for a in self.agents):
            agents = tuple(agent if a.id == agent.id else a for a in self.agents)
        else:
            agents = (*self.agents, agent)
        return replace(self, agents=agents)

    def close(self, agent: Agent, evidence: Evidence, at: datetime) -> "Step":
        """Return the row without this ledger row, and the ledger row as it ended."""
        left = tuple(a for a in self.agents if a.id != agent.id)
        ended = replace(agent, ended_at=at, evidence=evidence, retry_at=None)
        return Step(row=replace(self, agents=left), ended=(ended,))


@dataclass(frozen=True, kw_only=True)
class Step:
    """A row after something happened to it, and the ledger rows that this closed."""

    row: Row
    ended: tuple[Agent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A row of `task_change`: one wish, in the order in which they were committed."""

    seq: int
    at: datetime
    task_id: str
    what: What
    urgent: bool = False
    actor: str = ""
