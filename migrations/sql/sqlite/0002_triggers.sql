-- What the database does by itself when somebody writes: the same as on Postgres.
--
-- SQLite has no way to change a row before it is written, so what the database fills in is written
-- by an UPDATE after it. A time that an application wrote in another form gets the daemon's,
-- since text is what is compared. None of that counts as a change of the task's meaning.

-- INSERT OR REPLACE deletes a row and fires no trigger for it. So the ids are noted that were there
-- before an INSERT: if a row is inserted all the same, it has replaced one. After ON CONFLICT the
-- note just stays, until the next INSERT of that id.
CREATE TABLE replace_guard (
    table_name TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (table_name, id)
);

CREATE TRIGGER agent_task_note_replace BEFORE INSERT ON agent_task
WHEN EXISTS (SELECT 1 FROM agent_task WHERE id = NEW.id)
    OR EXISTS (SELECT 1 FROM replace_guard WHERE table_name = 'agent_task' AND id = NEW.id)
BEGIN
    DELETE FROM replace_guard WHERE table_name = 'agent_task' AND id = NEW.id;
    INSERT INTO replace_guard (table_name, id)
    SELECT 'agent_task', NEW.id WHERE EXISTS (SELECT 1 FROM agent_task WHERE id = NEW.id);
END;

CREATE TRIGGER agent_task_check_insert BEFORE INSERT ON agent_task
WHEN NEW.owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM task_owner WHERE name = NEW.owner)
BEGIN
    SELECT RAISE(ABORT, 'agent_task.owner: there is no task_owner of this name: insert it first');
END;

CREATE TRIGGER agent_task_check_owner BEFORE UPDATE OF owner ON agent_task
WHEN NEW.owner IS NOT OLD.owner
    AND NEW.owner IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM task_owner WHERE name = NEW.owner)
BEGIN
    SELECT RAISE(ABORT, 'agent_task.owner: there is no task_owner of this name: insert it first');
END;

CREATE TRIGGER agent_task_check_update BEFORE UPDATE OF id, account, room_id, user_id ON agent_task
BEGIN
    SELECT CASE
        WHEN NEW.id IS NOT OLD.id
        THEN RAISE(ABORT, 'agent_task.id cannot change: insert a new row instead')
        WHEN NEW.account IS NOT OLD.account
        THEN RAISE(ABORT, 'agent_task.account cannot change: insert a new row instead')
        WHEN NEW.room_id IS NOT OLD.room_id
        THEN RAISE(ABORT, 'agent_task.room_id cannot change: insert a new row instead')
        WHEN NEW.user_id IS NOT OLD.user_id
        THEN RAISE(ABORT, 'agent_task.user_id cannot change: insert a new row instead')
    END;
END;

CREATE TRIGGER agent_task_inserted AFTER INSERT ON agent_task
BEGIN
    SELECT RAISE(
        ABORT, 'INSERT OR REPLACE would forget a running agent: use ON CONFLICT (id) DO UPDATE'
    )
    WHERE EXISTS (SELECT 1 FROM replace_guard WHERE table_name = 'agent_task' AND id = NEW.id);
    INSERT INTO agent_status (task_id, account, room_id, user_id)
    SELECT NEW.id, NEW.account, NEW.room_id, NEW.user_id
    WHERE NOT EXISTS (SELECT 1 FROM agent_status WHERE task_id = NEW.id);
    INSERT INTO task_change (task_id, what) VALUES (NEW.id, 'insert');
END;

CREATE TRIGGER agent_task_updated AFTER UPDATE OF
    desired_state, spec, start_at, start_by, stop_at, owner, heartbeat_timeout_s, restart_policy,
    restart_token
