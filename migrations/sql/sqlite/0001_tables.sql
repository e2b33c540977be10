-- Every table with its constraints and indexes.

CREATE TABLE agent_task (
    id TEXT DEFAULT (lower(hex(randomblob(16)))) NOT NULL,
    account TEXT NOT NULL,
    room_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    desired_state TEXT DEFAULT 'running' NOT NULL,
    spec TEXT DEFAULT '{}' NOT NULL,
    start_at TEXT,
    start_by TEXT,
    stop_at TEXT,
    owner TEXT,
    heartbeat_timeout_s INTEGER,
    heartbeat_at TEXT,
    restart_policy TEXT DEFAULT 'never' NOT NULL,
    restart_token TEXT,
    priority INTEGER DEFAULT 0 NOT NULL,
    labels TEXT DEFAULT '{}' NOT NULL,
    created_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    updated_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    CONSTRAINT pk_agent_task PRIMARY KEY (id),
    CONSTRAINT agent_task_id_is_id CHECK (typeof(id) = 'text' AND length(id) BETWEEN 1 AND 64 AND id NOT GLOB '*[^A-Za-z0-9_-]*'),
    CONSTRAINT agent_task_desired_state_is_known CHECK (desired_state IN ('running', 'stopped')),
    CONSTRAINT agent_task_restart_policy_is_known CHECK (restart_policy IN ('never', 'on_failure', 'always')),
    CONSTRAINT agent_task_spec_is_object CHECK (CASE WHEN json_valid(spec) THEN json_type(spec) = 'object' ELSE 0 END),
    CONSTRAINT agent_task_labels_is_object CHECK (CASE WHEN json_valid(labels) THEN json_type(labels) = 'object' ELSE 0 END),
    CONSTRAINT agent_task_heartbeat_timeout_s_is_integer CHECK (heartbeat_timeout_s IS NULL OR typeof(heartbeat_timeout_s) = 'integer'),
    CONSTRAINT agent_task_heartbeat_timeout_s_is_positive CHECK (heartbeat_timeout_s > 0),
    CONSTRAINT agent_task_priority_is_integer CHECK (priority IS NULL OR typeof(priority) = 'integer'),
    CONSTRAINT agent_task_start_at_is_time CHECK (start_at IS NULL OR (typeof(start_at) = 'text' AND datetime(start_at) IS NOT NULL AND length(start_at) >= 16 AND substr(start_at, 1, 10) IS date(substr(start_at, 1, 10), '+0 days') AND substr(start_at, 12, 2) < '24' AND substr(start_at, 1, 4) BETWEEN '0002' AND '9998')),
    CONSTRAINT agent_task_start_by_is_time CHECK (start_by IS NULL OR (typeof(start_by) = 'text' AND datetime(start_by) IS NOT NULL AND length(start_by) >= 16 AND substr(start_by, 1, 10) IS date(substr(start_by, 1, 10), '+0 days') AND substr(start_by, 12, 2) < '24' AND substr(start_by, 1, 4) BETWEEN '0002' AND '9998')),
    CONSTRAINT agent_task_stop_at_is_time CHECK (stop_at IS NULL OR (typeof(stop_at) = 'text' AND datetime(stop_at) IS NOT NULL AND length(stop_at) >= 16 AND substr(stop_at, 1, 10) IS date(substr(stop_at, 1, 10), '+0 days') AND substr(stop_at, 12, 2) < '24' AND substr(stop_at, 1, 4) BETWEEN '0002' AND '9998')),
    CONSTRAINT agent_task_heartbeat_at_is_time CHECK (heartbeat_at IS NULL OR (typeof(heartbeat_at) = 'text' AND datetime(heartbeat_at) IS NOT NULL AND length(heartbeat_at) >= 16 AND substr(heartbeat_at, 1, 10) IS date(substr(heartbeat_at, 1, 10), '+0 days') AND substr(heartbeat_at, 12, 2) < '24' AND substr(heartbeat_at, 1, 4) BETWEEN '0002' AND '9998')),
    CONSTRAINT agent_task_created_at_is_time CHECK (created_at IS NULL OR (typeof(created_at) = 'text' AND datetime(created_at) IS NOT NULL AND length(created_at) >= 16 AND substr(created_at, 1, 10) IS date(substr(created_at, 1, 10), '+0 days') AND substr(created_at, 12, 2) < '24' AND substr(created_at, 1, 4) BETWEEN '0002' AND '9998')),
    CONSTRAINT agent_task_updated_at_is_time CHECK (updated_at IS NULL OR (typeof(updated_at) = 'text' AND datetime(updated_at) IS NOT NULL AND length(updated_at) >= 16 AND substr(updated_at, 1, 10) IS date(substr(updated_at, 1, 10), '+0 days') AND substr(updated_at, 12, 2) < '24' AND substr(updated_at, 1, 4) BETWEEN '0002' AND '9998'))
);

