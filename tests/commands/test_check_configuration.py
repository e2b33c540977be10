"""What `check` says of a configuration that can be read."""

from pathlib import Path

import pytest

from orchestrator.commands.checks.configuration import judge_configuration
from orchestrator.commands.checks.finding import Finding
from orchestrator.config import load

KEY = "fake-secret-key"
ACCOUNT = """
[accounts.{name}]
provider = "zego"
app_id = {app_id}
server_secret = {secret}
"""


def judged(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[Finding]:
    file = folder / "config.toml"
    if not file.exists():
        file.touch(0o640)
    file.write_text(text, "utf-8")
    return list(judge_configuration(load(file, environ or {})))


def secret(name: str = "main", app_id: int = 1, secret: str = '{ env = "KEY" }') -> str:
    return ACCOUNT.format(name=name, app_id=app_id, secret=secret)


@pytest.mark.parametrize(
    ("written", "mode", "verdict", "what"),
    [
        (f'"{KEY}"', 0o600, "warning", "in plain text"),
        ('{ env = "KEY" }', 0o600, "well", "found (env KEY)"),
        ('{ credential = "zego_key" }', 0o600, "well", "found (credential zego_key)"),
        ('{ file = "key" }', 0o600, "well", "found (file {path})"),
        ('{ file = "key" }', 0o640, "well", "found (file {path})"),
        ('{ file = "key" }', 0o644, "warning", "every user of this machine can read {path}"),
        ('{ file = "key" }', 0o602, "warning", "every user of this machine can read {path}"),
    ],
)
def test_each_secret_is_told_by_its_place(
    tmp_path: Path, written: str, mode: int, verdict: str, what: str
) -> None:
    for name in ("key", "zego_key"):
        (tmp_path / name).write_text(KEY, "utf-8")
        (tmp_path / name).chmod(mode)
    environ = {"KEY": KEY, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    report = judged(tmp_path, secret(secret=written), environ)
    path = "secret accounts.main.server_secret: "
    assert [(one.verdict, one.what) for one in report if one.what.startswith(path)] == [
        (verdict, path + what.format(path=tmp_path / "key"))
    ]
    assert KEY not in str(report)


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_with_plain_secrets_that_all_can_read_is_told(
    tmp_path: Path, mode: int, told: bool
) -> None:
    (tmp_path / "config.toml").touch()
    (tmp_path / "config.toml").chmod(mode)
    report = judged(tmp_path, secret(secret=f'"{KEY}"'))
    assert any("holds secrets, and every user" in one.what for one in report) is told
    report = judged(tmp_path, secret(), {"KEY": KEY})
    assert not any("holds secrets" in one.what for one in report)


def test_two_accounts_that_are_one_at_the_vendor_are_told(tmp_path: Path) -> None:
    three = secret("a") + secret("b", 2) + secret("c")
    told = [one for one in judged(tmp_path, three, {"KEY": KEY}) if one.verdict == "warning"]
    assert [one.what for one in told] == ["accounts a, c: the same application at the same vendor"]


def test_no_account_is_a_warning(tmp_path: Path) -> None:
    (read, none) = judged(tmp_path, "")
    assert (read.verdict, none.verdict, none.what) == ("well", "warning", "no accounts")


def test_a_warning_says_what_to_do(tmp_path: Path) -> None:
    report = judged(tmp_path, secret(secret=f'"{KEY}"') + secret("b", 1, f'"{KEY}"'))
    assert all(bool(one.advice) is (one.verdict != "well") for one in report)
