import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestrator.config import Config, load, locate
from orchestrator.errors import ConfigError
from orchestrator.setting_types import Address

ROOT = Path(__file__).parents[1]

VOLCENGINE = """
[accounts.main]
provider = "volcengine"
app_id = "661e00000000000000000000"
access_key_id = "fake-id"
secret_access_key = "fake-key"
"""


def read(path: Path, text: str, environ: Mapping[str, str] | None = None) -> Config:
    file = path / "config.toml"
    file.write_text(text, "utf-8")
    return load(file, environ or {})


def mistakes(path: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(path, text, environ)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def models_below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            yield from models_below(inner)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


ALL_KEYS = [
    (model.__name__, field.alias or name, field.description)
    for model in dict.fromkeys(models_below(Config))
    for name, field in model.model_fields.items()
]


@pytest.mark.parametrize(("model", "key", "description"), ALL_KEYS)
def test_every_key_is_explained_and_in_the_example(
    model: str, key: str, description: str | None
) -> None:
    assert description, f"{model}.{key} has no docstring"
    example = (ROOT / "config.toml").read_text("utf-8")
    named = rf"^(# )?{key} = |^\[{key}\]|^\[accounts\.\w+\.{key}\]|^(# )?\[{key}\.\w+\]"
    assert re.search(named, example, re.MULTILINE), f"{key} of {model} is not in config.toml"


EXAMPLE = (ROOT / "config.toml").read_text("utf-8")
CREDENTIALS = set(re.findall(r'credential = "([^"]+)"', EXAMPLE))
COMMENTED_KEY = re.compile(r"^# (?=[\w]+ = |\[)", re.MULTILINE)


@pytest.fixture
def credentials(tmp_path: Path) -> dict[str, str]:
    """The environment of a service that has every credential of the example."""
    folder = tmp_path / "credentials-directory"
    folder.mkdir()
    for name in CREDENTIALS:
        text = "postgresql://host/db" if name.startswith("database_") else f"fake-{name}"
        (folder / name).write_text(f"{text}\n", "utf-8")
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def test_the_example_is_read_without_a_warning_and_shows_the_defaults(
    credentials: dict[str, str],
) -> None:
    example = load(ROOT / "config.toml", credentials)
    assert example.warnings == ()
    plain = {"leases", "retry", "lanes", "orphans", "callbacks", "metrics", "retention", "log"}
    assert example.model_dump(include=plain) == Config().model_dump(include=plain)
    assert example.daemon.model_dump(exclude={"name"}) == Config().daemon.model_dump(
        exclude={"name"}
    )
    assert example.database.model_dump(exclude={"url"}) == Config().database.model_dump(
        exclude={"url"}
    )
    assert example.database.url.reveal() == Config().database.url.reveal()
    for name in ("volcengine", "tencent", "zego"):
        account = example.accounts[name]
        assert account.provider == name
        assert (account.start_within_s, account.signature_life_s) == (3600, 90)
        assert (account.settle_in_s, account.clock_margin_s) == (10, 15)


def test_what_the_example_comments_out_is_right_too(
    tmp_path: Path, credentials: dict[str, str]
) -> None:
    whole, count = COMMENTED_KEY.subn("", EXAMPLE)
    assert count > 10
    config = read(tmp_path, whole, credentials)
    assert config.accounts["volcengine"].max_agents == 100
    assert str(config.callbacks.listen) == str(Address("127.0.0.1", 8787))
    assert {found.place for _, found in config.found_secrets} == {
        name for name in CREDENTIALS if not name.startswith("database_")
    }


@pytest.mark.parametrize("name", sorted(CREDENTIALS))
def test_a_credential_is_named_after_the_folder_and_the_key(name: str) -> None:
    """As systemd names the files of a folder that a unit loads whole."""
    folder, _, key = name.partition("_")
    assert folder in {"volcengine", "tencent", "zego", "llm", "database", "secrets"}
    assert re.search(rf'^(# )?(url|{key}) = .*"{name}"|"{name}" }}$', EXAMPLE, re.MULTILINE)


def test_credentials_are_found_where_the_unit_loads_them_from(tmp_path: Path) -> None:
    folder = tmp_path / "credentials" / "zego"
    folder.mkdir(parents=True)
    (folder / "server_secret").write_text("fake-server-secret\n", "utf-8")
    text = """
    [secrets]
    a = { credential = "zego_server_secret" }
    b = { credential = "zego_callback_secret" }
    """
    (line,) = mistakes(tmp_path, text)
    absent = folder / "callback_secret"
    assert line.endswith(
        f"found no $CREDENTIALS_DIRECTORY, and at {absent}: No such file or directory"
    )
    (folder / "callback_secret").write_text("fake-callback-secret", "utf-8")
    revealed = {name: one.reveal() for name, one in read(tmp_path, text).secrets.items()}
    assert revealed == {"a": "fake-server-secret", "b": "fake-callback-secret"}
    # A service has its own, and nothing else.
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert [line.split(":")[0] for line in mistakes(tmp_path, text, environ)] == [
        "secrets.a",
        "secrets.b",
    ]


def test_all_mistakes_are_told_at_once_each_with_path_expected_and_found(tmp_path: Path) -> None:
    text = """
    [deamon]
    [daemon]
    owner_prefix = "TooLong"
    shutdown_timeout_s = "5"
    [database]
    url = "mysql://h/d"
    [retry]
    base_ms = 5000
    cap_ms = 1000
    [accounts.main]
    provider = "volcengine"
    app_id = 5
    acces_key_id = "fake-plain-key"
    secret_access_key = { env = "NOT_SET" }
    call_timeout_ms = 50000
    [accounts.main.qps]
    StartVoiceCat = 5
    StopVoiceChat = -1
    [accounts.other]
    provider = "twilio"
    [accounts.third]
    [metrics]
    listen = "nowhere"
    """
    told = mistakes(tmp_path, text)
    paths = [line.split(":")[0] for line in told]
    assert sorted(paths) == [
        "accounts.main.acces_key_id",
        "accounts.main.access_key_id",
        "accounts.main.app_id",
        "accounts.main.call_timeout_ms",
        "accounts.main.qps.StartVoiceCat",
        "accounts.main.qps.StopVoiceChat",
        "accounts.main.secret_access_key",
        "accounts.other.provider",
        "accounts.third.provider",
        "daemon.owner_prefix",
        "daemon.shutdown_timeout_s",
        "database.url",
        "deamon",
        "metrics.listen",
        "retry.cap_ms",
    ]
    assert all(": expected " in line and ", found " in line for line in told)
    assert not any("fake-plain-key" in line for line in told)


FORMS = 'text, { env = "NAME" }, { file = "path" } or { credential = "name" }'
URLS = "sqlite:///path, sqlite:////absolute/path or postgresql://…"
A_VARIABLE = 'the environment variable "A", set and not empty'
A_CREDENTIAL = 'the systemd credential "../a" (LoadCredential=), not empty'
A_PLACE = "HOST:PORT, for example 127.0.0.1:8787"
A_FILE = 'a readable text file "nowhere" that is not empty'


@pytest.mark.parametrize(
    ("text", "path", "expected", "found"),
    [
        ("[daemon]\nnaem = 'x'", "daemon.naem", "a known key (did you mean name?)", "this key"),
        ("[leases]\nttl_s = 5.5", "leases.ttl_s", "a whole number", "5.5"),
        ("[leases]\nttl_s = true", "leases.ttl_s", "a whole number", "true"),
        ("[leases]\nttl_s = [1]", "leases.ttl_s", "a whole number", "a list"),
        ("[leases]\nttl_s = 1", "leases.ttl_s", "at least 3", "1"),
        ("[retention]\nstopped_days = -1", "retention.stopped_days", "at least 0", "-1"),
        ("[orphans]\nforeign = 'kill'", "orphans.foreign", "'report' or 'stop'", '"kill"'),
        ("[log]\nformat = 'xml'", "log.format", "'json' or 'console'", '"xml"'),
        ("daemon = 5", "daemon", "a table", "5"),
        ("[secrets]\na = { env = 'A', file = 'b' }", "secrets.a", FORMS, "a table with env, file"),
        ("[secrets]\na = { env = 5 }", "secrets.a", FORMS, "a table with env"),
        ("[secrets]\na = 5", "secrets.a", FORMS, "a value of type int"),
        ("[secrets]\na = { file = 'nowhere' }", "secrets.a", A_FILE, "No such file or directory"),
        ("[secrets]\na = { env = 'A' }", "secrets.a", A_VARIABLE, "nothing"),
        (
            "[secrets]\na = { credential = '../a' }",
            "secrets.a",
            A_CREDENTIAL,
            "a path, where a name should be",
        ),
        ("accounts = 5", "accounts", "a table", "5"),
        ("[accounts]\nmain = 5", "accounts.main", "a table", "5"),
        ("[callbacks]\nlisten = 'host'", "callbacks.listen", A_PLACE, "'host'"),
        ("[callbacks]\nlisten = '[::1]'", "callbacks.listen", A_PLACE, "'[::1]'"),
        ("[metrics]\nlisten = 9464", "metrics.listen", A_PLACE, "9464"),
        (
            "[database]\nlisten_url = 'sqlite:///x'",
            "database.listen_url",
            "postgresql://…",
            "a URL that begins with 'sqlite'",
        ),
        (
            "[database]\nurl = 'postgres://h/d'",
            "database.url",
            URLS,
            "a URL that begins with 'postgres'",
        ),
        ("[secrets]\na = ''", "secrets.a", "text that is not empty", "an empty text"),
        ("[database]\nurl = 'x'", "database.url", URLS, "text that is no URL"),
        ("[database]\nurl = 'a:b'", "database.url", URLS, "a URL that begins with 'a'"),
        ("[database]\nurl = 'sqlite://'", "database.url", URLS, "a URL that begins with 'sqlite'"),
    ],
)
def test_what_a_mistake_says(
    tmp_path: Path, text: str, path: str, expected: str, found: str
) -> None:
    assert mistakes(tmp_path, text) == [f"{path}: expected {expected}, found {found}"]


TENCENT_KEYS = """
sdk_app_id = 1
region = "ap-singapore"
secret_id = "fake-id"
secret_key = "fake-key"
usersig_key = "fake-usersig-key"
"""


@pytest.mark.parametrize(
    ("vendor", "keys", "limit"),
    [
        ("tencent", TENCENT_KEYS, 300),
        ("zego", "app_id = 1\nserver_secret = 'a'", 600),
        ("volcengine", "app_id = 'a'\naccess_key_id = 'a'\nsecret_access_key = 'b'", 900),
    ],
)
def test_a_signature_lives_no_longer_than_the_vendor_lets_it(
    tmp_path: Path, vendor: str, keys: str, limit: int
) -> None:
    account = f"[accounts.a]\nprovider = '{vendor}'\n{keys}\n"
    read(tmp_path, f"{account}signature_life_s = {limit}")
    (line,) = mistakes(tmp_path, f"{account}signature_life_s = {limit + 1}")
    assert line == f"accounts.a.signature_life_s: expected at most {limit}, found {limit + 1}"


def test_a_file_that_is_no_toml_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected TOML, found a mistake: .*line 1"):
        read(tmp_path, "daemon = = 5")
    with pytest.raises(ConfigError, match="expected a configuration file, found: No such file"):
        load(tmp_path / "absent.toml", {})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="expected UTF-8 text"):
        load(tmp_path / "binary.toml", {})


