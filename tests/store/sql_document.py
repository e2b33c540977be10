"""docs/sql.md as data: its parts, statements and printed answers; and the one command that prints.

`python -m tests.store.sql_document --write` lives through the night on a Postgres of its own and
writes the answers that have changed into the document.

A fence says what it is: ```` ```sql ```` for both databases, `sql sqlite` or `sql postgresql` for
one, `sql refused` for what is refused, `sql operator` for what an operator alone may write. A
```` ```text ```` below is the answer to the last statement above it.
"""

import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

import anyio
from sqlalchemy import Boolean

from orchestrator.store.columns import metadata
from orchestrator.store.engine import open_database
from orchestrator.store.migrate import upgrade
from tests.daemon.application import SQLITE
from tests.postgres_server import running_server
from tests.store.duty import Duty, begin_duty
from tests.store.night import tell
from tests.store.night_clock import NIGHT, Clock
from tests.store.sql_client import READER, Answer, run_as, statements_of

PATH: Final = Path(__file__).parents[2] / "docs" / "sql.md"
IDIOMS, QUESTIONS = "What an application does", "Twenty-two questions"

NEAR: Final = timedelta(seconds=60)
"""How far a documented time or age may be from the one that is found: a machine may stand still."""

SENTENCE_WIDTH: Final = 110

FLAGS: Final = frozenset(
    column.name
    for table in metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, Boolean)
)
"""Columns that are 0 or 1 on SQLite."""

