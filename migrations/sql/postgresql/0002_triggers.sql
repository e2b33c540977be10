-- What the database does by itself when somebody writes.
--
-- An application and a daemon never lock the same row: a trigger on agent_task only inserts into
-- task_change, and makes the status row where there is none. Functions run with their owner's
-- rights and see only the schema in which they were made.

-- Temporary tables come last, or a session's own would stand in for ours.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

CREATE FUNCTION agent_task_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    changed text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        changed := CASE
            WHEN NEW.id <> OLD.id THEN 'id'
            WHEN NEW.account <> OLD.account THEN 'account'
            WHEN NEW.room_id <> OLD.room_id THEN 'room_id'
            WHEN NEW.user_id <> OLD.user_id THEN 'user_id'
        END;
        IF changed IS NOT NULL THEN
            RAISE EXCEPTION 'agent_task.% cannot change: insert a new row instead', changed
                USING ERRCODE = 'check_violation';
        END IF;
        NEW.updated_at := clock_timestamp();
    END IF;
    IF NEW.owner IS NOT NULL
        AND (TG_OP = 'INSERT' OR NEW.owner IS DISTINCT FROM OLD.owner)
        AND NOT EXISTS (SELECT FROM task_owner WHERE name = NEW.owner)
    THEN
        RAISE EXCEPTION 'agent_task.owner: there is no task_owner of this name: insert it first'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION agent_task_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO agent_status (task_id, account, room_id, user_id)
    VALUES (NEW.id, NEW.account, NEW.room_id, NEW.user_id)
    ON CONFLICT DO NOTHING;
    INSERT INTO task_change (task_id, what) VALUES (NEW.id, 'insert');
    RETURN NULL;
END
$$;

CREATE FUNCTION agent_task_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO task_change (task_id, what, urgent)
    SELECT NEW.id, change.what, change.what = 'stop'
    FROM (VALUES
        (1, 'stop', NEW.desired_state = 'stopped' AND OLD.desired_state <> 'stopped'),
        (2, 'spec', NEW.spec IS DISTINCT FROM OLD.spec),
        (3, 'start_by', NEW.start_by IS DISTINCT FROM OLD.start_by),
        (4, 'timing',
            (NEW.start_at, NEW.stop_at, NEW.heartbeat_timeout_s, NEW.restart_policy, NEW.owner)
            IS DISTINCT FROM
            (OLD.start_at, OLD.stop_at, OLD.heartbeat_timeout_s, OLD.restart_policy, OLD.owner)),
        (5, 'run', NEW.desired_state = 'running' AND OLD.desired_state <> 'running'),
        (6, 'restart', NEW.restart_token IS NOT NULL
            AND NEW.restart_token IS DISTINCT FROM OLD.restart_token)
    ) AS change (place, what, happened)
    WHERE change.happened
    ORDER BY change.place;
    RETURN NULL;
END
$$;

CREATE FUNCTION agent_task_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO task_change (task_id, what, urgent) VALUES (OLD.id, 'delete', true);
    RETURN NULL;
END
$$;

CREATE FUNCTION refuse_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE would forget running agents: use DELETE FROM %', TG_TABLE_NAME
        USING ERRCODE = 'check_violation';
END
$$;

CREATE TRIGGER agent_task_check_insert BEFORE INSERT ON agent_task
FOR EACH ROW WHEN (NEW.owner IS NOT NULL) EXECUTE FUNCTION agent_task_check();

-- Not for heartbeat_at: a heartbeat fires no trigger.
CREATE TRIGGER agent_task_check_update BEFORE UPDATE OF
    id, account, room_id, user_id, desired_state, spec, start_at, start_by, stop_at, owner,
    heartbeat_timeout_s, restart_policy, restart_token, priority, labels, created_at
ON agent_task
FOR EACH ROW EXECUTE FUNCTION agent_task_check();

CREATE TRIGGER agent_task_inserted AFTER INSERT ON agent_task
FOR EACH ROW EXECUTE FUNCTION agent_task_inserted();