ON agent_task
BEGIN
    INSERT INTO task_change (task_id, what, urgent)
    SELECT NEW.id, 'stop', 1
    WHERE NEW.desired_state = 'stopped' AND OLD.desired_state <> 'stopped'
    UNION ALL
    SELECT NEW.id, 'spec', 0
    WHERE json(NEW.spec) IS NOT json(OLD.spec)
    UNION ALL
    SELECT NEW.id, 'start_by', 0
    WHERE strftime('%Y-%m-%d %H:%M:%f', NEW.start_by) IS NOT strftime('%Y-%m-%d %H:%M:%f', OLD.start_by)
    UNION ALL
    SELECT NEW.id, 'timing', 0
    WHERE strftime('%Y-%m-%d %H:%M:%f', NEW.start_at) IS NOT strftime('%Y-%m-%d %H:%M:%f', OLD.start_at)
        OR strftime('%Y-%m-%d %H:%M:%f', NEW.stop_at) IS NOT strftime('%Y-%m-%d %H:%M:%f', OLD.stop_at)
        OR NEW.heartbeat_timeout_s IS NOT OLD.heartbeat_timeout_s
        OR NEW.restart_policy IS NOT OLD.restart_policy
        OR NEW.owner IS NOT OLD.owner
    UNION ALL
    SELECT NEW.id, 'run', 0
    WHERE NEW.desired_state = 'running' AND OLD.desired_state <> 'running'
    UNION ALL
    SELECT NEW.id, 'restart', 0
    WHERE NEW.restart_token IS NOT NULL AND NEW.restart_token IS NOT OLD.restart_token;
END;

-- Not for heartbeat_at: a heartbeat is no change.
CREATE TRIGGER agent_task_touched AFTER UPDATE OF
    desired_state, spec, start_at, start_by, stop_at, owner, heartbeat_timeout_s, restart_policy,
    restart_token, priority, labels, created_at
ON agent_task
BEGIN
    UPDATE agent_task SET updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' WHERE id = NEW.id;
END;

CREATE TRIGGER agent_task_deleted AFTER DELETE ON agent_task
BEGIN
    INSERT INTO task_change (task_id, what, urgent) VALUES (OLD.id, 'delete', 1);
END;

CREATE TRIGGER agent_task_times_insert AFTER INSERT ON agent_task
WHEN NEW.start_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.start_by NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.stop_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.created_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE agent_task SET
        start_at = strftime('%Y-%m-%d %H:%M:%f', start_at) || '000',
        start_by = strftime('%Y-%m-%d %H:%M:%f', start_by) || '000',
        stop_at = strftime('%Y-%m-%d %H:%M:%f', stop_at) || '000',
        created_at = strftime('%Y-%m-%d %H:%M:%f', created_at) || '000'
    WHERE id = NEW.id;
END;

CREATE TRIGGER agent_task_times_update AFTER UPDATE OF start_at, start_by, stop_at, created_at ON agent_task
WHEN NEW.start_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.start_by NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.stop_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.created_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE agent_task SET
        start_at = strftime('%Y-%m-%d %H:%M:%f', start_at) || '000',
        start_by = strftime('%Y-%m-%d %H:%M:%f', start_by) || '000',
        stop_at = strftime('%Y-%m-%d %H:%M:%f', stop_at) || '000',
        created_at = strftime('%Y-%m-%d %H:%M:%f', created_at) || '000'
    WHERE id = NEW.id;
END;

CREATE TRIGGER agent_task_stamps_insert AFTER INSERT ON agent_task
WHEN NEW.heartbeat_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.updated_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE agent_task SET
        heartbeat_at = strftime('%Y-%m-%d %H:%M:%f', heartbeat_at) || '000',
        updated_at = strftime('%Y-%m-%d %H:%M:%f', updated_at) || '000'
    WHERE id = NEW.id;
END;

CREATE TRIGGER agent_task_stamps_update AFTER UPDATE OF heartbeat_at, updated_at ON agent_task
WHEN NEW.heartbeat_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.updated_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE agent_task SET
        heartbeat_at = strftime('%Y-%m-%d %H:%M:%f', heartbeat_at) || '000',
        updated_at = strftime('%Y-%m-%d %H:%M:%f', updated_at) || '000'
    WHERE id = NEW.id;
END;

CREATE TRIGGER task_owner_stamp_insert AFTER INSERT ON task_owner
WHEN NEW.heartbeat_at IS NOT strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
BEGIN
    UPDATE task_owner SET heartbeat_at = strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
    WHERE name = NEW.name;
END;

CREATE TRIGGER task_owner_stamp_update AFTER UPDATE OF heartbeat_at ON task_owner
WHEN NEW.heartbeat_at IS NOT strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
BEGIN
    UPDATE task_owner SET heartbeat_at = strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
    WHERE name = NEW.name;
END;

-- An owner that went, or whose time-out changed, concerns each of its tasks.
CREATE TRIGGER task_owner_changed AFTER UPDATE OF name, heartbeat_timeout_s ON task_owner
WHEN NEW.name IS NOT OLD.name OR NEW.heartbeat_timeout_s IS NOT OLD.heartbeat_timeout_s
BEGIN
    INSERT INTO task_change (task_id, what)
    SELECT id, 'owner' FROM agent_task WHERE owner = OLD.name;
