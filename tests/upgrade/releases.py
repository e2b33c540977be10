"""Releases that do not exist yet: this tree, copied, with a higher version and more migrations.

What they change is small, and of every kind that a release may change. `2.0` adds, and uses what it
added; `3.0` does not use it any more; `4.0` takes it away.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.store.schema import REVISION

ROOT: Final = Path(__file__).resolve().parents[2]
EXPANDED: Final = f"{int(REVISION) + 1:04}"
CONTRACTED: Final = f"{int(REVISION) + 2:04}"

EXPAND: Final = (
    "ALTER TABLE daemon ADD COLUMN build TEXT",
    "ALTER TABLE agent_status ADD COLUMN weight INTEGER DEFAULT 1 NOT NULL",
    "ALTER TABLE agent_task ADD COLUMN note TEXT DEFAULT 'none' NOT NULL",
    "ALTER TABLE vendor_agent ADD COLUMN note TEXT",
    "ALTER TABLE agent_command ADD COLUMN note TEXT",
    "ALTER TABLE vendor_fact ADD COLUMN note TEXT",
    "CREATE TABLE task_note (task_id TEXT NOT NULL PRIMARY KEY, note TEXT NOT NULL)",
    "CREATE INDEX ix_agent_event_account ON agent_event (account)",
    "CREATE VIEW task_weight AS SELECT task_id, weight FROM agent_status",
)
CONTRACT: Final = ("ALTER TABLE daemon DROP COLUMN build", "DROP TABLE task_note")
USE: Final = '''

_register = register


def register(connection: Connection, one: Daemon, now: datetime) -> None:
    """Write also what this release has added."""
    _register(connection, one, now)
    connection.exec_driver_sql(f"UPDATE daemon SET build = 'second' WHERE id = '{one.id}'")
'''
WAIT: Final = """    import os, pathlib, time
    pathlib.Path(os.environ["UPGRADE_MARK"]).touch()
    time.sleep(600)
"""


@dataclass(frozen=True)
class Release:
    """A source tree that can be run."""

    version: str
    revision: str
    tree: Path

    @property
    def environ(self) -> dict[str, str]:
        """What makes `python -m orchestrator` this release's."""
        return {"PYTHONPATH": str(self.tree)}

    def begin(self, *words: str, **environ: str) -> "subprocess.Popen[str]":
        """Begin a command of this release."""
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words],
            cwd=self.tree,
            env={**os.environ, **self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def build_next(folder: Path) -> Iterator[Release]:
    """Build the three releases after this one."""
    expand = migration(EXPANDED, REVISION, EXPAND)
    contract = migration(CONTRACTED, EXPANDED, CONTRACT)
    second = _copy(folder / "second", "2.0", EXPANDED)
    _add(second, "pre_expand", expand)
    daemons = second.tree / "orchestrator/store/daemons.py"
    daemons.write_text(daemons.read_text("utf-8") + USE, "utf-8")
    yield second
    third = _copy(folder / "third", "3.0", EXPANDED)
    _add(third, "pre_expand", expand)
    yield third
    fourth = _copy(folder / "fourth", "4.0", CONTRACTED)
    _add(fourth, "pre_expand", expand, EXPANDED)
    _add(fourth, "post_contract", contract)
    yield fourth


def build_slow(folder: Path) -> Release:
    """Build a release whose migration changes something, touches $UPGRADE_MARK and waits."""
    slow = _copy(folder / "slow", "2.0", EXPANDED)
    _add(slow, "pre_slow", migration(EXPANDED, REVISION, EXPAND[:2]) + WAIT)
    return slow


def this_release() -> Release:
    """Return the release that this tree is."""
    return Release("1.0", REVISION, ROOT)


def migration(revision: str, after: str, statements: Sequence[str]) -> str:
    """Return the text of a migration that runs these statements."""
    lines = [
        '"""A release that does not exist yet."""',
        "from alembic import op",
        f"revision, down_revision = {revision!r}, {after!r}",
        "branch_labels = depends_on = None",
        "def upgrade():",
        *(f"    op.execute({statement!r})" for statement in statements),
    ]
    return "\n".join(lines) + "\n"


def _copy(tree: Path, version: str, revision: str) -> Release:
    for name in ("orchestrator", "migrations"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    schema = tree / "orchestrator/store/schema.py"
    known = f'REVISION: Final = "{REVISION}"'
    text = schema.read_text("utf-8")
    assert known in text
    schema.write_text(text.replace(known, f'REVISION: Final = "{revision}"'), "utf-8")
    told = tree / f"orchestrator-{version}.dist-info"
    told.mkdir()
    told.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: orchestrator\nVersion: {version}\n", "utf-8"
    )
    return Release(version, revision, tree)


def _add(release: Release, name: str, text: str, revision: str = "") -> None:
    file = f"{revision or release.revision}_{name}.py"
    (release.tree / "migrations/versions" / file).write_text(text, "utf-8")
