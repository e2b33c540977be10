"""${message}

A `pre` migration only adds, and runs under the daemons of the release before; a `post` migration
takes away what that release no longer uses.
"""

from migrations.statements import run_file

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_file("${up_revision}_${message}")


def downgrade() -> None:
    run_file("${up_revision}_${message}_down")
