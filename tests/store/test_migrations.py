"""The migrations make the schema that the statements are built on, on both databases."""

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import anyio
import asyncpg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from migrations.statements import split_statements
from orchestrator.errors import SchemaError
from orchestrator.store import migrate, version
from orchestrator.store.engine import Database, DatabaseAway, open_database
from orchestrator.store.schema import REVISION, metadata
from tests.store.rows import COMMAND, TASK, changes, query, run, value

pytestmark = pytest.mark.anyio

TABLES = sorted(metadata.tables)

COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        a.attidentity::text, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relname = ANY($1) ORDER BY c.relname, a.attnum
"""
CONSTRAINTS = """
    SELECT c.relname, n.conname, pg_get_constraintdef(n.oid)
    FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid
    WHERE c.relname = ANY($1) ORDER BY 1, 2
"""
INDEXES = (
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE tablename = ANY($1) ORDER BY 1, 2"
)
STORAGE = """
    SELECT c.relname, c.reloptions, obj_description(c.oid)
    FROM pg_class c WHERE c.relname = ANY($1) ORDER BY 1
"""


async def describe_postgres(url: str) -> dict[str, list[tuple[object, ...]]]:
    connection = await asyncpg.connect(url)
    try:
        catalogues = {"columns": COLUMNS, "checks": CONSTRAINTS, "indexes": INDEXES}
        return {
            name: [tuple(row) for row in await connection.fetch(statement, TABLES)]
            for name, statement in {**catalogues, "storage": STORAGE}.items()
        }
    finally:
        await connection.close()


async def test_migrations_equal_the_metadata_on_postgres(
    postgres_url: str, empty_postgres_url: str
) -> None:
    engine = create_async_engine(empty_postgres_url.replace("://", "+asyncpg://"))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    migrated = await describe_postgres(postgres_url)
    assert migrated == await describe_postgres(empty_postgres_url)
    assert [row[0] for row in migrated["storage"]] == TABLES


async def test_everything_is_commented_on_postgres(postgres_url: str) -> None:
    described = await describe_postgres(postgres_url)
    assert [row for row in described["columns"] if not row[-1]] == []
    assert [row for row in described["storage"] if not row[-1]] == []


def describe_sqlite(path: Path) -> dict[str, str]:
    """Return the text that made each table and index, with one space for each gap."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            " AND type IN ('table', 'index') AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
    return {name: " ".join(sql.split()) for name, sql in rows}


def test_migrations_equal_the_metadata_on_sqlite(sqlite_template: Path, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'metadata.db'}")
    metadata.create_all(engine)
    engine.dispose()
    migrated = describe_sqlite(sqlite_template)
    for own in ("orchestrator_version", "replace_guard"):
        del migrated[own]
    assert migrated == describe_sqlite(tmp_path / "metadata.db")


def test_the_newest_migration_is_the_one_that_this_version_knows() -> None:
    scripts = ScriptDirectory.from_config(migrate._config())
    assert scripts.get_heads() == [REVISION]
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert revisions == sorted(revisions, key=int, reverse=True)


async def test_up_down_up_keeps_rows(database_url: str) -> None:
    database = open_database(database_url)
    await run(database, TASK, COMMAND)
    mark = await value(database, "SELECT mark FROM installation")
    await changes(database)
    await database.close()
    await migrate.upgrade(database_url, revision="0001")
    assert await triggers(database_url) == 0
    await migrate.upgrade(database_url)
    assert await triggers(database_url) > 10
    await run(database, "UPDATE agent_task SET desired_state = 'stopped'")
    assert await changes(database) == [("t1", "stop", True)]
    assert await query(database, "SELECT id, task_id FROM agent_command") == [("c1", "t1")]
    assert await value(database, "SELECT mark FROM installation") == mark
    assert len(await query(database, "SELECT * FROM task_overview")) == 1
    await database.close()


async def triggers(database_url: str) -> int:
    database = open_database(database_url)
    counted = {
        "sqlite": "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal",
    }
    count: int = await value(database, counted[database.dialect])
    await database.close()
    return count


async def test_migrating_again_changes_nothing(database_url: str) -> None:
    database = open_database(database_url)
    mark = await value(database, "SELECT mark FROM installation")
    await migrate.upgrade(database_url)
    assert await value(database, "SELECT mark FROM installation") == mark
    await database.close()


async def test_the_tables_are_never_taken_away(database_url: str) -> None:
    database = open_database(database_url)
    await run(database, TASK)
    with pytest.raises(RuntimeError, match="remembers running agents"):
        await migrate.upgrade(database_url, revision="base")
    await version.check_version(database)
    assert await changes(database) == [("t1", "insert", False)]
    await database.close()


