"""What a lane is before a command leaves, and what an outcome makes of it.

Rule 1: intent before effect. After an announce the lane and the command say the worst: the number
is used up, the command was sent, and a start has opened the microphone.
Rule 2: an outcome without effect takes back what its own announce added, and nothing of what an
earlier send left unknown. The number is never taken back.
Rule 3: nothing here decides whether a command is tried again; it says when at the earliest.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from orchestrator.core import backoff
from orchestrator.core.command import Command, CommandState, Kind
from orchestrator.core.lane import (
    CommandFlight,
    Lane,
    LaneStep,
    LaneView,
    Numbering,
    Reason,
    Send,
)
from orchestrator.core.model import Account
from orchestrator.core.outcome import (
    Denied,
    Done,
    Expired,
    Gone,
    Indefinite,
    NotSent,
    Outcome,
    Refused,
    Settled,
    Throttled,
)

NOT_READY_PAUSE = timedelta(milliseconds=200)
"""How long after "the user is not publishing yet" we ask again: a press must feel immediate, and
ten calls per second are all that a vendor allows for everybody."""


def announce_lane(view: LaneView, send: Send) -> tuple[Lane, CommandFlight]:
    """Return the lane with the command in flight, and the flight with the command as it now is.

    Both are written, durably, before anything leaves. The caller adds the lease.
    """
    given, lane = send.command, view.lane
    command = replace(
        given,
        state=CommandState.SENDING,
        sent_at=given.sent_at or view.now,
        sequence=send.sequence if given.sequence is None else given.sequence,
    )
    announced = replace(
        lane,
        incarnation=send.agent.incarnation,
        last_sequence=lane.last_sequence if send.sequence is None else send.sequence,
        given_sequence=_left_behind(view, send),
        numbering=view.numbering if lane.listens else None,
        command_id=command.id,
        listening=view.may_listen or command.kind is Kind.START_LISTENING,
        renumber=False,
        retry_at=None,
        gap_since=None,
        version=lane.version + 1,
    )
    flight = CommandFlight(
        command=command,
        sequence=send.sequence,
        agent=send.agent,
        sent_before=given.sent_at,
        listening_before=view.may_listen,
        announced_at=view.now,
        version=announced.version,
    )
    return announced, flight


def _left_behind(view: LaneView, send: Send) -> int | None:
    """Return the application's number of what leaves under another."""
    is_given = view.lane.listens and view.numbering is Numbering.GIVEN
    return send.command.sequence if is_given and send.sequence != send.command.sequence else None


def evolve_lane(lane: Lane, flight: CommandFlight, settled: Settled, account: Account) -> LaneStep:
    """Return the lane and its command after the call of `flight` came to `settled`.

    Only for a lane that awaits this flight (`lane.is_awaited`).
    """
    outcome = settled.outcome
    heard = replace(flight.command, request_id=outcome.request_id or flight.command.request_id)
    flight = replace(flight, command=heard)
    if flight.sequence is not None and outcome.code in account.caps.stale_codes:
        return _stale(lane, flight, settled, account)
    if outcome.code in account.caps.not_ready_codes:
        return _not_ready(lane, flight, settled)
    match outcome:
        case Done():
            return _done(lane, flight, outcome, settled.answered_at)
        case Refused():
            reason, message = outcome.code or "Refused", outcome.message
            return _fail(_untouched(lane, flight), flight, reason, message, settled)
        case Indefinite():
            return _unknown(lane, flight, settled, account)
        case Throttled():
            pause = outcome.after or account.retry_base
            return _again(lane, flight, settled, pause, lane.attempt)
        case NotSent() | Denied() | Expired() | Gone():
            # The account's trouble is not the command's: a rotated key may come in time.
            step = _again(lane, flight, settled, _backoff(lane, account), lane.attempt + 1)
            return replace(step, is_gone=isinstance(outcome, Gone))
        case _:
            assert_never(outcome)


# --- it had its effect


def _done(lane: Lane, flight: CommandFlight, outcome: Done, at: datetime) -> LaneStep:
    done = replace(
        flight.command,
        state=CommandState.DONE,
        reason=None,
        message=outcome.message or None,
        result=outcome.result,
        done_at=at,
    )
    return LaneStep(lane=replace(lane, listening=_listens(lane, flight)).release(), command=done)


def _listens(lane: Lane, flight: CommandFlight) -> bool:
    """Return whether the microphone may be open once the command was taken.

    After a stop it is closed for good: a start that is still on its way has a lower number.
    """
    match flight.command.kind:
        case Kind.START_LISTENING:
            return True
        case Kind.STOP_LISTENING:
            return False
        case Kind.INTERRUPT | Kind.SAY | Kind.PROMPT | Kind.FUNCTION_RESULT | Kind.UPDATE:
            return lane.listening
        case _:
            assert_never(flight.command.kind)


