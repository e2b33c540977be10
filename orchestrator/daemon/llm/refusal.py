"""Why a request is not served, and what its sender hears: OpenAI's words, none of its own.

A vendor takes any of them for the end of the turn.
"""

from enum import Enum
from http import HTTPStatus

from orchestrator.core.turn import TurnReason

_BAD = "invalid_request_error"


class Refusal(Enum):
    """A refusal: its name in metrics, the HTTP status, OpenAI's `type`, a sentence."""

    STRANGER = ("stranger", HTTPStatus.NOT_FOUND, _BAD, "there is no such agent")
    FORGED = (
        "forged",
        HTTPStatus.UNAUTHORIZED,
        "authentication_error",
        "the token is not this agent's",
    )
    GARBLED = ("garbled", HTTPStatus.BAD_REQUEST, _BAD, "the body is no chat completion")
    LARGE = ("large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _BAD, "the body is too large")
    SLOW = ("slow", HTTPStatus.REQUEST_TIMEOUT, _BAD, "the body came too slowly")
    FAILED = (
        "failed",
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "server_error",
        "this request could not be served",
    )
    BUSY = ("busy", HTTPStatus.SERVICE_UNAVAILABLE, "server_error", "too many turns at once")

    def __init__(self, word: str, status: HTTPStatus, kind: str, sentence: str) -> None:
        self.word = word
        self.status = status
        self.kind = kind
        self.sentence = sentence

    @property
    def reason(self) -> str:
        """Return the reason of the turn that came to this (`llm_turn.reason`)."""
        match self:
            case Refusal.LARGE:
                return TurnReason.TOO_LARGE.value
            case Refusal.SLOW:
                return TurnReason.SLOW.value
            case Refusal.BUSY:
                return TurnReason.BUSY.value
            case _:
                return TurnReason.NOT_CHAT.value
