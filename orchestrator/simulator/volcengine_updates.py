"""The commands of Volcengine's UpdateVoiceChat: which there are in a version, and what each wants.

Sources: docs/6348/1316245 (2024-06-01), docs/6348/1404671 (2024-12-01) and its page for 2025-06-01,
the vendor's parameter table in its MCP server. Rule: `interrupt` and `function` go without regard
to case, since the vendor's own demos write them both ways; so do the others.
"""

import json
from collections.abc import Mapping
from typing import NoReturn

from orchestrator.simulator.switches import Switches
from orchestrator.simulator.wire import Fields, Refusal

_Required = Mapping[str, tuple[str, ...]]
"""Commands without case, with what each requires."""

_FIRST: _Required = {"interrupt": (), "function": ("Message",)}
_SECOND: _Required = {
    **_FIRST,
    "externaltexttospeech": ("Message", "InterruptMode"),
    "externalpromptsforllm": ("Message",),
    "externaltexttollm": ("Message", "InterruptMode"),
    "finishspeechrecognition": (),
}
_THIRD: _Required = {
    **_SECOND,
    "updateparameters": ("Parameters",),
    "setttscontext": (),
    "updatevoiceprintsv": (),
    "updatefarfieldconfig": (),
}
_COMMANDS: Mapping[str, _Required] = {
    "2024-06-01": _FIRST,
    "2024-12-01": _SECOND,
    "2025-06-01": _THIRD,
}
"""By API version."""


def check_update(version: str, body: Fields, switches: Switches) -> None:
    """Refuse a command that the version does not have, or that lacks what it needs."""
    command = body.get("Command")
    if not isinstance(command, str) or not command:
        _refuse("Command is required")
    required = _COMMANDS[version].get(command.lower())
    if required is None:
        _refuse(f"Command {command!r} is unknown")
    for name in required:
        _check_field(command, name, body.get(name))
    if command.lower() == "function":
        _check_result(body["Message"])
    limit = switches.volcengine_speech_limit
    if command.lower() == "externaltexttospeech" and limit:
        _check_length(body["Message"], limit, switches)


def _check_length(text: str, limit: int, switches: Switches) -> None:
    if switches.length(text) > limit:
        _refuse(f"Message is longer than {limit} characters")


def _check_field(command: str, name: str, value: object) -> None:
    match name:
        case "Message":
            fits = isinstance(value, str) and value != ""
        case "InterruptMode":
            fits = type(value) is int and value in {1, 2, 3}
        case _:
            fits = isinstance(value, dict) and isinstance(value.get("Config"), dict)
    if not fits:
        _refuse(f"{name} is missing, or not what Command {command} requires")


def _check_result(message: str) -> None:
    """Refuse a tool's result that is no JSON object with what it must hold."""
    try:
        result = json.loads(message)
    except (ValueError, RecursionError):
        _refuse("Message is not JSON")
    held = result if isinstance(result, dict) else {}
    if not all(isinstance(held.get(name), str) for name in ("ToolCallID", "Content")):
        _refuse("Message must hold ToolCallID and Content")


def _refuse(message: str) -> NoReturn:
    raise Refusal("InvalidParameter", message, 400)