def _stale(lane: Lane, flight: CommandFlight, settled: Settled, account: Account) -> LaneStep:
    """The vendor has seen this number, or a higher one.

    After it had refused the same command as not ready: it counted what it refused, so that this
    proves nothing, and a new number will do. Of a re-send: it was the first send that the vendor
    saw, for nothing else of the lane was in flight. Of a first send: the lane is behind, and
    nothing happened.
    """
    was_refused = flight.command.reason in account.caps.not_ready_codes
    if flight.sent_before is not None:
        if was_refused:
            message = "its number was used up, by an earlier send or by a refusal"
            return _fail(lane, flight, Reason.OUTCOME_UNKNOWN, message, settled)
        taken = Done(message="taken at an earlier send: the vendor knows its number")
        return _done(lane, flight, taken, settled.answered_at)
    lane = _untouched(lane, flight)
    if was_refused:
        return _wait(replace(lane, renumber=True), flight, settled, timedelta(), sent_at=None)
    is_press = flight.command.kind is Kind.START_LISTENING
    if lane.jumped or (is_press and lane.numbering is Numbering.GIVEN):
        message = f"the vendor has seen a higher sequence than {flight.sequence}"
        return _fail(lane, flight, Reason.STALE_SEQUENCE, message, settled)
    lane = replace(lane, renumber=True, jumped=True)
    return _wait(lane, flight, settled, timedelta(), sent_at=None)


# --- it had none


def _not_ready(lane: Lane, flight: CommandFlight, settled: Settled) -> LaneStep:
    """The user is away, or not publishing yet: no trouble of ours, and worth asking again soon.

    Whether the vendor counts a number that it refuses so is open. Where numbers are drawn, or the
    application's are left behind already, the next one is drawn, unless an earlier send may have
    been taken under this one.
    """
    is_drawn = lane.numbering is Numbering.DRAWN or lane.given_sequence is not None
    is_free = is_drawn and flight.sent_before is None
    lane = replace(_untouched(lane, flight), renumber=is_free)
    return _wait(lane, flight, settled, NOT_READY_PAUSE, sent_at=flight.sent_before)


def _again(
    lane: Lane, flight: CommandFlight, settled: Settled, pause: timedelta, attempt: int
) -> LaneStep:
    lane = replace(_untouched(lane, flight), attempt=attempt)
    return _wait(lane, flight, settled, pause, sent_at=flight.sent_before)


def _untouched(lane: Lane, flight: CommandFlight) -> Lane:
    """Return the lane without the open microphone that this announce added."""
    return replace(lane, listening=flight.listening_before)


def _wait(
    lane: Lane,
    flight: CommandFlight,
    settled: Settled,
    pause: timedelta,
    *,
    sent_at: datetime | None,
) -> LaneStep:
    """Return the command as it waits for its next try: in flight for its lane, on no wire."""
    command = replace(
        _tell(flight.command, settled.outcome),
        state=CommandState.QUEUED if sent_at is None else CommandState.SENDING,
        sent_at=sent_at,
    )
    return LaneStep(lane=replace(lane, retry_at=settled.answered_at + pause), command=command)


def _fail(
    lane: Lane, flight: CommandFlight, reason: str, message: str, settled: Settled
) -> LaneStep:
    failed = replace(
        flight.command,
        state=CommandState.FAILED,
        reason=str(reason),
        message=message or None,
        done_at=settled.answered_at,
    )
    return LaneStep(lane=lane.release(), command=failed)


# --- nobody knows


def _unknown(lane: Lane, flight: CommandFlight, settled: Settled, account: Account) -> LaneStep:
    """What may be repeated is sent again; what may not is left unsaid rather than said twice."""
    if not flight.command.kind.repeatable:
        outcome = settled.outcome
        message = f"{outcome.code} {outcome.message}".strip() or "no answer"
        return _fail(lane, flight, Reason.OUTCOME_UNKNOWN, message, settled)
    command = _tell(flight.command, settled.outcome)
    retry_at = settled.answered_at + _backoff(lane, account)
    return LaneStep(
        lane=replace(lane, retry_at=retry_at, attempt=lane.attempt + 1), command=command
    )


def _backoff(lane: Lane, account: Account) -> timedelta:
    key = lane.command_id or lane.task_id
    return backoff.delay(account.retry_base, account.retry_cap, lane.attempt, key)


def _tell(command: Command, outcome: Outcome) -> Command:
    """Write down the present trouble, the vendor's code first."""
    reason = outcome.code or type(outcome).__name__
    return replace(command, reason=reason, message=outcome.message or None)
