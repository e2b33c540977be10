"""Column types, and the few SQL expressions that the two databases spell differently.

Rule 1: a value means the same on both. Times are aware UTC `datetime`, JSON is a Python object.
Rule 2: reading never raises. What cannot be read comes back as the text it is, so that one bad
row fails alone and not its batch; the codec refuses it.
Rule 3: an expression here is DDL or a leaf of a statement. Statements are written in `sql`.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Integer,
    MetaData,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement, TextClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import DateTime, TypeEngine

metadata: Final = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"}
)

BigInt: Final = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits on both; SQLite numbers rows by itself only where the type is INTEGER."""


class Timestamp(TypeDecorator[datetime]):
    """An instant: timestamptz on Postgres, `YYYY-MM-DD HH:MM:SS.ffffff` in UTC on SQLite.

    SQLite compares the text, so only this format may be stored: triggers rewrite what an
    application wrote differently. Binding a `datetime` without a time zone raises ValueError.
    """

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = DateTime(timezone=True)
    cache_ok: bool | None = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Store text on SQLite, which has no type for an instant."""
        return Text() if dialect.name == "sqlite" else postgresql.TIMESTAMP(timezone=True)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Return what the driver takes."""
        if value is None:
            return None
        if value.tzinfo is None:
            message = f"an instant needs a time zone: {value.isoformat()}"
            raise ValueError(message)
        if dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002 - the base class calls it so
        """Return an aware UTC `datetime`, or the text if it is none."""
        if not isinstance(value, str):
            return value
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            return value
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def read_json(value: str | bytes) -> Any:
    """Return the parsed JSON, or the text itself if it is none or too deep to parse."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def write_json(value: Any) -> str:
    """Return compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Json(TypeDecorator[Any]):
    """A JSON value: jsonb on Postgres (whose driver parses it by `read_json`), text on SQLite."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = postgresql.JSONB(none_as_null=True)
    cache_ok: bool | None = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use Postgres' own type where there is one."""
        return Text() if dialect.name == "sqlite" else postgresql.JSONB(none_as_null=True)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return what the driver takes."""
        if value is None or dialect.name != "sqlite":
            return value
        return write_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the parsed value, or the text if it is no JSON or too deep to parse."""
        if dialect.name != "sqlite" or not isinstance(value, str):
            return value
        return read_json(value)


class TextList(TypeDecorator[Sequence[Any]]):
    """A list of strings as one parameter: `text[]` on Postgres, a JSON array on SQLite."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = Text
    cache_ok: bool | None = True
    item: TypeEngine[Any] = Text()

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use Postgres' own type where there is one."""
        return Text() if dialect.name == "sqlite" else postgresql.ARRAY(self.item)

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> Any:
        """Return what the driver takes."""
        if value is None:
            return None
        return json.dumps(list(value)) if dialect.name == "sqlite" else list(value)


class NumberList(TextList):
    """A list of whole numbers as one parameter: `bigint[]` on Postgres."""

    cache_ok: bool | None = True
    item: TypeEngine[Any] = BigInteger()


class _PerDialect(ColumnElement[Any]):
    """An expression given as text for each database."""

    inherit_cache: bool | None = False

    def __init__(self, sqlite: str, postgresql_: str, type_: TypeEngine[Any] | None = None) -> None:
        self.texts = {"sqlite": sqlite, "postgresql": postgresql_}
        if type_ is not None:
            self.type = type_


@compiles(_PerDialect)
def _compile(element: _PerDialect, compiler: SQLCompiler, **_: Any) -> str:
    return element.texts[compiler.dialect.name]


SQLITE_CLOCK: Final = "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"
"""The present in the daemon's format; SQLite's clock has milliseconds."""


class _Clock(FunctionElement[datetime]):
    """The present instant. Every transaction asks for it, so its statement is compiled once."""

    inherit_cache: bool | None = True
    type: TypeEngine[datetime] = Timestamp()


@compiles(_Clock, "sqlite")
def _clock_sqlite(_element: _Clock, _compiler: SQLCompiler, **_: Any) -> str:
    return SQLITE_CLOCK


@compiles(_Clock, "postgresql")
def _clock_postgres(_element: _Clock, _compiler: SQLCompiler, **_: Any) -> str:
    return "clock_timestamp()"


def clock() -> ColumnElement[datetime]:
    """Return the database's present instant, not the transaction's start."""
    return _Clock()


def drawn_id() -> ColumnElement[str]:
    """Return an id drawn by the database: 32 hexadecimal characters."""
    drawn = "replace(gen_random_uuid()::text, '-', '')"
    return _PerDialect("(lower(hex(randomblob(16))))", drawn, Text())


def session_user() -> ColumnElement[str]:
    """Return who writes: the session's user on Postgres; SQLite knows no users."""
    return _PerDialect("'sqlite'", "SESSION_USER", Text())


def empty_object() -> ColumnElement[Any]:
    """Return `{}`."""
    return _PerDialect("'{}'", "'{}'::jsonb", Json())


def _check(name: str, sqlite: str, postgres: str) -> CheckConstraint:
    return CheckConstraint(_PerDialect(sqlite, postgres), name=name)


