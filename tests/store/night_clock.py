"""A clock that a scenario sets: time passes by moving what is in the database into the past.

The databases' own clocks cannot be set, so every instant that is written moves instead. What the
views then tell of ages and of what is due is what they would tell had the hours gone by.

Rule 1: the document's times are the scenario's; they are translated when a statement goes in and
when an answer comes out, so that the document may name a time of the night.
Rule 2: no trigger sees the hours go by.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from orchestrator.store.columns import Timestamp, metadata
from orchestrator.store.engine import Connection, Database
from orchestrator.store.engine import now as database_now

NIGHT: Final = datetime(2026, 3, 14, tzinfo=UTC)
TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?")
_TRIGGERS = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"


class Clock:
    """What time it is in the story of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ahead: timedelta | None = None
        """How far the story is ahead of the database; null: it has not begun."""

    async def set(self, time_of_day: str) -> None:
        """Let it be this time (`HH:MM` or `HH:MM:SS`) of the night."""
        target = datetime.fromisoformat(f"{NIGHT.date()} {time_of_day}+00:00")
        # By whole seconds, so that what a view cuts off is the same in the story.
        ahead = target - (await self._database.read(database_now)).replace(microsecond=0)
        if self._ahead is not None:
            await self._database.write(_move, self._ahead - ahead)
        self._ahead = ahead

    def story(self, text: str) -> str:
        """Return an answer with the times of the story."""
        return self._translate(text, self.ahead)

    def real(self, sql: str) -> str:
        """Return a statement with the times of the database."""
        return self._translate(sql, -self.ahead)

    @property
    def ahead(self) -> timedelta:
        """How far the story is ahead of the database."""
        assert self._ahead is not None, "set the clock first"
        return self._ahead

    @staticmethod
    def _translate(text: str, by: timedelta) -> str:
        def move(found: re.Match[str]) -> str:
            moved = datetime.fromisoformat(found[0]).replace(tzinfo=UTC) + by
            return f"{moved:%Y-%m-%d %H:%M:%S}"

        return TIME.sub(move, text)


def _move(connection: Connection, by: timedelta) -> None:
    """Move every instant in the database."""
    if connection.dialect.name == "sqlite":
        _move_sqlite(connection, by.total_seconds())
    else:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        _update_all(connection, "{0} = {0} + interval '" + f"{by.total_seconds():.6f} seconds'")


def _move_sqlite(connection: Connection, seconds: float) -> None:
    """Move them with the triggers taken away for so long: SQLite cannot switch them off."""
    triggers: list[Any] = list(connection.exec_driver_sql(_TRIGGERS))
    for name, _ in triggers:
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
    moved = f"strftime('%Y-%m-%d %H:%M:%f', {{0}}, '{seconds:+.3f} seconds') || '000'"
    _update_all(connection, "{0} = " + moved)
    for _, sql in triggers:
        connection.exec_driver_sql(sql)


def _update_all(connection: Connection, assignment: str) -> None:
    for table in metadata.sorted_tables:
        columns = [column.name for column in table.columns if isinstance(column.type, Timestamp)]
        if columns:
            moved = ", ".join(assignment.format(name) for name in columns)
            connection.exec_driver_sql(f"UPDATE {table.name} SET {moved}")  # noqa: S608 - the schema's own names
