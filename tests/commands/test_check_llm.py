"""What `check` says of the LLM gateway, and of the models behind it."""

import socket
from pathlib import Path
from typing import Any

import pytest
from anyio.abc import ByteStream

from orchestrator.app import build_upstreams
from orchestrator.commands.checks import llm
from orchestrator.commands.checks.finding import Finding
from orchestrator.commands.checks.llm import judge_llm, judge_upstream
from orchestrator.commands.checks.ports import judge_ports
from orchestrator.config import Config, understand
from orchestrator.daemon.llm.frame import Upstream
from orchestrator.store.engine import Database
from tests.loopback_vendor import answer, answering_once, hang, read_request, server_tls, vendor
from tests.ports import unused_port

pytestmark = pytest.mark.anyio

KEY = "fake-model-key"
HEADER = "fake-team-key"
GATEWAY = {
    "listen": "127.0.0.1:0",
    "public_url": "https://bots.example/voice",
    "token_secret": "fake-token-secret-that-is-long-enough",
}


def upstream(url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "api_key": KEY, "headers": {"X-Team": HEADER}, **more}


def configured(
    gateway: dict[str, Any] | None = None, upstreams: dict[str, Any] | None = None
) -> Config:
    written = {"llm_gateway": gateway or {}, "llm_upstreams": upstreams or {}}
    return understand(written, Path("/nowhere/config.toml"), {})


def build(written: dict[str, Any]) -> Upstream:
    return build_upstreams(configured(upstreams={"main": written}))["main"]


def said(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.verdict, one.what) for one in found]


async def test_who_has_neither_gateway_nor_upstream_hears_nothing() -> None:
    assert await judge_llm(configured()) == []


async def test_upstreams_without_a_gateway_are_told_and_not_asked() -> None:
    nowhere = f"http://127.0.0.1:{unused_port()}"
    config = configured(upstreams={"main": upstream(nowhere), "spare": upstream(nowhere)})
    (told,) = await judge_llm(config)
    assert told.verdict == "warning"
    assert told.what.startswith("llm_upstreams main, spare: no gateway")
    assert "llm_gateway.listen" in told.advice


async def test_a_gateway_without_an_upstream_is_told() -> None:
    (_, none) = await judge_llm(configured(GATEWAY))
    assert (none.verdict, none.what.partition(",")[0]) == ("warning", "llm_gateway: no upstream")
    assert none.advice


@pytest.mark.parametrize(
    ("url", "verdict", "how"),
    [
        ("https://bots.example", "well", "with TLS"),
        ("https://bots.example:8443/voice", "well", "with TLS"),
        ("http://127.0.0.1:8788", "well", "without TLS, on this machine alone"),
        ("http://[::1]:8788", "well", "without TLS, on this machine alone"),
        ("http://localhost:8788", "well", "without TLS, on this machine alone"),
        ("http://bots.example", "warning", "without TLS"),
        ("http://192.0.2.1:8788", "warning", "without TLS"),
        ("http://localhost.example", "warning", "without TLS"),
    ],
)
async def test_how_private_the_way_of_the_vendors_is(url: str, verdict: str, how: str) -> None:
    (judged, *_) = await judge_llm(configured({**GATEWAY, "public_url": url}))
    assert (judged.verdict, judged.what) == (verdict, f"llm_gateway.public_url {url}: {how}")
    assert bool(judged.advice) is (verdict != "well")


async def test_tokens_that_depend_on_the_accounts_keys_are_told() -> None:
    own = {key: value for key, value in GATEWAY.items() if key != "token_secret"}
    (_, told, _) = await judge_llm(configured(own))
    assert told.verdict == "warning"
    assert told.what.startswith("llm_gateway.token_secret: none")
    assert "mute" in told.advice
    assert "token_secret" not in str(await judge_llm(configured(GATEWAY)))


UNTOLD = "a turn will tell whether key and path are right"


