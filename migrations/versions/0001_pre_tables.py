"""The tables, their comments, and this database's own mark."""

from alembic import op

from migrations.statements import run_file

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_file("0001_tables")
    if op.get_context().dialect.name == "postgresql":
        run_file("0001_comments")


def downgrade() -> None:
    """Refuse: without its ledger nobody would stop the agents that run."""
    message = "the tables are what remembers running agents: drop them by hand, if you must"
    raise RuntimeError(message)
