"""A release only adds: every migration that is not marked `post` is held to it."""

from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest
from alembic.script import ScriptDirectory

from orchestrator.store import migrate
from tests.upgrade.additive import find_breaks, take_picture
from tests.upgrade.releases import CONTRACT, EXPAND

pytestmark = pytest.mark.anyio


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def revisions() -> list[tuple[str, bool]]:
    """Return every revision from the oldest on, and whether it may take something away."""
    scripts = ScriptDirectory.from_config(migrate._config())
    found = reversed(list(scripts.walk_revisions()))
    return [(one.revision, "_post_" in Path(one.path).name) for one in found]


async def test_no_migration_takes_away_what_the_release_before_uses(
    empty_postgres_url: str,
) -> None:
    before = await take_picture(empty_postgres_url)
    for revision, is_contract in revisions():
        await migrate.upgrade(empty_postgres_url, revision=revision)
        after = await take_picture(empty_postgres_url)
        assert is_contract or find_breaks(before, after) == []
        before = after


BREAKS: Sequence[tuple[str, str]] = [
    ("DROP TABLE rate_limit", "rate_limit is gone"),
    ("ALTER TABLE lane DROP COLUMN jumped", "lane.jumped is gone"),
    ("ALTER TABLE lane RENAME COLUMN jumped TO leapt", "lane.jumped is gone"),
    ("ALTER TABLE lane ALTER COLUMN attempt TYPE bigint", "lane.attempt is bigint and was integer"),
    ("ALTER TABLE lane ALTER COLUMN gap_since SET NOT NULL", "lane.gap_since must be given now"),
    ("ALTER TABLE lane ALTER COLUMN attempt DROP DEFAULT", "lane.attempt must be given now"),
    ("ALTER TABLE daemon ADD COLUMN build TEXT NOT NULL", "daemon.build is new and must be given"),
    (
        "ALTER TABLE lane ADD CONSTRAINT lane_is_tried CHECK (attempt > 0)",
        "lane: lane_is_tried is new, and may refuse what was allowed",
    ),
    (
        "CREATE UNIQUE INDEX one_host ON daemon (host)",
        "daemon: one_host is new, and may refuse what was allowed",
    ),
    (
        (
            "ALTER TABLE daemon DROP CONSTRAINT daemon_wake_is_known;"
            "ALTER TABLE daemon ADD CONSTRAINT daemon_wake_is_known "
            "CHECK (wake IN ('poll', 'shout'))"
        ),
        "daemon: daemon_wake_is_known refuses notify",
    ),
]


@pytest.mark.parametrize(("statement", "found"), BREAKS, ids=[found for _, found in BREAKS])
async def test_what_takes_away_is_found(postgres_url: str, statement: str, found: str) -> None:
    before = await take_picture(postgres_url)
    await execute(postgres_url, statement)
    assert find_breaks(before, await take_picture(postgres_url)) == [found]


async def test_what_only_adds_is_no_break(postgres_url: str) -> None:
    """A view may get columns at its end, and a set of words more of them."""
    before = await take_picture(postgres_url)
    await execute(
        postgres_url,
        *EXPAND,
        "ALTER TABLE daemon DROP CONSTRAINT daemon_wake_is_known",
        "ALTER TABLE daemon ADD CONSTRAINT daemon_wake_is_known "
        "CHECK (wake IN ('notify', 'poll', 'shout'))",
    )
    after = await take_picture(postgres_url)
    assert find_breaks(before, after) == []
    await execute(postgres_url, *CONTRACT)
    assert find_breaks(after, await take_picture(postgres_url)) == [
        "daemon.build is gone",
        "task_note is gone",
    ]
