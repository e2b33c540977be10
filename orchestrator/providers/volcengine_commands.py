"""What can be asked of a running Volcengine agent: UpdateVoiceChat's commands, and their bodies.

A payload is the body of UpdateVoiceChat, less what the daemon fills in.

Rule 1: only what the vendor documents is refused. Fields we do not know pass.
Rule 2: InterruptMode (1 at once, 2 after what goes on, 3 not at all if something does) has no
default at the vendor and gets none here: whether to cut a speaker short is the application's word.
Rule 3: the first generation knows no TaskId: the agent is told by its room and user, as in a stop.
It has two commands. None is for listening in any version; FinishSpeechRecognition ends a turn, but
nothing begins one.

Sources: UpdateVoiceChat 2024-06-01 (docs/6348/1316245), 2024-12-01 (docs/6348/1404671) and its page
for 2025-06-01, the vendor's parameter table in its MCP server, speaking a text
(docs/6348/1449206), function calling (docs/6348/1359441).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.core.command import Command, Kind
from orchestrator.providers.base import Problem
from orchestrator.providers.fields import filled_problems, given, one_of, shape
from orchestrator.providers.spec import (
    SpecModel,
    decoded,
    problems,
    with_json_strings,
)
from orchestrator.providers.volcengine_spec import (
    FIRST_GENERATION,
    Switch,
    Text,
    UserPrompt,
    Vision,
)

UPDATE = "UpdateVoiceChat"

TEXT_LIMIT = 200
"""Characters that ExternalTextToSpeech gets at most. No page says what counts as one: here it is a
Unicode code point, and a vendor that counts otherwise refuses in its own words."""

PARAMETER_VERSIONS = frozenset({"2025-06-01"})
"""API versions with the command UpdateParameters."""

_FIRST_KINDS = frozenset({Kind.INTERRUPT, Kind.FUNCTION_RESULT})
"""What the first generation can do."""

PROMPT_LATER = "ExternalPromptsForLLM"
"""A prompt that is laid beside the user's next turn. The default is one that is a turn itself,
since that is what prompting does at every vendor."""

_COMMANDS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.INTERRUPT: "interrupt",
        Kind.SAY: "ExternalTextToSpeech",
        Kind.PROMPT: "ExternalTextToLLM",
        Kind.FUNCTION_RESULT: "function",
        Kind.UPDATE: "UpdateParameters",
    }
)

_CONFIG_PARTS: tuple[str, ...] = ("TTSConfig", "InterruptMode")
"""What of a start's `Config` UpdateParameters takes whole."""
_LLM_PARTS: tuple[str, ...] = ("SystemMessages", "UserPrompts", "Tools", "VisionConfig")
"""What it takes of `Config.LLMConfig`."""

Interruption = Annotated[int, AfterValidator(one_of(1, 2, 3))]


class PayloadModel(SpecModel):
    """A command that says nothing but its name."""


class SpeechFields(PayloadModel):
    """ExternalTextToSpeech."""

    Message: Annotated[str, Field(min_length=1, max_length=TEXT_LIMIT)]
    InterruptMode: Interruption


class ImageFields(SpecModel):
    """What the model is to look at; GroupID rises from one to the next."""

    Action: Literal["insert", "delete"] | None = None
    GroupID: int | None = None
    ImageType: Text | None = None
    Images: list[str] | None = None


class PromptFields(PayloadModel):
    """ExternalTextToLLM, a turn of the user's by text; `Command` may ask for the other instead."""

    Command: Literal["ExternalTextToLLM", "ExternalPromptsForLLM"] | None = None
    Message: Text
    InterruptMode: Interruption
    ImageConfig: ImageFields | None = None


class LaterPromptFields(PayloadModel):
    """ExternalPromptsForLLM interrupts nothing."""

    Message: Text


class ToolResult(SpecModel):
    """What a tool answered to the call ToolCallID."""

    ToolCallID: Text
    Content: str


