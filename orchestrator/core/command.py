"""What an application can ask of a running agent, in the words of the SQL interface."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

OTHERS = ""
"""`lane.user_id` of the lane that all kinds but listening share."""


class Kind(StrEnum):
    """`agent_command.kind`."""

    START_LISTENING = "start_listening"
    STOP_LISTENING = "stop_listening"
    INTERRUPT = "interrupt"
    SAY = "say"
    PROMPT = "prompt"
    FUNCTION_RESULT = "function_result"
    UPDATE = "update"

    @property
    def listens(self) -> bool:
        """Whether it opens or closes the microphone: ordered by `sequence`, per user."""
        return self in {Kind.START_LISTENING, Kind.STOP_LISTENING}

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does no harm. What is not, is sent at most once."""
        return self.listens or self in {Kind.INTERRUPT, Kind.UPDATE}


class CommandState(StrEnum):
    """`agent_command.state`."""

    QUEUED = "queued"
    SENDING = "sending"
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A row of `agent_command`."""

    id: str
    position: int
    task_id: str
    kind: Kind
    user_id: str
    sequence: int | None
    """Given by the application, or by the daemon at the claim; null until then."""
    payload: Any = field(default_factory=dict)
    """An object of the vendor's own fields; text, if it is nested too deeply to be read."""
    created_at: datetime
    expires_at: datetime
    state: CommandState = CommandState.QUEUED
    reason: str | None = None
    message: str | None = None
    request_id: str | None = None
    result: Mapping[str, Any] | None = None
    sent_at: datetime | None = None
    """When it first left, or may have."""
    done_at: datetime | None = None

    @property
    def lane_user(self) -> str:
        """Return whose lane it is in: its user's if it listens, else that of the others."""
        return self.user_id if self.kind.listens else OTHERS
