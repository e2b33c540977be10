"""`token` against the vendors' own code: its vectors, and Tencent's own library."""

import base64
import json
import subprocess
import sys
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from TLSSigAPIv2 import TLSSigAPIv2
from typer.testing import CliRunner

from orchestrator.cli import _Asked, app
from orchestrator.commands.token import Wanted, make
from orchestrator.config import load, open_part
from orchestrator.errors import ConfigError, UsageError
from orchestrator.providers.tokens import RtcToken, verify_user_sig

VECTORS = Path(__file__).parents[1] / "providers" / "vectors"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
APP_ID = "0123456789abcdef01234567"
APP_KEY = "fake-app-key"
USERSIG_KEY = "fake-usersig-key"
CONFIG = f"""
[database]
url = "postgresql://nobody@nowhere.invalid/none"

[accounts.volc]
provider = "volcengine"
app_id = "{APP_ID}"
access_key_id = "fake"
secret_access_key = "fake"
app_key = "{APP_KEY}"

[accounts.keyless]
provider = "volcengine"
app_id = "{APP_ID}"
access_key_id = "fake"
secret_access_key = "fake"

[accounts.short]
provider = "volcengine"
app_id = "short"
access_key_id = "fake"
secret_access_key = "fake"
app_key = "fake"

[accounts.trtc]
provider = "tencent"
sdk_app_id = 1400000001
secret_id = "fake"
secret_key = "fake"
region = "ap-singapore"
usersig_key = "{USERSIG_KEY}"

[accounts.zego]
provider = "zego"
app_id = 1
server_secret = "fake"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG, "utf-8")
    return file


def invoke(config: Path, *args: str) -> Any:
    return CliRunner().invoke(app, ["token", *args, "-c", str(config)], obj=_Asked())


def wanted(**changes: Any) -> Wanted:
    fields: dict[str, Any] = {
        "account": "volc",
        "user_id": "alice",
        "room_id": None,
        "life": timedelta(hours=1),
        "listen_only": False,
    }
    return Wanted(**(fields | changes))


def vectors(file: str) -> Any:
    return json.loads((VECTORS / file).read_text(encoding="utf-8"))["vectors"]


def usual(vector: Any) -> bool:
    """Whether a client's token is like that: it ends, and its privileges end with it."""
    given = vector["input"]
    return given["expire_at"] > given["issued_at"] and dict(given["privileges"]) == {0: 0, 4: 0}


USUAL = [vector for vector in vectors("volcengine_token.json") if usual(vector)]


@pytest.mark.parametrize("vector", USUAL)
def test_an_rtc_token_is_the_vendor_s_byte_for_byte(tmp_path: Path, vector: Any) -> None:
    given = vector["input"]
    file = tmp_path / "config.toml"
    text = CONFIG.replace(APP_ID, given["app_id"]).replace(APP_KEY, given["app_key"])
    file.write_text(text, "utf-8")
    asked = wanted(
        user_id=given["user_id"],
        room_id=given["room_id"],
        life=timedelta(seconds=given["expire_at"] - given["issued_at"]),
    )
    account = open_part(file, "volc").accounts["volc"]
    issued_at = datetime.fromtimestamp(given["issued_at"], UTC)
    assert make(account, asked, issued_at, given["nonce"]) == vector["token"]


@pytest.mark.parametrize("vector", vectors("tencent_usersig.json"))
def test_a_user_sig_says_what_the_vendor_s_says(tmp_path: Path, vector: Any) -> None:
    given = vector["inputs"]
    file = tmp_path / "config.toml"
    text = CONFIG.replace(USERSIG_KEY, given["key"]).replace("1400000001", str(given["sdkappid"]))
    file.write_text(text, "utf-8")
    asked = wanted(user_id=given["identifier"], life=timedelta(seconds=given["expire"]))
    account = open_part(file, "trtc").accounts["trtc"]
    told = make(account, asked, datetime.fromtimestamp(given["now"], UTC), 0)
    plain = told.replace("*", "+").replace("-", "/").replace("_", "=")
    assert json.loads(zlib.decompress(base64.b64decode(plain))) == vector["decoded_json"]


