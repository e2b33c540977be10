"""The views that people and dashboards read."""

from migrations.statements import run_file

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_file("0003_views_explain")
    run_file("0003_views")  # listening_lane reads command_explain


def downgrade() -> None:
    run_file("0003_views_down")
