"""The triggers: what an application writes becomes due work."""

from migrations.statements import run_file

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_file("0002_triggers")


def downgrade() -> None:
    run_file("0002_triggers_down")
