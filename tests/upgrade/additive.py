"""What a release may not take away while daemons of the release before run on the same schema.

Two pictures of a Postgres schema, and what of the first is not in the second any more. Statements
name their columns, so whatever is added is harmless unless an INSERT of the release before has to
give it.
"""

import re
from dataclasses import dataclass

import asyncpg

COLUMNS = """
    SELECT c.relname, c.relkind::text AS kind, a.attname, a.attnum, a.attnotnull,
        format_type(a.atttypid, a.atttypmod) AS type,
        a.atthasdef OR a.attidentity <> '' AS is_given
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
        AND a.attnum > 0 AND NOT a.attisdropped
"""
RULES = """
    SELECT c.relname, n.conname, pg_get_constraintdef(n.oid) AS rule
    FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid
    WHERE c.relnamespace = 'public'::regnamespace AND n.contype IN ('c', 'u', 'p', 'f')
    UNION ALL
    SELECT tablename, indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND indexdef LIKE 'CREATE UNIQUE%'
"""
WORD = re.compile(r"'(\w+)'::text")


@dataclass(frozen=True, slots=True)
class Column:
    """As `pg_attribute` has it."""

    place: int
    type: str
    must_be_given: bool
    is_table: bool


@dataclass(frozen=True)
class Picture:
    """What statements of a release rely on."""

    columns: dict[str, dict[str, Column]]
    """By relation and name."""
    rules: dict[tuple[str, str], str]
    """CHECKs, keys and unique indexes, by relation and name."""


async def take_picture(url: str) -> Picture:
    """Return what the schema `public` is like."""
    connection = await asyncpg.connect(url)
    try:
        columns: dict[str, dict[str, Column]] = {}
        for row in await connection.fetch(COLUMNS):
            columns.setdefault(row["relname"], {})[row["attname"]] = Column(
                place=row["attnum"],
                type=row["type"],
                must_be_given=row["attnotnull"] and not row["is_given"],
                is_table=row["kind"] == "r",
            )
        rules = {(r["relname"], r["conname"]): r["rule"] for r in await connection.fetch(RULES)}
    finally:
        await connection.close()
    return Picture(columns, rules)


def find_breaks(before: Picture, after: Picture) -> list[str]:
    """Return what a release that was made for `before` would fail over."""
    found: list[str] = []
    for relation, columns in before.columns.items():
        left = after.columns.get(relation)
        if left is None:
            found.append(f"{relation} is gone")
            continue
        found += _find_column_breaks(relation, columns, left)
    found += [
        f"{relation}: {name} is new, and may refuse what was allowed"
        for relation, name in after.rules.keys() - before.rules.keys()
        if relation in before.columns
    ]
    found += [
        f"{key[0]}: {key[1]} refuses {word}"
        for key in before.rules.keys() & after.rules.keys()
        for word in sorted(_words(before.rules[key]) - _words(after.rules[key]))
    ]
    return sorted(found)


def _find_column_breaks(
    relation: str, before: dict[str, Column], after: dict[str, Column]
) -> list[str]:
    found = []
    for name, column in before.items():
        left = after.get(name)
        if left is None:
            found.append(f"{relation}.{name} is gone")
        elif left.type != column.type:
            found.append(f"{relation}.{name} is {left.type} and was {column.type}")
        elif left.must_be_given and not column.must_be_given:
            found.append(f"{relation}.{name} must be given now")
        elif left.place != column.place:
            found.append(f"{relation}.{name} has another place")
    return found + [
        f"{relation}.{name} is new and must be given"
        for name in after.keys() - before.keys()
        if after[name].must_be_given and after[name].is_table
    ]


def _words(rule: str) -> set[str]:
    return set(WORD.findall(rule))
