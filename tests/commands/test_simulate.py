import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from orchestrator.commands.simulate import accepted_keys
from orchestrator.simulator.keys import DEMO, TencentKeys, VolcengineKeys, ZegoKeys

CONFIG = """
[accounts.v]
provider = "volcengine"
app_id = "661e00000000000000000000"
access_key_id = "fake-access-key-id"
secret_access_key = "fake-secret-access-key"
callback_secret = "fake-callback-secret"
[accounts.t]
provider = "tencent"
sdk_app_id = 1400000000
secret_id = "fake-secret-id"
secret_key = "fake-secret-key"
region = "ap-singapore"
usersig_key = "fake-usersig-key"
[accounts.z]
provider = "zego"
app_id = 1234567890
server_secret = "fake-server-secret"
"""


LISTENING = '[callbacks]\nlisten = "{}"\n'


@contextmanager
def simulating(*args: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    command = [sys.executable, "-m", "orchestrator", "simulate", "--listen", "127.0.0.1:0", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, lines_until_ready(process)
        finally:
            process.kill()


def lines_until_ready(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if lines[-1] == "ready":
            return lines
    raise AssertionError(f"ended before it was ready: {lines}")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_where_it_is_and_its_demo_keys_serves_and_ends_well(stop: signal.Signals) -> None:
    with simulating("--seed", "7", "--speed", "10") as (process, lines):
        url = lines[0].removeprefix("simulated vendors at ")
        with urlopen(f"{url}/_sim/agents", timeout=10) as answer:  # noqa: S310 - a URL of our own
            assert json.load(answer) is not None
        told = "\n".join(lines)
        for keys in DEMO:
            assert f"demo keys of {keys.account}:" in told
        assert DEMO[0].secret_access_key in told
        process.send_signal(stop)
        assert process.wait(timeout=10) == 0


def test_it_lets_users_talk_at_a_pace() -> None:
    with simulating("--talk-every", "20") as (_, lines):
        url = lines[0].removeprefix("simulated vendors at ")
        with urlopen(f"{url}/_sim/switches", timeout=10) as answer:  # noqa: S310 - a URL of our own
            assert json.load(answer)["talk_every_s"]["value"] == 20


def test_with_a_configuration_it_prints_no_key(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG, "utf-8")
    with simulating("-c", str(file)) as (_, lines):
        assert "fake" not in "\n".join(lines)


def test_it_accepts_the_keys_of_the_configured_accounts(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG, "utf-8")
    assert accepted_keys(None) == DEMO
    assert accepted_keys(file) == [
        VolcengineKeys(
            account="v",
            app_id="661e00000000000000000000",
            access_key_id="fake-access-key-id",
            secret_access_key="fake-secret-access-key",
            callback_secret="fake-callback-secret",
        ),
        TencentKeys(
            account="t",
            sdk_app_id=1400000000,
            secret_id="fake-secret-id",
            secret_key="fake-secret-key",
            usersig_key="fake-usersig-key",
        ),
        ZegoKeys(account="z", app_id=1234567890, server_secret="fake-server-secret"),
    ]


@pytest.mark.parametrize(
    ("listen", "posted_to"),
    [
        ("127.0.0.1:8787", "http://127.0.0.1:8787/callbacks/v"),
        ("0.0.0.0:8787", "http://127.0.0.1:8787/callbacks/v"),
        ("[::]:8787", "http://[::1]:8787/callbacks/v"),
        ("receiver.invalid:80", "http://receiver.invalid:80/callbacks/v"),
    ],
)
def test_it_posts_where_the_configuration_listens(
    tmp_path: Path, listen: str, posted_to: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG + LISTENING.format(listen), "utf-8")
    # Without a secret there is nothing to sign with.
    assert [keys.callback_url for keys in accepted_keys(file)] == [posted_to, None, None]


def test_an_address_that_is_taken_is_trouble_told_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "orchestrator", "simulate", "--listen", where]
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert told.returncode == 1
    assert told.stderr.startswith(f"orchestrator: cannot listen at {where}: ")
    assert len(told.stderr.splitlines()) == 1
