"""What each vendor is told of the LLM gateway, and what its requests say of the agent that asks."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.core.model import Agent
from orchestrator.providers.base import Provider
from orchestrator.providers.llm import fill_in
from orchestrator.providers.llm_form import Asked, LlmEndpoint, LlmForm
from orchestrator.providers.tencent import Tencent
from orchestrator.providers.tencent_llm import FORM as TENCENT
from orchestrator.providers.volcengine import API_VERSIONS, Volcengine
from orchestrator.providers.volcengine_llm import FORM as VOLCENGINE
from orchestrator.providers.zego import Zego
from orchestrator.providers.zego_llm import FORM as ZEGO

URL = "https://bots.example/llm/main/x/chat/completions"
TOKEN = "llm-" + "F" * 43


def endpoint(url: str = URL, patience_s: int = 8) -> LlmEndpoint:
    return LlmEndpoint(url=url, key=TOKEN, model="main", patience_s=patience_s)


def filled(form: LlmForm, spec: Any, to: LlmEndpoint) -> Any:
    result, problems = fill_in(form, spec, lambda _: to)
    assert problems == ()
    return result


AGENT = Agent(
    id="agent-1",
    incarnation=1,
    try_=1,
    account="main",
    site="{}",
    room_id="room",
    user_id="human",
    name="bot",
    session_name="session-1",
    stream_id="stream-1",
    announced_at=datetime(2026, 1, 2, tzinfo=UTC),
)


def volcengine(version: str) -> Volcengine:
    return Volcengine(
        app_id="0" * 24,
        access_key_id="AKLTfake",
        secret_access_key="fake-key",
        api_version=version,
    )


TENCENT_ACCOUNT = Tencent(
    sdk_app_id=1400000000,
    secret_id="AKIDfake",
    secret_key="fake-key",
    usersig_key="fa" * 32,
    region="ap-singapore",
)
ZEGO_ACCOUNT = Zego(app_id=1234567890, server_secret="fake" * 8)


# --- Volcengine


def volcengine_block(block: dict[str, Any], to: LlmEndpoint) -> Any:
    spec = {"Config": {"LLMConfig": {"$llm_gateway": "main", **block}}}
    return filled(VOLCENGINE, spec, to)["Config"]["LLMConfig"]


def test_volcengine_gets_its_own_words() -> None:
    assert volcengine_block({}, endpoint()) == {
        "Mode": "CustomLLM",
        "Url": URL,
        "APIKey": TOKEN,
        "ModelName": "main",
        "EnableRoundId": True,
    }


def test_volcengine_is_told_of_a_url_without_tls() -> None:
    plain = endpoint("http://127.0.0.1:9/llm")
    assert volcengine_block({}, plain)["Feature"] == {"Http": True}
    assert volcengine_block({"Feature": '{"Http":false}'}, plain)["Feature"] == '{"Http":false}'
    assert "Feature" not in volcengine_block({}, endpoint())


def test_a_volcengine_spec_names_its_own_model() -> None:
    block = {"ModelName": "doubao", "EnableRoundId": False, "Mode": "CustomLLM"}
    assert volcengine_block(block, endpoint()).items() >= block.items()


@pytest.mark.parametrize(
    ("body", "round_"),
    [
        ({"round_id": 4, "device_id": "d"}, "4"),
        ({"round_id": "r-1"}, "r-1"),
        ({"round_id": None}, None),
        ({"messages": []}, None),
    ],
)
def test_volcengine_says_its_round(body: dict[str, Any], round_: str | None) -> None:
    assert VOLCENGINE.read({"x-task-id": "no header of its"}, body) == Asked(round=round_)


# --- Tencent


def tencent_block(block: dict[str, Any], to: LlmEndpoint) -> Any:
    spec = {"LLMConfig": {"$llm_gateway": "main", **block}}
    return filled(TENCENT, spec, to)["LLMConfig"]


def test_tencent_gets_its_own_words() -> None:
    assert tencent_block({}, endpoint()) == {
        "LLMType": "openai",
        "APIUrl": URL,
        "APIKey": TOKEN,
        "Model": "main",
        "Streaming": True,
        "Timeout": 8,
    }


@pytest.mark.parametrize(
    ("patience_s", "timeout"), [(0, 3), (3, 3), (4, 4), (50, 50), (51, 50), (3600, 50)]
)
def test_tencent_waits_as_long_as_we_may_take(patience_s: int, timeout: int) -> None:
    assert tencent_block({}, endpoint(patience_s=patience_s))["Timeout"] == timeout
    assert tencent_block({"Timeout": 1}, endpoint(patience_s=patience_s))["Timeout"] == 1


def test_tencent_says_who_asks_in_headers() -> None:
    headers = {
        "x-task-id": "task",
        "x-request-id": "request",
        "x-room-id": "room",
        "x-user-id": "human",
    }
    expected = Asked(handle="task", round="request", room_id="room", user_id="human")
    assert TENCENT.read(headers, {"round_id": "no field of its"}) == expected
    assert TENCENT.read({}, {}) == Asked()
    assert TENCENT.read({"x-task-id": "\x1b[2J", "x-room-id": "r" * 513}, {}) == Asked()


# --- ZEGO


def zego_block(block: dict[str, Any], to: LlmEndpoint) -> Any:
    return filled(ZEGO, {"LLM": {"$llm_gateway": "main", **block}}, to)["LLM"]


def test_zego_gets_its_own_words() -> None:
    assert zego_block({"SystemPrompt": "be kind"}, endpoint()) == {
        "Vendor": "OpenAIChat",
        "Url": URL,
        "ApiKey": TOKEN,
        "Model": "main",
        "AddAgentInfo": True,
        "SystemPrompt": "be kind",
    }


def test_a_template_of_zego_s_serves_many_agents() -> None:
    spec = {"Agent": {"AgentId": "a", "LLM": {"$llm_gateway": "main"}}}
    same, problems = fill_in(ZEGO, spec, lambda _: endpoint())
    assert same is spec
    assert [str(problem) for problem in problems] == [
        (
            "spec.Agent.LLM.$llm_gateway: expected nothing, since $llm_gateway belongs into "
            'spec.LLM, found "main" (string)'
        )
    ]


def test_zego_says_who_asks_in_the_body() -> None:
    info = {
        "room_id": "room",
        "agent_instance_id": "1912345678901234567",
        "agent_user_id": "bot",
        "user_id": "human",
        "round_id": 12,
        "time_stamp": 1790000000000,
    }
    expected = Asked(handle="1912345678901234567", round="12", room_id="room", user_id="human")
    assert ZEGO.read({}, {"agent_info": info, "round_id": "no field of its"}) == expected


@pytest.mark.parametrize("info", [None, "text", [], {}, {"room_id": {}, "user_id": "a\x00"}])
def test_zego_may_say_nothing(info: Any) -> None:
    assert ZEGO.read({}, {"agent_info": info}) == Asked()
    assert ZEGO.read({}, {}) == Asked()


# --- what the adapters make of it


CASES: dict[str, tuple[Provider, dict[str, Any]]] = {
    **{
        f"volcengine-{version}": (
            volcengine(version),
            {"Config": {"LLMConfig": {"$llm_gateway": "main"}}},
        )
        for version in API_VERSIONS
    },
    "tencent": (
        TENCENT_ACCOUNT,
        {
            "LLMConfig": {"$llm_gateway": "main"},
            "TTSConfig": {"TTSType": "flow", "VoiceId": "fake", "Model": "flow_01_turbo"},
        },
    ),
    "zego": (ZEGO_ACCOUNT, {"AgentId": "a", "LLM": {"$llm_gateway": "main"}}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("url", [URL, "http://127.0.0.1:9/llm"])
def test_what_is_filled_in_is_a_spec_that_the_vendor_takes(case: str, url: str) -> None:
    provider, spec = CASES[case]
    result = filled(provider.llm, spec, endpoint(url))
    assert provider.problems(AGENT, result) == ()
    body = provider.body(AGENT, result)
    assert b"$llm_gateway" not in body
    assert url.encode() in body
    assert TOKEN.encode() in body


def test_tencent_s_block_travels_as_a_string() -> None:
    provider, spec = CASES["tencent"]
    result = filled(TENCENT, {**spec, "LLMConfig": json.dumps(spec["LLMConfig"])}, endpoint())
    sent = json.loads(provider.body(AGENT, result))["LLMConfig"]
    assert json.loads(sent)["APIKey"] == TOKEN


@pytest.mark.parametrize("case", ["tencent", "zego"])
def test_another_address_is_brought_to_a_running_agent(case: str) -> None:
    provider, spec = CASES[case]
    bodies = [
        provider.fixed_body(AGENT, filled(provider.llm, spec, endpoint(url)))
        for url in (URL, "https://moved.example/llm")
    ]
    assert bodies[0] == bodies[1]


def test_a_mistake_beside_it_shows_no_key() -> None:
    provider, spec = CASES["tencent"]
    block = {"$llm_gateway": "main", "Temperature": "warm", "Timeout": 99}
    result = filled(TENCENT, {**spec, "LLMConfig": block}, endpoint())
    problems = provider.problems(AGENT, result)
    assert problems
    assert TOKEN not in str(problems)