class FunctionFields(PayloadModel):
    """`function`. Message is a string that holds JSON; the object may stand instead."""

    Message: Annotated[ToolResult, BeforeValidator(decoded)]


class LlmUpdate(SpecModel):
    """What of the language model can change."""

    SystemMessages: list[str] | None = None
    UserPrompts: list[UserPrompt] | None = None
    Tools: list[dict[str, Any]] | None = None
    VisionConfig: Vision | None = None


class ConfigUpdate(SpecModel):
    """What of `Config` can change, from the next turn on."""

    LLMConfig: LlmUpdate | None = None
    TTSConfig: dict[str, Any] | None = None
    InterruptMode: Switch | None = None


class ParametersUpdate(SpecModel):
    """The envelope around it."""

    Config: ConfigUpdate


class UpdateFields(PayloadModel):
    """UpdateParameters."""

    Parameters: ParametersUpdate


_MODELS: Mapping[str, type[PayloadModel]] = MappingProxyType(
    {
        "interrupt": PayloadModel,
        "ExternalTextToSpeech": SpeechFields,
        "ExternalTextToLLM": PromptFields,
        PROMPT_LATER: LaterPromptFields,
        "function": FunctionFields,
        "UpdateParameters": UpdateFields,
    }
)


def has_command(api_version: str, kind: Kind) -> bool:
    """Return whether this version of the API can do what the kind asks."""
    if api_version == FIRST_GENERATION:
        return kind in _FIRST_KINDS
    if kind is Kind.UPDATE:
        return api_version in PARAMETER_VERSIONS
    return kind in _COMMANDS


def command_problems(api_version: str, app_id: str, command: Command) -> tuple[Problem, ...]:
    """Return everything that the vendor would refuse about a command that `has_command`."""
    name = _name(command)
    filled: dict[tuple[str | int, ...], Any] = {
        ("AppId",): app_id,
        ("RoomId",): None,
        ("UserId" if api_version == FIRST_GENERATION else "TaskId",): None,
    }
    if command.kind is not Kind.PROMPT:
        filled["Command",] = name
    return (
        *problems(_MODELS[name], command.payload, "payload"),
        *filled_problems(command.payload, filled, "payload"),
    )


def command_fields(command: Command) -> dict[str, Any]:
    """Return the body of UpdateVoiceChat for a command without problems, less whom it is for."""
    asked = with_json_strings(given(command.payload), {"Message"})
    return {**asked, "Command": _name(command)}


def update_fields(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body that brings an agent to these `changeable_parts`, less whom it is for."""
    return {"Command": _COMMANDS[Kind.UPDATE], "Parameters": {"Config": parts}}


def changeable_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a start's `Config` UpdateParameters takes, in its shape; often nothing."""
    asked = given(config)
    parts = {name: asked[name] for name in _CONFIG_PARTS if name in asked}
    llm = given(asked.get("LLMConfig"))
    prompts = {name: llm[name] for name in _LLM_PARTS if name in llm}
    return {**parts, "LLMConfig": prompts} if prompts else parts


def fixed_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a start's `Config` with mere shapes in place of its `changeable_parts`.

    Whether an update replaces or adds to what it names is not documented; with equal keys it is
    all the same. Nor is it that an agent can change the provider of its voice.
    """
    parts = changeable_parts(config)
    fixed = {**config, **shape(parts)}
    if "LLMConfig" in parts:
        fixed["LLMConfig"] = {**config["LLMConfig"], **shape(parts["LLMConfig"])}
    if "TTSConfig" in parts:
        fixed["TTSConfig"]["Provider"] = parts["TTSConfig"]["Provider"]
    return fixed


def _name(command: Command) -> str:
    """Return the `Command`: what the kind means, but for a prompt that asks for the other one."""
    if command.kind is Kind.PROMPT and command.payload.get("Command") == PROMPT_LATER:
        return PROMPT_LATER
    return _COMMANDS[command.kind]