def test_secrets_are_found_where_they_live_and_seen_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "llm.txt").write_text("fake-from-file\n", "utf-8")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "tts").write_text("fake-from-credential", "utf-8")
    environ = {"LLM": "fake-from-env", "CREDENTIALS_DIRECTORY": str(credentials)}
    text = """
    [secrets]
    a = { env = "LLM" }
    b = { file = "llm.txt" }
    c = { credential = "tts" }
    d = "fake-plain"
    """
    config = read(tmp_path, text, environ)
    revealed = {name: secret.reveal() for name, secret in config.secrets.items()}
    assert revealed == {
        "a": "fake-from-env",
        "b": "fake-from-file",
        "c": "fake-from-credential",
        "d": "fake-plain",
    }
    assert config.secret_values == set(revealed.values())
    for shown in (repr(config), str(config), f"{config.secrets['d']}", repr(config.secrets)):
        assert "fake-" not in shown
    assert [warning.split(":")[0] for warning in config.warnings] == ["secrets.d"]


def test_a_credential_is_a_name_and_no_path(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("fake-key", "utf-8")
    (tmp_path / "credentials").mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    (line,) = mistakes(tmp_path, '[secrets]\na = { credential = "../key" }', environ)
    assert line.endswith("found a path, where a name should be")


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (b"", "an empty text"),
        (b" \r\n\n", "an empty text"),
        (b"\xff\xfe\x00", "bytes that are no UTF-8 text"),
        (None, "Is a directory"),
    ],
)
def test_a_file_that_holds_no_secret_is_told(
    tmp_path: Path, written: bytes | None, found: str
) -> None:
    key = tmp_path / "key"
    if written is None:
        key.mkdir()
    else:
        key.write_bytes(written)
    (line,) = mistakes(tmp_path, "[secrets]\na = { file = 'key' }")
    assert line.endswith(f"is not empty, found {found}")