_FENCE = re.compile(r"^```(\w+) ?([\w ]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^(#{2,3}) (.+)$", re.MULTILINE)
_TIME = re.compile(r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d")

Cells = tuple[str, ...]
Printed = list[Cells]
"""A table as it is printed: the names of its columns, then its rows."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    part: str
    """The heading of the second level that it stands under."""
    heading: str
    """That of the third level."""
    language: str
    marks: frozenset[str]
    text: str
    begins: int
    """Where its text stands in the document."""

    @property
    def statements(self) -> list[str]:
        return statements_of(self.text)

    def is_for(self, url: str) -> bool:
        """Return whether the database of this URL understands it."""
        other = "postgresql" if url.startswith(SQLITE) else "sqlite"
        return self.language == "sql" and other not in self.marks


@dataclass(frozen=True)
class Question:
    """A query of the second part, with the answer that the document gives."""

    variants: tuple[Block, ...]
    """The same in each database's words, or one for both."""
    answer: Block

    @property
    def name(self) -> str:
        return f"{self.answer.heading} {self.variants[0].text.splitlines()[0]}"

    def for_database(self, url: str) -> Block:
        (found,) = [block for block in self.variants if block.is_for(url)]
        return found


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks in their order."""
    headings = [(found.start(), found[1], found[2]) for found in _HEADING.finditer(text)]
    return [_block(found, headings) for found in _FENCE.finditer(text)]


def _block(found: re.Match[str], headings: Sequence[tuple[int, str, str]]) -> Block:
    above = {level: name for at, level, name in headings if at < found.start()}
    return Block(
        part=above.get("##", ""),
        heading=above.get("###", ""),
        language=found[1],
        marks=frozenset(found[2].split()),
        text=found[3],
        begins=found.start(3),
    )


def questions(text: str) -> list[Question]:
    """Return the queries that have an answer."""
    asked: list[Question] = []
    variants: list[Block] = []
    for block in blocks(text):
        if block.language == "text":
            asked.append(Question(tuple(variants), block))
        variants = [] if block.language == "text" else _variants(variants, block)
    return asked


def _variants(before: Sequence[Block], block: Block) -> list[Block]:
    """Return the blocks that are one query: one for each database, or one for both."""
    is_other_half = bool(before) and {*before[-1].marks, *block.marks} == {"sqlite", "postgresql"}
    return [*before, block] if is_other_half else [block]


# --- answers, as they are printed


async def ask(duty: Duty, question: Question) -> Printed:
    """Ask a question at ten past two; return the answer as it is to be printed."""
    await duty.clock.set("02:10:00")
    sql = [duty.clock.real(one) for one in question.for_database(duty.url).statements]
    (answer,) = await run_as(READER, duty.url, sql)
    return print_answer(answer, duty.clock)


def print_answer(answer: Answer, clock: Clock) -> Printed:
    """Return an answer's cells, in the times of the story, alike on both databases."""
    named = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    rows = [tuple(_cell(name, value, clock) for name, value in row.items()) for row in named]
    return [answer.columns, *rows]


def _cell(name: str, value: Any, clock: Clock) -> str:
    if value is None:
        return ""
    if name in FLAGS:
        return "true" if value else "false"
    if isinstance(value, datetime):
        value = value.replace(tzinfo=None)
    told = clock.story(str(value))
    if told.startswith(("{", "[")):
        return json.dumps(json.loads(told))
    return told.removeprefix(f"{NIGHT.date()} ") if _TIME.fullmatch(told) else told


def to_text(printed: Printed) -> str:
    """Return an answer as a shell prints it, a lone column as the sentence that it is."""
    if len(printed[0]) == 1:
        ((name,), (sentence,)) = printed
        return "\n".join((name, "-" * SENTENCE_WIDTH, *wrap(sentence, SENTENCE_WIDTH), ""))
    widths = [max(map(len, column)) for column in zip(*printed, strict=True)]
    head, *rows = (_line(cells, widths) for cells in printed)
    rule = "-+-".join("-" * width for width in widths)
    return "".join(f"{line}\n" for line in (head, rule, *rows))


def _line(cells: Cells, widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return " | ".join(padded).rstrip()


def from_text(text: str) -> Printed:
    """Return the cells of a printed answer; none if nothing is printed yet."""
    head, rule, *rows = text.splitlines() or ("", "")
    if "+" not in rule:
        return [(head,), (" ".join(rows),)]
    ends = [found.span() for found in re.finditer("-+", rule.replace("-+-", "- -"))]
    return [tuple(line[slice(*end)].strip() for end in ends) for line in (head, *rows)]


def is_alike(documented: Printed, found: Printed) -> bool:
    """Return whether the document still tells what is found."""
    if len(documented) != len(found) or documented[0] != found[0]:
        return False
    pairs = zip(documented[1:], found[1:], strict=True)
    return all(
        _is_alike(*cells)
        for told, seen in pairs
        for cells in zip_longest(found[0], told, seen, fillvalue="")
    )


def _is_alike(column: str, told: str, seen: str) -> bool:
    if told == seen:
        return True
    if column == "actor":
        return seen == "sqlite" and told.startswith("orchestrator_")
    if column.endswith("_s"):
        ages = [int(age) for age in (told, seen) if age]
        return len(ages) == 2 and abs(ages[0] - ages[1]) <= NEAR.total_seconds()
    return _TIME.split(told) == _TIME.split(seen) and all(
        abs(_instant(one) - _instant(other)) <= NEAR
        for one, other in zip(_TIME.findall(told), _TIME.findall(seen), strict=True)
    )


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text if "-" in text else f"{NIGHT.date()} {text}")


# --- the command


def rewritten(text: str, answers: Mapping[int, Printed]) -> str:
    """Return the document with new answers, each by where the old one begins."""
    for answer in reversed([one.answer for one in questions(text)]):
        found = answers[answer.begins]
        if not is_alike(from_text(answer.text), found):
            end = answer.begins + len(answer.text)
            text = text[: answer.begins] + to_text(found) + text[end:]
    return text


async def _answers(text: str, url: str) -> dict[int, Printed]:
    await upgrade(url)
    database = open_database(url)
    duty = await begin_duty(database, url)
    await tell(duty)
    answers = {one.answer.begins: await ask(duty, one) for one in questions(text)}
    await database.close()
    return answers


def _write() -> None:
    text = PATH.read_text(encoding="utf-8")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "server") as server,
    ):
        answers = anyio.run(_answers, text, server.url())
    PATH.write_text(rewritten(text, answers), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.store.sql_document --write")
    _write()
