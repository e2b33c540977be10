-- In this order: listening_lane reads command_explain.

DROP VIEW task_overview;
DROP VIEW task_explain;
DROP VIEW task_history;
DROP VIEW orphan_overview;
DROP VIEW listening_lane;
DROP VIEW command_explain;
DROP VIEW account_health;
DROP VIEW convergence;
