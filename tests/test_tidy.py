"""The rules of the house that can be read off the text: sizes, words, documents that keep up."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import get_args

import pytest

from orchestrator.config import Config
from orchestrator.core import command, lane, model, outcome
from orchestrator.settings import AccountBase, Table

ROOT = Path(__file__).resolve().parent.parent
CODE = ("orchestrator", "migrations", "tests", "benchmarks")
MADE = {"__pycache__", "var", "build", "dist"}
"""Folders that tools make; so is whatever begins with a dot, but for .ci."""

LONGEST_FUNCTION = 70
LONGEST_FILE = {"orchestrator": 400, "migrations": 400, "benchmarks": 400, "tests": 600}

# Written in two parts, so that this file does not break its own rules.
TASKS = re.compile("TO" + "DO|FIX" + r"ME|X{3}\b")
VAGUE = re.compile("util|help" + "er|manag" + "er|misc|common|stuff")
HOSTS = re.compile("pypi" + r"\.org|python" + r"hosted\.org|^--(extra-)?index-url|^--find-links")
MACHINE = re.compile(r"(?<![\w.:/}$])/(?:work|root|home|Users)/\w")


def files_under(folder: Path) -> Iterator[Path]:
    """Every file of ours, in an order that is always the same."""
    for path in sorted(folder.iterdir()):
        if path.name in MADE or path.name.endswith(".egg-info"):
            continue
        if path.name.startswith(".") and path.name not in {".ci", ".gitignore"}:
            continue
        if path.is_dir():
            yield from files_under(path)
        else:
            yield path


FILES = tuple(files_under(ROOT))
PYTHON = tuple(f for f in FILES if f.suffix == ".py" and f.relative_to(ROOT).parts[0] in CODE)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def lines_matching(pattern: re.Pattern[str], paths: tuple[Path, ...]) -> list[str]:
    return [
        f"{named(path)}:{number}: {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if pattern.search(line)
    ]


def test_there_is_something_to_judge() -> None:
    assert {named(path) for path in PYTHON} >= {"orchestrator/clock.py", "tests/test_tidy.py"}


# --- sizes


@pytest.mark.parametrize("path", PYTHON, ids=named)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    allowed = LONGEST_FILE[path.relative_to(ROOT).parts[0]]
    assert len(text_of(path).splitlines()) <= allowed


@pytest.mark.parametrize("path", PYTHON, ids=named)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    too_long = [
        f"{node.name}, line {node.lineno}"
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert too_long == []


# --- words


def test_nothing_is_left_for_later() -> None:
    assert lines_matching(TASKS, FILES) == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [named(path) for path in PYTHON if VAGUE.search(path.stem)] == []


def test_no_file_knows_where_packages_come_from() -> None:
    assert lines_matching(HOSTS, FILES) == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    assert lines_matching(MACHINE, FILES) == []


@pytest.mark.parametrize(
    "path", [p for p in PYTHON if named(p).startswith(("orchestrator/", "migrations/"))], ids=named
)
def test_a_module_says_what_it_is_responsible_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(text_of(path)))


# --- documents keep up

VOCABULARY = {
    "Outcome": tuple(kind.__name__ for kind in get_args(outcome.Outcome)),
    **{
        kind.__name__: tuple(member.value for member in kind)
        for module in (model, command, lane)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, StrEnum) and kind is not StrEnum
    },
}
DOCUMENTS = "\n".join(text_of(f) for f in FILES if named(f).startswith("docs/"))


@pytest.mark.parametrize("kind", VOCABULARY)
def test_every_word_of_the_vocabulary_is_in_the_documents(kind: str) -> None:
    """As code, so that the word is meant and not only used."""
    coded = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`[^`\n]+`", DOCUMENTS))))
    assert set(VOCABULARY[kind]) - coded == set()


def tables(kind: type[Table] = Table) -> Iterator[type[Table]]:
    for each in kind.__subclasses__():
        yield each
        yield from tables(each)


@pytest.mark.parametrize("table", [*tables()], ids=lambda table: table.__name__)
def test_every_key_of_the_configuration_has_a_docstring(table: type[Table]) -> None:
    assert [name for name, key in table.model_fields.items() if not key.description] == []


def example_keys() -> dict[str, set[str]]:
    """Keys of each table of config.toml, those that are commented out too; `accounts.*` by vendor.

    Of `[accounts.main]` the vendor is the one its own `provider` names.
    """
    keys: dict[str, set[str]] = defaultdict(set)
    vendor, table = "", ""
    for line in text_of(ROOT / "config.toml").splitlines():
        if heading := re.match(r"(?:# ?)?\[([\w.<>-]+)\]", line):
            table = heading[1]
            if table.endswith(".qps"):
                keys[vendor].add("qps")
        elif key := re.match(r"(?:# ?)?([\w-]+) *= *(\S*)", line):
            if key[1] == "provider":
                vendor = f"accounts.{key[2].strip(chr(34))}"
            keys[vendor if re.fullmatch(r"accounts\.[^.]+", table) else table].add(key[1])
    return keys


ACCOUNTS = {
    get_args(account.model_fields["provider"].annotation)[0]: set(account.model_fields)
    for account in AccountBase.__subclasses__()
}
SHARED = set.intersection(*ACCOUNTS.values())
"""Keys that every vendor's account takes: it is enough that one of the accounts shows them."""


def expected_keys() -> dict[str, set[str]]:
    """What `Config` takes, in the shape of `example_keys`."""
    expected = {
        name: {field.alias or key for key, field in table.annotation.model_fields.items()}
        for name, table in Config.model_fields.items()
        if isinstance(table.annotation, type) and issubclass(table.annotation, Table)
    }
    return expected | {f"accounts.{vendor}": keys - SHARED for vendor, keys in ACCOUNTS.items()}


@pytest.mark.parametrize("table", expected_keys())
def test_every_key_of_the_configuration_is_in_the_example(table: str) -> None:
    assert expected_keys()[table] - example_keys()[table] == set()


def test_the_keys_of_every_account_are_in_the_example() -> None:
    found = {
        key
        for table, keys in example_keys().items()
        if table.startswith("accounts.")
        for key in keys
    }
    assert SHARED - found == set()