CREATE INDEX ix_agent_task_owner ON agent_task (owner);

CREATE TABLE task_owner (
    name TEXT NOT NULL,
    heartbeat_timeout_s INTEGER NOT NULL,
    heartbeat_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    CONSTRAINT pk_task_owner PRIMARY KEY (name),
    CONSTRAINT task_owner_name_is_short CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT task_owner_heartbeat_timeout_s_is_integer CHECK (heartbeat_timeout_s IS NULL OR typeof(heartbeat_timeout_s) = 'integer'),
    CONSTRAINT task_owner_heartbeat_timeout_s_is_positive CHECK (heartbeat_timeout_s > 0)
);

CREATE TABLE task_change (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    task_id TEXT NOT NULL,
    what TEXT NOT NULL,
    urgent BOOLEAN DEFAULT 0 NOT NULL,
    actor TEXT DEFAULT 'sqlite' NOT NULL,
    CONSTRAINT task_change_what_is_known CHECK (what IN ('insert', 'delete', 'stop', 'run', 'spec', 'restart', 'start_by', 'timing', 'owner', 'ledger', 'fact', 'assume_gone', 'cancel_command')),
    CONSTRAINT task_change_urgent_is_boolean CHECK (urgent IN (0, 1)),
    CONSTRAINT task_change_at_is_time CHECK (at IS NULL OR (typeof(at) = 'text' AND datetime(at) IS NOT NULL AND length(at) >= 16 AND substr(at, 1, 10) IS date(substr(at, 1, 10), '+0 days') AND substr(at, 12, 2) < '24' AND substr(at, 1, 4) BETWEEN '0002' AND '9998'))
);

CREATE INDEX ix_task_change_task_id ON task_change (task_id);
CREATE INDEX ix_task_change_urgent ON task_change (seq) WHERE urgent;

