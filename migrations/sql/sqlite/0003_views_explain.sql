-- Sentences: what a task or a command is, what it waits for, since when, until when, and what a
-- person can do where it is theirs to do. Times are UTC.
--
-- A part is left out where there is nothing to say, so every part has an ELSE; and none may be null,
-- which would make the whole sentence null. A word that has no phrase yet shows as it is.

CREATE VIEW task_explain AS
WITH live AS (
    SELECT named.value AS account, min(d.draining) AS draining
    FROM daemon AS d, json_each(d.accounts) AS named
    WHERE d.heartbeat_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-30 seconds') || '000'
    GROUP BY named.value
),
crew AS (
    SELECT max(d.heartbeat_at) AS heard_at, max(d.heartbeat_at) > strftime('%Y-%m-%d %H:%M:%f', 'now', '-30 seconds') || '000' AS is_there
    FROM daemon AS d
),
judged AS (
    SELECT
        s.task_id, s.account, t.labels, s.phase, s.phase_since, s.waiting_for, s.reason, s.message,
        s.end_reason, s.confirmed_at, s.update_due, s.due_at, s.stop_due_at, t.owner,
        coalesce(t.desired_state, 'deleted') AS desired_state,
        s.phase IN ('stopped', 'failed') AS has_ended,
        s.incarnation > s.retired AS has_next,
        CASE s.intent
            WHEN 'start' THEN 'a start'
            WHEN 'stop' THEN 'a stop'
            WHEN 'find' THEN 'a look for it'
            WHEN 'kick' THEN 'its removal from the room'
            WHEN 'poll' THEN 'a look at it'
            WHEN 'update' THEN 'an update'
            ELSE s.intent
        END AS call,
        coalesce(s.intent_at, s.phase_since) AS called_at,
        CASE WHEN s.lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' THEN s.lease_until END AS answer_by,
        c.paused, c.frozen, a.denied_code,
        live.account IS NOT NULL AS is_served, live.draining AS is_draining, crew.is_there, crew.heard_at,
        t.owner IS NOT NULL AND w.name IS NULL AS has_lost_owner,
        CASE WHEN strftime('%Y-%m-%d %H:%M:%f', w.heartbeat_at, '+' || w.heartbeat_timeout_s || ' seconds') || '000' < strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' THEN w.heartbeat_at END
            AS silent_since,
        CASE
            WHEN t.stop_at <= s.stop_due_at THEN ', its stop_at'
            WHEN coalesce(t.heartbeat_timeout_s, w.heartbeat_timeout_s) IS NOT NULL
            THEN ', unless a heartbeat comes'
            ELSE ', after its longest duration'
        END AS end_kind,
        (SELECT min(n.at) FROM task_change AS n WHERE n.task_id = s.task_id) AS changed_at,
        (
            SELECT count(*) FROM agent_command AS m
            WHERE m.task_id = s.task_id AND m.state IN ('queued', 'sending')
        ) AS commands,
        CASE
            WHEN s.phase IN ('stopped', 'failed') THEN NULL
            WHEN s.waiting_for = 'start_at' THEN t.start_at
            WHEN s.waiting_for = 'retry' THEN coalesce(s.retry_at, min(coalesce(s.due_at, s.stop_due_at), coalesce(s.stop_due_at, s.due_at)))
            WHEN s.waiting_for = 'capacity' THEN s.retry_at
            WHEN s.waiting_for = 'circuit_open' THEN s.due_at
            WHEN s.waiting_for = 'denied' THEN a.probe_at
            WHEN s.waiting_for = 'proof' THEN coalesce(
                (
                    SELECT max(v.horizon_at) FROM vendor_agent AS v
                    WHERE v.task_id = s.task_id AND v.ended_at IS NULL
                ),
                min(coalesce(s.due_at, s.stop_due_at), coalesce(s.stop_due_at, s.due_at))
            )
            WHEN s.waiting_for IS NOT NULL THEN NULL
            WHEN s.phase = 'running' THEN s.stop_due_at
            WHEN s.intent IS NULL THEN min(coalesce(s.due_at, s.stop_due_at), coalesce(s.stop_due_at, s.due_at))
        END AS until_at
    FROM agent_status AS s
    LEFT JOIN agent_task AS t ON t.id = s.task_id
    LEFT JOIN task_owner AS w ON w.name = t.owner
    LEFT JOIN account_control AS c ON c.account = s.account
    LEFT JOIN account_state AS a ON a.account = s.account
    LEFT JOIN live ON live.account = s.account
    CROSS JOIN crew
    WHERE s.task_id NOT LIKE '~%'
)
SELECT
    task_id, account, labels, phase, waiting_for, phase_since, until_at,
    CASE phase
        WHEN 'pending' THEN CASE
            WHEN end_reason IS NULL THEN 'not started yet, since '
            ELSE 'not started again yet, since '
        END
        WHEN 'starting' THEN 'starting since '
        WHEN 'running' THEN 'running since '
        WHEN 'stopping' THEN 'stopping since '
        WHEN 'stopped' THEN 'ended at '
        WHEN 'failed' THEN 'failed at '
        WHEN 'quarantined' THEN 'perhaps running, nobody knows, since '
        ELSE phase || ' since '
    END
    || substr(phase_since, 1, 19) || ' UTC'
    || CASE
        WHEN phase <> 'running' THEN ''
        WHEN confirmed_at IS NOT NULL THEN ', seen in the room'
        ELSE ', not yet seen in the room'
    END
    || CASE WHEN end_reason IS NULL OR phase IN ('starting', 'running') THEN '' ELSE
        CASE WHEN phase = 'pending' THEN ' (the last one ended, because ' ELSE ', because ' END
        || CASE end_reason
            WHEN 'requested' THEN 'its row asked for that'
            WHEN 'deleted' THEN 'its row was deleted'
            WHEN 'deadline' THEN 'its time was over'
            WHEN 'heartbeat_lost' THEN 'no heartbeat came in time'
            WHEN 'idle' THEN 'nobody talked to it'
            WHEN 'kicked' THEN 'it was removed from the room'
            WHEN 'room_closed' THEN 'its room was closed'
            WHEN 'vendor_fault' THEN 'the vendor had a fault'
            WHEN 'vendor_gone' THEN 'the vendor did not know it any more'
            WHEN 'superseded' THEN 'another was to take its place'
            WHEN 'start_failed' THEN 'it could not be started'
            ELSE end_reason
        END
        || CASE WHEN phase = 'pending' THEN ')' ELSE '' END
    END
    || CASE
        WHEN has_ended AND changed_at IS NULL AND commands = 0 THEN ''
        WHEN heard_at IS NULL THEN '; no daemon runs: start one'
        WHEN NOT is_there THEN '; no daemon has said that it runs since ' || substr(heard_at, 1, 19) || ' UTC' || ': start one'
        WHEN waiting_for = 'account' AND NOT has_ended THEN ''
        WHEN NOT is_served THEN '; no running daemon has the account ' || account
        WHEN is_draining THEN '; every daemon that has the account is shutting down'
        ELSE ''
    END
    || CASE
        WHEN desired_state = 'deleted' AND has_ended THEN '; its row is deleted, so it will be forgotten'
        WHEN desired_state = 'deleted' THEN CASE
            WHEN end_reason = 'deleted' THEN '' ELSE '; its row is deleted, so it is to be stopped'
        END
        WHEN desired_state = 'stopped' AND phase IN ('pending', 'starting', 'running') THEN '; to be stopped'
        WHEN phase IN ('stopping', 'quarantined') AND has_next THEN '; after that the next one starts'
        WHEN changed_at IS NOT NULL OR desired_state <> 'running' THEN ''
        WHEN phase = 'stopped' THEN '; to run it again, set another restart_token'
        WHEN phase = 'failed' THEN '; not tried again until its row changes: set another restart_token, or mend its spec'
        ELSE ''
    END
    || CASE
        WHEN has_ended THEN ''
        WHEN call IS NULL AND phase = 'starting' THEN '; a start was sent, and nobody knows what became of it'
        WHEN call IS NULL THEN ''
        WHEN answer_by IS NULL THEN
            '; ' || call || ' was sent at ' || substr(called_at, 1, 19) || ' UTC' || ', and nobody knows what became of it'
        ELSE
            '; ' || call || ' is on its way since ' || substr(called_at, 1, 19) || ' UTC' || ', an answer is awaited until ' || substr(answer_by, 1, 19) || ' UTC'
    END
    || CASE WHEN has_ended THEN '' ELSE
        CASE waiting_for
            WHEN 'start_at' THEN '; waits for its start_at'
            WHEN 'rate_limit' THEN '; waits for its turn in the account''s rate limit'
            WHEN 'retry' THEN '; waits to be tried again'
            WHEN 'circuit_open' THEN '; waits, since the vendor does not answer'
            WHEN 'capacity' THEN '; waits, since the account has as many agents as it may'
            WHEN 'denied' THEN '; waits, since the vendor denies the account'
                || CASE WHEN denied_code IS NULL THEN '' ELSE ' (' || denied_code || ')' END
            WHEN 'paused' THEN '; waits, since the account is paused'
            WHEN 'frozen' THEN '; waits, since the account is frozen'
            WHEN 'account' THEN '; waits for a daemon that has the account ' || account
            WHEN 'proof' THEN '; waits for proof that nothing runs'
            ELSE coalesce('; waits for ' || waiting_for, '')
        END
        || CASE
            WHEN until_at IS NULL THEN ''
            WHEN waiting_for IS NOT NULL THEN ', until ' || substr(until_at, 1, 19) || ' UTC'
            WHEN phase = 'running' AND desired_state = 'running' THEN '; ends at ' || substr(until_at, 1, 19) || ' UTC' || end_kind
            WHEN phase = 'running' THEN ''
            ELSE '; looked at again at ' || substr(until_at, 1, 19) || ' UTC'
        END
        || CASE
            WHEN waiting_for = 'denied' THEN '; mend its keys, rights or balance, and to try at once set account_control.retry_at'
            WHEN waiting_for = 'paused' THEN '; to let it start, set account_control.paused to false'
            WHEN waiting_for = 'frozen' THEN '; to let calls leave, set account_control.frozen to false'
            WHEN waiting_for = 'account' THEN '; add the account to a daemon''s configuration'
            WHEN waiting_for = 'capacity' AND until_at IS NULL THEN '; end another, or raise max_agents'
            ELSE ''
        END
        || CASE
            WHEN phase = 'pending' AND due_at IS NOT NULL AND until_at IS NULL AND desired_state = 'running'
                AND waiting_for IN ('rate_limit', 'paused', 'frozen', 'capacity')
            THEN '; given up at ' || substr(due_at, 1, 19) || ' UTC' || ' if not started by then'
            ELSE ''
        END
        || CASE
            WHEN phase = 'quarantined' OR phase <> 'pending' AND waiting_for = 'account'
            THEN '; who knows that it is gone inserts assume_gone into task_change'
            ELSE ''
        END
        || CASE
            WHEN frozen AND coalesce(waiting_for, '') <> 'frozen' THEN '; the account is frozen, so no call leaves'
            WHEN paused AND phase = 'pending' AND coalesce(waiting_for, '') <> 'paused'
            THEN '; the account is paused, so nothing starts'
            ELSE ''
        END
        || CASE
            WHEN desired_state <> 'running' OR phase IN ('stopping', 'quarantined') THEN ''
            WHEN has_lost_owner THEN '; its owner ' || owner || ' is gone'
            WHEN silent_since IS NOT NULL THEN '; no heartbeat of its owner ' || owner || ' since ' || substr(silent_since, 1, 19) || ' UTC'
            ELSE ''
        END
        || CASE WHEN update_due AND phase = 'running' THEN '; its changed spec is not brought to it yet' ELSE '' END
    END
    || CASE WHEN changed_at IS NULL THEN '' ELSE '; a change of ' || substr(changed_at, 1, 19) || ' UTC' || ' is not taken yet' END
    || CASE commands
        WHEN 0 THEN ''
        WHEN 1 THEN '; 1 command waits'
        ELSE '; ' || commands || ' commands wait'
    END
    || CASE WHEN coalesce(reason, '') = '' THEN '' ELSE '; ' || reason END
    || CASE WHEN coalesce(message, '') = '' THEN '' ELSE ': ' || message END
    AS explanation
