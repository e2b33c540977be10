import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from orchestrator import __version__
from orchestrator.cli import _Asked, _find_trouble, app
from orchestrator.errors import ConfigError, OrchestratorError, UsageError

COMMANDS = ("run", "migrate", "dev", "simulate", "check", "status", "explain", "token")
EXAMPLE = re.compile(r"^ +\$ (.*)$", re.MULTILINE)
OURS = re.compile(r"\borchestrator ([^|&)]*)")
WIDTH = 80
"""Of the help, whatever the terminal."""


def orchestrator(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if "ORCHESTRATOR" not in name}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *args],
        env={**kept, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_help_names_every_command() -> None:
    told = orchestrator("--help")
    assert told.returncode == 0
    assert [name for name in COMMANDS if f"  {name} " not in told.stdout] == []


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("run", ["--config, -c", "--abandon"]),
        ("migrate", ["--config, -c", "--sql"]),
        ("dev", ["--database", "--listen", "--no-examples"]),
        ("simulate", ["--listen", "--config, -c", "--speed", "--seed"]),
        ("check", ["--config, -c"]),
        ("status", ["--config, -c", "--watch", "--json", "--account", "--trouble"]),
        ("explain", ["ID", "--config, -c", "--json"]),
        ("token", ["ACCOUNT", "--user", "--room", "--expires-in", "--listen-only"]),
    ],
)
def test_every_command_explains_its_options(command: str, options: list[str]) -> None:
    told = orchestrator(command, "--help")
    assert told.returncode == 0
    text = told.stdout.replace("-c, --config", "--config, -c")
    assert [option for option in options if option not in text] == []


def help_of(*command: str) -> str:
    return CliRunner().invoke(app, [*command, "--help"], obj=_Asked()).output


def test_the_help_of_all_tells_the_way_in() -> None:
    told = help_of()
    way = [
        told.index(f"orchestrator {name}") for name in ("dev", "migrate", "check", "run", "status")
    ]
    assert way == sorted(way)
    assert "ORCHESTRATOR_CONFIG" in told
    assert "Exit codes" in told


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_fits_and_shortens_nothing(command: tuple[str, ...]) -> None:
    told = help_of(*command)
    assert [line for line in told.splitlines() if len(line) > WIDTH] == []
    assert "..." not in told.replace("[ARGS]...", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_that_parse(command: str) -> None:
    told = help_of(command)
    examples = EXAMPLE.findall(told)
    assert examples
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    asked = [words for line in examples for words in OURS.findall(line)]
    assert command in {words.split()[0] for words in asked}
    for words in asked:
        name, *args = shlex.split(words)
        with typer.Context(group) as context:
            found = group.get_command(context, name)
            assert found is not None
            found.make_context(name, args, parent=context)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_its_exit_codes_mean(command: str) -> None:
    assert "Exit codes: 0" in help_of(command)


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["stauts"], "'status'"),
        (["status", "--wach"], "--watch"),
        (["token", "main"], "'--user'"),
        (["explain"], "'ID'"),
    ],
)
def test_a_slip_is_met_with_a_hint(args: list[str], hint: str) -> None:
    told = orchestrator(*args)
    assert told.returncode == 2
    assert hint in told.stderr


def test_the_version_is_the_package_s() -> None:
    assert orchestrator("--version").stdout == f"orchestrator {__version__}\n"


@pytest.mark.parametrize(
    "args",
    [
        ["nope"],
        ["explain"],
        ["simulate"],
        ["simulate", "--listen", "nowhere"],
        ["simulate", "--listen", "127.0.0.1:0", "--speed", "0"],
        ["dev", "--listen", "nowhere"],
        ["dev", "--database", "mysql://h/d", "--listen", "127.0.0.1:0"],
        ["status", "--watch", "--json"],
        *([command, "-c", "/absent.toml"] for command in ("run", "check", "migrate", "status")),
        ["explain", "x", "-c", "/absent.toml"],
        ["status", "--watch", "-c", "/absent.toml"],
        ["token", "x", "--user", "u", "-c", "/absent.toml"],
        ["token", "x"],
        ["migrate", "--sql", "--wait"],
        ["simulate", "--listen", "127.0.0.1:0", "-c", "/absent.toml"],
    ],
    ids=" ".join,
)
def test_what_a_person_must_put_right_is_told_in_a_line_and_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where `dev` may leave its folder
    told = orchestrator(*args)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
    assert (told.stderr + told.stdout).strip()


def test_the_file_is_the_environment_s_or_the_default() -> None:
    assert (
        "/from-environ.toml:"
        in orchestrator("status", ORCHESTRATOR_CONFIG="/from-environ.toml").stderr
    )
    assert "/etc/orchestrator/config.toml:" in orchestrator("status").stderr


@pytest.mark.parametrize(
    ("args", "environ"),
    [(["--debug"], {}), ([], {"ORCHESTRATOR_DEBUG": "1"})],
)
def test_a_traceback_is_for_whoever_asks(args: list[str], environ: dict[str, str]) -> None:
    told = orchestrator(*args, "status", "-c", "/absent.toml", **environ)
    assert "Traceback" in told.stderr
    assert told.returncode != 0


def test_all_mistakes_of_a_file_are_told(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[daemon]\nnaem = 1\n[leases]\nttl_s = 0\n", "utf-8")
    told = orchestrator("run", "-c", str(file))
    assert told.returncode == 2
    assert told.stderr.splitlines() == [
        f"orchestrator: {file}: 2 mistakes",
        "  daemon.naem: expected a known key (did you mean name?), found this key",
        "  leases.ttl_s: expected at least 3, found 0",
    ]


def test_trouble_is_found_in_what_task_groups_wrap() -> None:
    away = OrchestratorError("away")
    wrong = ConfigError("wrong")
    bug = RuntimeError("bug")
    assert _find_trouble(wrong) is wrong
    assert _find_trouble(bug) is None
    assert _find_trouble(ExceptionGroup("", [ExceptionGroup("", [away]), wrong])) is away
    assert _find_trouble(ExceptionGroup("", [away, bug])) is None


@pytest.mark.parametrize(("error", "code"), [(OrchestratorError, 1), (UsageError, 2)])
def test_each_error_has_its_exit_code(error: type[OrchestratorError], code: int) -> None:
    assert error("said").exit_code == code


def test_help_and_parsing_load_none_of_the_parts_that_run() -> None:
    heavy = "{'pydantic', 'sqlalchemy', 'aiohttp', 'alembic', 'structlog', 'anyio'}"
    code = f"import sys, orchestrator.cli; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
