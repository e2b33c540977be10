"""What a Tencent start body must look like, checked before a call is spent on it.

Rule 1: only what the vendor documents is refused. Fields we do not know pass, and so do values of
sets that the vendor extends every few months (languages, kinds of LLM and TTS, avatars).
Rule 2: AgentConfig may be missing, since the daemon can fill in all that it must hold.

Sources: StartAIConversation of API 2019-07-22 (product 647, page 64963) and the structures
AgentConfig, STTConfig, AmbientSound, TurnDetection and VoicePrint of the official SDK's metadata;
"LLM configuration" (trtc.io 68338) and "TTS configuration" (75309) for the two objects that travel
as JSON in a string; `TRTCParams` of the TRTC client SDK for rooms; tls-sig-api v2 for user ids.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from orchestrator.core.model import Agent
from orchestrator.providers.base import Problem, Spec
from orchestrator.providers.fields import IdRule, filled_problems, one_of
from orchestrator.providers.spec import SpecModel, decoded, mistake, problem, problems
from orchestrator.providers.tokens import USER_SIG_USER as USER_ID

STRING_ROOM = IdRule(
    limit=64,
    characters=r"A-Za-z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,",
    alphabet="letters, digits, spaces and !#$%&()+-:;<=.>?@[]^_{}|~,",
)
NUMERIC_ROOM_LIMIT = 2**32 - 1

JSON_FIELDS = frozenset({"LLMConfig", "TTSConfig", "AvatarConfig"})
"""Fields that travel as a string that holds JSON."""

_AGENT_USER_ID = ("spec", "AgentConfig", "UserId")

_MAX_HOT_WORDS = 128
_HOT_WORD = re.compile(r"[^|,]+\|([1-9]|1[01]|100)")


def start_problems(sdk_app_id: int, agent: Agent, spec: Spec) -> tuple[Problem, ...]:
    """Return everything that the vendor would refuse about this start."""
    return (
        *_id_problems(agent, spec),
        *problems(StartBody, spec),
        *speech_problems(spec, "spec"),
        *filled_problems(
            spec,
            {
                ("SdkAppId",): sdk_app_id,
                ("RoomId",): agent.room_id,
                ("SessionId",): None,
                ("AgentConfig", "UserSig"): None,
                ("AgentConfig", "TargetUserId"): agent.user_id,
            },
        ),
    )


def is_numeric_room(room_id: str) -> bool:
    """Tell whether a room of type 0 can have this id: a number from 1 to 4294967295.

    A leading zero does not survive as a number, so it means a string room.
    """
    return (
        re.fullmatch(r"[1-9][0-9]{0,9}", room_id) is not None and int(room_id) <= NUMERIC_ROOM_LIMIT
    )


def speech_problems(fields: Any, prefix: str) -> tuple[Problem, ...]:
    """Check what a known TTSType adds; that there is a type is checked with the rest.

    `fields` is what holds the TTSConfig, and stands at `prefix`.
    """
    try:
        config = decoded(fields.get("TTSConfig"))
    except PydanticCustomError:
        return ()
    kind = config.get("TTSType")
    model = _TTS_MODELS.get(kind) if isinstance(kind, str) else None
    return () if model is None else problems(model, config, f"{prefix}.TTSConfig")


def _check_hot_words(value: str) -> str:
    """Check `word|weight,word|weight`."""
    words = value.split(",")
    if len(words) > _MAX_HOT_WORDS or not all(map(_HOT_WORD.fullmatch, words)):
        raise mistake(f"up to {_MAX_HOT_WORDS} of word|weight with commas, weight 1 to 11 or 100")
    return value


def _check_url(value: str) -> str:
    if re.fullmatch(r"https?://\S+", value) is None:
        raise mistake("a URL that begins with http:// or https://")
    return value


Text = Annotated[str, Field(min_length=1)]
Switch = Annotated[int, AfterValidator(one_of(0, 1))]
UserIdText = Annotated[str, AfterValidator(USER_ID.check)]
Url = Annotated[str, AfterValidator(_check_url)]


class TurnDetectionFields(SpecModel):
    """How eagerly a turn ends, with TurnDetectionMode 3."""

    SemanticEagerness: Literal["auto", "low", "medium", "high"] = "auto"


class AmbientSoundFields(SpecModel):
    """Noise behind the agent's voice."""

    Scene: Literal["coffee_shops", "busy_office", "street_traffic", "evening_mountain"]
    Volume: float = Field(default=1, ge=0, le=2)


class VoicePrintFields(SpecModel):
    """Whose voice the agent listens to."""

    Mode: Switch = 0
    IdList: list[Text] = Field(default_factory=list)


