"""What can be asked of a running Tencent agent: the calls, their bodies, and what they must hold.

A payload is the body of the vendor's own call, less what the daemon fills in. Of
ControlAIConversation the object under the command's name may also stand alone: the row's kind says
which it is. Where it does not, what stands beside it is sent as it is.

Rule 1: only what the vendor documents is refused. Fields we do not know pass.
Rule 2: there is no call that only interrupts: ServerPushText with Interrupt wants something to say.
Listening has none either, and tools are the LLM's own business.

Sources: ControlAIConversation and UpdateAIConversation of API 2019-07-22 (product 647, pages 64965
and 64962), and the structures ServerPushText and InvokeLLM of the official SDK's metadata.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator.core.command import Command, Kind
from orchestrator.providers.base import Problem
from orchestrator.providers.fields import filled_problems, given, shape
from orchestrator.providers.spec import (
    SpecModel,
    decoded,
    json_text,
    mistake,
    problems,
    with_json_strings,
)
from orchestrator.providers.tencent_spec import (
    JSON_FIELDS,
    LLMConfigFields,
    Switch,
    TTSConfigFields,
    speech_problems,
)

CONTROL = "ControlAIConversation"
UPDATE = "UpdateAIConversation"

ACTIONS: Mapping[Kind, str] = MappingProxyType(
    {Kind.SAY: CONTROL, Kind.PROMPT: CONTROL, Kind.UPDATE: UPDATE}
)
"""The vendor's call for each kind that it has one for."""

_CONTROLS: Mapping[Kind, str] = MappingProxyType(
    {Kind.SAY: "ServerPushText", Kind.PROMPT: "InvokeLLM"}
)
"""`Command` of ControlAIConversation, and the field that goes with it."""

_AGENT_FIELDS = ("WelcomeMessage", "InterruptMode", "InterruptSpeechDuration")
"""What of a start's AgentConfig an update can change."""

JsonText = Annotated[Any, AfterValidator(lambda value: None if value is None else json_text(value))]


class PushedText(SpecModel):
    """ServerPushText. StopAfterPlay ends the conversation after it; Priority 1 needs permission."""

    Text: str | None = None
    Audio: str | None = None
    """Base64, one channel, at the TTS's sample rate. It goes before Text."""
    Interrupt: bool | None = None
    StopAfterPlay: bool | None = None
    DropMode: Switch | None = None
    Priority: Switch | None = None
    AddHistory: bool | None = None
    MetaInfo: JsonText = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.Text and not self.Audio:
            raise mistake("a Text, or an Audio in its place")
        return self


class InvokedLLM(SpecModel):
    """InvokeLLM: a turn of the user's by text."""

    Content: Annotated[str, Field(min_length=1)]
    Interrupt: bool | None = None
    ExperimentalParams: str | None = None


class UpdateFields(SpecModel):
    """UpdateAIConversation. InterruptSpeechDuration in milliseconds."""

    WelcomeMessage: str | None = None
    InterruptMode: Switch | None = None
    InterruptSpeechDuration: Annotated[int, Field(ge=0)] | None = None
    LLMConfig: Annotated[LLMConfigFields, BeforeValidator(decoded)] | None = None
    TTSConfig: Annotated[TTSConfigFields, BeforeValidator(decoded)] | None = None


_MODELS: Mapping[Kind, type[SpecModel]] = MappingProxyType(
    {Kind.SAY: PushedText, Kind.PROMPT: InvokedLLM, Kind.UPDATE: UpdateFields}
)


def command_problems(command: Command) -> tuple[Problem, ...]:
    """Return everything that the vendor would refuse about a command of a kind in `ACTIONS`."""
    name = _CONTROLS.get(command.kind)
    content, prefix = _content(command, name)
    return (
        *problems(_MODELS[command.kind], content, prefix),
        *(() if name else speech_problems(command.payload, prefix)),
        *filled_problems(command.payload, {("TaskId",): None, ("Command",): name}, "payload"),
    )


def command_fields(task_id: str | None, command: Command) -> dict[str, Any]:
    """Return the body of a command without problems to the conversation `task_id`."""
    name = _CONTROLS.get(command.kind)
    content, _ = _content(command, name)
    asked = with_json_strings(given(content), {*JSON_FIELDS, "MetaInfo"})
    if name is None:
        return {**asked, "TaskId": task_id}
    beside = given(command.payload) if name in command.payload else {}
    return {**beside, "TaskId": task_id, "Command": name, name: asked}


def update_fields(start: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a start body an update can bring about."""
    config = start["AgentConfig"]
    asked = {name: config[name] for name in _AGENT_FIELDS if name in config}
    return {**asked, "LLMConfig": start["LLMConfig"], "TTSConfig": start["TTSConfig"]}


def fixed_fields(start: Mapping[str, Any]) -> dict[str, Any]:
    """Return a start body with mere shapes in place of what `update_fields` takes from it.

    That an update without a field leaves it as it is, is documented. What one does to the inside
    of a JSON string is not, so its keys count as fixed.
    """
    config = start["AgentConfig"]
    changeable = {name: config[name] for name in _AGENT_FIELDS if name in config}
    return {
        **start,
        "AgentConfig": {**config, **shape(changeable)},
        "LLMConfig": shape(decoded(start["LLMConfig"])),
        "TTSConfig": shape(decoded(start["TTSConfig"])),
    }


def _content(command: Command, name: str | None) -> tuple[Any, str]:
    """Return what the model of the kind describes, and where it stands."""
    payload = command.payload
    if name is None:
        return payload, "payload"
    if name in payload:
        return payload[name], f"payload.{name}"
    return {k: v for k, v in payload.items() if k not in {"TaskId", "Command"}}, "payload"
