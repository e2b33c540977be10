CREATE TABLE llm_task (
    task_id TEXT NOT NULL,
    account TEXT NOT NULL,
    upstream TEXT NOT NULL,
    talked_at TEXT,
    CONSTRAINT pk_llm_task PRIMARY KEY (task_id)
);

CREATE TABLE llm_turn (
    id INTEGER NOT NULL,
    at TEXT NOT NULL,
    task_id TEXT NOT NULL,
    account TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    agent_id TEXT NOT NULL,
    round TEXT,
    try INTEGER DEFAULT 1 NOT NULL,
    upstream TEXT NOT NULL,
    is_fallback BOOLEAN DEFAULT 0 NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    first_token_ms INTEGER,
    total_ms INTEGER NOT NULL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    finish_reason TEXT,
    user_text TEXT,
    agent_text TEXT,
    CONSTRAINT pk_llm_turn PRIMARY KEY (id),
    CONSTRAINT llm_turn_outcome_is_known CHECK (outcome IN ('answered', 'interrupted', 'cut', 'failed', 'refused', 'ended'))
);

CREATE INDEX ix_llm_turn_at ON llm_turn (at);
CREATE INDEX ix_llm_turn_task_id_at ON llm_turn (task_id, at);

-- What each task's agents asked for, as far as it is kept. Ask for one task.
CREATE VIEW llm_overview AS
SELECT
    k.task_id, k.account, t.labels, s.phase, k.upstream, k.talked_at,
    CAST(strftime('%s', 'now') AS INTEGER) - CAST(strftime('%s', k.talked_at) AS INTEGER) AS silent_s,
    count(u.id) AS turns,
    count(DISTINCT u.agent_id || '/' || u.round) + count(CASE WHEN u.round IS NULL THEN u.id END) AS rounds,
    count(CASE WHEN u.outcome = 'answered' THEN 1 END) AS answered,
    count(CASE WHEN u.outcome = 'interrupted' THEN 1 END) AS interrupted,
    count(CASE WHEN u.outcome IN ('cut', 'failed', 'refused') THEN 1 END) AS broken,
    CAST(round(avg(u.first_token_ms)) AS INTEGER) AS first_token_avg_ms,
    max(u.first_token_ms) AS first_token_max_ms,
    sum(u.prompt_tokens) AS prompt_tokens,
    sum(u.completion_tokens) AS completion_tokens,
    (SELECT l.outcome FROM llm_turn AS l WHERE l.task_id = k.task_id ORDER BY l.at DESC, l.id DESC LIMIT 1) AS last_outcome,
    (SELECT l.reason FROM llm_turn AS l WHERE l.task_id = k.task_id ORDER BY l.at DESC, l.id DESC LIMIT 1) AS last_reason
FROM llm_task AS k
LEFT JOIN agent_status AS s ON s.task_id = k.task_id
LEFT JOIN agent_task AS t ON t.id = k.task_id
LEFT JOIN llm_turn AS u ON u.task_id = k.task_id
GROUP BY k.task_id;

-- How each upstream did in the last 5 minutes.
CREATE VIEW llm_health AS
SELECT
    u.account, u.upstream, count(*) AS turns,
    count(CASE WHEN u.outcome = 'answered' THEN 1 END) AS answered,
    count(CASE WHEN u.outcome = 'interrupted' THEN 1 END) AS interrupted,
    count(CASE WHEN u.outcome IN ('cut', 'failed', 'refused') THEN 1 END) AS broken,
    count(CASE WHEN u.is_fallback THEN 1 END) AS fallbacks,
    CAST(round(avg(u.first_token_ms)) AS INTEGER) AS first_token_avg_ms,
    max(u.first_token_ms) AS first_token_max_ms,
    sum(u.prompt_tokens) AS prompt_tokens,
    sum(u.completion_tokens) AS completion_tokens
FROM llm_turn AS u
WHERE u.at >= strftime('%Y-%m-%d %H:%M:%f', 'now', '-5 minutes') || '000' AND u.outcome <> 'ended'
GROUP BY u.account, u.upstream
ORDER BY u.account, u.upstream;