class AgentConfigFields(SpecModel):
    """The agent in the room. Durations in milliseconds, but for MaxIdleTime: seconds.

    The vendor gives no range for MaxIdleTime here; the upper bound is that of its siblings.
    """

    UserId: UserIdText | None = None
    MaxIdleTime: int = Field(default=60, ge=1, le=86400)
    WelcomeMessage: str = ""
    WelcomeMessagePriority: Switch = 0
    InterruptMode: Switch = 0
    InterruptSpeechDuration: int = Field(default=500, ge=0)
    InterruptWordList: list[str] = Field(default_factory=list)
    TurnDetectionMode: Annotated[int, AfterValidator(one_of(0, 1, 2, 3))] = 0
    TurnDetection: TurnDetectionFields | None = None
    FilterOneWord: bool = True
    FilterBracketsContent: Annotated[int, AfterValidator(one_of(0, 1, 2, 3, 4, 5))] = 0
    SubtitleMode: Switch = 0
    AmbientSound: AmbientSoundFields | None = None
    VoicePrint: VoicePrintFields | None = None


class STTConfigFields(SpecModel):
    """Speech recognition. VadSilenceTime in milliseconds."""

    Language: Text = "zh"
    AlternativeLanguage: list[Text] = Field(default_factory=list)
    VadSilenceTime: int = Field(default=1000, ge=240, le=2000)
    VadLevel: int = Field(default=0, ge=0, le=5)
    HotWordList: Annotated[str, AfterValidator(_check_hot_words)] | None = None
    CustomParam: str = ""


class LLMMessage(SpecModel):
    """A message that stands before the conversation."""

    Role: Text
    Content: str


class LLMConfigFields(SpecModel):
    """The language model. Timeout in seconds, History in rounds."""

    LLMType: Text
    Model: Text
    APIKey: Text
    APIUrl: Url
    Streaming: bool = True
    SystemPrompt: str = ""
    Timeout: float = Field(default=3, ge=1, le=50)
    History: int = Field(default=0, ge=0, le=50)
    HistoryMode: Switch = 0
    MaxTokens: int | None = Field(default=None, ge=1)
    Temperature: float | None = None
    TopP: float | None = None
    UserMessages: list[LLMMessage] = Field(default_factory=list)
    MetaInfo: dict[str, Any] = Field(default_factory=dict)
    ExtraBody: dict[str, Any] = Field(default_factory=dict)


class TTSConfigFields(SpecModel):
    """Speech synthesis; what else is in it depends on the type."""

    TTSType: Text


class FlowTTS(TTSConfigFields):
    """The vendor's own voices."""

    VoiceId: Text | None = None
    Model: Text | None = None
    Speed: float = Field(default=1, ge=0.5, le=2)
    Volume: float = Field(default=1, ge=0, le=10)
    Pitch: float = Field(default=0, ge=-12, le=12)
    Language: Text | None = None


class TencentTTS(TTSConfigFields):
    """Tencent Cloud's text-to-speech, on an account of the application's."""

    AppId: int | None = Field(default=None, ge=1)
    SecretId: Text | None = None
    SecretKey: Text | None = None
    VoiceType: int | None = None
    Speed: float = Field(default=0, ge=-2, le=6)
    Volume: float = Field(default=0, ge=0, le=10)
    PrimaryLanguage: Annotated[int, AfterValidator(one_of(1, 2, 3))] = 1
    FastVoiceType: str = ""
    EmotionCategory: str = ""
    EmotionIntensity: int = Field(default=100, ge=50, le=200)


class StartBody(SpecModel):
    """The spec as a whole. `LLMConfig` and `TTSConfig` are mandatory by the text of the page."""

    RoomIdType: Switch = 1
    AgentConfig: AgentConfigFields | None = None
    STTConfig: STTConfigFields | None = None
    LLMConfig: Annotated[LLMConfigFields, BeforeValidator(decoded)]
    TTSConfig: Annotated[TTSConfigFields, BeforeValidator(decoded)]
    AvatarConfig: Annotated[dict[str, Any], BeforeValidator(decoded)] | None = None
    ExperimentalParams: str = ""


_TTS_MODELS: Mapping[str, type[TTSConfigFields]] = MappingProxyType(
    {"flow": FlowTTS, "tencent": TencentTTS}
)


def _id_problems(agent: Agent, spec: Spec) -> tuple[Problem, ...]:
    """Check the row's ids, and that the agent is somebody else than the user."""
    config = spec.get("AgentConfig")
    chosen = config.get("UserId") if isinstance(config, Mapping) else None
    same = chosen == agent.user_id
    return (
        *_room_problems(agent.room_id, spec.get("RoomIdType", 1)),
        *USER_ID.problems(("user_id",), agent.user_id),
        *((problem(_AGENT_USER_ID, "another id than the user's", chosen),) if same else ()),
    )


def _room_problems(room_id: str, room_type: Any) -> tuple[Problem, ...]:
    """Check the room against its type; a type that is none is found elsewhere."""
    if room_type != 0:
        return STRING_ROOM.problems(("room_id",), room_id)
    if is_numeric_room(room_id):
        return ()
    expected = f"a number from 1 to {NUMERIC_ROOM_LIMIT}, since RoomIdType is 0"
    return (problem(("room_id",), expected, room_id),)