CREATE TABLE agent_command (
    id TEXT DEFAULT (lower(hex(randomblob(16)))) NOT NULL,
    position INTEGER DEFAULT 0 NOT NULL,
    task_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    user_id TEXT,
    sequence INTEGER,
    payload TEXT DEFAULT '{}' NOT NULL,
    created_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    expires_at TEXT,
    state TEXT DEFAULT 'queued' NOT NULL,
    reason TEXT,
    message TEXT,
    request_id TEXT,
    result TEXT,
    sent_at TEXT,
    done_at TEXT,
    seen_at TEXT,
    CONSTRAINT pk_agent_command PRIMARY KEY (id),
    CONSTRAINT agent_command_id_is_id CHECK (typeof(id) = 'text' AND length(id) BETWEEN 1 AND 64 AND id NOT GLOB '*[^A-Za-z0-9_-]*'),
    CONSTRAINT agent_command_kind_is_known CHECK (kind IN ('start_listening', 'stop_listening', 'interrupt', 'say', 'prompt', 'function_result', 'update')),
    CONSTRAINT agent_command_state_is_known CHECK (state IN ('queued', 'sending', 'done', 'failed', 'superseded', 'expired')),
    CONSTRAINT agent_command_user_id_is_text CHECK (user_id IS NULL OR typeof(user_id) = 'text'),
    CONSTRAINT agent_command_payload_is_object CHECK (CASE WHEN json_valid(payload) THEN json_type(payload) = 'object' ELSE 0 END),
    CONSTRAINT agent_command_sequence_is_integer CHECK (sequence IS NULL OR typeof(sequence) = 'integer'),
    CONSTRAINT agent_command_sequence_is_not_negative CHECK (sequence >= 0),
    CONSTRAINT agent_command_created_at_is_time CHECK (created_at IS NULL OR (typeof(created_at) = 'text' AND datetime(created_at) IS NOT NULL AND length(created_at) >= 16 AND substr(created_at, 1, 10) IS date(substr(created_at, 1, 10), '+0 days') AND substr(created_at, 12, 2) < '24' AND substr(created_at, 1, 4) BETWEEN '0002' AND '9998')),
    CONSTRAINT agent_command_expires_at_is_time CHECK (expires_at IS NULL OR (typeof(expires_at) = 'text' AND datetime(expires_at) IS NOT NULL AND length(expires_at) >= 16 AND substr(expires_at, 1, 10) IS date(substr(expires_at, 1, 10), '+0 days') AND substr(expires_at, 12, 2) < '24' AND substr(expires_at, 1, 4) BETWEEN '0002' AND '9998'))
);

CREATE INDEX ix_agent_command_done_at ON agent_command (done_at);
CREATE INDEX ix_agent_command_unseen ON agent_command (position) WHERE seen_at IS NULL;
CREATE INDEX ix_agent_command_open ON agent_command (task_id, position) WHERE state IN ('queued', 'sending');
CREATE UNIQUE INDEX ix_agent_command_sequence ON agent_command (task_id, user_id, sequence) WHERE kind IN ('start_listening', 'stop_listening') AND state IN ('queued', 'sending');

CREATE TABLE orphan_task (
    id TEXT DEFAULT (lower(hex(randomblob(16)))) NOT NULL,
    account TEXT NOT NULL,
    room_id TEXT,
    user_id TEXT,
    agent_user_id TEXT,
    vendor_task_id TEXT,
    source TEXT DEFAULT 'operator' NOT NULL,
    ours BOOLEAN DEFAULT 0 NOT NULL,
    action TEXT DEFAULT 'stop' NOT NULL,
    phase TEXT DEFAULT 'seen' NOT NULL,
    first_seen_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    last_seen_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    stopped_at TEXT,
    reason TEXT,
    request_id TEXT,
    CONSTRAINT pk_orphan_task PRIMARY KEY (id),
    CONSTRAINT orphan_task_id_is_id CHECK (typeof(id) = 'text' AND length(id) BETWEEN 1 AND 64 AND id NOT GLOB '*[^A-Za-z0-9_-]*'),
    CONSTRAINT orphan_task_source_is_known CHECK (source IN ('callback', 'lookup', 'gateway', 'operator', 'deleted_status')),
    CONSTRAINT orphan_task_action_is_known CHECK (action IN ('report', 'stop')),
    CONSTRAINT orphan_task_phase_is_known CHECK (phase IN ('seen', 'stopping', 'stopped', 'ignored')),
    CONSTRAINT orphan_task_ours_is_boolean CHECK (ours IN (0, 1)),
    CONSTRAINT orphan_task_first_seen_at_is_time CHECK (first_seen_at IS NULL OR (typeof(first_seen_at) = 'text' AND datetime(first_seen_at) IS NOT NULL AND length(first_seen_at) >= 16 AND substr(first_seen_at, 1, 10) IS date(substr(first_seen_at, 1, 10), '+0 days') AND substr(first_seen_at, 12, 2) < '24' AND substr(first_seen_at, 1, 4) BETWEEN '0002' AND '9998')),
    CONSTRAINT orphan_task_last_seen_at_is_time CHECK (last_seen_at IS NULL OR (typeof(last_seen_at) = 'text' AND datetime(last_seen_at) IS NOT NULL AND length(last_seen_at) >= 16 AND substr(last_seen_at, 1, 10) IS date(substr(last_seen_at, 1, 10), '+0 days') AND substr(last_seen_at, 12, 2) < '24' AND substr(last_seen_at, 1, 4) BETWEEN '0002' AND '9998')),
    CONSTRAINT orphan_task_stopped_at_is_time CHECK (stopped_at IS NULL OR (typeof(stopped_at) = 'text' AND datetime(stopped_at) IS NOT NULL AND length(stopped_at) >= 16 AND substr(stopped_at, 1, 10) IS date(substr(stopped_at, 1, 10), '+0 days') AND substr(stopped_at, 12, 2) < '24' AND substr(stopped_at, 1, 4) BETWEEN '0002' AND '9998'))
);