END;

CREATE TRIGGER task_owner_deleted AFTER DELETE ON task_owner
BEGIN
    INSERT INTO task_change (task_id, what)
    SELECT id, 'owner' FROM agent_task WHERE owner = OLD.name;
END;

CREATE TRIGGER agent_command_note_replace BEFORE INSERT ON agent_command
WHEN EXISTS (SELECT 1 FROM agent_command WHERE id = NEW.id)
    OR EXISTS (SELECT 1 FROM replace_guard WHERE table_name = 'agent_command' AND id = NEW.id)
BEGIN
    DELETE FROM replace_guard WHERE table_name = 'agent_command' AND id = NEW.id;
    INSERT INTO replace_guard (table_name, id)
    SELECT 'agent_command', NEW.id WHERE EXISTS (SELECT 1 FROM agent_command WHERE id = NEW.id);
END;

-- A retry of an INSERT that ON CONFLICT ends is no error, even if the task has gone since.
CREATE TRIGGER agent_command_check BEFORE INSERT ON agent_command
WHEN NOT EXISTS (SELECT 1 FROM agent_command WHERE id = NEW.id)
BEGIN
    SELECT CASE
        WHEN NOT EXISTS (SELECT 1 FROM agent_task WHERE id = NEW.task_id)
        THEN RAISE(ABORT, 'agent_command.task_id: there is no such agent_task')
        WHEN NEW.state <> 'queued'
        THEN RAISE(ABORT, 'agent_command.state is the daemon''s: insert it without')
    END;
END;

CREATE TRIGGER agent_command_inserted AFTER INSERT ON agent_command
BEGIN
    SELECT RAISE(ABORT, 'agent_command cannot change: to take a command back, insert its id into task_change with what = ''cancel_command''')
    WHERE EXISTS (SELECT 1 FROM replace_guard WHERE table_name = 'agent_command' AND id = NEW.id);
    UPDATE agent_command SET
        position = rowid,
        user_id = coalesce(user_id, (SELECT user_id FROM agent_task WHERE id = NEW.task_id)),
        created_at = strftime('%Y-%m-%d %H:%M:%f', created_at) || '000',
        expires_at = strftime('%Y-%m-%d %H:%M:%f', expires_at) || '000'
    WHERE id = NEW.id;
    SELECT RAISE(ABORT, 'agent_command.sequence: this number is queued already for this user')
    WHERE EXISTS (SELECT 1 FROM agent_command WHERE id = NEW.id AND user_id IS NULL);
END;

-- The daemon fills in a null, and writes what became of it; nobody changes what was asked for.
CREATE TRIGGER agent_command_keep_update BEFORE UPDATE OF
    id, position, task_id, kind, user_id, sequence, payload, created_at, expires_at
ON agent_command
WHEN NEW.id IS NOT OLD.id
    OR (NEW.position IS NOT OLD.position AND NEW.position IS NOT OLD.rowid)
    OR NEW.task_id IS NOT OLD.task_id
    OR NEW.kind IS NOT OLD.kind
    OR (OLD.user_id IS NOT NULL AND NEW.user_id IS NOT OLD.user_id)
    OR (OLD.sequence IS NOT NULL AND NEW.sequence IS NOT OLD.sequence)
    OR NEW.payload IS NOT OLD.payload
    OR strftime('%Y-%m-%d %H:%M:%f', NEW.created_at) IS NOT strftime('%Y-%m-%d %H:%M:%f', OLD.created_at)
    OR (OLD.expires_at IS NOT NULL AND strftime('%Y-%m-%d %H:%M:%f', NEW.expires_at) IS NOT strftime('%Y-%m-%d %H:%M:%f', OLD.expires_at))
BEGIN
    SELECT RAISE(ABORT, 'agent_command cannot change: to take a command back, insert its id into task_change with what = ''cancel_command''');
END;

-- What has ended is pruned by age.
CREATE TRIGGER agent_command_keep_delete BEFORE DELETE ON agent_command
WHEN OLD.state IN ('queued', 'sending')
BEGIN
    SELECT RAISE(ABORT, 'agent_command cannot change: to take a command back, insert its id into task_change with what = ''cancel_command''');
END;

