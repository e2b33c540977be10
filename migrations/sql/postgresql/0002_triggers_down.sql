-- A function takes its triggers with it.

DROP FUNCTION
    agent_task_check, agent_task_inserted, agent_task_updated, agent_task_deleted,
    refuse_truncate, task_owner_stamp, task_owner_changed, agent_command_insert,
    agent_command_keep, orphan_task_check, orphan_task_inserted, orphan_task_keep, wake_daemons,
    agent_status_tell, agent_command_tell
CASCADE;
