"""The accounts of the daemon's tests: one for each vendor and each version of Volcengine's API.

Both sides are here: what the configuration says, and what the simulated vendor knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.simulator.keys import Keys, TencentKeys, VolcengineKeys, ZegoKeys


@dataclass(frozen=True, kw_only=True, eq=False)
class Customer:
    """One account."""

    keys: Keys
    settings: Mapping[str, Any]
    """Its table under `[accounts]`, without what all accounts of a test share."""
    spec: Mapping[str, Any]
    """A small one that the vendor takes."""
    other_spec: Mapping[str, Any]
    """The same with another word of welcome, or the like."""
    start: str
    """The vendor's names of the calls."""
    stop: str
    look: str

    @property
    def name(self) -> str:
        return self.keys.account


def _volcengine(version: str, number: int) -> Customer:
    keys = VolcengineKeys(
        account=f"volcengine-{version}",
        app_id=f"{number:024}",
        access_key_id=f"AKLTfake{number}",
        secret_access_key=f"fake-secret-access-key-{number}",
        callback_secret=f"fake-callback-secret-{number}",
    )
    config = {
        "ASRConfig": {"Provider": "volcano", "ProviderParams": {"Mode": "smallmodel"}},
        "TTSConfig": {"Provider": "volcano", "ProviderParams": {"app": {"appid": "fake"}}},
        "LLMConfig": {"Mode": "ArkV3", "EndPointId": "ep-fake"},
    }
    welcome = "Config" if version == "2024-06-01" else "AgentConfig"
    return Customer(
        keys=keys,
        settings={
            "provider": "volcengine",
            "app_id": keys.app_id,
            "access_key_id": keys.access_key_id,
            "secret_access_key": keys.secret_access_key,
            "api_version": version,
            "callback_secret": keys.callback_secret,
        },
        spec={"Config": config},
        other_spec={"Config": config} | _welcomed(config, welcome),
        start="StartVoiceChat",
        stop="StopVoiceChat",
        look="GetRoomOnlineUsers",
    )


def _welcomed(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    if where == "AgentConfig":
        return {"AgentConfig": {"WelcomeMessage": "Hello again"}}
    return {"Config": {**config, "LLMConfig": {**config["LLMConfig"], "SystemMessages": ["Hi"]}}}


def _tencent() -> Customer:
    keys = TencentKeys(
        account="tencent",
        sdk_app_id=1400000009,
        secret_id="AKIDfake",
        secret_key="fake-secret-key",
        usersig_key="fa" * 32,
        callback_secret="FakeCallbackKey",
    )
    spec = {
        "LLMConfig": {
            "LLMType": "openai",
            "Model": "fake",
            "APIUrl": "https://llm.invalid/v1",
            "APIKey": "fake-llm-key",
        },
        "TTSConfig": {"TTSType": "flow", "VoiceId": "fake", "Model": "flow_01_turbo"},
    }
    return Customer(
        keys=keys,
        settings={
            "provider": "tencent",
            "sdk_app_id": keys.sdk_app_id,
            "secret_id": keys.secret_id,
            "secret_key": keys.secret_key,
            "usersig_key": keys.usersig_key,
            "callback_key": keys.callback_secret,
            "region": "ap-singapore",
        },
        spec=spec,
        other_spec={**spec, "AgentConfig": {"WelcomeMessage": "Hello again"}},
        start="StartAIConversation",
        stop="StopAIConversation",
        look="DescribeAIConversation",
    )


def _zego() -> Customer:
    keys = ZegoKeys(
        account="zego",
        app_id=1234567899,
        server_secret="fake" * 8,
        callback_secret="fake-callback-secret",
    )
    spec = {"AgentId": "fake-agent", "RTC": {"UserStreamId": "human-stream"}}
    return Customer(
        keys=keys,
        settings={
            "provider": "zego",
            "app_id": keys.app_id,
            "server_secret": keys.server_secret,
            "callback_secret": keys.callback_secret,
        },
        spec=spec,
        other_spec={**spec, "MessageHistory": {"SyncMode": 1, "Messages": [], "WindowSize": 9}},
        start="CreateAgentInstance",
        stop="DeleteAgentInstance",
        look="QueryAgentInstanceStatus",
    )


VOLCENGINE_FIRST = _volcengine("2024-06-01", 1)
VOLCENGINE = _volcengine("2024-12-01", 2)
VOLCENGINE_NEXT = _volcengine("2025-06-01", 3)
TENCENT = _tencent()
ZEGO = _zego()
CUSTOMERS = (VOLCENGINE_FIRST, VOLCENGINE, VOLCENGINE_NEXT, TENCENT, ZEGO)
