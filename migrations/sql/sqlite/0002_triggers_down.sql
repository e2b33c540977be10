-- In the order in which they were made.

DROP TRIGGER agent_task_note_replace;
DROP TRIGGER agent_task_check_insert;
DROP TRIGGER agent_task_check_owner;
DROP TRIGGER agent_task_check_update;
DROP TRIGGER agent_task_inserted;
DROP TRIGGER agent_task_updated;
DROP TRIGGER agent_task_touched;
DROP TRIGGER agent_task_deleted;
DROP TRIGGER agent_task_times_insert;
DROP TRIGGER agent_task_times_update;
DROP TRIGGER task_owner_stamp_insert;
DROP TRIGGER task_owner_stamp_update;
DROP TRIGGER task_owner_changed;
DROP TRIGGER task_owner_deleted;
DROP TRIGGER agent_command_note_replace;
DROP TRIGGER agent_command_check;
DROP TRIGGER agent_command_inserted;
DROP TRIGGER agent_command_keep_update;
DROP TRIGGER agent_command_keep_delete;
DROP TRIGGER orphan_task_inserted;
DROP TRIGGER orphan_task_times_insert;
DROP TRIGGER orphan_task_times_update;
DROP TRIGGER account_control_times_insert;
DROP TRIGGER account_control_times_update;
DROP TABLE replace_guard;
