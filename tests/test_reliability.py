"""The table of histories names tests and wrong cores that are there, and leaves none out."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.simulation.lanes_mutants import LANE_MUTANTS
from tests.simulation.mutants import MUTANTS

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", TEXT)))
WRONG_CORES = sorted(set(re.findall(r"wrong core: \*([^*]+)\*", TEXT)))
HISTORY = re.compile(r"^\| ([SH][\d.]+) \| (.+?) \| (.+) \|$", re.MULTILINE)
SCENARIOS, HAZARDS = 24, 25
"""How many of each kind there are; a hazard may be several histories."""


@cache
def names_in(file: str) -> frozenset[str]:
    """Return the tests that a file has."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(_functions(tree))


def _functions(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_is_there(file: str, name: str) -> None:
    assert name in names_in(file)


def test_a_wrong_core_that_is_named_is_there() -> None:
    known = {mutant.name for mutant in (*MUTANTS, *LANE_MUTANTS)}
    assert set(WRONG_CORES) - known == set()


def test_every_history_has_an_id_of_its_own_and_a_test() -> None:
    rows = HISTORY.findall(TEXT)
    ids = [id_ for id_, _, _ in rows]
    assert len(ids) == len(set(ids))
    assert [id_ for id_, _, by in rows if "::" not in by and "wrong core" not in by] == []


def test_no_history_is_left_out() -> None:
    told = {id_.partition(".")[0] for id_, _, _ in HISTORY.findall(TEXT)}
    scenarios = {f"S{number}" for number in range(1, SCENARIOS + 1)}
    assert told == scenarios | {f"H{number}" for number in range(1, HAZARDS + 1)}


def test_nothing_in_the_table_is_written_in_another_way() -> None:
    """What the pattern does not see would never be missed."""
    assert len(re.findall(r"::", TEXT)) == len(re.findall(r"`\w+/test_\w+\.py::test_\w+`", TEXT))