CREATE TRIGGER agent_task_updated AFTER UPDATE OF
    desired_state, spec, start_at, start_by, stop_at, owner, heartbeat_timeout_s, restart_policy,
    restart_token
ON agent_task
FOR EACH ROW EXECUTE FUNCTION agent_task_updated();

CREATE TRIGGER agent_task_deleted AFTER DELETE ON agent_task
FOR EACH ROW EXECUTE FUNCTION agent_task_deleted();

CREATE TRIGGER agent_task_refuse_truncate BEFORE TRUNCATE ON agent_task
FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();

CREATE FUNCTION task_owner_stamp() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    NEW.heartbeat_at := clock_timestamp();
    RETURN NEW;
END
$$;

-- An owner that went, or whose time-out changed, concerns each of its tasks.
CREATE FUNCTION task_owner_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO task_change (task_id, what)
    SELECT id, 'owner' FROM agent_task WHERE owner = OLD.name;
    RETURN NULL;
END
$$;

CREATE TRIGGER task_owner_stamp BEFORE INSERT OR UPDATE OF heartbeat_at ON task_owner
FOR EACH ROW EXECUTE FUNCTION task_owner_stamp();

CREATE TRIGGER task_owner_changed AFTER UPDATE OF name, heartbeat_timeout_s ON task_owner
FOR EACH ROW
WHEN ((NEW.name, NEW.heartbeat_timeout_s) IS DISTINCT FROM (OLD.name, OLD.heartbeat_timeout_s))
EXECUTE FUNCTION task_owner_changed();

CREATE TRIGGER task_owner_deleted AFTER DELETE ON task_owner
FOR EACH ROW EXECUTE FUNCTION task_owner_changed();

CREATE TRIGGER task_owner_refuse_truncate BEFORE TRUNCATE ON task_owner
FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();

CREATE FUNCTION agent_command_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    task_user text;
BEGIN
    IF EXISTS (SELECT FROM agent_command WHERE id = NEW.id) THEN
        RETURN NEW;  -- a retry, which ON CONFLICT ends, even if the task has gone since
    END IF;
    SELECT user_id INTO task_user FROM agent_task WHERE id = NEW.task_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'agent_command.task_id: there is no such agent_task'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    IF NEW.state <> 'queued' THEN
        RAISE EXCEPTION 'agent_command.state is the daemon''s: insert it without'
            USING ERRCODE = 'check_violation';
    END IF;
    NEW.user_id := coalesce(NEW.user_id, task_user);
    NEW.position := nextval('agent_command_position');
    RETURN NEW;
END
$$;

CREATE FUNCTION agent_command_keep() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION 'agent_command cannot change: to take a command back, insert its id into task_change with what = ''cancel_command'''
        USING ERRCODE = 'check_violation';
END
$$;

CREATE TRIGGER agent_command_insert BEFORE INSERT ON agent_command
FOR EACH ROW EXECUTE FUNCTION agent_command_insert();

-- The daemon fills in a null, and writes what became of it; nobody changes what was asked for.
CREATE TRIGGER agent_command_keep_update BEFORE UPDATE OF
    id, position, task_id, kind, user_id, sequence, payload, created_at, expires_at
ON agent_command
FOR EACH ROW WHEN (
    (NEW.id, NEW.position, NEW.task_id, NEW.kind, NEW.user_id, NEW.payload, NEW.created_at)
    IS DISTINCT FROM
    (OLD.id, OLD.position, OLD.task_id, OLD.kind, OLD.user_id, OLD.payload, OLD.created_at)
    OR OLD.sequence IS NOT NULL AND NEW.sequence IS DISTINCT FROM OLD.sequence
    OR OLD.expires_at IS NOT NULL AND NEW.expires_at IS DISTINCT FROM OLD.expires_at
)
EXECUTE FUNCTION agent_command_keep();

-- What has ended is pruned by age.
CREATE TRIGGER agent_command_keep_delete BEFORE DELETE ON agent_command
FOR EACH ROW WHEN (OLD.state IN ('queued', 'sending')) EXECUTE FUNCTION agent_command_keep();

CREATE TRIGGER agent_command_refuse_truncate BEFORE TRUNCATE ON agent_command
FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();

