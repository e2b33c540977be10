import json
import shlex
from pathlib import Path

import pytest

from orchestrator.commands.dev_hints import STATEMENTS, Hints


def hints(url: str) -> Hints:
    return Hints(database_url=url, vendors_url="http://127.0.0.1:1", log_path="var/dev.log")


@pytest.mark.parametrize(("what", "sql"), STATEMENTS)
def test_a_shell_reads_the_lines_as_they_are_meant(what: str, sql: str) -> None:
    line = hints("sqlite:////srv/a file.db").line(sql)
    assert shlex.split(line) == ["sqlite3", "-cmd", ".timeout 5000", "/srv/a file.db", sql]
    assert f"# {what}\n" in hints("sqlite:////srv/o.db").text()


def test_quotes_of_the_statement_reach_the_client() -> None:
    (say,) = [sql for _, sql in STATEMENTS if '"' in sql]
    assert json.loads(say.split("'")[-2]) == {"Text": "Hello again."}
    assert shlex.split(hints("postgresql://host/db").line(say))[-1] == say


def test_nothing_in_a_statement_is_the_shell_s() -> None:
    assert [sql for _, sql in STATEMENTS if set(sql) & set("$`\\!")] == []


def test_a_file_below_is_named_from_here() -> None:
    assert " var/o.db " in hints(f"sqlite:///{Path.cwd()}/var/o.db").line("SELECT 1")


def test_no_password_is_printed() -> None:
    told = hints("postgresql://me:fake-password@host:5432/db?sslmode=require")
    assert "fake-password" not in told.text()
    assert shlex.split(told.line("SELECT 1")) == [
        "psql", "postgresql://me@host:5432/db?sslmode=require", "-c", "SELECT 1",
    ]  # fmt: skip
    assert "//host/db" in hints("postgresql://host/db").text()
