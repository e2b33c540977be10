"""What a Volcengine start body must look like, checked before a call is spent on it.

Rule 1: only what the vendor documents is refused. Fields we do not know pass, and so do values of
sets that the vendor extends (providers of speech, voices, models).
Rule 2: what the daemon fills in may be absent, or say the same thing; another value is a mistake.
Rule 3: where two pages disagree about a range, the wider one holds: the vendor has the last word.

Sources: StartVoiceChat 2024-06-01 (docs/6348/1316244), 2024-12-01 (docs/6348/1558163) and
2025-06-01 (docs/6348/2123348), the vendor's parameter table for 2024-12-01 in its MCP server,
CustomLLM (docs/6348/1399966), the rules for ids (docs/6348/70114), and EMQX's API reference.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from orchestrator.core.model import Agent
from orchestrator.providers.base import Problem, Spec
from orchestrator.providers.fields import filled_problems, one_of
from orchestrator.providers.spec import (
    Path,
    ResolvedSecret,
    SpecModel,
    json_text,
    mistake,
    problem,
    problems,
)
from orchestrator.providers.tokens import RTC_ID as ID

FIRST_GENERATION = "2024-06-01"
"""The API version that knows no TaskId: an agent is told apart by room and user."""


def start_problems(api_version: str, app_id: str, agent: Agent, spec: Spec) -> tuple[Problem, ...]:
    """Return everything that speaks against starting `agent` with `spec`, without asking anybody.

    `spec` has its secrets resolved and may be any decoded JSON.
    """
    model = FirstStart if api_version == FIRST_GENERATION else Start
    return (
        *ID.problems(("room_id",), agent.room_id),
        *ID.problems(("user_id",), agent.user_id),
        *problems(model, spec),
        *filled_problems(spec, _filled_in(api_version, app_id, agent)),
        *_bad_agent_user(api_version, agent, spec),
        *_two_callback_urls(spec),
    )


def asked_user_id(api_version: str, spec: Spec) -> str | None:
    """Return the agent's user id that the spec asks for, if it does, and not with a secret."""
    given = _look(spec, *_agent_user_path(api_version))
    return given if isinstance(given, str) and not isinstance(given, ResolvedSecret) else None


def _is_web_url(value: str) -> str:
    if not _has_host(value, "http", "https"):
        raise mistake("a URL that begins with https:// or http:// and a domain")
    return value