def check(name: str, condition: str) -> CheckConstraint:
    """Return a constraint that both databases spell alike."""
    return CheckConstraint(condition, name=name)


def _is_id(text: str) -> str:
    return (
        f"typeof({text}) = 'text' AND length({text}) BETWEEN 1 AND 64 "
        f"AND {text} NOT GLOB '*[^A-Za-z0-9_-]*'"
    )


def check_id(table: str, column: str) -> CheckConstraint:
    """Refuse what is not 1-64 of `A-Z a-z 0-9 _ -`."""
    return _check(
        f"{table}_{column}_is_id", _is_id(column), f"{column} ~ '^[A-Za-z0-9_-]{{1,64}}$'"
    )


def check_id_or_orphan(table: str, column: str) -> CheckConstraint:
    """Refuse what is no id, and no id behind the `~` that marks an orphan."""
    bare = f"substr({column}, 2)"
    sqlite = f"({_is_id(column)}) OR (substr({column}, 1, 1) = '~' AND {_is_id(bare)})"
    return _check(f"{table}_{column}_is_id", sqlite, f"{column} ~ '^~?[A-Za-z0-9_-]{{1,64}}$'")


def check_time(table: str, column: str) -> CheckConstraint:
    """Refuse what is no full date and time, and years that a Python `datetime` cannot hold."""
    sqlite = (
        f"{column} IS NULL OR (typeof({column}) = 'text' AND datetime({column}) IS NOT NULL "
        f"AND length({column}) >= 16 "
        f"AND substr({column}, 1, 10) IS date(substr({column}, 1, 10), '+0 days') "
        f"AND substr({column}, 12, 2) < '24' AND substr({column}, 1, 4) BETWEEN '0002' AND '9998')"
    )
    postgres = f"{column} >= '0002-01-01 00:00:00+00' AND {column} < '9999-01-01 00:00:00+00'"
    return _check(f"{table}_{column}_is_time", sqlite, postgres)


def check_object(table: str, column: str) -> CheckConstraint:
    """Refuse what is no JSON object."""
    sqlite = f"CASE WHEN json_valid({column}) THEN json_type({column}) = 'object' ELSE 0 END"
    return _check(f"{table}_{column}_is_object", sqlite, f"jsonb_typeof({column}) = 'object'")


def check_integer(table: str, column: str) -> CheckConstraint:
    """Refuse text and fractions, which SQLite would store in an integer column; null passes."""
    sqlite = f"{column} IS NULL OR typeof({column}) = 'integer'"
    return CheckConstraint(sqlite, name=f"{table}_{column}_is_integer").ddl_if(dialect="sqlite")


def check_text(table: str, column: str) -> CheckConstraint:
    """Refuse bytes, which SQLite would store in a text column; null passes."""
    sqlite = f"{column} IS NULL OR typeof({column}) = 'text'"
    return CheckConstraint(sqlite, name=f"{table}_{column}_is_text").ddl_if(dialect="sqlite")


def check_boolean(table: str, column: str) -> CheckConstraint:
    """Refuse text and other numbers, which SQLite would store in a boolean column."""
    sqlite = f"{column} IN (0, 1)"
    return CheckConstraint(sqlite, name=f"{table}_{column}_is_boolean").ddl_if(dialect="sqlite")


def check_mark(table: str, column: str) -> CheckConstraint:
    """Refuse what is not 5 of `a-z 2-7`."""
    sqlite = f"{column} GLOB '{'[a-z2-7]' * 5}'"
    return _check(f"{table}_{column}_is_mark", sqlite, f"{column} ~ '^[a-z2-7]{{5}}$'")


def check_member(table: str, column: str, words: type[StrEnum] | Sequence[str]) -> CheckConstraint:
    """Refuse what is not in the closed set; null passes where the column takes it."""
    listed = ", ".join(f"'{word}'" for word in words)
    return check(f"{table}_{column}_is_known", f"{column} IN ({listed})")


ZERO: Final = text("0")


def key(name: str, type_: TypeEngine[Any], comment: str) -> Column[Any]:
    """Return a column of the primary key."""
    return Column(name, type_, primary_key=True, nullable=False, comment=comment)


def required(
    name: str,
    type_: TypeEngine[Any],
    comment: str,
    default: ColumnElement[Any] | TextClause | str | None = None,
) -> Column[Any]:
    """Return a column that is never null; `default` is the database's."""
    return Column(name, type_, nullable=False, server_default=default, comment=comment)


def drawn(name: str, comment: str) -> Column[Any]:
    """Return a primary key that the database draws where none is given."""
    return Column(
        name, Text(), primary_key=True, nullable=False, server_default=drawn_id(), comment=comment
    )


def numbered(name: str, comment: str) -> Column[Any]:
    """Return a primary key that the database counts up."""
    return Column(name, BigInt, Identity(), primary_key=True, nullable=False, comment=comment)


def optional(name: str, type_: TypeEngine[Any], comment: str) -> Column[Any]:
    """Return a column that may be null."""
    return Column(name, type_, nullable=True, comment=comment)
