"""What a ZEGO start spec must look like, checked before a call is spent on it.

The spec is the CreateAgentInstance body; under `Agent` it may carry the RegisterAgent body of the
template to create it from.

Rule 1: only what the vendor documents is refused. Fields we do not know pass, and so do values of
sets that the vendor extends every few months (vendors of LLM, TTS and ASR).
Rule 2: null stands for an optional block that is not there, as in the vendor's own sample.

Sources: core_products/aiagent/en/server of ZEGOCLOUD/docs_all: create-agent-instance,
register-agent, shared-components, accessing-server-apis (ids) and interaction-mode.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from orchestrator.core.model import Agent
from orchestrator.providers.base import Problem, Spec
from orchestrator.providers.fields import IdRule, filled_problems, one_of
from orchestrator.providers.spec import SpecModel, mistake, problem, problems

USER_ID = IdRule(limit=32, characters=r"A-Za-z0-9_-", alphabet="letters, digits, _ and -")
AGENT_USER_ID = IdRule(limit=32, characters=r"A-Za-z0-9_.-", alphabet="letters, digits, _, - and .")
ROOM_ID = IdRule(limit=128, characters=r"A-Za-z0-9_.-", alphabet="letters, digits, _, - and .")
STREAM_ID = ROOM_ID
AGENT_ID = IdRule(
    limit=128,
    characters=r"A-Za-z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}\\|~,",
    alphabet="letters, digits, spaces and !#$%&()+-:;<=.>?@[]^_{}\\|~,",
)

_MAX_NAME = 64
_MAX_EXTRA_INFO = 1024


def start_problems(agent: Agent, spec: Spec) -> tuple[Problem, ...]:
    """Return everything that the vendor would refuse about this start."""
    return (
        *ROOM_ID.problems(("room_id",), agent.room_id),
        *USER_ID.problems(("user_id",), agent.user_id),
        *problems(StartBody, spec),
        *_agent_user_problems(agent, spec),
        *_template_problems(spec),
        *_kind_problems(spec),
        *filled_problems(
            spec,
            {
                ("UserId",): agent.user_id,
                ("RTC", "RoomId"): agent.room_id,
                ("RTC", "AgentStreamId"): None,
            },
        ),
    )


def _check_name(value: str) -> str:
    """Check an agent's name. A register takes 256 bytes, but then no update would follow it."""
    if len(value.encode()) > _MAX_NAME:
        raise mistake(f"at most {_MAX_NAME} bytes, since UpdateAgent takes no more")
    return value


def _check_extra_info(value: str) -> str:
    if len(value.encode()) > _MAX_EXTRA_INFO:
        raise mistake(f"at most {_MAX_EXTRA_INFO} bytes")
    return value


Text = Annotated[str, Field(min_length=1)]
Switch = Annotated[int, AfterValidator(one_of(0, 1))]
AgentIdText = Annotated[str, AfterValidator(AGENT_ID.check)]
Milliseconds = Annotated[int, Field(ge=200, le=2000)]


class LLMFields(SpecModel):
    """The language model; an update replaces the block, so it is always whole."""

    Vendor: Text | None = None
    Url: Text
    ApiKey: Text
    Model: Text
    SystemPrompt: str | None = None
    Temperature: float | None = Field(default=None, ge=0, le=2)
    TopP: float | None = Field(default=None, ge=0, le=1)
    Params: dict[str, Any] | None = None
    AddAgentInfo: bool | None = None


class TTSFields(SpecModel):
    """Speech synthesis; what Params holds is its vendor's."""

    Vendor: Text
    Url: Text | None = None
    Params: dict[str, Any]
    FilterText: list[Any] | None = None
    TerminatorText: str | None = Field(default=None, max_length=4)
    CharacterFilter: list[Any] | None = None


class ASRFields(SpecModel):
    """Speech recognition."""

    Vendor: Text | None = None
    Params: dict[str, Any] | None = None


class TemplateFields(SpecModel):
    """The RegisterAgent body."""

    AgentId: AgentIdText
    Name: Annotated[str, AfterValidator(_check_name)] | None = None
    LLM: LLMFields | None = None
    TTS: TTSFields | None = None
    ASR: ASRFields | None = None


