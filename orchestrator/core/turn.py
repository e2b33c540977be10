"""A turn at the LLM gateway as values: who asks, whether it is to be served, what came of it.

Rule 1: who asks is alive. An agent that nobody wants is answered with an end, and is stopped again.
Rule 2: what cannot be looked up in time is served: a talking user is not cut off because our
database is away.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class TurnOutcome(StrEnum):
    """`llm_turn.outcome`: what became of a request."""

    ANSWERED = "answered"
    INTERRUPTED = "interrupted"  # the vendor hung up: somebody spoke, or it asked anew
    CUT = "cut"  # the upstream broke off in the middle; the stream was ended for it
    FAILED = "failed"  # no upstream said anything; the turn was ended politely
    REFUSED = "refused"  # the request itself was none
    ENDED = "ended"  # nobody wants this agent any more

    @property
    def is_trouble(self) -> bool:
        """Whether somebody may want to know of this one turn, so that it is worth an event."""
        return self not in {TurnOutcome.ANSWERED, TurnOutcome.INTERRUPTED}


class TurnReason(StrEnum):
    """`llm_turn.reason`: ours, and closed, so that no upstream's text comes in."""

    NO_WORD = "NoFirstToken"  # nothing was said within first_token_timeout_ms
    TOTAL_TIMEOUT = "TotalTimeout"
    UNREACHABLE = "UpstreamUnreachable"
    STATUS = "UpstreamStatus"  # another one than 200; it stands behind it: UpstreamStatus429
    NO_STREAM = "UpstreamNoStream"  # 200, and no text/event-stream
    GARBLED = "UpstreamGarbled"  # what came is no chunk
    ERROR = "UpstreamError"  # it says itself that it failed
    BROKEN = "UpstreamBroken"  # the connection ended before the answer did
    SILENT = "UpstreamSilent"  # it ended without a word
    TOO_LONG = "UpstreamTooLong"
    UNKNOWN_UPSTREAM = "UnknownUpstream"  # a reload has taken it away
    BUSY = "Busy"  # more turns at once than this daemon serves
    DRAINING = "Draining"
    NOT_CHAT = "NotChat"
    TOO_LARGE = "BodyTooLarge"
    SLOW = "BodySlow"
    STOPPED = "TaskStopped"
    SUPERSEDED = "AgentSuperseded"
    GONE = "AgentGone"  # by evidence, which was wrong then
    UNKNOWN = "AgentUnknown"  # no row of the ledger


class Standing(StrEnum):
    """What the ledger says of an agent that asks."""

    WANTED = "wanted"
    STOPPED = "stopped"
    SUPERSEDED = "superseded"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What the database knows of an agent that asks."""

    vendor_task_id: str | None
    ended_at: datetime | None
    incarnation: int
    retired: int | None
    """Incarnations up to this one have ended, or must; null: no status is left."""
    is_wanted: bool
    """The task's row is there and wants to run."""
    is_confirmed: bool
    """Somebody has seen the incarnation alive."""


def stand(caller: Caller | None) -> Standing:
    """Return whether an agent that asks is wanted."""
    if caller is None:
        return Standing.UNKNOWN
    if caller.ended_at is not None:
        return Standing.GONE
    if not caller.is_wanted or caller.retired is None:
        return Standing.STOPPED
    if caller.incarnation <= caller.retired:
        return Standing.SUPERSEDED
    return Standing.WANTED


def is_news(caller: Caller | None, handle: str | None) -> bool:
    """Return whether it is worth writing down that the agent asked, so that its row is looked at.

    `handle`: the vendor's, as the request tells it; null: it tells none. Of an agent that is
    wanted, known by this handle and was seen alive there is nothing to learn.
    """
    if caller is None or stand(caller) is not Standing.WANTED:
        return True
    if caller.vendor_task_id is None or not caller.is_confirmed:
        return True
    return handle is not None and handle != caller.vendor_task_id