CREATE INDEX ix_orphan_task_account_vendor_task_id ON orphan_task (account, vendor_task_id);
CREATE INDEX ix_orphan_task_ignored ON orphan_task (last_seen_at) WHERE phase = 'ignored';
CREATE INDEX ix_orphan_task_stopped_at ON orphan_task (stopped_at) WHERE stopped_at IS NOT NULL;
CREATE INDEX ix_orphan_task_unseen ON orphan_task (first_seen_at) WHERE phase = 'seen' AND action = 'stop';

CREATE TABLE account_control (
    account TEXT NOT NULL,
    paused BOOLEAN DEFAULT 0 NOT NULL,
    frozen BOOLEAN DEFAULT 0 NOT NULL,
    max_agents INTEGER,
    retry_at TEXT,
    CONSTRAINT pk_account_control PRIMARY KEY (account),
    CONSTRAINT account_control_paused_is_boolean CHECK (paused IN (0, 1)),
    CONSTRAINT account_control_frozen_is_boolean CHECK (frozen IN (0, 1)),
    CONSTRAINT account_control_max_agents_is_integer CHECK (max_agents IS NULL OR typeof(max_agents) = 'integer'),
    CONSTRAINT account_control_max_agents_is_not_negative CHECK (max_agents >= 0),
    CONSTRAINT account_control_retry_at_is_time CHECK (retry_at IS NULL OR (typeof(retry_at) = 'text' AND datetime(retry_at) IS NOT NULL AND length(retry_at) >= 16 AND substr(retry_at, 1, 10) IS date(substr(retry_at, 1, 10), '+0 days') AND substr(retry_at, 12, 2) < '24' AND substr(retry_at, 1, 4) BETWEEN '0002' AND '9998'))
);