def _has_host(url: str, *schemes: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # an unclosed bracket
        return False
    return parts.scheme in schemes and bool(parts.hostname)


Id = Annotated[str, AfterValidator(ID.check)]
WebUrl = Annotated[str, AfterValidator(_is_web_url)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Switch = Annotated[int, AfterValidator(one_of(0, 1))]
"""A mode that the vendor writes as a number."""
Share = Annotated[float, Field(ge=0, le=1)]
JsonText = Annotated[Any, AfterValidator(lambda value: None if value is None else json_text(value))]
"""A string that holds a JSON object; the object itself may stand instead."""


class VadConfig(SpecModel):
    """When the user is taken to have finished. Times in ms."""

    SilenceTime: Annotated[int, Field(ge=500, lt=3000)] | None = None
    SpeechTime: Count | None = None
    PrefixTime: Count | None = None
    SuffixTime: Count | None = None
    Sensitivity: float | None = None
    AIVAD: bool | None = None


class Interruption(SpecModel):
    """When the user interrupts by voice."""

    InterruptSpeechDuration: int | None = None
    """Milliseconds; 0: at the first sound."""
    InterruptKeywords: list[str] | None = None

    @field_validator("InterruptSpeechDuration")
    @classmethod
    def _is_in_range(cls, value: int | None) -> int | None:
        if value is None or value == 0 or 200 <= value <= 3000:
            return value
        raise mistake("0, or 200 to 3000 ms")


class AsrParams(SpecModel):
    """`ASRConfig.ProviderParams`, as far as all recognisers share it."""

    Mode: Literal["smallmodel", "bigmodel"] | None = None
    AppId: str | None = None
    Cluster: str | None = None
    AccessToken: str | None = None
    ApiResourceId: str | None = None
    StreamMode: Annotated[int, AfterValidator(one_of(0, 1, 2))] | None = None


class AsrConfig(SpecModel):
    """Speech recognition."""

    Provider: Text
    ProviderParams: AsrParams
    VADConfig: VadConfig | None = None
    VolumeGain: Share | None = None
    InterruptConfig: Interruption | None = None
    TurnDetectionMode: Switch | None = None


class TtsConfig(SpecModel):
    """Speech synthesis. The parameters differ with each provider."""

    Provider: Text
    ProviderParams: dict[str, Any]
    IgnoreBracketText: list[Annotated[int, AfterValidator(one_of(1, 2, 3, 4, 5))]] | None = None


class UserPrompt(SpecModel):
    """One turn of an earlier conversation."""

    Role: Text
    Content: str


class Vision(SpecModel):
    """What the model may see."""

    Enable: bool | None = None
    SnapshotConfig: dict[str, Any] | None = None


class LlmConfig(SpecModel):
    """The language model. A later field's rule reads the earlier ones, so the order matters."""

    Mode: Literal["ArkV3", "CozeBot", "CustomLLM"]
    ModelName: str | None = None
    Feature: JsonText = None
    EndPointId: Annotated[str | None, Field(validate_default=True)] = None
    Url: Annotated[str | None, Field(validate_default=True)] = None
    CozeBotConfig: Annotated[dict[str, Any] | None, Field(validate_default=True)] = None
    Temperature: Share | None = None
    TopP: Share | None = None
    MaxTokens: Annotated[int, Field(gt=0)] | None = None
    HistoryLength: Count | None = None
    SystemMessages: list[str] | None = None
    UserPrompts: list[UserPrompt] | None = None
    Tools: list[dict[str, Any]] | None = None
    Prefill: bool | None = None
    VisionConfig: Vision | None = None
    ThinkingType: str | None = None
    APIKey: str | None = None
    EnableRoundId: bool | None = None
    Custom: JsonText = None
    ExtraHeader: dict[str, Any] | None = None
    WelcomeSpeech: str | None = None

    @field_validator("EndPointId")
    @classmethod
    def _ark_has_a_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("Mode") == "ArkV3" and not value and not info.data.get("ModelName"):
            raise mistake("an Ark endpoint's id (or a ModelName), since Mode is ArkV3")
        return value

    @field_validator("Url")
    @classmethod
    def _custom_has_a_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("Mode") != "CustomLLM":
            return value
        schemes = ("http", "https") if _allows_http(info.data.get("Feature")) else ("https",)
        if value is None or not _has_host(value, *schemes):
            raise mistake(
                "a URL that begins with https://, since Mode is CustomLLM "
                '(http:// only with Feature {"Http":true})'
            )
        return value

    @field_validator("CozeBotConfig")
    @classmethod
    def _coze_has_a_bot(cls, value: dict[str, Any] | None, info: ValidationInfo) -> Any:
        if info.data.get("Mode") == "CozeBot" and value is None:
            raise mistake("an object, since Mode is CozeBot")
        return value

    @field_validator("Temperature")
    @classmethod
    def _ark_is_never_cold(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value == 0 and info.data.get("Mode") == "ArkV3":
            raise mistake("a number above 0, since Mode is ArkV3")
        return value


class Subtitles(SpecModel):
    """Where subtitles go."""

    DisableRTSSubtitle: bool | None = None
    SubtitleMode: Switch | None = None
    ServerMessageUrl: WebUrl | None = None
    ServerMessageSignature: str | None = None


class FunctionCalling(SpecModel):
    """Where tool calls go."""

    ServerMessageUrl: WebUrl
    ServerMessageSignature: Text


class VoiceChatConfig(SpecModel):
    """`Config`. No part is required here: with S2SConfig a single model replaces three of them."""

    ASRConfig: AsrConfig | None = None
    TTSConfig: TtsConfig | None = None
    LLMConfig: LlmConfig | None = None
    SubtitleConfig: Subtitles | None = None
    FunctionCallingConfig: FunctionCalling | None = None
    InterruptMode: Switch | None = None
    AvatarConfig: dict[str, Any] | None = None
    WebSearchAgentConfig: dict[str, Any] | None = None
    MemoryConfig: dict[str, Any] | None = None
    MusicAgentConfig: dict[str, Any] | None = None
    S2SConfig: dict[str, Any] | None = None


class BurstFields(SpecModel):
    """Sending ahead, for embedded clients. Times in ms."""

    Enable: bool | None = None
    BufferSize: Annotated[int, Field(ge=10, le=3_600_000)] | None = None
    Interval: Annotated[int, Field(ge=10, le=600)] | None = None


class VoicePrints(SpecModel):
    """Telling voices apart."""

    Mode: Switch | None = None
    IdList: Annotated[list[str], Field(max_length=1)] | None = None


class AgentFields(SpecModel):
    """`AgentConfig`, where the daemon adds what it knows."""

    TargetUserId: list[str] | None = None
    """Exactly one, the row's: `_filled_in` has it."""
    UserId: Id | None = None
    WelcomeMessage: str | None = None
    EnableConversationStateCallback: bool | None = None
    ServerMessageURLForRTS: WebUrl | None = None
    ServerMessageSignatureForRTS: Annotated[str | None, Field(validate_default=True)] = None
    IdleTimeout: Annotated[int, Field(gt=0)] | None = None
    """Seconds without the user until the vendor ends the agent. They are billed."""
    UseLicense: bool | None = None
    Burst: BurstFields | None = None
    AnsMode: Annotated[int, AfterValidator(one_of(0, 1, 2, 3))] | None = None
    VoicePrint: VoicePrints | None = None

    @field_validator("ServerMessageSignatureForRTS")
    @classmethod
    def _goes_with_the_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("ServerMessageURLForRTS") is not None and not value:
            raise mistake("a shared secret, since there is a ServerMessageURLForRTS")
        return value


class Start(SpecModel):
    """The start body since 2024-12-01, less what the daemon fills in."""

    Config: VoiceChatConfig
    AgentConfig: AgentFields | None = None
    BusinessId: str | None = None


class FirstConfig(VoiceChatConfig):
    """`Config` of the first generation, which also names the agent."""

    BotName: Id | None = None


class FirstStart(SpecModel):
    """The start body of 2024-06-01, less what the daemon fills in."""

    Config: FirstConfig


def _allows_http(feature: Any) -> bool:
    """Tell whether `Feature`, checked before, says that plain HTTP will do."""
    decoded = json.loads(feature) if isinstance(feature, str) else feature
    return isinstance(decoded, dict) and decoded.get("Http") is True


def _filled_in(api_version: str, app_id: str, agent: Agent) -> dict[Path, Any]:
    """Return what the daemon writes into the body, by its place; None for what it draws."""
    common: dict[Path, Any] = {("AppId",): app_id, ("RoomId",): agent.room_id}
    if api_version == FIRST_GENERATION:
        return {**common, ("UserId",): agent.user_id}
    target = ("AgentConfig", "TargetUserId")
    return {**common, ("TaskId",): None, target: [agent.user_id]}


def _bad_agent_user(api_version: str, agent: Agent, spec: Spec) -> Iterator[Problem]:
    path = _agent_user_path(api_version)
    given = _look(spec, *path)
    if agent.user_id in (given, agent.name):
        yield problem(("spec", *path), "another id than the row's user_id", agent.user_id)
    if isinstance(given, ResolvedSecret):
        expected = "an id in plain, since it is written to the database"
        yield problem(("spec", *path), expected, given)


def _two_callback_urls(spec: Spec) -> Iterator[Problem]:
    """Yield the second of two different URLs: the vendor then loses one kind of callback."""
    path = ("Config", "SubtitleConfig", "ServerMessageUrl")
    subtitles = _look(spec, *path)
    states = _look(spec, "AgentConfig", "ServerMessageURLForRTS")
    if subtitles is not None and states is not None and subtitles != states:
        yield problem(("spec", *path), "the same URL as ServerMessageURLForRTS", subtitles)


def _agent_user_path(api_version: str) -> tuple[str, str]:
    """Return where the body names the agent's user id.

    That the first generation's BotName is that id is our reading of the vendor's early demo.
    """
    return ("Config", "BotName") if api_version == FIRST_GENERATION else ("AgentConfig", "UserId")


def _look(spec: Any, *path: str) -> Any:
    """Return what stands at the path, None if nothing does or the way there is no object."""
    for key in path:
        if not isinstance(spec, Mapping):
            return None
        spec = spec.get(key)
    return spec
