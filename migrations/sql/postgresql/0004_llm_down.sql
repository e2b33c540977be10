DROP VIEW llm_overview;
DROP VIEW llm_health;
DROP TABLE llm_turn;
DROP TABLE llm_task;
