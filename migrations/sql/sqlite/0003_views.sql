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

-- What runs and has no task, with the seconds that it has leaked so far.
CREATE VIEW orphan_overview AS
SELECT
    o.id, o.account, o.room_id, o.user_id, o.agent_user_id, o.vendor_task_id, o.source, o.ours,
    o.action, o.phase, o.first_seen_at, o.last_seen_at, o.stopped_at, o.reason, o.request_id,
    CAST(strftime('%s', coalesce(o.stopped_at, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')) AS INTEGER) - CAST(strftime('%s', o.first_seen_at) AS INTEGER) AS leaked_s
FROM orphan_task AS o
ORDER BY o.stopped_at IS NOT NULL, o.first_seen_at;

-- Every walkie-talkie lane: what was sent last, what is queued, and what is missing between.
CREATE VIEW listening_lane AS
WITH queued AS (
    SELECT
        task_id, user_id, count(*) AS queued, min(sequence) AS next_sequence,
        min(created_at) AS oldest_at
    FROM agent_command
    WHERE kind IN ('start_listening', 'stop_listening') AND state IN ('queued', 'sending')
    GROUP BY task_id, user_id
),
known AS (
    SELECT task_id, user_id FROM lane WHERE user_id <> ''
    UNION
    SELECT task_id, user_id FROM queued
)
SELECT
    k.task_id, k.user_id, s.account, t.labels, l.incarnation, l.last_sequence,
    coalesce(q.queued, 0) AS queued, q.next_sequence,
    CASE WHEN q.next_sequence > l.last_sequence + 1
        THEN q.next_sequence - l.last_sequence - 1 ELSE 0 END AS gap,
    l.gap_since, q.oldest_at, CAST(strftime('%s', 'now') AS INTEGER) - CAST(strftime('%s', q.oldest_at) AS INTEGER) AS oldest_s
FROM known AS k
LEFT JOIN lane AS l ON l.task_id = k.task_id AND l.user_id = k.user_id
LEFT JOIN queued AS q ON q.task_id = k.task_id AND q.user_id = k.user_id
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
