-- What people and dashboards read. Columns have the names that the tables have; `_s` is seconds.

-- Every task as it should be and as it is, the newest trouble first.
CREATE VIEW task_overview AS
SELECT
    s.task_id, s.account, t.labels, s.room_id, s.user_id,
    coalesce(t.desired_state, 'deleted') AS desired_state,
    s.phase, s.phase_since, CAST(strftime('%s', 'now') AS INTEGER) - CAST(strftime('%s', s.phase_since) AS INTEGER) AS age_s,
    s.reason, s.message, s.waiting_for, s.end_reason, s.attempt, s.incarnation,
    s.agent_user_id, s.vendor_task_id, s.last_request_id,
    s.started_at, s.confirmed_at, s.stopped_at, s.ran_s, s.due_at, s.stop_due_at,
    t.start_at, t.start_by, t.stop_at, t.owner, t.priority, t.created_at, s.updated_at
FROM agent_status AS s
LEFT JOIN agent_task AS t ON t.id = s.task_id
WHERE s.task_id NOT LIKE '~%'
ORDER BY CASE WHEN s.reason IS NULL THEN 1 ELSE 0 END, s.phase_since DESC;

-- One sentence for each task: what it is, since when, what it waits for, until when, and why.
CREATE VIEW task_explain AS
WITH explained AS (
    SELECT
        s.task_id, s.account, t.labels, s.phase, s.phase_since, s.waiting_for, s.reason, s.message,
        s.end_reason, s.confirmed_at, coalesce(t.desired_state, 'deleted') AS desired_state,
        EXISTS (SELECT 1 FROM task_change AS c WHERE c.task_id = s.task_id) AS has_news,
        (
            SELECT count(*) FROM agent_command AS c
            WHERE c.task_id = s.task_id AND c.state IN ('queued', 'sending')
        ) AS commands,
        CASE
            WHEN s.phase IN ('stopped', 'failed') THEN NULL
            WHEN s.waiting_for = 'start_at' THEN t.start_at
            WHEN s.waiting_for = 'retry' THEN coalesce(s.retry_at, min(coalesce(s.due_at, s.stop_due_at), coalesce(s.stop_due_at, s.due_at)))
            WHEN s.waiting_for = 'proof' THEN coalesce(
                (
                    SELECT max(a.horizon_at) FROM vendor_agent AS a
                    WHERE a.task_id = s.task_id AND a.ended_at IS NULL
                ),
                min(coalesce(s.due_at, s.stop_due_at), coalesce(s.stop_due_at, s.due_at))
            )
            WHEN s.waiting_for IN ('denied', 'circuit_open')
            THEN (SELECT a.probe_at FROM account_state AS a WHERE a.account = s.account)
            WHEN s.phase = 'running' THEN s.stop_due_at
            ELSE min(coalesce(s.due_at, s.stop_due_at), coalesce(s.stop_due_at, s.due_at))
        END AS until
    FROM agent_status AS s
    LEFT JOIN agent_task AS t ON t.id = s.task_id
    WHERE s.task_id NOT LIKE '~%'
)
SELECT
    task_id, account, labels, phase, waiting_for, phase_since, until AS until_at,
    CASE phase
        WHEN 'pending' THEN 'not started yet'
        WHEN 'starting' THEN 'starting'
        WHEN 'running' THEN 'running'
        WHEN 'stopping' THEN 'stopping'
        WHEN 'stopped' THEN 'ended'
        WHEN 'failed' THEN 'failed, and not tried again until the row changes'
        WHEN 'quarantined' THEN 'perhaps running, nobody knows'
        ELSE phase
    END
    || CASE WHEN end_reason IS NOT NULL AND phase IN ('stopping', 'stopped', 'failed')
        THEN ' (' || end_reason || ')' ELSE '' END
    || CASE WHEN phase = 'running' AND confirmed_at IS NOT NULL THEN ', seen in the room' ELSE '' END
    || ' since ' || substr(phase_since, 1, 19) || ' UTC'
    || CASE
        WHEN desired_state = 'deleted' THEN '; the task is deleted'
        WHEN desired_state = 'stopped' AND phase NOT IN ('stopped', 'failed') THEN '; to be stopped'
        ELSE ''
    END
    || CASE waiting_for
        WHEN 'start_at' THEN '; waits for its start_at'
        WHEN 'rate_limit' THEN '; waits for the account''s rate limit'
        WHEN 'retry' THEN '; waits to be tried again'
        WHEN 'circuit_open' THEN '; waits, since the vendor does not answer'
        WHEN 'capacity' THEN '; waits for another agent of the account to end'
        WHEN 'denied' THEN '; waits, since the vendor denies the account'
        WHEN 'paused' THEN '; waits, since the account is paused'
        WHEN 'frozen' THEN '; waits, since the account is frozen'
        WHEN 'account' THEN '; waits for a daemon that has the account'
        WHEN 'proof' THEN '; waits for proof that nothing runs'
        ELSE ''
    END
    || CASE
        WHEN until IS NULL THEN ''
        WHEN phase = 'running' AND waiting_for IS NULL
        THEN ', looked at for its end at ' || substr(until, 1, 19) || ' UTC'
        ELSE ', until ' || substr(until, 1, 19) || ' UTC'
    END
    || CASE WHEN has_news THEN '; a change is not taken yet' ELSE '' END
    || CASE commands
        WHEN 0 THEN ''
        WHEN 1 THEN '; 1 command waits'
        ELSE '; ' || commands || ' commands wait'
    END
    || CASE WHEN reason IS NULL THEN '' ELSE '; ' || reason END
    || CASE WHEN message IS NULL THEN '' ELSE ': ' || message END
    AS explanation
