"""The tables that only the daemon writes: what is, what was done, and what it works with.

Rule 1: an open row of `vendor_agent` is the promise not to forget; it ends by evidence only.
Rule 2: a status in a phase in which something may live always has a time (a CHECK).
"""

from typing import Any, Final

from sqlalchemy import Boolean, Index, Integer, Table, Text, false, func, text, true

from orchestrator.core.fact import Event
from orchestrator.core.model import EndReason, Phase, Verb, WaitingFor, WorkClass
from orchestrator.store.columns import (
    ZERO,
    BigInt,
    Json,
    Timestamp,
    check,
    check_id_or_orphan,
    check_mark,
    check_member,
    clock,
    key,
    metadata,
    numbered,
    optional,
    required,
)
from orchestrator.store.wishes import COMMAND_KINDS, HOT

LATENCY_BOUNDS_MS: Final = (
    *(4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181),
    *(256, 362, 512, 724, 1024, 1448, 2048, 2896, 4096, 5793, 8192, 11585),
)
"""Upper bounds of the 24 buckets of `call_minute`, milliseconds; the last holds all slower ones."""

_OF_TASK: Final[dict[str, Any]] = dict.fromkeys(
    ("postgresql_where", "sqlite_where"), text("task_id NOT LIKE '~%'")
)
_NEWEST_TROUBLE: Final = (text("(reason IS NULL)"), text("phase_since DESC"))
"""The order of `task_overview`."""

agent_status: Final = Table(
    "agent_status",
    metadata,
    key("task_id", Text(), "the task; behind a ~ the orphan_task"),
    required("account", Text(), "of the announced incarnation"),
    required("room_id", Text(), "of the announced incarnation"),
    required("user_id", Text(), "of the announced incarnation"),
    optional("agent_user_id", Text(), "the agent's own user id in the room"),
    optional("vendor_task_id", Text(), "the newest handle, for people"),
    required("phase", Text(), "what is", "pending"),
    required("phase_since", Timestamp(), "since when", clock()),
    required("generation", BigInt, "counts the changes of the task", ZERO),
    required("observed_generation", BigInt, "the change that the phase speaks of", ZERO),
    required("incarnation", Integer(), "the newest that was asked for", ZERO),
    required("retired", Integer(), "incarnations up to this one have ended, or must", ZERO),
    optional("retired_at", Timestamp(), "when retired last rose"),
    required("update_due", Boolean(), "the running agent is to be brought to a new spec", false()),
    optional("reason", Text(), "the present trouble, the vendor's code first"),
    optional("message", Text(), "the present trouble, for people"),
    optional("waiting_for", Text(), "why nothing happens now"),
    optional("end_reason", Text(), "why the last incarnation ended, the same for all vendors"),
    required("attempt", Integer(), "failures in a row of what is tried now", ZERO),
    optional("retry_at", Timestamp(), "not tried again before"),
    optional("due_at", Timestamp(), "when time alone asks for a look"),
    optional("stop_due_at", Timestamp(), "when this agent must be stopped"),
    optional("parked_class", Text(), "the queue where it waits for something that is not time"),
    optional("parked_verb", Text(), "the call that it waits to make"),
    optional("parked_at", Timestamp(), "since when it is parked"),
    required(
        "priority",
        Integer(),
        "the task's, copied; the highest if its start is open",
        ZERO,
    ),
    optional("intent", Text(), "the call in flight"),
    optional("intent_agent", Text(), "the ledger row it is about"),
    optional("intent_at", Timestamp(), "when it was announced"),
    required("intent_tries", Integer(), "which try in a row it is", ZERO),
    optional("last_request_id", Text(), "the vendor's RequestId of the last call"),
    optional("lease_owner", Text(), "the daemon that works on it"),
    optional("lease_until", Timestamp(), "until when it does"),
    required("version", BigInt, "the daemons' fence", ZERO),
    optional("asked_at", Timestamp(), "when the newest incarnation was asked for"),
    required("restarts", Integer(), "how often in a row it ended too soon and began anew", ZERO),
    required("start_by_holds", Boolean(), "start_by holds for the newest incarnation", true()),
    optional("started_at", Timestamp(), "when the vendor took the start"),
    optional("confirmed_at", Timestamp(), "when the agent was seen in the room"),
    optional("polled_at", Timestamp(), "when it was last asked for"),
    optional("stopped_at", Timestamp(), "when evidence of its end came"),
    required("ran_s", Integer(), "seconds at the vendor over all incarnations", ZERO),
    required("updated_at", Timestamp(), "last write of the daemon", clock()),
    check_id_or_orphan("agent_status", "task_id"),
    check_member("agent_status", "phase", Phase),
    check_member("agent_status", "waiting_for", WaitingFor),
    check_member("agent_status", "end_reason", EndReason),
    check_member("agent_status", "parked_class", WorkClass),
    check_member("agent_status", "parked_verb", Verb),
    check_member("agent_status", "intent", Verb),
    check(
        "agent_status_has_time",
        "phase NOT IN ('starting', 'running', 'stopping', 'quarantined') "
        "OR due_at IS NOT NULL OR stop_due_at IS NOT NULL",
    ),
    Index(
        "ix_agent_status_stop_due_at",
        "stop_due_at",
        postgresql_where=text("stop_due_at IS NOT NULL"),
        sqlite_where=text("stop_due_at IS NOT NULL"),
    ),
    Index(
        "ix_agent_status_due_at",
        "due_at",
        postgresql_where=text("phase <> 'running' AND due_at IS NOT NULL"),
        sqlite_where=text("phase <> 'running' AND due_at IS NOT NULL"),
    ),
    Index(
        "ix_agent_status_poll_due_at",
        "due_at",
        postgresql_where=text("phase = 'running' AND due_at IS NOT NULL"),
        sqlite_where=text("phase = 'running' AND due_at IS NOT NULL"),
    ),
    Index(
        "ix_agent_status_parked",
        "account",
        "parked_class",
        "parked_verb",
        text("priority DESC"),
        "parked_at",
        postgresql_where=text("parked_class IS NOT NULL"),
        sqlite_where=text("parked_class IS NOT NULL"),
    ),
    # For people and metrics: how many there are, what is not at rest, and the newest trouble.
    Index("ix_agent_status_phase_account", "phase", "account", **_OF_TASK),
    Index("ix_agent_status_trouble", *_NEWEST_TROUBLE, **_OF_TASK),
    Index(
        "ix_agent_status_stopped_at",
        "stopped_at",
        postgresql_where=text("stopped_at IS NOT NULL"),
        sqlite_where=text("stopped_at IS NOT NULL"),
    ),
    comment="What is: one row for each task; outlives a deleted task until evidence",
    postgresql_with=HOT,
)