CREATE TABLE agent_status (
    task_id TEXT NOT NULL,
    account TEXT NOT NULL,
    room_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    agent_user_id TEXT,
    vendor_task_id TEXT,
    phase TEXT DEFAULT 'pending' NOT NULL,
    phase_since TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    generation INTEGER DEFAULT 0 NOT NULL,
    observed_generation INTEGER DEFAULT 0 NOT NULL,
    incarnation INTEGER DEFAULT 0 NOT NULL,
    retired INTEGER DEFAULT 0 NOT NULL,
    retired_at TEXT,
    update_due BOOLEAN DEFAULT 0 NOT NULL,
    reason TEXT,
    message TEXT,
    waiting_for TEXT,
    end_reason TEXT,
    attempt INTEGER DEFAULT 0 NOT NULL,
    retry_at TEXT,
    due_at TEXT,
    stop_due_at TEXT,
    parked_class TEXT,
    parked_verb TEXT,
    parked_at TEXT,
    priority INTEGER DEFAULT 0 NOT NULL,
    intent TEXT,
    intent_agent TEXT,
    intent_at TEXT,
    intent_tries INTEGER DEFAULT 0 NOT NULL,
    last_request_id TEXT,
    lease_owner TEXT,
    lease_until TEXT,
    version INTEGER DEFAULT 0 NOT NULL,
    asked_at TEXT,
    restarts INTEGER DEFAULT 0 NOT NULL,
    start_by_holds BOOLEAN DEFAULT 1 NOT NULL,
    started_at TEXT,
    confirmed_at TEXT,
    polled_at TEXT,
    stopped_at TEXT,
    ran_s INTEGER DEFAULT 0 NOT NULL,
    updated_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    CONSTRAINT pk_agent_status PRIMARY KEY (task_id),
    CONSTRAINT agent_status_task_id_is_id CHECK ((typeof(task_id) = 'text' AND length(task_id) BETWEEN 1 AND 64 AND task_id NOT GLOB '*[^A-Za-z0-9_-]*') OR (substr(task_id, 1, 1) = '~' AND typeof(substr(task_id, 2)) = 'text' AND length(substr(task_id, 2)) BETWEEN 1 AND 64 AND substr(task_id, 2) NOT GLOB '*[^A-Za-z0-9_-]*')),
    CONSTRAINT agent_status_phase_is_known CHECK (phase IN ('pending', 'starting', 'running', 'stopping', 'stopped', 'failed', 'quarantined')),
    CONSTRAINT agent_status_waiting_for_is_known CHECK (waiting_for IN ('start_at', 'rate_limit', 'retry', 'circuit_open', 'capacity', 'denied', 'paused', 'frozen', 'account', 'proof')),
    CONSTRAINT agent_status_end_reason_is_known CHECK (end_reason IN ('requested', 'deleted', 'deadline', 'heartbeat_lost', 'idle', 'kicked', 'room_closed', 'vendor_fault', 'vendor_gone', 'superseded', 'start_failed')),
    CONSTRAINT agent_status_parked_class_is_known CHECK (parked_class IN ('stop', 'listening', 'start', 'observe')),
    CONSTRAINT agent_status_parked_verb_is_known CHECK (parked_verb IN ('start', 'stop', 'find', 'kick', 'poll', 'update')),
    CONSTRAINT agent_status_intent_is_known CHECK (intent IN ('start', 'stop', 'find', 'kick', 'poll', 'update')),
    CONSTRAINT agent_status_has_time CHECK (phase NOT IN ('starting', 'running', 'stopping', 'quarantined') OR due_at IS NOT NULL OR stop_due_at IS NOT NULL)
);

CREATE INDEX ix_agent_status_due_at ON agent_status (due_at) WHERE phase <> 'running' AND due_at IS NOT NULL;
CREATE INDEX ix_agent_status_parked ON agent_status (account, parked_class, parked_verb, priority DESC, parked_at) WHERE parked_class IS NOT NULL;
CREATE INDEX ix_agent_status_phase_account ON agent_status (phase, account) WHERE task_id NOT LIKE '~%';
CREATE INDEX ix_agent_status_poll_due_at ON agent_status (due_at) WHERE phase = 'running' AND due_at IS NOT NULL;
CREATE INDEX ix_agent_status_stop_due_at ON agent_status (stop_due_at) WHERE stop_due_at IS NOT NULL;
CREATE INDEX ix_agent_status_stopped_at ON agent_status (stopped_at) WHERE stopped_at IS NOT NULL;
CREATE INDEX ix_agent_status_trouble ON agent_status ((reason IS NULL), phase_since DESC) WHERE task_id NOT LIKE '~%';

