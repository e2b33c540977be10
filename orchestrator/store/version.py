"""Tells whether a database has the schema of this version.

Apart from `migrate`, because every start of a daemon asks this and no start needs Alembic.
"""

from typing import Final

from sqlalchemy import inspect, text

from orchestrator.errors import SchemaError
from orchestrator.store.engine import Connection, Database
from orchestrator.store.schema import REVISION

VERSION_TABLE: Final = "orchestrator_version"
"""Alembic's own table, named so that ours and an application's migrations can share a database."""


async def check_version(database: Database) -> None:
    """Raise SchemaError, saying what to do, unless the database has the schema of this version."""
    found = await database.read(read_revision)
    if found is None:
        message = "the database has no tables of orchestrator: run `orchestrator migrate`"
        raise SchemaError(message)
    if int(found) < int(REVISION):
        message = (
            f"the database's schema is {found}, older than {REVISION}: run `orchestrator migrate`"
        )
        raise SchemaError(message)
    if int(found) > int(REVISION):
        raise SchemaError(newer(found))


def read_revision(connection: Connection) -> str | None:
    """Return the database's revision, or None if it was never migrated."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - a constant
    revision: str | None = found.scalar_one_or_none()
    return revision


def newer(found: str) -> str:
    """Return the sentence for a schema that this version does not know yet."""
    return f"the database's schema is {found}, newer than {REVISION}: upgrade orchestrator"
