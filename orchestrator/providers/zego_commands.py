"""What can be asked of a running ZEGO instance: the calls, their bodies, and what they must hold.

A payload is the body of the vendor's own call, less what the daemon fills in.

Rule 1: only what the vendor documents is refused. Fields we do not know pass.
Rule 2: an update changes what it is given and nothing else. Revisions of the vendor's page differ
in how deep that goes: one says that a block is replaced whole. So two specs differ in place only
where every key of the one is a key of the other: then it is all the same.

Sources: core_products/aiagent/en/server of ZEGOCLOUD/docs_all: start-listening, stop-listening,
interrupt-agent-instance, send-agent-instance-tts, send-agent-instance-llm, update-agent-instance,
shared-components (what of TTS an update cannot change), accessing-server-apis (ids) and
interaction-mode.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from orchestrator.core.command import Command, Kind
from orchestrator.providers.base import Problem
from orchestrator.providers.fields import filled_problems, given, one_of, shape
from orchestrator.providers.spec import SpecModel, problems
from orchestrator.providers.zego_spec import (
    STREAM_ID,
    USER_ID,
    ASRFields,
    LLMFields,
    TTSFields,
)

UPDATE_INSTANCE = "UpdateAgentInstance"

ACTIONS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.START_LISTENING: "StartListening",
        Kind.STOP_LISTENING: "StopListening",
        Kind.INTERRUPT: "InterruptAgentInstance",
        Kind.SAY: "SendAgentInstanceTTS",
        Kind.PROMPT: "SendAgentInstanceLLM",
        Kind.UPDATE: UPDATE_INSTANCE,
    }
)
"""The vendor's call for each kind. Tools are the LLM's own business here: no `function_result`."""

TEXT_LIMIT = 300
"""Characters that SendAgentInstanceTTS takes. The page does not say what counts as one: here it is
a Unicode code point, and a vendor that counts otherwise refuses in its own words."""

WALKIE_TALKIE = 2
"""The CommunicationMode that can be neither entered nor left while an instance runs."""

_FIXED_TTS = ("Vendor", "FilterText", "TerminatorText", "CharacterFilter")


class PayloadModel(SpecModel):
    """A command that needs nothing but its instance."""


class StopFields(PayloadModel):
    """StopListening. CancelFlag: forget what was heard, and do not answer."""

    CancelFlag: bool | None = None


class SpokenFields(PayloadModel):
    """What speaking by LLM and by TTS have in common.

    Priority "" is refused by the vendor; null and absent mean Medium.
    """

    Priority: Literal["Low", "Medium", "High"] | None = None
    SamePriorityOption: Literal["ClearAndInterrupt", "Enqueue"] | None = None


class SayFields(SpokenFields):
    """SendAgentInstanceTTS. InterruptMode is what Priority replaces."""

    Text: Annotated[str, Field(min_length=1, max_length=TEXT_LIMIT)]
    AddHistory: bool | None = None
    InterruptMode: Annotated[int, AfterValidator(one_of(0, 1))] | None = None


class PromptFields(SpokenFields):
    """SendAgentInstanceLLM: a turn of the user's by text."""

    Text: Annotated[str, Field(min_length=1)]
    SystemPrompt: str | None = None
    AddQuestionToHistory: bool | None = None
    AddAnswerToHistory: bool | None = None


class RTCUpdate(SpecModel):
    """The one part of RTC that can change."""

    UserStreamId: Annotated[str, AfterValidator(STREAM_ID.check)] | None = None


class AdvancedUpdate(SpecModel):
    """The one part of AdvancedConfig that can change, and not to walkie-talkie."""

    CommunicationMode: Annotated[int, AfterValidator(one_of(0, 1))] | None = None


class UpdateFields(PayloadModel):
    """UpdateAgentInstance. A block is given whole."""

    LLM: LLMFields | None = None
    TTS: TTSFields | None = None
    ASR: ASRFields | None = None
    RTC: RTCUpdate | None = None
    AdvancedConfig: AdvancedUpdate | None = None


_MODELS: Mapping[Kind, type[PayloadModel]] = MappingProxyType(
    {
        Kind.START_LISTENING: PayloadModel,
        Kind.STOP_LISTENING: StopFields,
        Kind.INTERRUPT: PayloadModel,
        Kind.SAY: SayFields,
        Kind.PROMPT: PromptFields,
        Kind.UPDATE: UpdateFields,
    }
)


def command_problems(command: Command) -> tuple[Problem, ...]:
    """Return everything that the vendor would refuse about a command of a kind in `ACTIONS`."""
    filled: dict[tuple[str | int, ...], Any] = {("AgentInstanceId",): None}
    user: tuple[Problem, ...] = ()
    if command.kind.listens:
        filled |= {("UserId",): command.user_id, ("Sequence",): command.sequence}
        user = USER_ID.problems(("user_id",), command.user_id)
    return (
        *user,
        *problems(_MODELS[command.kind], command.payload, "payload"),
        *filled_problems(command.payload, filled, "payload"),
    )


def command_fields(handle: str | None, command: Command) -> dict[str, Any]:
    """Return the body of a command without problems to the instance `handle`.

    The Sequence is the row's, also where the payload repeats it: after a jump the row's is higher.
    """
    fields = {**given(command.payload), "AgentInstanceId": handle}
    if command.kind.listens:
        fields |= {"UserId": command.user_id, "Sequence": command.sequence}
    return fields


def update_fields(create: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a create body an update can bring about. Blocks are whole, and so replaced."""
    blocks = {name: create[name] for name in ("LLM", "TTS", "ASR") if name in create}
    fields = {**blocks, "RTC": {"UserStreamId": create["RTC"]["UserStreamId"]}}
    mode = create["AdvancedConfig"].get("CommunicationMode")
    if mode is not None and mode != WALKIE_TALKIE:
        fields["AdvancedConfig"] = {"CommunicationMode": mode}
    return fields


def fixed_fields(create: Mapping[str, Any]) -> dict[str, Any]:
    """Return a create body with mere shapes in place of what `update_fields` takes from it."""
    changeable = update_fields(create)
    fixed = {**create, **shape(changeable)}
    for name in ("RTC", "AdvancedConfig"):
        fixed[name] = {**create[name], **shape(changeable.get(name, {}))}
    if "TTS" in changeable:
        kept = {name: create["TTS"][name] for name in _FIXED_TTS if name in create["TTS"]}
        fixed["TTS"] |= kept
    return fixed
