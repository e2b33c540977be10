-- Four roles, for whoever does not want every program to connect as the owner of the tables.
-- Run it as the owner, with search_path set to the schema, after each migration; again is fine.
-- Grant a role to a login: GRANT orchestrator_app TO my_application;

DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'orchestrator_reader', 'orchestrator_app', 'orchestrator_operator', 'orchestrator_daemon'
    ]
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role_name);
    END LOOP;
END
$$;

-- Everybody reads everything: no secret is in the database.
GRANT SELECT ON
    agent_task, task_owner, task_change, agent_command, orphan_task, account_control, agent_status,
    vendor_agent, lane, vendor_fact, agent_event, account_state, rate_limit, call_minute, daemon,
    installation, orchestrator_version, llm_task, llm_turn, task_overview, task_explain, task_history,
    orphan_overview, command_explain, listening_lane, account_health, convergence, llm_overview,
    llm_health
TO orchestrator_reader, orchestrator_app, orchestrator_operator, orchestrator_daemon;

-- An application says what should be. Its word in the inbox is cancel_command.
GRANT INSERT, UPDATE, DELETE ON agent_task, task_owner TO orchestrator_app, orchestrator_operator;

GRANT INSERT (id, task_id, kind, user_id, sequence, payload, expires_at) ON agent_command
TO orchestrator_app, orchestrator_operator;

GRANT INSERT (id, account, room_id, user_id, agent_user_id, vendor_task_id, action) ON orphan_task
TO orchestrator_app, orchestrator_operator;

GRANT INSERT (task_id, what) ON task_change TO orchestrator_app, orchestrator_operator;

-- An operator also turns the switches, may say that an agent is gone, and may take an orphan back;
-- a trigger keeps what is being stopped.
GRANT INSERT, UPDATE, DELETE ON account_control TO orchestrator_operator;

GRANT DELETE ON orphan_task TO orchestrator_operator;

-- The daemon writes all but the application's rows: those it deletes when they have ended long ago.
GRANT INSERT, UPDATE, DELETE ON
    task_change, agent_command, orphan_task, agent_status, vendor_agent, lane, vendor_fact,
    agent_event, account_state, rate_limit, call_minute, daemon, llm_task, llm_turn
TO orchestrator_daemon;

GRANT DELETE ON agent_task TO orchestrator_daemon;
-- To lock what is about to be forgotten, so that a task in use is left alone, Postgres asks for
-- the right to update a column, any column.
GRANT UPDATE (updated_at) ON agent_task TO orchestrator_daemon;

GRANT INSERT ON account_control TO orchestrator_daemon;

GRANT UPDATE ON installation TO orchestrator_daemon;

-- Who may say what in the inbox. The triggers write with the owner's rights.
ALTER TABLE task_change ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS everybody_reads ON task_change;

CREATE POLICY everybody_reads ON task_change FOR SELECT
TO orchestrator_reader, orchestrator_app, orchestrator_operator
USING (true);

DROP POLICY IF EXISTS applications_cancel ON task_change;

CREATE POLICY applications_cancel ON task_change FOR INSERT
TO orchestrator_app
WITH CHECK (what = 'cancel_command');

DROP POLICY IF EXISTS operators_say ON task_change;

CREATE POLICY operators_say ON task_change FOR INSERT
TO orchestrator_operator
WITH CHECK (what IN ('cancel_command', 'assume_gone'));

DROP POLICY IF EXISTS daemons_do ON task_change;

CREATE POLICY daemons_do ON task_change
TO orchestrator_daemon
USING (true)
WITH CHECK (true);