FROM explained;

-- What happened to each task, in order: wishes, calls and their outcomes.
CREATE VIEW task_history AS
SELECT
    e.task_id, e.id, e.at, e.account, t.labels, e.incarnation, e.actor, e.event, e.action,
    e.outcome, e.code, e.message, e.request_id, e.latency_ms, e.phase_before, e.phase_after,
    e.command_id
FROM agent_event AS e
LEFT JOIN agent_task AS t ON t.id = e.task_id
WHERE e.task_id IS NOT NULL
ORDER BY e.task_id, e.id;

-- What runs and has no task, with the seconds that it has leaked so far: null for what is ignored,
-- since that is an agent that stands elsewhere, or of which nobody knows enough.
CREATE VIEW orphan_overview AS
SELECT
    o.id, o.account, o.room_id, o.user_id, o.agent_user_id, o.vendor_task_id, o.source, o.ours,
    o.action, o.phase, o.first_seen_at, o.last_seen_at, o.stopped_at, o.reason, o.request_id,
    CASE
        WHEN o.phase <> 'ignored' OR (o.ours AND o.reason LIKE 'Incomplete%')
        THEN CAST(strftime('%s', coalesce(o.stopped_at, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')) AS INTEGER) - CAST(strftime('%s', o.first_seen_at) AS INTEGER)
    END AS leaked_s
FROM orphan_task AS o
ORDER BY o.stopped_at IS NOT NULL OR o.phase = 'ignored', o.first_seen_at;

-- One sentence for each command: what became of it, or why it is not sent yet. A lane waits as a
-- whole, so all of its commands have the same `waiting_for`: a pause that was decided (`agent`,
-- `frozen`, `retry`, `gap`), or what needs no decision: `account` (no live daemon has it), `answer`
-- (a call is on its way), and `rate_limit`, which is all that is left to wait for.
CREATE VIEW command_explain AS
WITH served AS (
    SELECT DISTINCT named.value AS account FROM daemon AS d, json_each(d.accounts) AS named
    WHERE d.heartbeat_at > strftime('%Y-%m-%d %H:%M:%f', 'now', '-30 seconds') || '000'
),
judged AS (
    SELECT
        c.id, c.position, c.task_id, c.user_id, s.account, t.labels, c.kind, c.sequence, c.state,
        c.reason, c.message, c.created_at, c.expires_at, c.sent_at, c.done_at,
        c.kind IN ('start_listening', 'stop_listening') AS listens,
        CASE
            WHEN c.state NOT IN ('queued', 'sending') THEN NULL
            WHEN s.account IS NOT NULL AND served.account IS NULL THEN 'account'
            WHEN l.command_id IS NOT NULL AND l.lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' THEN 'answer'
            WHEN coalesce(s.phase, '') <> 'running' THEN 'agent'
            WHEN o.frozen THEN 'frozen'
            WHEN l.command_id IS NOT NULL AND l.retry_at > strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' THEN 'retry'
            WHEN l.command_id IS NULL AND l.gap_since IS NOT NULL AND l.due_at > strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' THEN 'gap'
            ELSE 'rate_limit'
        END AS waiting_for,
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
    LEFT JOIN served ON served.account = s.account
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
    message, created_at, waiting_for, until_at,
    kind
    || CASE WHEN listens AND sequence IS NOT NULL THEN ' ' || sequence ELSE '' END
    || CASE WHEN listens THEN ' of ' || user_id ELSE '' END
    || CASE state
        WHEN 'queued' THEN ', queued since ' || substr(created_at, 1, 19) || ' UTC'
        WHEN 'sending' THEN ', sent at ' || substr(sent_at, 1, 19) || ' UTC' || ', and nobody knows yet if it was taken'
        ELSE ', ' || state || ' at ' || substr(done_at, 1, 19) || ' UTC'
    END
    || CASE behind
        WHEN 0 THEN ''
        WHEN 1 THEN ', behind another one'
        ELSE ', behind ' || behind || ' others'
    END
    || CASE waiting_for
        WHEN 'account' THEN '; waits for a daemon that has the account'
        WHEN 'answer' THEN '; waits for the vendor''s answer'
        WHEN 'agent' THEN '; waits for its agent to run'
        WHEN 'frozen' THEN '; waits, since the account is frozen'
        WHEN 'retry' THEN '; waits to be tried again'
        WHEN 'gap' THEN '; waits for sequence ' || missing || ', which is missing'
        WHEN 'rate_limit' THEN '; waits for its turn in the account''s rate limit'
        ELSE ''
    END
    || CASE WHEN until_at IS NULL THEN '' ELSE ', until ' || substr(until_at, 1, 19) || ' UTC' END
    || CASE WHEN reason IS NULL THEN '' ELSE '; ' || reason END
    || CASE WHEN message IS NULL THEN '' ELSE ': ' || message END
    AS explanation
FROM explained;

-- Every walkie-talkie lane: what was sent last, what is queued, and what is missing between. A gap
-- is of numbers that an application gives, above what was sent and what was passed over: the first
-- number of a lane misses nothing, and where the daemon numbers nothing can be missing.
CREATE VIEW listening_lane AS
WITH queue AS (
    SELECT
        e.task_id, e.user_id, count(*) AS queued, min(e.created_at) AS oldest_at,
        min(CASE
            WHEN e.sequence > coalesce(l.given_sequence, l.last_sequence, 0)
                AND e.sequence > coalesce(l.passed_sequence, 0)
            THEN e.sequence
        END) AS next_sequence,
        max(e.waiting_for) AS waiting_for, min(e.until_at) AS until_at,
        max(CASE WHEN e.command_id = l.command_id THEN e.reason END) AS reason
    FROM command_explain AS e
    LEFT JOIN lane AS l ON l.task_id = e.task_id AND l.user_id = e.user_id
    WHERE e.kind IN ('start_listening', 'stop_listening') AND e.state IN ('queued', 'sending')
    GROUP BY e.task_id, e.user_id
),
known AS (
    SELECT task_id, user_id FROM lane WHERE user_id <> ''
    UNION ALL
    SELECT q.task_id, q.user_id FROM queue AS q
    WHERE NOT EXISTS (
        SELECT 1 FROM lane AS l WHERE l.task_id = q.task_id AND l.user_id = q.user_id
    )
)
SELECT
    k.task_id, k.user_id, s.account, t.labels, l.incarnation, l.numbering, l.last_sequence,
    coalesce(q.queued, 0) AS queued, q.next_sequence,
    CASE
        WHEN l.numbering <> 'given' OR l.last_sequence IS NULL OR q.next_sequence IS NULL THEN 0
        WHEN l.passed_sequence > coalesce(l.given_sequence, l.last_sequence)
            THEN q.next_sequence - l.passed_sequence - 1
        ELSE q.next_sequence - coalesce(l.given_sequence, l.last_sequence) - 1
    END AS gap,
    CASE WHEN q.waiting_for = 'gap' THEN l.gap_since END AS gap_since, q.oldest_at, CAST(strftime('%s', 'now') AS INTEGER) - CAST(strftime('%s', q.oldest_at) AS INTEGER) AS oldest_s,
    q.waiting_for, q.until_at, q.reason
FROM known AS k
LEFT JOIN lane AS l ON l.task_id = k.task_id AND l.user_id = k.user_id
LEFT JOIN queue AS q ON q.task_id = k.task_id AND q.user_id = k.user_id
LEFT JOIN agent_status AS s ON s.task_id = k.task_id
LEFT JOIN agent_task AS t ON t.id = k.task_id;

-- Calls of the last 5 minutes for each account and action. A percentile is the upper bound, in
-- milliseconds, of the bucket in which it lies.
CREATE VIEW account_health AS
WITH bound (bucket, bound_ms) AS (
    VALUES
        (0, 4), (1, 6), (2, 8), (3, 11), (4, 16), (5, 23),
        (6, 32), (7, 45), (8, 64), (9, 91), (10, 128), (11, 181),
        (12, 256), (13, 362), (14, 512), (15, 724), (16, 1024), (17, 1448),
        (18, 2048), (19, 2896), (20, 4096), (21, 5793), (22, 8192), (23, 11585)
),
bucketed AS (
    SELECT
        m.account, m.action, m.bucket, sum(m.calls) AS calls, sum(m.failures) AS failures
    FROM call_minute AS m
    WHERE m.minute >= strftime('%Y-%m-%d %H:%M:%f', 'now', '-5 minutes') || '000'
    GROUP BY m.account, m.action, m.bucket
),
ranked AS (
    SELECT
        r.account, r.action, b.bound_ms, r.calls, r.failures,
        sum(r.calls) OVER (PARTITION BY r.account, r.action ORDER BY r.bucket) AS so_far,
        sum(r.calls) OVER (PARTITION BY r.account, r.action) AS total
    FROM bucketed AS r
    JOIN bound AS b ON b.bucket = r.bucket
)
SELECT
    account, action, sum(calls) AS calls, sum(failures) AS failures,
    min(CASE WHEN so_far * 100 >= total * 50 THEN bound_ms END) AS p50_ms,
    min(CASE WHEN so_far * 100 >= total * 95 THEN bound_ms END) AS p95_ms
FROM ranked
GROUP BY account, action
ORDER BY account, action;

-- How many tasks are not as desired, by age. A row that has ended is as desired, and so is one that
-- waits for its start_at.
CREATE VIEW convergence AS
WITH task AS (
    SELECT
        s.account, t.labels, s.phase,
        coalesce(t.desired_state, 'deleted') = 'running' AS wanted,
        coalesce(s.waiting_for, '') = 'start_at' AS waits,
        s.asked_at, s.phase_since,
        (SELECT min(c.at) FROM task_change AS c WHERE c.task_id = s.task_id) AS changed_at
    FROM agent_status AS s
    LEFT JOIN agent_task AS t ON t.id = s.task_id
    WHERE s.task_id NOT LIKE '~%'
),
unconverged AS (
    SELECT
        account, labels,
        CAST(strftime('%s', 'now') AS INTEGER) - CAST(strftime('%s', coalesce(changed_at, CASE WHEN wanted THEN asked_at END, phase_since)) AS INTEGER) AS age_s
    FROM task
    WHERE changed_at IS NOT NULL
        OR (wanted AND NOT waits AND phase NOT IN ('running', 'stopped', 'failed'))
        OR (NOT wanted AND phase NOT IN ('stopped', 'failed'))
)
SELECT
    account, labels,
    CASE
        WHEN age_s < 1 THEN '1: under 1 s'
        WHEN age_s < 10 THEN '2: under 10 s'
        WHEN age_s < 60 THEN '3: under 1 min'
        WHEN age_s < 600 THEN '4: under 10 min'
        WHEN age_s < 3600 THEN '5: under 1 h'
        ELSE '6: over 1 h'
    END AS age,
    count(*) AS tasks,
    max(age_s) AS oldest_s
FROM unconverged
GROUP BY 1, 2, 3
ORDER BY 1, 3;