@pytest.mark.parametrize(
    ("status", "verdict", "what"),
    [
        ("200 OK", "well", "takes the key"),
        ("401 Unauthorized", "trouble", "refuses the key (HTTP 401)"),
        ("403 Forbidden", "trouble", "refuses the key (HTTP 403)"),
        ("404 Not Found", "well", f"reachable (HTTP 404); {UNTOLD}"),
        ("502 Bad", "well", f"reachable (HTTP 502); {UNTOLD}"),
    ],
)
async def test_what_an_upstream_says_of_its_key(status: str, verdict: str, what: str) -> None:
    async with vendor(answering_once(answer(b"<html>", status=status))) as served:
        place = f"http://127.0.0.1:{served.port}"
        config = configured(GATEWAY, {"main": upstream(f"{place}/v1")})
        assert said(list(await judge_llm(config))[1:]) == [
            (verdict, f"upstream main: {place}: {what}")
        ]


async def test_a_short_token_secret_is_told() -> None:
    short = {**GATEWAY, "token_secret": "x"}
    (_, told, _) = await judge_llm(configured(short))
    assert (told.verdict, "openssl rand" in told.advice) == ("warning", True)


async def test_each_upstream_is_judged_by_itself_in_the_file_s_order() -> None:
    async with vendor(answering_once(answer(b"{}"))) as served:
        there, nowhere = served.port, unused_port()
        upstreams = {
            "zeta": upstream(f"http://127.0.0.1:{there}/v1"),
            "alpha": upstream(f"http://127.0.0.1:{nowhere}/v1/chat/completions"),
        }
        (_, first, second) = await judge_llm(configured(GATEWAY, upstreams))
    assert said([first]) == [("well", f"upstream zeta: http://127.0.0.1:{there}: takes the key")]
    assert second.verdict == "trouble"
    assert second.what.startswith(f"upstream alpha: http://127.0.0.1:{nowhere}: ConnectFailed: ")
    assert second.advice


async def test_a_certificate_that_nobody_trusts_is_said_plainly() -> None:
    async with vendor(answering_once(answer(b"{}")), server_tls()) as served:
        judged = await judge_upstream(build(upstream(f"https://127.0.0.1:{served.port}/v1")))
    assert judged.verdict == "trouble"
    assert ": TlsFailed: " in judged.what
    assert "certificate" in judged.what
    assert "trusts" in judged.advice


async def test_a_name_that_means_nobody_is_said_plainly() -> None:
    judged = await judge_upstream(build(upstream("https://models.invalid/v1")))
    assert judged.verdict == "trouble"
    assert judged.what.startswith("upstream main: https://models.invalid: DnsFailed: ")


async def test_who_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "WITHIN_NS", 50_000_000)
    async with vendor(hang) as served:
        judged = await judge_upstream(build(upstream(f"http://127.0.0.1:{served.port}/v1")))
    # A busy machine may not even have sent it by then.
    assert judged.verdict == "trouble"
    assert "the deadline" in judged.what


async def test_no_key_is_in_any_line_and_each_is_asked_for_its_models() -> None:
    seen: list[bytes] = []

    async def record(stream: ByteStream) -> None:
        seen.append(await read_request(stream))
        await stream.send(answer(b"{}"))

    async with vendor(record) as served:
        there, nowhere = served.port, unused_port()
        upstreams = {
            "main": upstream(f"http://127.0.0.1:{there}/secret-path/chat/completions"),
            "spare": upstream(f"http://127.0.0.1:{nowhere}/secret-path"),
        }
        report = str(await judge_llm(configured(GATEWAY, upstreams)))
    for hidden in (KEY, HEADER, "secret-path", GATEWAY["token_secret"]):
        assert hidden not in report
    assert seen[0].startswith(b"GET /secret-path/models HTTP/1.1")
    assert KEY.encode() in seen[0]


async def test_the_gateway_s_place_is_tried_like_the_others(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        (found,) = await judge_ports(configured({**GATEWAY, "listen": where}), database)
    assert said([found]) == [
        ("trouble", f"llm_gateway.listen {where}: in use, and no daemon runs here")
    ]
    (found,) = await judge_ports(configured({**GATEWAY, "listen": where}), database)
    assert said([found]) == [("well", f"llm_gateway.listen {where}: free")]