CREATE TRIGGER orphan_task_note_replace BEFORE INSERT ON orphan_task
WHEN EXISTS (SELECT 1 FROM orphan_task WHERE id = NEW.id)
    OR EXISTS (SELECT 1 FROM replace_guard WHERE table_name = 'orphan_task' AND id = NEW.id)
BEGIN
    DELETE FROM replace_guard WHERE table_name = 'orphan_task' AND id = NEW.id;
    INSERT INTO replace_guard (table_name, id)
    SELECT 'orphan_task', NEW.id WHERE EXISTS (SELECT 1 FROM orphan_task WHERE id = NEW.id);
END;

CREATE TRIGGER orphan_task_check BEFORE INSERT ON orphan_task
WHEN NEW.source = 'operator' AND NEW.action = 'report'
BEGIN
    SELECT RAISE(ABORT, 'orphan_task.action: reports are the daemon''s own: insert it without, and the agent is stopped');
END;

CREATE TRIGGER orphan_task_inserted AFTER INSERT ON orphan_task
BEGIN
    SELECT RAISE(
        ABORT, 'INSERT OR REPLACE would forget an agent that is looked after: use ON CONFLICT (id) DO NOTHING'
    )
    WHERE EXISTS (SELECT 1 FROM replace_guard WHERE table_name = 'orphan_task' AND id = NEW.id);
    INSERT INTO task_change (task_id, what, urgent)
    SELECT '~' || NEW.id, 'stop', 1 WHERE NEW.source = 'operator';
END;

-- The daemon writes how it goes on; nobody changes what it is about.
CREATE TRIGGER orphan_task_keep_update BEFORE UPDATE OF
    id, account, room_id, user_id, agent_user_id, vendor_task_id, source
ON orphan_task
WHEN NEW.id IS NOT OLD.id
    OR NEW.account IS NOT OLD.account
    OR NEW.room_id IS NOT OLD.room_id
    OR NEW.user_id IS NOT OLD.user_id
    OR NEW.agent_user_id IS NOT OLD.agent_user_id
    OR NEW.source IS NOT OLD.source
    OR (OLD.vendor_task_id IS NOT NULL AND NEW.vendor_task_id IS NOT OLD.vendor_task_id)
BEGIN
    SELECT RAISE(ABORT, 'orphan_task cannot change: insert a new row; to believe it gone, insert its id behind a ~ into task_change with what = ''assume_gone''');
END;

CREATE TRIGGER orphan_task_keep_delete BEFORE DELETE ON orphan_task
WHEN OLD.phase = 'stopping'
BEGIN
    SELECT RAISE(ABORT, 'orphan_task cannot change: insert a new row; to believe it gone, insert its id behind a ~ into task_change with what = ''assume_gone''');
END;

CREATE TRIGGER orphan_task_times_insert AFTER INSERT ON orphan_task
WHEN NEW.first_seen_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.last_seen_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.stopped_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE orphan_task SET
        first_seen_at = strftime('%Y-%m-%d %H:%M:%f', first_seen_at) || '000',
        last_seen_at = strftime('%Y-%m-%d %H:%M:%f', last_seen_at) || '000',
        stopped_at = strftime('%Y-%m-%d %H:%M:%f', stopped_at) || '000'
    WHERE id = NEW.id;
END;

CREATE TRIGGER orphan_task_times_update AFTER UPDATE OF first_seen_at, last_seen_at, stopped_at ON orphan_task
WHEN NEW.first_seen_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.last_seen_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
    OR NEW.stopped_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE orphan_task SET
        first_seen_at = strftime('%Y-%m-%d %H:%M:%f', first_seen_at) || '000',
        last_seen_at = strftime('%Y-%m-%d %H:%M:%f', last_seen_at) || '000',
        stopped_at = strftime('%Y-%m-%d %H:%M:%f', stopped_at) || '000'
    WHERE id = NEW.id;
END;

CREATE TRIGGER account_control_times_insert AFTER INSERT ON account_control
WHEN NEW.retry_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE account_control SET
        retry_at = strftime('%Y-%m-%d %H:%M:%f', retry_at) || '000'
    WHERE account = NEW.account;
END;

CREATE TRIGGER account_control_times_update AFTER UPDATE OF retry_at ON account_control
WHEN NEW.retry_at NOT GLOB '????-??-?? ??:??:??.[0-9][0-9][0-9][0-9][0-9][0-9]'
BEGIN
    UPDATE account_control SET
        retry_at = strftime('%Y-%m-%d %H:%M:%f', retry_at) || '000'
    WHERE account = NEW.account;
END;