def test_a_file_that_this_user_may_not_read_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("fake-key", "utf-8")
    (tmp_path / "key").chmod(0)
    (tmp_path / "config.toml").write_text("[secrets]\na = { file = 'key' }", "utf-8")
    # Root may read all; the file as it is opened has to be somebody else's.
    script = (
        "import os, sys; from pathlib import Path; from orchestrator.config import load\n"
        "here = os.open(sys.argv[1], os.O_RDONLY)\n"
        "os.fchdir(here)\n"
        "import codecs; codecs.lookup('utf-8-sig')  # it may lie where nobody else can look\n"
        "os.geteuid() or os.setresuid(65534, 65534, 65534)\n"
        "load(Path('config.toml'), {})\n"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "is not empty, found Permission denied" in done.stderr
    assert "fake-key" not in done.stderr


def test_what_an_editor_adds_is_no_part_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbffake-key\r\n")
    (tmp_path / "config.toml").write_bytes(b"\xef\xbb\xbf[secrets]\r\na = { file = 'key' }\r\n")
    assert load(tmp_path / "config.toml", {}).secrets["a"].reveal() == "fake-key"


PLACES = ("callbacks", "llm_gateway", "metrics")


@pytest.mark.parametrize(("first", "second"), list(combinations(PLACES, 2)))
def test_two_servers_cannot_have_the_same_place(tmp_path: Path, first: str, second: str) -> None:
    url = "[llm_gateway]\npublic_url = 'https://bots.example'\n"
    tables = {name: f"[{name}]\n" for name in (first, second)} | {"llm_gateway": url}
    for name in (first, second):
        tables[name] += "listen = '{0}'\n"
    both = "".join(tables.values())
    (line,) = mistakes(tmp_path, both.format("[::1]:80"))
    assert line == f'{second}.listen: expected another place than {first}.listen, found "[::1]:80"'
    read(tmp_path, both.format("127.0.0.1:0"))


def test_an_account_that_is_there_twice_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot declare \('accounts', 'main'\) twice"):
        read(tmp_path, VOLCENGINE + VOLCENGINE)


@pytest.mark.parametrize(
    "password",
    ["fake@word", "fake/word", "fake#word", "fake?word", "12/word", "12?w", "fa[ke"],
)
@pytest.mark.parametrize("key", ["url", "listen_url"])
def test_a_password_that_is_not_encoded_is_a_mistake(
    tmp_path: Path, key: str, password: str
) -> None:
    """Some readers would take its end for the host, look for that, and show it."""
    (line,) = mistakes(tmp_path, f"[database]\n{key} = 'postgresql://me:{password}@host/db'")
    assert "percent-encoded (@ is %40, / is %2F)" in line
    assert password not in line.replace("USER:PASSWORD@HOST:PORT", "")


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://host:99999",
        "http://host:0",
        "http://[::",
        "http://host:a:b",
        "http://..",
        "http://:80",
    ],
)
def test_an_endpoint_that_nobody_could_call_is_a_mistake(tmp_path: Path, endpoint: str) -> None:
    (line,) = mistakes(tmp_path, f"{VOLCENGINE}endpoint = '{endpoint}'\n")
    assert line == (
        "accounts.main.endpoint: expected http(s)://HOST or http(s)://HOST:PORT, "
        f"found '{endpoint}'"
    )


