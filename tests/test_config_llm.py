"""What the configuration says of the LLM gateway and its upstreams, and what is wrong with it."""

from pathlib import Path

import pytest

from orchestrator.config import open_part
from tests.test_config import A_PLACE, A_VARIABLE, FORMS, mistakes, read

A_WEB_ADDRESS = "http(s)://HOST, with a port and a path if need be, without user, query or fragment"
A_HEADER = "printable ASCII text, since it is sent as a header"
A_PASSED_HEADER_NAME = "text that matches ^[A-Za-z0-9!#$%&'+.^_`|~-]{1,64}$"
A_HEADER_NAME = "text that matches ^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"
ANOTHER_UPSTREAM = "the name of another upstream under [llm_upstreams]"


@pytest.mark.parametrize(
    ("text", "path", "expected", "found"),
    [
        (
            "[llm_gateway]\nlisten = '127.0.0.1:8788'",
            "llm_gateway.public_url",
            "the URL by which the vendors reach llm_gateway.listen",
            "nothing",
        ),
        (
            "[llm_gateway]\npublic_url = 'https://host/?key=fake'",
            "llm_gateway.public_url",
            A_WEB_ADDRESS,
            "a URL that begins with 'https'",
        ),
        (
            "[llm_gateway]\npublic_url = 'https://me:fake@host'",
            "llm_gateway.public_url",
            A_WEB_ADDRESS,
            "a URL that begins with 'https'",
        ),
        (
            "[llm_gateway]\npublic_url = 'bots.example'",
            "llm_gateway.public_url",
            A_WEB_ADDRESS,
            "text that is no URL",
        ),
        (
            "[llm_gateway]\ntoken_secret = { env = 'A' }",
            "llm_gateway.token_secret",
            A_VARIABLE,
            "nothing",
        ),
        (
            "[llm_gateway]\nlisten = 'host'\npublic_url = 'https://h'",
            "llm_gateway.listen",
            A_PLACE,
            "'host'",
        ),
        (
            "[llm_gateway]\nfirst_token_timeout_ms = 50",
            "llm_gateway.first_token_timeout_ms",
            "at least 100",
            "50",
        ),
        ("[llm_gateway]\nkeep_text = 1", "llm_gateway.keep_text", "true or false", "1"),
        (
            "[llm_upstreams.a]\nmodel = 'm'",
            "llm_upstreams.a.url",
            "a value: it has no default",
            "nothing",
        ),
        (
            "[llm_upstreams.a]\nurl = 'wss://host/v1'",
            "llm_upstreams.a.url",
            A_WEB_ADDRESS,
            "a URL that begins with 'wss'",
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\napi_kee = 'fake'",
            "llm_upstreams.a.api_kee",
            "a known key (did you mean api_key?)",
            "this key",
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\nheaders = { X = { env = 'A' } }",
            "llm_upstreams.a.headers.X",
            A_VARIABLE,
            "nothing",
        ),
        (
            '[llm_upstreams.a]\nurl = "http://h/v1"\nheaders = { X = "fake\\nkey" }',
            "llm_upstreams.a.headers.X",
            A_HEADER,
            "other characters",
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\nheaders = { X = 5 }",
            "llm_upstreams.a.headers.X",
            FORMS,
            "a value of type int",
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\nheaders = { 'X Y' = 'a' }",
            "llm_upstreams.a.headers.X Y",
            A_HEADER_NAME,
            '"X Y"',
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\npass_headers = ['X Y']",
            "llm_upstreams.a.pass_headers.0",
            A_PASSED_HEADER_NAME,
            '"X Y"',
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\npass_headers = ['*']",
            "llm_upstreams.a.pass_headers.0",
            A_PASSED_HEADER_NAME,
            '"*"',
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\npass_headers = ['Authorization']",
            "llm_upstreams.a.pass_headers.0",
            "a header of the vendor's own",
            '"Authorization"',
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\npass_fields = '*'",
            "llm_upstreams.a.pass_fields",
            "a list",
            '"*"',
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\napi_key = \"fake\\nkey\"",
            "llm_upstreams.a.api_key",
            A_HEADER,
            "other characters",
        ),
        (
            "[llm_gateway]\nformer_token_secret = 'fake-token-secret'",
            "llm_gateway.token_secret",
            "the token_secret after llm_gateway.former_token_secret",
            "nothing",
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\nfallback = 'b'",
            "llm_upstreams.a.fallback",
            ANOTHER_UPSTREAM,
            '"b"',
        ),
        (
            "[llm_upstreams.a]\nurl = 'http://h/v1'\nfallback = 'a'",
            "llm_upstreams.a.fallback",
            ANOTHER_UPSTREAM,
            '"a"',
        ),
    ],
)
def test_what_a_mistake_says(
    tmp_path: Path, text: str, path: str, expected: str, found: str
) -> None:
    assert mistakes(tmp_path, text) == [f"{path}: expected {expected}, found {found}"]


UPSTREAMS = """
[llm_gateway]
listen = "127.0.0.1:8788"
public_url = "https://bots.example/voice/"
token_secret = { env = "TOKENS" }
former_token_secret = "fake-former-secret"
[llm_upstreams.main]
url = "https://models.example/v1/"
api_key = { env = "KEY" }
headers = { X-Team = "voice", X-Key = { env = "TEAM" }, X-Plain = "not-hidden" }
fallback = "spare"
pass_fields = ["*"]
pass_headers = ["X-Task-Id"]
[llm_upstreams.spare]
url = "http://127.0.0.1:11434/v1/chat/completions"
"""


def test_upstreams_and_their_keys(tmp_path: Path) -> None:
    environ = {"TOKENS": "fake-token-secret", "KEY": "fake-model-key", "TEAM": "fake-team-key"}
    config = read(tmp_path, UPSTREAMS, environ)
    assert config.llm_gateway.public_url == "https://bots.example/voice"
    main, spare = config.llm_upstreams["main"], config.llm_upstreams["spare"]
    assert (main.url, spare.url) == (
        "https://models.example/v1",
        "http://127.0.0.1:11434/v1/chat/completions",
    )
    assert (main.pass_fields, main.pass_headers) == (["*"], ["X-Task-Id"])
    assert (spare.api_key, spare.model, spare.fallback, spare.pass_fields) == (None, "", None, [])
    # A header is hidden where it is written as a secret is.
    hidden = {*environ.values(), "fake-former-secret"}
    assert config.secret_values == hidden
    assert [value for value in hidden if value in f"{config!r}{config}"] == []
    assert [warning.split(":")[0] for warning in config.warnings] == [
        "llm_gateway.former_token_secret"
    ]


def test_upstreams_need_no_gateway_and_two_may_stand_in_for_each_other(tmp_path: Path) -> None:
    url = "url = 'http://h/v1'"
    circle = f"[llm_upstreams.a]\n{url}\nfallback = 'b'\n[llm_upstreams.b]\n{url}\nfallback = 'a'"
    config = read(tmp_path, circle)
    assert config.llm_gateway.listen is None
    assert [one.fallback for one in config.llm_upstreams.values()] == ["b", "a"]


def test_who_looks_at_the_database_need_not_have_a_model_s_key(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        "[llm_gateway]\ntoken_secret = { file = 'none' }\n"
        "[llm_upstreams.a]\nurl = 'https://h/v1'\napi_key = { file = 'none' }",
        "utf-8",
    )
    assert open_part(file).llm_upstreams == {}