FROM judged;

-- One sentence for each command: what became of it, or why it is not sent yet. A lane waits as a
-- whole, so all of its commands have the same `waiting_for`: a pause that was decided (`agent`,
-- `frozen`, `retry`, `gap`), or what needs no decision: `account` (no live daemon has it), `answer`
-- (a call is on its way), and `rate_limit`, which is all that is left to wait for.
CREATE VIEW command_explain AS
WITH live AS (
    SELECT DISTINCT named.value AS account
    FROM daemon AS d, json_each(d.accounts) AS named
    WHERE d.heartbeat_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-30 seconds') || '000'
),
crew AS (
    SELECT max(d.heartbeat_at) AS heard_at, max(d.heartbeat_at) > strftime('%Y-%m-%d %H:%M:%f', 'now', '-30 seconds') || '000' AS is_there
    FROM daemon AS d
),
judged AS (
    SELECT
        c.id, c.position, c.task_id, c.user_id, s.account, t.labels, c.kind, c.sequence, c.state,
        c.reason, c.message, c.created_at, c.expires_at, c.sent_at, c.done_at,
        c.kind IN ('start_listening', 'stop_listening') AS listens,
        CASE
            WHEN c.state NOT IN ('queued', 'sending') THEN NULL
            WHEN s.account IS NOT NULL AND live.account IS NULL THEN 'account'
            WHEN l.command_id IS NOT NULL AND l.lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' THEN 'answer'
            WHEN coalesce(s.phase, '') <> 'running' THEN 'agent'
            WHEN o.frozen THEN 'frozen'
            WHEN l.command_id IS NOT NULL AND l.retry_at > strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' THEN 'retry'
            WHEN l.command_id IS NULL AND l.gap_since IS NOT NULL AND l.due_at > strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' THEN 'gap'
            ELSE 'rate_limit'
        END AS waiting_for,
        s.phase, crew.is_there, crew.heard_at,
        coalesce(l.listening, false) AS may_listen,
        l.command_id, l.retry_at, l.due_at, l.lease_until,
        CASE
            WHEN l.passed_sequence > coalesce(l.given_sequence, l.last_sequence) THEN l.passed_sequence
            ELSE coalesce(l.given_sequence, l.last_sequence)
        END + 1 AS missing
    FROM agent_command AS c
    LEFT JOIN lane AS l ON l.task_id = c.task_id
        AND l.user_id = CASE WHEN c.kind IN ('start_listening', 'stop_listening') THEN c.user_id ELSE '' END
    LEFT JOIN agent_status AS s ON s.task_id = c.task_id
    LEFT JOIN agent_task AS t ON t.id = c.task_id
    LEFT JOIN account_control AS o ON o.account = s.account
    LEFT JOIN live ON live.account = s.account
    CROSS JOIN crew
),
explained AS (
    SELECT
        j.*,
        CASE
            WHEN j.waiting_for IS NULL OR j.waiting_for = 'account' THEN NULL
            WHEN j.waiting_for = 'answer' THEN j.lease_until
            WHEN j.waiting_for = 'retry' THEN j.retry_at
            WHEN j.waiting_for = 'gap' THEN j.due_at
            WHEN j.kind = 'stop_listening' AND j.may_listen THEN NULL
            ELSE j.expires_at
        END AS until_at,
        CASE WHEN j.waiting_for IS NULL OR j.id = j.command_id THEN 0 ELSE (
            SELECT count(*) FROM agent_command AS other
            WHERE other.task_id = j.task_id
                AND other.state IN ('queued', 'sending')
                AND (other.kind IN ('start_listening', 'stop_listening')) = j.listens
                AND (other.user_id = j.user_id OR NOT j.listens)
                AND (
                    other.id = j.command_id
                    OR (
                        CASE WHEN j.listens THEN coalesce(other.sequence, 0) ELSE 0 END,
                        other.position
                    ) < (CASE WHEN j.listens THEN coalesce(j.sequence, 0) ELSE 0 END, j.position)
                )
        ) END AS behind
    FROM judged AS j
)
SELECT
    id AS command_id, position, task_id, user_id, account, labels, kind, sequence, state, reason,
    message, created_at, expires_at, sent_at, done_at, waiting_for, until_at,
    kind
    || CASE WHEN listens AND sequence IS NOT NULL THEN ' ' || sequence ELSE '' END
    || CASE WHEN listens THEN ' of ' || user_id ELSE '' END
    || CASE state
        WHEN 'queued' THEN ', queued since ' || substr(created_at, 1, 19) || ' UTC'
        WHEN 'sending' THEN ', sent at ' || substr(coalesce(sent_at, created_at), 1, 19) || ' UTC' || ', and nobody knows yet if it was taken'
        ELSE ', ' || state || ' at ' || substr(coalesce(done_at, created_at), 1, 19) || ' UTC'
    END
    || CASE behind
        WHEN 0 THEN ''
        WHEN 1 THEN ', behind another one'
        ELSE ', behind ' || behind || ' others'
    END
    || CASE waiting_for
        WHEN 'account' THEN '; waits for a daemon that has the account' || CASE
            WHEN heard_at IS NULL THEN ': none runs, start one'
            WHEN NOT is_there THEN ': none has said that it runs since ' || substr(heard_at, 1, 19) || ' UTC' || ', start one'
            ELSE ''
        END
        WHEN 'answer' THEN '; waits for the vendor''s answer'
        WHEN 'agent' THEN '; waits for its agent to run'
            || CASE WHEN phase IS NULL THEN '' ELSE ', which is ' || phase END
        WHEN 'frozen' THEN '; waits, since the account is frozen'
        WHEN 'retry' THEN '; waits to be tried again'
        WHEN 'gap' THEN '; waits for ' || coalesce('sequence ' || missing, 'a sequence') || ', which is missing'
        WHEN 'rate_limit' THEN '; waits for its turn in the account''s rate limit'
        ELSE ''
    END
    || CASE WHEN until_at IS NULL THEN '' ELSE ', until ' || substr(until_at, 1, 19) || ' UTC' END
    || CASE WHEN coalesce(waiting_for, '') = 'frozen' THEN '; to let calls leave, set account_control.frozen to false' ELSE '' END
    || CASE WHEN coalesce(reason, '') = '' THEN '' ELSE '; ' || reason END
    || CASE WHEN coalesce(message, '') = '' THEN '' ELSE ': ' || message END
    AS explanation
FROM explained;
