"""The request bodies of Tencent's actions: which fields there are, their types, and which must be.

Source: the request classes of the vendor's SDK, API 2019-07-22. The gateway knows every field: one
that it does not know is `UnknownParameter`, a wrong type `InvalidParameter`, an absent one
`MissingParameter`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.simulator.wire import Refusal, parse_object


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its JSON type, whether it must be there, and what an object holds."""

    kind: type
    required: bool = False
    fields: Mapping[str, "Field"] | None = None
    code: str = "MissingParameter"
    choices: tuple[int, ...] = ()
    """The numbers that it may be; empty: any."""
    holds_json: bool = False
    """Of a string: it holds a JSON object."""


Body = Mapping[str, Field]

_TEXT = Field(str)
_JSON = Field(str, holds_json=True)
_NUMBER = Field(int)
_SWITCH = Field(int, choices=(0, 1))
_FLAG = Field(bool)
_LIST = Field(list)
_OBJECT = Field(dict)
_MUST_TEXT = Field(str, required=True)

_AGENT_CONFIG: Body = {
    "UserId": _MUST_TEXT,
    "UserSig": _MUST_TEXT,
    "TargetUserId": _MUST_TEXT,
    "MaxIdleTime": _NUMBER,
    "WelcomeMessage": _TEXT,
    "WelcomeMessagePriority": _SWITCH,
    "InterruptMode": _SWITCH,
    "InterruptSpeechDuration": _NUMBER,
    "InterruptWordList": _LIST,
    "TurnDetectionMode": _NUMBER,
    "TurnDetection": _OBJECT,
    "FilterOneWord": _FLAG,
    "FilterBracketsContent": _NUMBER,
    "SubtitleMode": _SWITCH,
    "AmbientSound": _OBJECT,
    "VoicePrint": _OBJECT,
}

_STT_CONFIG: Body = {
    "Language": _TEXT,
    "AlternativeLanguage": _LIST,
    "VadSilenceTime": _NUMBER,
    "VadLevel": _NUMBER,
    "HotWordList": _TEXT,
    "CustomParam": _TEXT,
}

_SERVER_PUSH_TEXT: Body = {
    "Text": _TEXT,
    "Audio": _TEXT,
    "Interrupt": _FLAG,
    "StopAfterPlay": _FLAG,
    "DropMode": _SWITCH,
    "Priority": _SWITCH,
    "AddHistory": _FLAG,
    "MetaInfo": _JSON,
}

_TASK_ID = Field(str, required=True, code="InvalidParameter.TaskId")
_APP = Field(int, required=True, code="MissingParameter.SdkAppId")
_USERS = Field(list, required=True, code="MissingParameter.UserIds")
_NUMERIC_ROOM = Field(int, required=True, code="MissingParameter.RoomId")
_STRING_ROOM = Field(str, required=True, code="MissingParameter.RoomId")

BODIES: Mapping[str, Body] = {
    "StartAIConversation": {
        "SdkAppId": Field(int, required=True),
        "RoomId": _MUST_TEXT,
        "RoomIdType": _SWITCH,
        "AgentConfig": Field(dict, required=True, fields=_AGENT_CONFIG),
        "SessionId": _TEXT,
        "STTConfig": Field(dict, fields=_STT_CONFIG),
        "LLMConfig": _JSON,
        "TTSConfig": _JSON,
        "AvatarConfig": _JSON,
        "ExperimentalParams": _TEXT,
    },
    "DescribeAIConversation": {"SdkAppId": _NUMBER, "TaskId": _TEXT, "SessionId": _TEXT},
    "StopAIConversation": {"TaskId": _TASK_ID},
    "UpdateAIConversation": {
        "TaskId": _TASK_ID,
        "WelcomeMessage": _TEXT,
        "InterruptMode": _SWITCH,
        "InterruptSpeechDuration": _NUMBER,
        "LLMConfig": _JSON,
        "TTSConfig": _JSON,
    },
    "ControlAIConversation": {
        "TaskId": _TASK_ID,
        "Command": _MUST_TEXT,
        "ServerPushText": Field(dict, fields=_SERVER_PUSH_TEXT),
        "InvokeLLM": Field(
            dict, fields={"Content": _TEXT, "Interrupt": _FLAG, "ExperimentalParams": _TEXT}
        ),
        "TransparentData": Field(dict, fields={"Data": _MUST_TEXT}),
    },
    "RemoveUser": {"SdkAppId": _APP, "RoomId": _NUMERIC_ROOM, "UserIds": _USERS},
    "RemoveUserByStrRoomId": {"SdkAppId": _APP, "RoomId": _STRING_ROOM, "UserIds": _USERS},
    "DismissRoom": {"SdkAppId": _APP, "RoomId": _NUMERIC_ROOM},
    "DismissRoomByStrRoomId": {"SdkAppId": _APP, "RoomId": _STRING_ROOM},
}


def read_body(known: Body, body: object, path: str = "") -> dict[str, Any]:
    """Return the fields that are there; a null counts as absent.

    Raises:
        Refusal: with the gateway's code for the first thing that is wrong, naming its path.
    """
    if not isinstance(body, dict):
        raise Refusal("InvalidParameter", f"{path or 'the body'}: expected an object")
    for name in body:
        if name not in known:
            raise Refusal("UnknownParameter", f"{path}{name} is unknown")
    given = {name: value for name, value in body.items() if value is not None}
    for name, field in known.items():
        if name in given:
            _read_field(field, given[name], path + name)
        elif field.required:
            raise Refusal(field.code, f"{path}{name} is required")
    return given


def _read_field(field: Field, value: object, path: str) -> None:
    # In JSON, as here, true is no number.
    fits = isinstance(value, field.kind) and (field.kind is bool or not isinstance(value, bool))
    if not fits:
        raise Refusal("InvalidParameter", f"{path}: expected {field.kind.__name__}")
    if field.choices and value not in field.choices:
        raise Refusal("InvalidParameter", f"{path}: expected one of {field.choices}")
    if field.holds_json and parse_object(str(value).encode(errors="replace")) is None:
        raise Refusal("InvalidParameter", f"{path}: expected a string that holds a JSON object")
    if field.required and field.kind is str and not value:
        raise Refusal(field.code, f"{path} is empty")
    if field.fields is not None:
        read_body(field.fields, value, path + ".")
