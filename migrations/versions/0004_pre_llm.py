"""What is asked at the LLM gateway: who asks it, each turn, and how the upstreams do."""

from migrations.statements import run_file

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_file("0004_llm")


def downgrade() -> None:
    run_file("0004_llm_down")