_OPEN: Final = text("ended_at IS NULL")
_OPEN_ORPHAN: Final = text("ended_at IS NULL AND orphan_id IS NOT NULL")
_UNTAKEN: Final = text("taken_at IS NULL")

vendor_agent: Final = Table(
    "vendor_agent",
    metadata,
    key("id", Text(), "drawn by the daemon"),
    optional("task_id", Text(), "the task; null: an orphan"),
    optional("orphan_id", Text(), "the orphan_task, where there is no task"),
    required("incarnation", Integer(), "of the task", ZERO),
    required("try", Integer(), "of the incarnation", ZERO),
    required("account", Text(), "whose keys call"),
    required("site", Text(), "provider, endpoint, region, app id, api version, as JSON"),
    required("room_id", Text(), "the RTC room", ""),
    required("user_id", Text(), "the human", ""),
    required("name", Text(), "what we named it; never used again", ""),
    required("session_name", Text(), "Tencent's SessionId", ""),
    required("stream_id", Text(), "ZEGO's AgentStreamId", ""),
    optional("vendor_task_id", Text(), "the vendor's handle; added, never overwritten"),
    required("spec_generation", BigInt, "the generation whose spec it was started with", ZERO),
    required("body_digest", Text(), "of the start body: the same start has the same", ""),
    required("fixed_digest", Text(), "of what no update of a running agent can change", ""),
    required("announced_at", Timestamp(), "when it was written, before the send", clock()),
    optional("horizon_at", Timestamp(), "from when on absence is evidence; null: never sent"),
    optional("hinted_at", Timestamp(), "when absence was last heard without being evidence"),
    optional("kicked_at", Timestamp(), "when its user was last removed from the room"),
    optional("seen_at", Timestamp(), "when a poll last found it"),
    required("is_hearsay", Boolean(), "the handle was told by a post that proves nothing", false()),
    optional("spent_at", Timestamp(), "from when on such a handle is of no more use"),
    optional("told_at", Timestamp(), "when the vendor last told of it by itself"),
    optional("retry_at", Timestamp(), "not called about again before"),
    required("attempt", Integer(), "failures in a row of the calls about it", ZERO),
    optional("ended_at", Timestamp(), "when evidence of its end came"),
    optional("evidence", Text(), "what it was"),
    Index(
        "ix_vendor_agent_orphan_id",
        "orphan_id",
        postgresql_where=_OPEN_ORPHAN,
        sqlite_where=_OPEN_ORPHAN,
    ),
    Index("ix_vendor_agent_task_id", "task_id", postgresql_where=_OPEN, sqlite_where=_OPEN),
    Index("ix_vendor_agent_task_id_incarnation", "task_id", "incarnation"),
    Index("ix_vendor_agent_account_name", "account", "name"),
    Index("ix_vendor_agent_account_vendor_task_id", "account", "vendor_task_id"),
    Index(
        "ix_vendor_agent_account_room_id_user_id",
        "account",
        "room_id",
        "user_id",
        postgresql_where=_OPEN,
        sqlite_where=_OPEN,
    ),
    Index("ix_vendor_agent_ended_at", "ended_at"),
    comment="The ledger: one row for each name announced or handle seen",
    postgresql_with=HOT,
)