CREATE TABLE vendor_agent (
    id TEXT NOT NULL,
    task_id TEXT,
    orphan_id TEXT,
    incarnation INTEGER DEFAULT 0 NOT NULL,
    try INTEGER DEFAULT 0 NOT NULL,
    account TEXT NOT NULL,
    site TEXT NOT NULL,
    room_id TEXT DEFAULT '' NOT NULL,
    user_id TEXT DEFAULT '' NOT NULL,
    name TEXT DEFAULT '' NOT NULL,
    session_name TEXT DEFAULT '' NOT NULL,
    stream_id TEXT DEFAULT '' NOT NULL,
    vendor_task_id TEXT,
    spec_generation INTEGER DEFAULT 0 NOT NULL,
    body_digest TEXT DEFAULT '' NOT NULL,
    fixed_digest TEXT DEFAULT '' NOT NULL,
    announced_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    horizon_at TEXT,
    hinted_at TEXT,
    kicked_at TEXT,
    seen_at TEXT,
    is_hearsay BOOLEAN DEFAULT 0 NOT NULL,
    spent_at TEXT,
    told_at TEXT,
    retry_at TEXT,
    attempt INTEGER DEFAULT 0 NOT NULL,
    ended_at TEXT,
    evidence TEXT,
    CONSTRAINT pk_vendor_agent PRIMARY KEY (id)
);

CREATE INDEX ix_vendor_agent_account_name ON vendor_agent (account, name);
CREATE INDEX ix_vendor_agent_account_room_id_user_id ON vendor_agent (account, room_id, user_id) WHERE ended_at IS NULL;
CREATE INDEX ix_vendor_agent_account_vendor_task_id ON vendor_agent (account, vendor_task_id);
CREATE INDEX ix_vendor_agent_ended_at ON vendor_agent (ended_at);
CREATE INDEX ix_vendor_agent_orphan_id ON vendor_agent (orphan_id) WHERE ended_at IS NULL AND orphan_id IS NOT NULL;
CREATE INDEX ix_vendor_agent_task_id ON vendor_agent (task_id) WHERE ended_at IS NULL;
CREATE INDEX ix_vendor_agent_task_id_incarnation ON vendor_agent (task_id, incarnation);

CREATE TABLE lane (
    task_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    incarnation INTEGER DEFAULT 0 NOT NULL,
    last_sequence INTEGER,
    given_sequence INTEGER,
    passed_sequence INTEGER,
    numbering TEXT,
    command_id TEXT,
    listening BOOLEAN DEFAULT 0 NOT NULL,
    renumber BOOLEAN DEFAULT 0 NOT NULL,
    jumped BOOLEAN DEFAULT 0 NOT NULL,
    attempt INTEGER DEFAULT 0 NOT NULL,
    retry_at TEXT,
    gap_since TEXT,
    due_at TEXT,
    parked_kind TEXT,
    lease_owner TEXT,
    lease_until TEXT,
    version INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_lane PRIMARY KEY (task_id, user_id),
    CONSTRAINT lane_numbering_is_known CHECK (numbering IN ('given', 'drawn')),
    CONSTRAINT lane_parked_kind_is_known CHECK (parked_kind IN ('start_listening', 'stop_listening', 'interrupt', 'say', 'prompt', 'function_result', 'update'))
);

CREATE INDEX ix_lane_due_at ON lane (due_at) WHERE due_at IS NOT NULL AND parked_kind IS NULL;
CREATE INDEX ix_lane_parked ON lane (due_at) WHERE parked_kind IS NOT NULL;

CREATE TABLE vendor_fact (
    account TEXT NOT NULL,
    "key" TEXT NOT NULL,
    vendor_task_id TEXT,
    name TEXT,
    event TEXT NOT NULL,
    event_at TEXT NOT NULL,
    position INTEGER DEFAULT 0 NOT NULL,
    code TEXT,
    message TEXT,
    end_reason TEXT,
    is_signed BOOLEAN DEFAULT 0 NOT NULL,
    room_id TEXT,
    user_id TEXT,
    received_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    taken_at TEXT,
    CONSTRAINT pk_vendor_fact PRIMARY KEY (account, "key"),
    CONSTRAINT vendor_fact_event_is_known CHECK (event IN ('started', 'ended', 'fault', 'alive', 'seen')),
    CONSTRAINT vendor_fact_end_reason_is_known CHECK (end_reason IN ('requested', 'deleted', 'deadline', 'heartbeat_lost', 'idle', 'kicked', 'room_closed', 'vendor_fault', 'vendor_gone', 'superseded', 'start_failed'))
);