@pytest.mark.parametrize(
    ("revision", "advice"),
    [("0001", "run `orchestrator migrate`"), ("9999", "upgrade orchestrator")],
)
async def test_another_schema_is_refused(database: Database, revision: str, advice: str) -> None:
    await version.check_version(database)
    await run(database, f"UPDATE orchestrator_version SET version_num = '{revision}'")  # noqa: S608 - from the table above
    with pytest.raises(SchemaError, match=advice):
        await version.check_version(database)


async def test_a_newer_schema_is_not_migrated(database: Database, database_url: str) -> None:
    await run(database, "UPDATE orchestrator_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match="upgrade orchestrator"):
        await migrate.upgrade(database_url)


async def test_an_empty_postgres_database_is_refused(empty_postgres_url: str) -> None:
    database = open_database(empty_postgres_url)
    with pytest.raises(SchemaError, match="run `orchestrator migrate`"):
        await version.check_version(database)
    await database.close()


async def test_no_sqlite_file_is_refused_and_none_is_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    database = open_database(f"sqlite:///{path}")
    with pytest.raises(SchemaError, match="run `orchestrator migrate`"):
        await version.check_version(database)
    await database.close()
    assert not path.exists()


async def test_the_group_may_write_the_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a b#%.db"
    await migrate.upgrade(f"sqlite:///{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


async def test_two_migrations_at_once_are_one(empty_postgres_url: str, tmp_path: Path) -> None:
    for url in (empty_postgres_url, f"sqlite:///{tmp_path / 'x.db'}"):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(migrate.upgrade, url)
        database = open_database(url)
        await version.check_version(database)
        assert await value(database, "SELECT count(*) FROM installation") == 1
        await database.close()


async def test_somebody_who_stays_in_the_way_is_told_of(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TRIES", 2)
    reader = await asyncpg.connect(postgres_url)
    async with reader.transaction():
        await reader.fetch("SELECT * FROM task_overview")
        with pytest.raises(
            DatabaseAway, match="or a transaction that holds a table; nothing was changed"
        ):
            await migrate.upgrade(postgres_url, revision="0002")
    await reader.close()
    database = open_database(postgres_url)
    await version.check_version(database)
    await database.close()


async def test_a_database_that_is_not_there(empty_postgres_url: str) -> None:
    with pytest.raises(DatabaseAway, match="does not exist"):
        await migrate.upgrade(f"{empty_postgres_url}_not")


async def test_an_unreachable_database_says_so_without_its_password() -> None:
    with pytest.raises(DatabaseAway) as refused:
        await migrate.upgrade("postgresql://someone:not-a-secret@127.0.0.1:9/none")
    assert "not-a-secret" not in str(refused.value)


async def test_another_schema_of_a_shared_database(empty_postgres_url: str) -> None:
    name = 'voice "agents"'
    await migrate.upgrade(empty_postgres_url, schema=name)
    database = open_database(empty_postgres_url, schema=name)
    await version.check_version(database)
    await run(database, TASK)
    assert await changes(database) == [("t1", "insert", False)]
    await database.close()
    other = open_database(empty_postgres_url)
    with pytest.raises(SchemaError, match="run `orchestrator migrate`"):
        await version.check_version(other)
    await other.close()


async def test_the_printed_sql_makes_the_same_schema_on_postgres(
    postgres_url: str, empty_postgres_url: str
) -> None:
    connection = await asyncpg.connect(empty_postgres_url)
    await connection.execute(migrate.sql("postgresql"))
    await connection.close()
    assert await describe_postgres(empty_postgres_url) == await describe_postgres(postgres_url)
    database = open_database(empty_postgres_url)
    await version.check_version(database)
    await run(database, TASK)
    await database.close()


async def test_the_printed_sql_makes_the_same_schema_on_sqlite(
    sqlite_template: Path, tmp_path: Path
) -> None:
    path = tmp_path / "printed.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(migrate.sql("sqlite"))
    assert describe_sqlite(path) == describe_sqlite(sqlite_template)


def test_statements_end_outside_of_bodies() -> None:
    postgres = "-- a;\nSELECT 1;\n\nDO $$\nBEGIN\n  x;\nEND\n$$;\n"
    assert list(split_statements(postgres, "postgresql")) == [
        "-- a;\nSELECT 1",
        "DO $$\nBEGIN\n  x;\nEND\n$$",
    ]
    sqlite = "CREATE TRIGGER t AFTER INSERT ON x\nBEGIN\n  SELECT 1;\nEND;\nSELECT 2;\n"
    assert len(list(split_statements(sqlite, "sqlite"))) == 2


def revision_of(connection: Connection) -> str | None:
    return version.read_revision(connection)


async def test_the_revision_is_read_from_our_own_table(database: Database) -> None:
    assert await database.read(revision_of) == REVISION