lane: Final = Table(
    "lane",
    metadata,
    key("task_id", Text(), "the task"),
    key("user_id", Text(), "who presses the button; empty: the task's other commands"),
    required("incarnation", Integer(), "the incarnation last sent to", ZERO),
    optional("last_sequence", BigInt, "the last number sent; never falls"),
    optional("given_sequence", BigInt, "the application's number, where last_sequence is another"),
    optional("passed_sequence", BigInt, "the highest number that was passed over"),
    optional("numbering", Text(), "who numbers its commands: given or drawn"),
    optional("command_id", Text(), "the command in flight"),
    required("listening", Boolean(), "a start may have opened the microphone", false()),
    required("renumber", Boolean(), "the command in flight goes out under a new number", false()),
    required("jumped", Boolean(), "a stale number has already been replaced", false()),
    required("attempt", Integer(), "failures in a row of the command in flight", ZERO),
    optional("retry_at", Timestamp(), "not sent again before"),
    optional("gap_since", Timestamp(), "since when a smaller number is waited for"),
    optional("due_at", Timestamp(), "when it is to be looked at, if no command comes"),
    optional("parked_kind", Text(), "the command that waits for a slot or a place"),
    optional("lease_owner", Text(), "the daemon that works on it"),
    optional("lease_until", Timestamp(), "until when it does"),
    required("version", BigInt, "the daemons' fence", ZERO),
    check_member("lane", "numbering", ("given", "drawn")),
    check_member("lane", "parked_kind", COMMAND_KINDS),
    Index(
        "ix_lane_due_at",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL AND parked_kind IS NULL"),
        sqlite_where=text("due_at IS NOT NULL AND parked_kind IS NULL"),
    ),
    Index(
        "ix_lane_parked",
        "due_at",
        postgresql_where=text("parked_kind IS NOT NULL"),
        sqlite_where=text("parked_kind IS NOT NULL"),
    ),
    comment="The order of commands: one row for each task and user",
    postgresql_with=HOT,
)

vendor_fact: Final = Table(
    "vendor_fact",
    metadata,
    key("account", Text(), "whose callback it was"),
    key("key", Text(), "the vendor's own, so that a repeated callback is one fact"),
    optional("vendor_task_id", Text(), "the handle it speaks of"),
    optional("name", Text(), "the name it speaks of"),
    required("event", Text(), "started, ended, fault, alive or seen"),
    required("event_at", Timestamp(), "when it happened, by this database's clock"),
    required("position", BigInt, "the vendor's order among the facts of one agent", ZERO),
    optional("code", Text(), "the vendor's code"),
    optional("message", Text(), "what the code means"),
    optional("end_reason", Text(), "why it ended, where the vendor says"),
    required("is_signed", Boolean(), "the signature covers what is said here", false()),
    optional("room_id", Text(), "the room, where told"),
    optional("user_id", Text(), "the human, where told"),
    required("received_at", Timestamp(), "when it was told", clock()),
    optional("taken_at", Timestamp(), "when the daemon applied it"),
    Index(
        "ix_vendor_fact_account_vendor_task_id",
        "account",
        "vendor_task_id",
        postgresql_where=_UNTAKEN,
        sqlite_where=_UNTAKEN,
    ),
    Index(
        "ix_vendor_fact_account_name",
        "account",
        "name",
        postgresql_where=_UNTAKEN,
        sqlite_where=_UNTAKEN,
    ),
    Index("ix_vendor_fact_received_at", "received_at"),
    Index(
        "ix_vendor_fact_untaken",
        "received_at",
        postgresql_where=_UNTAKEN,
        sqlite_where=_UNTAKEN,
    ),
    check_member("vendor_fact", "event", Event),
    check_member("vendor_fact", "end_reason", EndReason),
    comment="What callbacks told about the life of agents; never a body, text or signature",
)

