"""How docs/sql.md is read and compared: a comparison that never fails would prove nothing."""

import re
from pathlib import Path

import pytest

from tests.store.sql_document import (
    IDIOMS,
    PATH,
    QUESTIONS,
    Printed,
    blocks,
    from_text,
    is_alike,
    questions,
    rewritten,
    to_text,
)

TEXT = PATH.read_text(encoding="utf-8")
SMALL = """# Title

## Twenty-two questions

### 1. Who?

```sql sqlite
SELECT 1;
```

```sql postgresql
SELECT 2;
```

```text
name | age_s
-----+------
anna | 60
ben  |
```

### 2. Why?

```sql
SELECT 3;
```

```text
```
"""
LINKS = [
    (path, *link)
    for path in sorted(PATH.parent.glob("*.md"))
    for link in re.findall(r"\]\(([\w-]*(?:\.md)?)#([\w-]+)\)", path.read_text(encoding="utf-8"))
    if path == PATH or link[0] == PATH.name
]
"""Links to a heading, in this document and to it."""
WHO: Printed = [("name", "age_s"), ("anna", "60"), ("ben", "")]
WHY: Printed = [("explanation",), ("it waits, " * 30 + "and waits",)]


def test_every_fence_is_read() -> None:
    assert len(blocks(TEXT)) == TEXT.count("\n```") / 2
    assert {block.language for block in blocks(TEXT)} == {"sql", "text"}


def anchors(text: str) -> set[str]:
    """Return what the headings of a document are called in links to them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}


@pytest.mark.parametrize(("path", "name", "anchor"), LINKS)
def test_a_link_leads_somewhere(path: Path, name: str, anchor: str) -> None:
    target = path.parent / name if name else path
    assert anchor in anchors(target.read_text(encoding="utf-8"))


def test_there_are_twenty_two_questions_and_each_has_an_answer() -> None:
    asked = {block.heading for block in blocks(TEXT) if block.part == QUESTIONS}
    assert sorted(int(heading.partition(".")[0]) for heading in asked) == list(range(1, 23))
    assert {question.answer.heading for question in questions(TEXT)} == asked


def test_every_statement_stands_in_a_part_that_is_run() -> None:
    assert {block.part for block in blocks(TEXT)} == {IDIOMS, QUESTIONS}


def test_each_question_has_one_query_for_each_database() -> None:
    for question in questions(TEXT):
        for url in ("sqlite:///file", "postgresql://host/database"):
            assert len(question.for_database(url).statements) == 1, question.name


def test_both_spellings_of_a_query_share_an_answer() -> None:
    who, why = questions(SMALL)
    assert [block.statements for block in who.variants] == [["SELECT 1"], ["SELECT 2"]]
    assert [block.statements for block in why.variants] == [["SELECT 3"]]
    assert who.for_database("sqlite:///file").text == "SELECT 1;\n"
    assert (who.answer.heading, from_text(who.answer.text)) == ("1. Who?", WHO)


@pytest.mark.parametrize("printed", [WHO, WHY])
def test_what_is_printed_is_read_back(printed: Printed) -> None:
    assert from_text(to_text(printed)) == printed


def test_new_answers_are_written_and_those_that_are_alike_stay() -> None:
    who, why = questions(SMALL)
    nearly: Printed = [WHO[0], ("anna", "59"), WHO[2]]
    written = rewritten(SMALL, {who.answer.begins: nearly, why.answer.begins: WHY})
    who, why = questions(written)
    assert [from_text(one.answer.text) for one in (who, why)] == [WHO, WHY]
    assert written.startswith(SMALL.partition("### 2.")[0])


ALIKE = {
    ("at", "02:03:00", "02:03:41"),
    ("silent_s", "60", "75"),
    ("actor", "orchestrator_app", "sqlite"),
    ("explanation", "until 2026-03-14 02:03:00 UTC", "until 2026-03-14 02:03:09 UTC"),
}
NOT_ALIKE = {
    ("at", "02:03:00", "02:04:01"),
    ("at", "02:03:00", ""),
    ("silent_s", "60", "121"),
    ("silent_s", "60", ""),
    ("silent", "60", "61"),
    ("actor", "orc-1", "sqlite"),
    ("actor", "orchestrator_app", "orchestrator_operator"),
    ("explanation", "until 2026-03-14 02:03:00 UTC", "since 2026-03-14 02:03:00 UTC"),
    ("explanation", "until 2026-03-14 02:03:00 UTC", "until 2026-03-15 02:03:00 UTC"),
}


@pytest.mark.parametrize(("column", "told", "found"), sorted(ALIKE))
def test_a_machine_may_stand_still_for_a_while(column: str, told: str, found: str) -> None:
    assert is_alike([(column,), (told,)], [(column,), (found,)])


@pytest.mark.parametrize(("column", "told", "found"), sorted(NOT_ALIKE))
def test_anything_else_is_a_difference(column: str, told: str, found: str) -> None:
    assert not is_alike([(column,), (told,)], [(column,), (found,)])


def test_columns_and_rows_are_compared_too() -> None:
    assert not is_alike(WHO, WHO[:2])
    assert not is_alike(WHO[:2], WHO)
    assert not is_alike(WHO, [("name", "age"), *WHO[1:]])