@pytest.mark.parametrize("key", ["max_duration_s", "start_within_s", "max_agents"])
def test_a_number_that_no_time_or_count_can_hold_is_a_mistake(tmp_path: Path, key: str) -> None:
    (line,) = mistakes(tmp_path, f"{VOLCENGINE}{key} = {10**18}\n")
    assert f"accounts.main.{key}: expected at most " in line


def test_a_password_among_the_parameters_of_a_url_is_secret_too(tmp_path: Path) -> None:
    url = "postgresql://host/db?user=me&password=fake-password"
    config = read(tmp_path, f'[database]\nurl = "{url}"')
    assert config.secret_values == {url, "fake-password"}
    assert [warning.split(":")[0] for warning in config.warnings] == ["database.url"]


def test_database_paths_count_from_the_file_and_passwords_are_secret(tmp_path: Path) -> None:
    relative = read(tmp_path, '[database]\nurl = "sqlite:///var/o.db"')
    assert relative.database.url.reveal() == f"sqlite:///{tmp_path}/var/o.db"
    absolute = read(tmp_path, '[database]\nurl = "sqlite:////srv/o.db"')
    assert absolute.database.url.reveal() == "sqlite:////srv/o.db"
    assert absolute.warnings == ()
    assert absolute.secret_values == frozenset()
    url = "postgresql://me:fake%2Fpassword@host/db"
    postgres = read(tmp_path, f'[database]\nurl = "{url}"')
    assert postgres.secret_values == {url, "fake/password"}
    assert [warning.split(":")[0] for warning in postgres.warnings] == ["database.url"]
    from_environ = read(tmp_path, '[database]\nurl = { env = "DB" }', {"DB": url})
    assert from_environ.warnings == ()