agent_event: Final = Table(
    "agent_event",
    metadata,
    numbered("id", "order of writing"),
    required("at", Timestamp(), "when", clock()),
    optional("task_id", Text(), "the task"),
    optional("command_id", Text(), "the command"),
    optional("orphan_id", Text(), "the orphan"),
    optional("account", Text(), "the account"),
    optional("incarnation", Integer(), "of the task"),
    optional("actor", Text(), "who: a daemon, or the session user of a wish"),
    required("event", Text(), "what happened"),
    optional("action", Text(), "the vendor's action"),
    optional("outcome", Text(), "what it came to"),
    optional("code", Text(), "the vendor's code"),
    optional("message", Text(), "for people"),
    optional("request_id", Text(), "the vendor's RequestId"),
    optional("latency_ms", Integer(), "from send to reply, milliseconds"),
    optional("phase_before", Text(), "the phase before"),
    optional("phase_after", Text(), "the phase after"),
    Index("ix_agent_event_at", "at"),
    Index("ix_agent_event_task_id_id", "task_id", "id"),
    comment="What was done and why; append-only, pruned by age",
    sqlite_autoincrement=True,
)

account_state: Final = Table(
    "account_state",
    metadata,
    key("account", Text(), "a name under [accounts] in the configuration"),
    required("live_agents", Integer(), "open rows of the ledger", ZERO),
    optional("breaker", Text(), "the circuit breaker; null: closed"),
    optional("denied_code", Text(), "the vendor's code of the last denial"),
    optional("denied_since", Timestamp(), "since when it denies"),
    optional("probe_at", Timestamp(), "when one start is tried again"),
    required("undated", Boolean(), "backdated signatures are not believed here", false()),
    optional("clock_offset_ms", Integer(), "the vendor's clock less ours, milliseconds"),
    required("updated_at", Timestamp(), "last write", clock()),
    comment="How each account stands, as the daemons see it",
)

rate_limit: Final = Table(
    "rate_limit",
    metadata,
    key("account", Text(), "the account"),
    key("action", Text(), "the vendor's action"),
    required("slots", Text(), "times of the last slots, JSON, microseconds since 1970", "[]"),
    required("version", BigInt, "for compare-and-swap", ZERO),
    comment="The pace of all daemons together, for each account and action",
    postgresql_with=HOT,
)

call_minute: Final = Table(
    "call_minute",
    metadata,
    key("account", Text(), "the account"),
    key("action", Text(), "the vendor's action"),
    key("minute", Timestamp(), "the minute in which the calls ended"),
    key("bucket", Integer(), "0-23: which latency, see account_health"),
    required("calls", Integer(), "how many", ZERO),
    required("failures", Integer(), "how many of them failed", ZERO),
    check("call_minute_bucket_is_known", "bucket BETWEEN 0 AND 23"),
    Index("ix_call_minute_minute", "minute"),
    comment="Sums of calls, kept by the settle, pruned by age",
    postgresql_with=HOT,
)

daemon: Final = Table(
    "daemon",
    metadata,
    key("id", Text(), "drawn by the process"),
    required("name", Text(), "as configured"),
    required("host", Text(), "where it runs"),
    required("pid", Integer(), "its process id there"),
    required("version", Text(), "of the program"),
    required("wake", Text(), "notify or poll", "notify"),
    required("asleep", Boolean(), "it listens and has nothing to do: notify it", false()),
    required("accounts", Json(), "the names it has, a JSON array"),
    required("started_at", Timestamp(), "since when it runs", clock()),
    required("heartbeat_at", Timestamp(), "when it last said so", clock()),
    required("draining", Boolean(), "it takes no new work", false()),
    check_member("daemon", "wake", ("notify", "poll")),
    comment="One row for each daemon",
    postgresql_with=HOT,
)

installation: Final = Table(
    "installation",
    metadata,
    key("mark", Text(), "5 of a-z 2-7, in every name that this database's daemons draw"),
    required("created_at", Timestamp(), "when migrate drew it", clock()),
    optional(
        "amnesty_at", Timestamp(), "end of the daemons' last own gap; heartbeats count from it"
    ),
    required(
        "clock_set_ms",
        BigInt,
        "by how much this clock was set, ahead less back, as the daemons saw it",
        ZERO,
    ),
    check_mark("installation", "mark"),
    Index("ix_installation_is_one_row", func.length(text("mark")), unique=True),
    comment="This database's own mark, one row",
)
