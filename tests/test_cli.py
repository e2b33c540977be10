import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import __version__
from orchestrator.cli import _find_trouble
from orchestrator.errors import ConfigError, OrchestratorError, UsageError

COMMANDS = ("run", "migrate", "dev", "simulate", "check", "status", "explain")


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
        ("status", ["--config, -c", "--watch", "--json"]),
        ("explain", ["ID", "--config, -c"]),
    ],
)
def test_every_command_explains_its_options(command: str, options: list[str]) -> None:
    told = orchestrator(command, "--help")
    assert told.returncode == 0
    text = told.stdout.replace("-c, --config", "--config, -c")
    assert [option for option in options if option not in text] == []


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