class RTCFields(SpecModel):
    """The room. AgentUserId and AgentStreamId must be free in all rooms of the AppId."""

    AgentUserId: Annotated[str, AfterValidator(AGENT_USER_ID.check)] | None = None
    UserStreamId: Annotated[str, AfterValidator(STREAM_ID.check)] | None = None
    StreamExtraInfo: Annotated[str, AfterValidator(_check_extra_info)] | None = None


class TurnDetectFields(SpecModel):
    """When a user's turn has ended."""

    SilenceSegmentation: Milliseconds | None = None
    PauseInterval: Milliseconds | None = None


class SensitiveFields(SpecModel):
    """What counts as speech; Level 3 takes the other two."""

    Level: Annotated[int, AfterValidator(one_of(0, 1, 2, 3))] | None = None
    MinSpeechDur: int | None = Field(default=None, ge=0, le=1000)
    EnergyThreshold: float | None = Field(default=None, ge=0, le=1)


class VoiceDetectFields(SpecModel):
    """Voice detection."""

    SensitiveConfig: SensitiveFields | None = None


class VADFields(SpecModel):
    """Voice activity detection."""

    TurnDetectConfig: TurnDetectFields | None = None
    VoiceDetectConfig: VoiceDetectFields | None = None


class MessageFields(SpecModel):
    """One message of the history."""

    Role: Literal["user", "assistant"]
    Content: str


class ZIMFields(SpecModel):
    """Where the history comes from with SyncMode 0."""

    RobotId: Text | None = None
    LoadMessageCount: int | None = Field(default=None, ge=0, le=500)


class MessageHistoryFields(SpecModel):
    """What was said before."""

    SyncMode: Switch | None = None
    Messages: list[MessageFields] | None = Field(default=None, max_length=100)
    WindowSize: int | None = Field(default=None, ge=0, le=500)
    ZIM: ZIMFields | None = None


class CallbackFields(SpecModel):
    """Which events the vendor posts, and to which of its URLs."""

    ASRResult: Switch | None = None
    LLMResult: Switch | None = None
    Interrupted: Switch | None = None
    UserSpeakAction: Switch | None = None
    AgentInstanceStatus: Switch | None = None
    UserAudioData: Switch | None = None
    HostTag: str | None = None


class AdvancedFields(SpecModel):
    """MaxIdleTime in seconds; CommunicationMode 2 is walkie-talkie."""

    InterruptMode: Switch | None = None
    MaxIdleTime: int | None = Field(default=None, ge=10, le=1800)
    DisableTTS: bool | None = None
    CommunicationMode: Annotated[int, AfterValidator(one_of(0, 1, 2))] | None = None


class StartBody(SpecModel):
    """The spec as a whole."""

    Agent: TemplateFields | None = None
    AgentId: AgentIdText | None = None
    RTC: RTCFields | None = None
    LLM: LLMFields | None = None
    TTS: TTSFields | None = None
    ASR: ASRFields | None = None
    VAD: VADFields | None = None
    MessageHistory: MessageHistoryFields | None = None
    CallbackConfig: CallbackFields | None = None
    AdvancedConfig: AdvancedFields | None = None


def _agent_user_problems(agent: Agent, spec: Spec) -> tuple[Problem, ...]:
    """Check that the agent is somebody else than the user: the two would kick each other."""
    rtc = spec.get("RTC")
    chosen = rtc.get("AgentUserId") if isinstance(rtc, Mapping) else None
    if chosen != agent.user_id:
        return ()
    return (problem(("spec", "RTC", "AgentUserId"), "another id than the user's", chosen),)


def _template_problems(spec: Spec) -> tuple[Problem, ...]:
    """Check that the instance has a template, and only one."""
    template, chosen = spec.get("Agent"), spec.get("AgentId")
    carried = template.get("AgentId") if isinstance(template, Mapping) else None
    if template is None and chosen is None:
        expected = "a registered AgentId, or a template under Agent"
        return (problem(("spec", "AgentId"), expected, None),)
    if chosen is None or carried is None or chosen == carried:
        return ()
    return (problem(("spec", "AgentId"), "the AgentId of the template under Agent", chosen),)


def _kind_problems(spec: Spec) -> tuple[Problem, ...]:
    """Refuse a digital human: another action creates those, and this one would drop the block."""
    given = spec.get("DigitalHuman")
    if given is None:
        return ()
    return (problem(("spec", "DigitalHuman"), "nothing, since only voice agents are run", given),)