def test_a_plain_key_is_warned_about_without_showing_it(tmp_path: Path) -> None:
    warnings = read(tmp_path, VOLCENGINE).warnings
    assert [warning.split(":")[0] for warning in warnings] == [
        "accounts.main.access_key_id",
        "accounts.main.secret_access_key",
    ]
    assert not any("fake" in warning for warning in warnings)


def test_values_never_change_and_the_host_names_the_daemon(tmp_path: Path) -> None:
    config = read(tmp_path, VOLCENGINE)
    assert config.path == tmp_path / "config.toml"
    assert config.daemon.name
    with pytest.raises(ValueError, match="frozen"):
        config.daemon.name = "other"  # type: ignore[misc] # what the type forbids, so does the value


def test_where_the_file_is() -> None:
    assert locate(Path("a.toml"), {"ORCHESTRATOR_CONFIG": "b.toml"}) == Path("a.toml")
    assert locate(None, {"ORCHESTRATOR_CONFIG": "b.toml"}) == Path("b.toml")
    assert locate(None, {}) == Path("/etc/orchestrator/config.toml")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:0", "::1", 0), ("local:65535", "local", 65535)],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize(
    "text", ["", ":80", "host", "host:", "host:x", "host:65536", "a@b:1", "h:1/x", "::1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any ValueError is one; urllib words some of them
        Address.parse(text)


@given(
    st.text(alphabet="abcdef0123456789", min_size=8), st.sampled_from(["k", "secret_key", "nope.x"])
)
def test_no_mistake_shows_what_stands_under_an_unknown_key(
    tmp_path_factory: pytest.TempPathFactory, value: str, key: str
) -> None:
    told = mistakes(tmp_path_factory.mktemp("c"), f'[database]\n{key} = "{value}"')
    assert told
    assert not any(value in line for line in told)
