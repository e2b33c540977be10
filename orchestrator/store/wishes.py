"""The tables that applications and operators write: what should be.

Rule 1: the daemon writes none of a row's wishes, and locks no row of `agent_task`.
Rule 2: names, types and defaults are a contract with other people's SQL. A release only adds.
"""

from typing import Final

from sqlalchemy import Boolean, Index, Integer, Table, Text, false, text

from orchestrator.core.model import RestartPolicy, What
from orchestrator.store.columns import (
    ZERO,
    BigInt,
    Json,
    Timestamp,
    check,
    check_boolean,
    check_id,
    check_integer,
    check_member,
    check_object,
    check_text,
    check_time,
    clock,
    drawn,
    empty_object,
    key,
    metadata,
    numbered,
    optional,
    required,
    session_user,
)

HOT: Final = {"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02}
"""Storage of tables whose rows are updated all the time."""

COMMAND_KINDS: Final = (
    "start_listening",
    "stop_listening",
    "interrupt",
    "say",
    "prompt",
    "function_result",
    "update",
)
COMMAND_STATES: Final = ("queued", "sending", "done", "failed", "superseded", "expired")
ORPHAN_SOURCES: Final = ("callback", "lookup", "gateway", "operator", "deleted_status")
ORPHAN_PHASES: Final = ("seen", "stopping", "stopped", "ignored")

_LISTENING_IN_FLIGHT: Final = text(
    "kind IN ('start_listening', 'stop_listening') AND state IN ('queued', 'sending')"
)

agent_task: Final = Table(
    "agent_task",
    metadata,
    drawn("id", "1-64 of A-Z a-z 0-9 _ -; drawn by the database if not given"),
    required("account", Text(), "a name under [accounts] in the configuration"),
    required("room_id", Text(), "the RTC room; cannot change"),
    required("user_id", Text(), "the human the agent talks to; cannot change"),
    required("desired_state", Text(), "running or stopped", "running"),
    required("spec", Json(), "the vendor's own start body, in its own names", empty_object()),
    optional("start_at", Timestamp(), "do not start before"),
    optional("start_by", Timestamp(), "not started by then: failed, StartDeadlineMissed"),
    optional("stop_at", Timestamp(), "hard deadline"),
    optional("owner", Text(), "a row of task_owner: one heartbeat for all agents of a process"),
    optional("heartbeat_timeout_s", Integer(), "heartbeat_at must be updated this often, seconds"),
    optional("heartbeat_at", Timestamp(), "the application is alive; fires no trigger"),
    required("restart_policy", Text(), "never, on_failure or always", "never"),
    optional("restart_token", Text(), "any new value: end what runs and start again"),
    required("priority", Integer(), "higher starts first", ZERO),
    required("labels", Json(), "the application's own", empty_object()),
    required("created_at", Timestamp(), "when the row was inserted", clock()),
    required("updated_at", Timestamp(), "last change other than a heartbeat", clock()),
    check_id("agent_task", "id"),
    check_member("agent_task", "desired_state", ("running", "stopped")),
    check_member("agent_task", "restart_policy", RestartPolicy),
    check_object("agent_task", "spec"),
    check_object("agent_task", "labels"),
    check_integer("agent_task", "heartbeat_timeout_s"),
    check("agent_task_heartbeat_timeout_s_is_positive", "heartbeat_timeout_s > 0"),
    check_integer("agent_task", "priority"),
    check_time("agent_task", "start_at"),
    check_time("agent_task", "start_by"),
    check_time("agent_task", "stop_at"),
    check_time("agent_task", "heartbeat_at"),
    check_time("agent_task", "created_at"),
    check_time("agent_task", "updated_at"),
    Index("ix_agent_task_owner", "owner"),
    comment="What should be: one row for each agent that an application wants",
)

task_owner: Final = Table(
    "task_owner",
    metadata,
    key("name", Text(), "names a process of the application"),
    required("heartbeat_timeout_s", Integer(), "its tasks end if no heartbeat comes for so long"),
    required("heartbeat_at", Timestamp(), "stamped by the database, whatever is written", clock()),
    check("task_owner_name_is_short", "length(name) BETWEEN 1 AND 255"),
    check_integer("task_owner", "heartbeat_timeout_s"),
    check("task_owner_heartbeat_timeout_s_is_positive", "heartbeat_timeout_s > 0"),
    comment="One row for each process of an application: a heartbeat for all its tasks",
    postgresql_with=HOT,
)

task_change: Final = Table(
    "task_change",
    metadata,
    numbered("seq", "order of writing; a later number may be committed earlier"),
    required("at", Timestamp(), "when it was written", clock()),
    required("task_id", Text(), "the task; of cancel_command: the command's id"),
    required("what", Text(), "what was asked for"),
    required("urgent", Boolean(), "a stop or a delete: taken first", false()),
    required("actor", Text(), "the database's session user", session_user()),
    check_member("task_change", "what", What),
    check_boolean("task_change", "urgent"),
    check_time("task_change", "at"),
    Index("ix_task_change_task_id", "task_id"),
    Index(
        "ix_task_change_urgent",
        "seq",
        postgresql_where=text("urgent"),
        sqlite_where=text("urgent"),
    ),
    comment="Inbox of the daemon, written by triggers: one row for each change of meaning",
    sqlite_autoincrement=True,
)

agent_command: Final = Table(
    "agent_command",
    metadata,
    drawn("id", "give it yourself, and a retried INSERT is harmless"),
    required("position", BigInt, "the order of insertion, by the database", ZERO),
    required("task_id", Text(), "the task; must exist at the insert"),
    required("kind", Text(), "what to do"),
    optional("user_id", Text(), "whom it is about; null: the task's user, filled in"),
    optional("sequence", BigInt, "of listening commands; null: the daemon assigns the next"),
    required("payload", Json(), "the vendor's own fields", empty_object()),
    required("created_at", Timestamp(), "when the row was inserted", clock()),
    optional("expires_at", Timestamp(), "not sent after; null: as configured"),
    required("state", Text(), "queued, sending, or how it ended", "queued"),
    optional("reason", Text(), "why it ended so, the vendor's code first"),
    optional("message", Text(), "the same for people"),
    optional("request_id", Text(), "the vendor's RequestId"),
    optional("result", Json(), "what the vendor returned"),
    optional("sent_at", Timestamp(), "when it was first sent"),
    optional("done_at", Timestamp(), "when it ended"),
    optional("seen_at", Timestamp(), "when a daemon first looked at it"),
    check_id("agent_command", "id"),
    check_member("agent_command", "kind", COMMAND_KINDS),
    check_member("agent_command", "state", COMMAND_STATES),
    check_text("agent_command", "user_id"),
    check_object("agent_command", "payload"),
    check_integer("agent_command", "sequence"),
    check("agent_command_sequence_is_not_negative", "sequence >= 0"),
    check_time("agent_command", "created_at"),
    check_time("agent_command", "expires_at"),
    Index(
        "ix_agent_command_sequence",
        "task_id",
        "user_id",
        "sequence",
        unique=True,
        postgresql_where=_LISTENING_IN_FLIGHT,
        sqlite_where=_LISTENING_IN_FLIGHT,
    ),
    Index(
        "ix_agent_command_open",
        "task_id",
        "position",
        postgresql_where=text("state IN ('queued', 'sending')"),
        sqlite_where=text("state IN ('queued', 'sending')"),
    ),
    Index(
        "ix_agent_command_unseen",
        "position",
        postgresql_where=text("seen_at IS NULL"),
        sqlite_where=text("seen_at IS NULL"),
    ),
    Index("ix_agent_command_done_at", "done_at"),
    comment="What to do to a running agent, once",
    postgresql_with=HOT,
)

orphan_task: Final = Table(
    "orphan_task",
    metadata,
    drawn("id", "drawn by the database if not given"),
    required("account", Text(), "where it runs"),
    optional("room_id", Text(), "its room, where known"),
    optional("user_id", Text(), "the human it talks to, where known"),
    optional("agent_user_id", Text(), "its own user id, where known"),
    optional("vendor_task_id", Text(), "the vendor's handle, where known"),
    required("source", Text(), "who found it", "operator"),
    required("ours", Boolean(), "its name bears our prefix and this database's mark", false()),
    required("action", Text(), "report or stop", "stop"),
    required("phase", Text(), "seen, stopping, stopped or ignored", "seen"),
    required("first_seen_at", Timestamp(), "when it was first heard of", clock()),
    required("last_seen_at", Timestamp(), "when it was last heard of", clock()),
    optional("stopped_at", Timestamp(), "when evidence of its end came"),
    optional("reason", Text(), "the present trouble, the vendor's code first"),
    optional("request_id", Text(), "of the last call about it"),
    check_id("orphan_task", "id"),
    check_member("orphan_task", "source", ORPHAN_SOURCES),
    check_member("orphan_task", "action", ("report", "stop")),
    check_member("orphan_task", "phase", ORPHAN_PHASES),
    check_boolean("orphan_task", "ours"),
    check_time("orphan_task", "first_seen_at"),
    check_time("orphan_task", "last_seen_at"),
    check_time("orphan_task", "stopped_at"),
    Index("ix_orphan_task_account_vendor_task_id", "account", "vendor_task_id"),
    Index(
        "ix_orphan_task_stopped_at",
        "stopped_at",
        postgresql_where=text("stopped_at IS NOT NULL"),
        sqlite_where=text("stopped_at IS NOT NULL"),
    ),
    Index(
        "ix_orphan_task_ignored",
        "last_seen_at",
        postgresql_where=text("phase = 'ignored'"),
        sqlite_where=text("phase = 'ignored'"),
    ),
    Index(
        "ix_orphan_task_unseen",
        "first_seen_at",
        postgresql_where=text("phase = 'seen' AND action = 'stop'"),
        sqlite_where=text("phase = 'seen' AND action = 'stop'"),
    ),
    comment="What runs at a vendor and has no task; an operator's insert stops it",
)

account_control: Final = Table(
    "account_control",
    metadata,
    key("account", Text(), "a name under [accounts] in the configuration"),
    required("paused", Boolean(), "starts wait; all else goes on", false()),
    required("frozen", Boolean(), "no call leaves, not even a stop", false()),
    optional("max_agents", Integer(), "null: the configuration's"),
    optional("retry_at", Timestamp(), "now: try a denied account at once"),
    check_boolean("account_control", "paused"),
    check_boolean("account_control", "frozen"),
    check_integer("account_control", "max_agents"),
    check("account_control_max_agents_is_not_negative", "max_agents >= 0"),
    check_time("account_control", "retry_at"),
    comment="The operator's switches, one row for each configured account",
)