CREATE FUNCTION orphan_task_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION 'orphan_task.action: reports are the daemon''s own: insert it without, and the agent is stopped'
        USING ERRCODE = 'check_violation';
END
$$;

CREATE TRIGGER orphan_task_check BEFORE INSERT ON orphan_task
FOR EACH ROW WHEN (NEW.source = 'operator' AND NEW.action = 'report')
EXECUTE FUNCTION orphan_task_check();

CREATE FUNCTION orphan_task_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO task_change (task_id, what, urgent) VALUES ('~' || NEW.id, 'stop', true);
    RETURN NULL;
END
$$;

CREATE TRIGGER orphan_task_inserted AFTER INSERT ON orphan_task
FOR EACH ROW WHEN (NEW.source = 'operator')
EXECUTE FUNCTION orphan_task_inserted();

CREATE FUNCTION orphan_task_keep() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION 'orphan_task cannot change: insert a new row; to believe it gone, insert its id behind a ~ into task_change with what = ''assume_gone'''
        USING ERRCODE = 'check_violation';
END
$$;

-- The daemon writes how it goes on; nobody changes what it is about.
CREATE TRIGGER orphan_task_keep_update BEFORE UPDATE OF
    id, account, room_id, user_id, agent_user_id, vendor_task_id, source
ON orphan_task
FOR EACH ROW WHEN (
    (NEW.id, NEW.account, NEW.room_id, NEW.user_id, NEW.agent_user_id, NEW.source)
    IS DISTINCT FROM
    (OLD.id, OLD.account, OLD.room_id, OLD.user_id, OLD.agent_user_id, OLD.source)
    OR OLD.vendor_task_id IS NOT NULL AND NEW.vendor_task_id IS DISTINCT FROM OLD.vendor_task_id
)
EXECUTE FUNCTION orphan_task_keep();

CREATE TRIGGER orphan_task_keep_delete BEFORE DELETE ON orphan_task
FOR EACH ROW WHEN (OLD.phase = 'stopping') EXECUTE FUNCTION orphan_task_keep();

CREATE TRIGGER orphan_task_refuse_truncate BEFORE TRUNCATE ON orphan_task
FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();

-- Wake-up. A NOTIFY in every commit would serialise the application's commits, so there is one
-- only while a daemon says that it sleeps; the look takes no lock, and a daemon looks once more
-- after it said so.
CREATE FUNCTION wake_daemons() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM daemon WHERE asleep AND wake = 'notify') THEN
        PERFORM pg_notify('orchestrator_wake', '');
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER task_change_wakes AFTER INSERT ON task_change
FOR EACH STATEMENT EXECUTE FUNCTION wake_daemons();

CREATE TRIGGER agent_command_wakes AFTER INSERT ON agent_command
FOR EACH STATEMENT EXECUTE FUNCTION wake_daemons();

CREATE TRIGGER account_control_wakes AFTER INSERT OR UPDATE OR DELETE ON account_control
FOR EACH STATEMENT EXECUTE FUNCTION wake_daemons();

CREATE FUNCTION agent_status_tell() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_notify('orchestrator_status', NEW.task_id);
    RETURN NULL;
END
$$;

CREATE TRIGGER agent_status_tell AFTER UPDATE OF phase, reason, confirmed_at ON agent_status
FOR EACH ROW
WHEN (
    NEW.task_id NOT LIKE '~%' AND (NEW.phase, NEW.reason, NEW.confirmed_at)
    IS DISTINCT FROM (OLD.phase, OLD.reason, OLD.confirmed_at)
)
EXECUTE FUNCTION agent_status_tell();

CREATE FUNCTION agent_command_tell() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_notify('orchestrator_command', NEW.id);
    RETURN NULL;
END
$$;

CREATE TRIGGER agent_command_tell AFTER UPDATE OF state ON agent_command
FOR EACH ROW
WHEN (OLD.state IN ('queued', 'sending') AND NEW.state NOT IN ('queued', 'sending'))
EXECUTE FUNCTION agent_command_tell();
