-- What people and dashboards read. Columns have the names that the tables have, and what one asks
-- for first comes first; `_s` is seconds, `_ms` milliseconds.

-- Every task as it should be and as it is, the newest trouble first.
CREATE VIEW task_overview AS
SELECT
    s.task_id, s.account, coalesce(t.desired_state, 'deleted') AS desired_state, s.phase,
    floor(extract(epoch FROM statement_timestamp() - s.phase_since))::bigint AS age_s, s.waiting_for, s.reason, s.message,
    s.end_reason, s.intent, s.attempt, s.incarnation, s.phase_since, s.room_id, s.user_id,
    s.agent_user_id, s.vendor_task_id, s.last_request_id, s.lease_owner,
    s.started_at, s.confirmed_at, s.stopped_at, s.ran_s, s.due_at, s.stop_due_at,
    t.start_at, t.start_by, t.stop_at, t.owner, t.priority, t.labels, t.created_at, s.updated_at
FROM agent_status AS s
LEFT JOIN agent_task AS t ON t.id = s.task_id
WHERE s.task_id NOT LIKE '~%'
ORDER BY s.reason IS NULL, s.phase_since DESC;

-- What happened to each task, in order: wishes, calls and their outcomes.
CREATE VIEW task_history AS
SELECT
    e.task_id, e.at, e.event, e.action, e.outcome, e.code, e.message, e.phase_before, e.phase_after,
    e.latency_ms, e.request_id, e.actor, e.incarnation, e.command_id, e.account, t.labels, e.id
FROM agent_event AS e
LEFT JOIN agent_task AS t ON t.id = e.task_id
WHERE e.task_id IS NOT NULL
ORDER BY e.task_id, e.id;

-- What runs and has no task, with the seconds that it has leaked so far: null for what is ignored,
-- since that is an agent that stands elsewhere, or of which nobody knows enough.
CREATE VIEW orphan_overview AS
SELECT
    o.id, o.account, o.ours, o.action, o.phase,
    CASE
        WHEN o.phase <> 'ignored' OR (o.ours AND o.reason LIKE 'Incomplete%')
        THEN floor(extract(epoch FROM coalesce(o.stopped_at, statement_timestamp()) - o.first_seen_at))::bigint
    END AS leaked_s,
    o.reason, o.source, o.first_seen_at, o.last_seen_at, o.stopped_at,
    o.room_id, o.user_id, o.agent_user_id, o.vendor_task_id, o.request_id
FROM orphan_task AS o
ORDER BY o.stopped_at IS NOT NULL OR o.phase = 'ignored', o.first_seen_at;

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
    CASE WHEN q.waiting_for = 'gap' THEN l.gap_since END AS gap_since,
    q.oldest_at, floor(extract(epoch FROM statement_timestamp() - q.oldest_at))::bigint AS oldest_s,
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
        m.account, m.action, m.bucket, sum(m.calls)::bigint AS calls, sum(m.failures)::bigint AS failures
    FROM call_minute AS m
    WHERE m.minute >= statement_timestamp() - interval '5 minutes'
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
    account, action, sum(calls)::bigint AS calls, sum(failures)::bigint AS failures,
    min(CASE WHEN so_far * 100 >= total * 50 THEN bound_ms END) AS p50_ms,
    min(CASE WHEN so_far * 100 >= total * 95 THEN bound_ms END) AS p95_ms
FROM ranked
GROUP BY account, action
ORDER BY account, action;

-- How many tasks are not as desired, by age: since the first change that is not taken yet, since what
-- is to run was asked for, since its end was due, or else since it is in its phase. A row that has
-- ended is as desired, and so is one that waits for its start_at. Nothing that rests is looked at: a
-- row that came or went past the triggers is found by the daemons' sweep, and is counted from then on.
CREATE VIEW convergence AS
WITH candidate AS (
    SELECT s.task_id FROM agent_status AS s
    WHERE s.phase IN ('pending', 'starting', 'stopping', 'quarantined') AND s.task_id NOT LIKE '~%'
    UNION
    SELECT s.task_id FROM agent_status AS s
    WHERE s.stop_due_at <= statement_timestamp() AND s.task_id NOT LIKE '~%'
    UNION
    SELECT c.task_id FROM task_change AS c WHERE c.task_id NOT LIKE '~%'
),
task AS (
    SELECT
        s.account, t.labels, s.phase, s.phase_since, s.stop_due_at,
        (SELECT min(c.at) FROM task_change AS c WHERE c.task_id = s.task_id) AS changed_at,
        CASE WHEN s.incarnation > s.retired THEN greatest(s.asked_at, t.start_at) END AS asked_at,
        coalesce(t.desired_state, 'deleted') = 'running' AND coalesce(s.waiting_for, '') = 'start_at' AS waits
    FROM candidate AS k
    JOIN agent_status AS s ON s.task_id = k.task_id
    LEFT JOIN agent_task AS t ON t.id = s.task_id
),
unconverged AS (
    SELECT
        account, labels,
        floor(extract(epoch FROM statement_timestamp() - coalesce(changed_at, CASE WHEN phase = 'running' THEN stop_due_at ELSE asked_at END, phase_since)))::bigint AS age_s
    FROM task
    WHERE changed_at IS NOT NULL OR (NOT waits AND phase NOT IN ('stopped', 'failed'))
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

COMMENT ON VIEW task_overview IS 'Every task as it should be and as it is, the newest trouble first';
COMMENT ON VIEW task_explain IS 'One sentence for each task: what it is, what it waits for, what a person can do';
COMMENT ON VIEW task_history IS 'What happened to each task, in order: wishes, calls and their outcomes';
COMMENT ON VIEW orphan_overview IS 'What runs and has no task, and for how long it has leaked';
COMMENT ON VIEW command_explain IS 'One sentence for each command: what became of it, or why it is not sent yet';
COMMENT ON VIEW listening_lane IS 'Every walkie-talkie lane: what was sent last, what is queued, what is missing';
COMMENT ON VIEW account_health IS 'Calls of the last 5 minutes for each account and action';
COMMENT ON VIEW convergence IS 'How many tasks are not as desired, by age; empty is good';
