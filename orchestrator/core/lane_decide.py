"""What to do next about one lane: settle what can never be sent, send one command, or rest.

Rule 1: `decide_lane` is total and pure. Each `Settle` leaves fewer commands, so that deciding again
after it comes to a send or a rest.
Rule 2: a lane has one command in flight. Until it is settled, nothing else of the lane leaves.
Rule 3: the commands of a user are judged in their order, and no further than the first that may
still be sent: whether a release is too late depends on what becomes of its press.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from orchestrator.core.command import Command, CommandState, Kind
from orchestrator.core.lane import (
    Lane,
    LaneAction,
    LaneView,
    Numbering,
    Pause,
    Reason,
    Rest,
    Send,
    Settle,
    Standing,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HIGHEST = 2**62
"""The highest number that is taken: a lane that must leave it behind still has room above, both at
the vendor and in the database, where it is a signed 64-bit number."""
CLOSING_TRIES, YIELDING_TRIES = 8, 3
"""A stop that was sent, and that nobody confirms, is given up after so many tries in vain: a late
one after the first, and any after the second while a fresh press or another release waits behind
it. The vendor may have nothing to close, and say so in words that leave the effect open."""
NET = timedelta(minutes=1)
"""A lane with commands is looked at at least this often, whatever else fails."""
LOOK = timedelta(seconds=1)
"""One that waits for what nobody promised a time for is looked at this often: that its agent runs,
or that its account is free again, is told by a hint, and a hint can be lost. A press cannot wait
for `NET`."""


def decide_lane(view: LaneView) -> LaneAction:
    """Return the next step for a lane that was just claimed."""
    for rung in (_ended, _cancelled, _misnumbered, _superseded, _unsendable):
        verdicts = tuple(rung(view))
        if verdicts:
            return _settle(view, verdicts)
    return _next(view)


def settle_forgotten(lane: Lane, commands: Iterable[Command], now: datetime) -> Settle:
    """Return the end of a lane whose task is deleted and forgotten: nothing of it is ever sent."""
    ended = replace(lane.release(), listening=False)
    return Settle(lane=ended, commands=tuple(_forget(command, now) for command in commands))


def _forget(command: Command, now: datetime) -> Command:
    reason, message = Reason.TASK_ENDED, "its task was deleted, and nothing of it runs"
    if command.sent_at is not None:
        reason, message = Reason.OUTCOME_UNKNOWN, "nobody knows if it was taken"
    return replace(
        command, state=CommandState.FAILED, reason=str(reason), message=message, done_at=now
    )


# --- what can never be sent


def _ended(view: LaneView) -> Iterator[Command]:
    """The agent they were for has ended, or there will be none; or nobody may send them twice."""
    situation, lane = view.situation, view.lane
    for command in view.commands:
        if command.sent_at is not None:
            if lane.incarnation <= situation.retired or not command.kind.repeatable:
                yield _fail(view, command, Reason.OUTCOME_UNKNOWN, "nobody knows if it was taken")
        elif situation.ended_at is not None and command.created_at <= situation.ended_at:
            message = "its agent ended while it was queued"
            yield _close(view, command, CommandState.EXPIRED, Reason.AGENT_ENDED, message)
        elif situation.standing is Standing.ENDED:
            yield _fail(view, command, Reason.TASK_ENDED, "no agent runs, and none is to come")


def _cancelled(view: LaneView) -> Iterator[Command]:
    for command in view.commands:
        if command.id in view.cancelled and command.sent_at is None:
            message = "taken back before it was sent"
            yield _close(view, command, CommandState.SUPERSEDED, Reason.CANCELLED, message)


def _misnumbered(view: LaneView) -> Iterator[Command]:
    if not view.lane.listens:
        return
    is_given = view.numbering is Numbering.GIVEN
    for command in view.queue:
        if command.sequence is not None and not 0 < command.sequence <= HIGHEST:
            message = "a sequence is positive, and at most 2 to the 62nd"
            yield _fail(view, command, Reason.INVALID_SEQUENCE, message)
        elif (command.sequence is not None) is not is_given:
            message = f"the numbers of this lane are {view.numbering}, all or none"
            yield _fail(view, command, Reason.MIXED_SEQUENCE, message)


def _superseded(view: LaneView) -> Iterator[Command]:
    if not view.lane.listens:
        return
    for command in view.queue:
        floor = _floor(view, command)
        if floor is not None and command.sequence is not None and command.sequence <= floor:
            message = f"sequence {command.sequence} is not above {floor}, where its lane is"
            yield _close(view, command, CommandState.SUPERSEDED, Reason.SUPERSEDED, message)


def _floor(view: LaneView, command: Command) -> int | None:
    """Return the number that a command must be above.

    What was passed over bars a press, and not the release of a microphone that may be open.
    """
    return view.lane.newest_given if _must_go(view, command) else view.lane.floor


def _must_go(view: LaneView, command: Command) -> bool:
    """Whether it closes a microphone that may be open."""
    return command.kind is Kind.STOP_LISTENING and view.may_listen


def _unsendable(view: LaneView) -> Iterator[Command]:
    """What no vendor would take, or what comes too late."""
    for command in _judged(view):
        verdict = _refuse(view, command) or _expire(view, command)
        if verdict is not None:
            yield verdict
        elif view.lane.listens:
            return


def _judged(view: LaneView) -> tuple[Command, ...]:
    head = view.head
    if head is None:
        return view.queue
    return (head,) if view.lane.listens else (head, *view.queue)


def _refuse(view: LaneView, command: Command) -> Command | None:
    refusal = view.refusals.get(command.id)
    if refusal is None or command.sent_at is not None:
        return None
    return _fail(view, command, refusal.reason, refusal.message)


def _expire(view: LaneView, command: Command) -> Command | None:
    """An old press must not open the microphone; but what may be open is always closed."""
    has_time = command.expires_at > view.now or _must_go(view, command)
    if has_time and not _may_give_up(view, command):
        return None
    if command.sent_at is not None:
        return _fail(view, command, Reason.OUTCOME_UNKNOWN, "nobody knows if it was taken")
    reason = command.reason or Reason.EXPIRED
    return _close(view, command, CommandState.EXPIRED, reason, command.message or "it is too late")


def _may_give_up(view: LaneView, command: Command) -> bool:
    """Whether it is a stop that was sent, and often enough to leave it at that.

    The microphone still counts as open: the next release is always sent.
    """
    if command.kind is not Kind.STOP_LISTENING:
        return False
    is_late = command.expires_at <= view.now
    if command.reason in view.account.caps.not_ready_codes:
        return is_late  # The vendor had an answer: whose microphone it is, is not there.
    if command.sent_at is None:
        return False
    if view.lane.attempt >= CLOSING_TRIES:
        return is_late
    return view.lane.attempt >= YIELDING_TRIES and any(_urges(view, c) for c in view.queue)


def _urges(view: LaneView, waiting: Command) -> bool:
    """Whether it would leave if the stop before it made way: a fresh one, or another release."""
    is_fresh = waiting.expires_at > view.now or waiting.kind is Kind.STOP_LISTENING
    return is_fresh and waiting.id not in view.refusals


def _settle(view: LaneView, commands: tuple[Command, ...]) -> Settle:
    lane = replace(view.lane, passed_sequence=_passed(view, commands))
    if any(command.id == lane.command_id for command in commands):
        lane = lane.release()
    return Settle(lane=lane, commands=commands)


def _passed(view: LaneView, commands: tuple[Command, ...]) -> int | None:
    """Return the highest number passed over, once these are settled: below it nothing is pressed.

    A press passes only itself: what comes below it later has a release of its own, or that of the
    later press. So its number counts if none is missing before it, lest it be waited for; if one
    is, the wait is for that one anyway.
    """
    lane = view.lane
    if not lane.listens or view.numbering is Numbering.DRAWN:
        return lane.passed_sequence
    floor, passed = lane.floor, lane.passed_sequence
    for command in sorted(commands, key=lambda c: c.sequence or 0):
        number = command.sequence
        if number is None or command.reason == Reason.INVALID_SEQUENCE:
            continue
        is_above = floor is None or number > floor
        if is_above and (number - 1 == floor or _bars(view, command, commands)):
            floor = passed = number
    return passed


def _bars(view: LaneView, command: Command, settled: tuple[Command, ...]) -> bool:
    """Whether it is a release: no press below it may be sent any more, for it would stay open.

    One that the application takes back bars nothing that waits already.
    """
    if command.kind is not Kind.STOP_LISTENING:
        return False
    if command.reason != Reason.CANCELLED:
        return True
    number, ids = command.sequence or 0, {c.id for c in settled}
    return not any(
        c.sequence is not None and c.sequence < number for c in view.queue if c.id not in ids
    )


def _fail(view: LaneView, command: Command, reason: str, message: str) -> Command:
    return _close(view, command, CommandState.FAILED, reason, message)


def _close(
    view: LaneView, command: Command, state: CommandState, reason: str, message: str
) -> Command:
    return replace(command, state=state, reason=str(reason), message=message, done_at=view.now)


# --- what can


def _next(view: LaneView) -> Send | Rest:
    lane, head = view.lane, view.head
    first = head or next(iter(view.queue), None)
    if first is None:
        # What a cut view leaves out waits for the next look, which can be taken at once.
        return Rest(lane=replace(lane, gap_since=None), until=view.now if view.is_cut else None)
    if head is not None and lane.retry_at is not None and lane.retry_at > view.now:
        return _rest(view, Pause.RETRY, lane.retry_at)
    gap = None if head is not None else _gap(view, first)
    if gap is not None:
        gap_since = lane.gap_since or view.now
        if gap_since + view.gap_timeout > view.now:
            waits = replace(view, lane=replace(lane, gap_since=gap_since))
            return _rest(waits, Pause.GAP, gap_since + view.gap_timeout)
    return _send(view, first, gap)


def _send(view: LaneView, command: Command, gap: tuple[int, int] | None) -> Send | Rest:
    agent = view.situation.agent
    if agent is None:
        return _rest(view, Pause.AGENT)
    if view.account.frozen:
        return _rest(view, Pause.FROZEN)
    return Send(command=command, agent=agent, sequence=_number(view, command), skipped=gap)


def _gap(view: LaneView, command: Command) -> tuple[int, int] | None:
    """Return the numbers missing before this one. Nothing is missing before the first of a lane."""
    floor = view.lane.floor
    if command.sequence is None or floor is None or view.lane.last_sequence is None:
        return None
    return (floor + 1, command.sequence - 1) if command.sequence > floor + 1 else None


def _number(view: LaneView, command: Command) -> int | None:
    """Return the number on the wire: the same again for what may have left under it.

    Else it is the command's own, unless the wire is past that.
    """
    lane = view.lane
    if not lane.listens:
        return None
    if command.id == lane.command_id and not lane.renumber:
        return lane.last_sequence
    last = lane.last_sequence or 0
    if command.sequence is not None and command.sequence > last:
        return command.sequence
    return max(last + 1, (view.now - EPOCH) // timedelta(milliseconds=1))


def _rest(view: LaneView, why: Pause, until: datetime | None = None) -> Rest:
    """Rest until a time, or until the next command that waits is too late."""
    times = [c.expires_at for c in _judged(view)]
    look = view.now + (LOOK if why in {Pause.AGENT, Pause.FROZEN} else NET)
    times = [t for t in (*times, until, look) if t is not None and t > view.now]
    return Rest(lane=view.lane, until=min(times), why=why)