CREATE INDEX ix_vendor_fact_account_name ON vendor_fact (account, name) WHERE taken_at IS NULL;
CREATE INDEX ix_vendor_fact_account_vendor_task_id ON vendor_fact (account, vendor_task_id) WHERE taken_at IS NULL;
CREATE INDEX ix_vendor_fact_received_at ON vendor_fact (received_at);
CREATE INDEX ix_vendor_fact_untaken ON vendor_fact (received_at) WHERE taken_at IS NULL;

CREATE TABLE agent_event (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    task_id TEXT,
    command_id TEXT,
    orphan_id TEXT,
    account TEXT,
    incarnation INTEGER,
    actor TEXT,
    event TEXT NOT NULL,
    action TEXT,
    outcome TEXT,
    code TEXT,
    message TEXT,
    request_id TEXT,
    latency_ms INTEGER,
    phase_before TEXT,
    phase_after TEXT
);

CREATE INDEX ix_agent_event_at ON agent_event (at);
CREATE INDEX ix_agent_event_task_id_id ON agent_event (task_id, id);

CREATE TABLE account_state (
    account TEXT NOT NULL,
    live_agents INTEGER DEFAULT 0 NOT NULL,
    breaker TEXT,
    denied_code TEXT,
    denied_since TEXT,
    probe_at TEXT,
    undated BOOLEAN DEFAULT 0 NOT NULL,
    clock_offset_ms INTEGER,
    updated_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    CONSTRAINT pk_account_state PRIMARY KEY (account)
);

CREATE TABLE rate_limit (
    account TEXT NOT NULL,
    action TEXT NOT NULL,
    slots TEXT DEFAULT '[]' NOT NULL,
    version INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_rate_limit PRIMARY KEY (account, action)
);

CREATE TABLE call_minute (
    account TEXT NOT NULL,
    action TEXT NOT NULL,
    minute TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    calls INTEGER DEFAULT 0 NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_call_minute PRIMARY KEY (account, action, minute, bucket),
    CONSTRAINT call_minute_bucket_is_known CHECK (bucket BETWEEN 0 AND 23)
);

CREATE INDEX ix_call_minute_minute ON call_minute (minute);

CREATE TABLE daemon (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL,
    wake TEXT DEFAULT 'notify' NOT NULL,
    asleep BOOLEAN DEFAULT 0 NOT NULL,
    accounts TEXT NOT NULL,
    started_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    heartbeat_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    draining BOOLEAN DEFAULT 0 NOT NULL,
    CONSTRAINT pk_daemon PRIMARY KEY (id),
    CONSTRAINT daemon_wake_is_known CHECK (wake IN ('notify', 'poll'))
);

CREATE TABLE installation (
    mark TEXT NOT NULL,
    created_at TEXT DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now') || '000') NOT NULL,
    amnesty_at TEXT,
    clock_set_ms INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_installation PRIMARY KEY (mark),
    CONSTRAINT installation_mark_is_mark CHECK (mark GLOB '[a-z2-7][a-z2-7][a-z2-7][a-z2-7][a-z2-7]')
);

CREATE UNIQUE INDEX ix_installation_is_one_row ON installation (length(mark));

-- This database's own mark, drawn once.
INSERT INTO installation (mark)
SELECT substr('abcdefghijklmnopqrstuvwxyz234567', 1 + abs(random()) % 32, 1)
    || substr('abcdefghijklmnopqrstuvwxyz234567', 1 + abs(random()) % 32, 1)
    || substr('abcdefghijklmnopqrstuvwxyz234567', 1 + abs(random()) % 32, 1)
    || substr('abcdefghijklmnopqrstuvwxyz234567', 1 + abs(random()) % 32, 1)
    || substr('abcdefghijklmnopqrstuvwxyz234567', 1 + abs(random()) % 32, 1);
