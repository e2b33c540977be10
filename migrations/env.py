"""What Alembic runs: on a connection that `orchestrator migrate` has opened, or to print text."""

from alembic import context

VERSION_TABLE = "orchestrator_version"


def run_online() -> None:
    """Migrate on the connection given, inside the transaction that holds the lock."""
    context.configure(
        connection=context.config.attributes["connection"],
        version_table=VERSION_TABLE,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_offline() -> None:
    """Print the statements as one transaction."""
    schema = context.config.attributes.get("schema")
    context.configure(
        dialect_name=context.config.attributes["dialect"],
        dialect_opts={"paramstyle": "named"},
        version_table=VERSION_TABLE,
        transactional_ddl=True,
        literal_binds=True,
    )
    with context.begin_transaction():
        for statement in schema or ():
            context.execute(statement)
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
