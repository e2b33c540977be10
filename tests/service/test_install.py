"""What `make install` writes below DESTDIR, and what is left of it after `make uninstall`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ("orchestrator.service", "orchestrator@.service")
ENVIRONMENT = "usr/local/lib/orchestrator"
FILES = {
    "etc/orchestrator/config.toml",
    "usr/local/bin/orchestrator",
    "usr/local/lib/systemd/system/orchestrator.service",
    "usr/local/lib/systemd/system/orchestrator@.service",
    "usr/local/lib/sysusers.d/orchestrator.conf",
    "usr/local/lib/tmpfiles.d/orchestrator.conf",
    "usr/local/share/bash-completion/completions/orchestrator",
    "usr/local/share/fish/vendor_completions.d/orchestrator.fish",
    "usr/local/share/orchestrator/config.toml",
    "usr/local/share/orchestrator/roles.sql",
    "usr/local/share/zsh/site-functions/_orchestrator",
}
CREDENTIALS = "etc/orchestrator/credentials"


def files_below(folder: Path) -> set[str]:
    """Every file, and every folder that is empty, but those of the environment."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_relative_to(folder / ENVIRONMENT)
        and (path.is_symlink() or not path.is_dir() or not any(path.iterdir()))
    }


def for_people() -> set[str]:
    """What is installed for those who watch, and the manuals that it sends them to."""
    return {
        f"usr/local/share/orchestrator/{path.relative_to(ROOT).as_posix()}"
        for path in (*(ROOT / "monitoring").glob("*"), *(ROOT / "docs").glob("*.md"))
    }


def credentials() -> set[str]:
    """The directories that the unit loads credentials from."""
    unit = (ROOT / "systemd" / UNITS[0]).read_text("utf-8")
    return set(re.findall(r"^LoadCredential=\w+:/(.*)$", unit, re.MULTILINE))


def test_everything_has_its_place(image: Path) -> None:
    assert files_below(image) == FILES | for_people() | credentials()


@pytest.mark.parametrize(
    "path", sorted(path for path in FILES if "omplet" in path or "zsh" in path)
)
def test_a_shell_can_complete_the_command(image: Path, path: str) -> None:
    assert "_ORCHESTRATOR_COMPLETE=complete_" in (image / path).read_text("utf-8")


def test_credentials_are_for_root_alone(image: Path) -> None:
    folders = [image / CREDENTIALS, *(image / name for name in credentials())]
    assert {folder.stat().st_mode & 0o7777 for folder in folders} == {0o700}
    assert (image / "etc/orchestrator/config.toml").stat().st_mode & 0o7777 == 0o640


def test_the_command_leads_to_its_final_place(image: Path) -> None:
    command = image / "usr/local/bin/orchestrator"
    assert command.readlink() == Path(f"/{ENVIRONMENT}/bin/orchestrator")
    first, _, _ = (image / ENVIRONMENT / "bin/orchestrator").read_text("utf-8").partition("\n")
    assert first == f"#!/{ENVIRONMENT}/bin/python"


def test_nothing_knows_where_it_was_made(image: Path) -> None:
    """So it works when the clone is gone, and a package may hold it."""
    traces = (str(image).encode(), str(ROOT / "orchestrator").encode())
    knowing = [
        str(path)
        for path in image.rglob("*")
        if path.is_file() and any(trace in path.read_bytes() for trace in traces)
    ]
    assert knowing == []


def test_the_environment_holds_what_runs_and_nothing_to_change_it(image: Path) -> None:
    (packages,) = (image / ENVIRONMENT).glob("lib/python*/site-packages")
    assert (packages / "orchestrator" / "cli.py").exists()
    assert (packages / "migrations" / "versions").is_dir()
    assert not (packages / "pip").exists()
    commands = {path.name for path in (image / ENVIRONMENT / "bin").iterdir()}
    assert {name for name in commands if not name.startswith("python")} == {"orchestrator"}


def test_uninstall_keeps_what_is_the_operators(image: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(image, copy, symlinks=True)
    done = make("uninstall", f"DESTDIR={copy}")
    assert done.returncode == 0, done.stderr
    assert f"kept: {copy}/etc/orchestrator" in done.stdout
    left = {path for path in files_below(copy) if "orchestrator" in path}
    assert left == {"etc/orchestrator/config.toml", *credentials()}


@pytest.mark.skipif(
    not Path(sys.base_prefix).is_relative_to(Path.home()),
    reason="needs a Python that lies in a home",
)
def test_a_python_in_a_home_is_refused_with_advice(tmp_path: Path) -> None:
    python = f"PYTHON={Path(sys.base_prefix) / 'bin' / 'python3'}"
    done = make("install", f"DESTDIR={tmp_path}", python)
    assert done.returncode != 0
    assert "make install PYTHON=/usr/bin/python3" in done.stderr
    assert files_below(tmp_path) == {"usr/local/lib"}


def make(*words: str) -> "subprocess.CompletedProcess[str]":
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )


def lines_of(unit: str) -> list[str]:
    text = (ROOT / "systemd" / unit).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_template_is_the_service_but_for_its_name() -> None:
    service, template = UNITS
    assert lines_of(template) == [
        f"{line} (%i)"
        if line.startswith("Description=")
        else line.replace("/etc/orchestrator/config.toml", "/etc/orchestrator/%i.toml")
        for line in lines_of(service)
    ]


def test_every_line_of_systemd_stands_where_it_is_explained() -> None:
    """The directories of the credentials are made by tmpfiles and by the installation alike."""
    made = (ROOT / "systemd" / "tmpfiles.conf").read_text("utf-8")
    found = set(re.findall(rf"^d /({CREDENTIALS}/\w+) 0700 root root$", made, re.MULTILINE))
    assert found == credentials()
