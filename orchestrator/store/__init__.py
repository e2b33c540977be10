"""SQL: the schema, the statements, and every difference between the databases."""