def test_tencent_s_own_library_makes_the_same(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", AT.timestamp)
    theirs = TLSSigAPIv2(1400000001, USERSIG_KEY).gen_sig("alice", 3600)
    account = open_part(config, "trtc").accounts["trtc"]
    ours = verify_user_sig(make(account, wanted(), AT, 0), key=USERSIG_KEY)
    assert ours is not None
    assert ours == verify_user_sig(theirs, key=USERSIG_KEY)


@pytest.mark.parametrize(
    ("args", "privileges", "life_s"),
    [
        ([], {0, 1, 2, 3, 4}, 86_400),
        (["--listen-only"], {4}, 86_400),
        (["--expires-in", "60"], {0, 1, 2, 3, 4}, 60),
    ],
)
def test_an_rtc_token_opens_one_room_for_one_user(
    config: Path, args: list[str], privileges: set[int], life_s: int
) -> None:
    told = invoke(config, "volc", "--user", "alice", "--room", "r1", *args)
    assert told.exit_code == 0
    token = RtcToken.parse(told.output.removesuffix("\n"), app_key=APP_KEY)
    assert token is not None
    assert (token.app_id, token.user_id, token.room_id) == (APP_ID, "alice", "r1")
    assert set(token.privileges) == privileges
    assert token.expire_at - token.issued_at == life_s


def test_two_tokens_are_never_the_same(config: Path) -> None:
    args = ("volc", "--user", "alice", "--room", "r1")
    assert invoke(config, *args).output != invoke(config, *args).output


def test_standard_output_has_the_token_alone(config: Path) -> None:
    """As a shell takes it; the database of this configuration does not exist."""
    told = subprocess.run(
        [sys.executable, "-m", "orchestrator", "token", "trtc", "--user", "al", "-c", str(config)],
        capture_output=True,
        text=True,
        check=True,
    )
    token = verify_user_sig(told.stdout.removesuffix("\n"), key=USERSIG_KEY)
    assert token is not None
    assert (token.user_id, token.life) == ("al", timedelta(days=1))
    assert told.stderr == ""


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        (["keyless", "--room", "r"], ConfigError, "accounts.keyless.app_key: expected the"),
        (["short", "--room", "r"], ConfigError, "accounts.short.app_id: expected 24 characters"),
        (["volc"], UsageError, "--room: Volcengine's tokens open one room"),
        (["volc", "--room", "a room"], UsageError, "--room: expected 1 to 128 characters"),
        (["volc", "--room", ""], UsageError, "--room: expected"),
        (["volc", "--room", "r", "--user", "ä"], UsageError, "--user: expected"),
        (["trtc", "--room", "r"], UsageError, "leave it out"),
        (["trtc", "--listen-only"], UsageError, "leave it out"),
        (["trtc", "--user", "u" * 33], UsageError, "--user: expected 1 to 32 characters"),
        (["zego"], UsageError, "token04"),
        (["nobody"], UsageError, "there are: volc, keyless, short, trtc, zego"),
    ],
)
def test_what_cannot_be_made_is_told_in_a_line(
    config: Path, args: list[str], error: type[Exception], words: str
) -> None:
    user = [] if "--user" in args else ["--user", "alice"]
    told = invoke(config, *args, *user)
    assert isinstance(told.exception, error)
    assert getattr(told.exception, "exit_code", None) == 2
    assert words in str(told.exception)
    assert "\n" not in str(told.exception)
    assert told.stdout == ""


@pytest.mark.parametrize("seconds", ["0", "-1", "31536001", "soon"])
def test_a_life_that_is_none_is_a_mistake_of_usage(config: Path, seconds: str) -> None:
    told = invoke(config, "trtc", "--user", "alice", "--expires-in", seconds)
    assert told.exit_code == 2


def test_only_the_keys_of_its_account_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    absent = '{ credential = "not-there" }'
    broken = CONFIG.replace('server_secret = "fake"', f"server_secret = {absent}")
    file.write_text(f"{broken}\n[secrets]\nllm = {absent}\n", "utf-8")
    with pytest.raises(ConfigError):
        load(file, {})
    assert invoke(file, "trtc", "--user", "alice").exit_code == 0
