"""Wrong cores of lanes, each with one rule left out, each of which a checker must catch."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.core import lane, lane_decide, lane_evolve
from orchestrator.core.command import Command, Kind
from orchestrator.core.lane import (
    CommandFlight,
    Lane,
    LaneStep,
    LaneView,
    Rest,
    Send,
    Settle,
    Standing,
)
from orchestrator.core.model import Account
from orchestrator.core.outcome import Done, Settled
from tests.simulation.checkers import Broken
from tests.simulation.lanes import build
from tests.simulation.lanes_checkers import Key
from tests.simulation.lanes_store import LaneStore
from tests.simulation.mutation import Mutant, applied

SEEDS = 600
"""Seeds after which a mutant counts as escaped."""

_number, _ended, _release = lane_decide._number, lane_decide._ended, Lane.release
_settle: Callable[..., Settle] = lane_decide._settle
_next, _may_give_up = lane_decide._next, lane_decide._may_give_up
_again, _announce, _unknown = lane_evolve._again, lane_evolve.announce_lane, lane_evolve._unknown


def catch_lane(mutant: Mutant) -> str | None:
    """Return which checker catches a mutant, and at which seed; None if none does."""
    with applied(mutant):
        for seed in range(SEEDS):
            try:
                build(seed).run()
            except Broken as broken:
                return f"{broken.check} at seed {seed}"
    return None


# --- order


def _new_number_each_time(view: LaneView, command: Command) -> int | None:
    """A re-send goes out under a number of its own, without thinking."""
    return _number(replace(view, lane=replace(view.lane, renumber=True)), command)


def _forget_numbers(given: Lane) -> Lane:
    """The last number goes with the command that had it: retention, or a restart, loses it."""
    return replace(_release(given), last_sequence=None, passed_sequence=None)


def _no_gap(_view: LaneView, _command: Command) -> None:
    return None


def _nothing(*_: Any) -> tuple[Command, ...]:
    return ()


def _never(*_: Any) -> None:
    return None


def _bar_every_late_one(view: LaneView, _command: Command) -> int | None:
    """What was passed over bars a release too."""
    return view.lane.floor


def _announce_without_number(view: LaneView, send: Send) -> tuple[Lane, CommandFlight]:
    """The number is not durable before the request leaves."""
    announced, flight = _announce(view, send)
    return replace(announced, last_sequence=view.lane.last_sequence), flight


def _unordered(given: LaneView) -> tuple[Command, ...]:
    """Presses leave as they were inserted."""
    waiting = [c for c in given.commands if c.id != given.lane.command_id]
    return tuple(sorted(waiting, key=lambda c: c.position))


# --- one in flight, once


def _never_leased(_store: LaneStore, _key: Key, _now: datetime) -> bool:
    return False


def _always_awaited(_lane: Lane, _flight: CommandFlight) -> bool:
    return True


def _always_repeatable(_kind: Kind) -> bool:
    return True


def _unsent_after_all(given: Lane, flight: CommandFlight, settled: Settled, *rest: Any) -> LaneStep:
    """A definite failure of a re-send erases what an earlier send left unknown."""
    return _again(given, replace(flight, sent_before=None), settled, *rest)


def _lost_is_unsent(given: Lane, flight: CommandFlight, settled: Settled, *rest: Any) -> LaneStep:
    """A start that nobody answered has opened nothing."""
    step = _unknown(given, flight, settled, *rest)
    return replace(step, lane=replace(step.lane, listening=flight.listening_before))


def _stale_is_done(
    given: Lane, flight: CommandFlight, settled: Settled, _account: Account
) -> LaneStep:
    """Stale on a first send counts as taken."""
    return lane_evolve._done(given, flight, Done(), settled.answered_at)


# --- in time, to the right agent, and closed


def _closed_by_failure(given: Lane, _flight: CommandFlight) -> Lane:
    return replace(given, listening=False)


def _ended_by_standing(view: LaneView) -> Any:
    """What was queued for an agent that ended goes to the next."""
    if view.situation.standing is Standing.ENDED:
        yield from _ended(view)


def _drop_expired_stop(_view: LaneView, _command: Command) -> bool:
    return False


def _give_up_at_once(view: LaneView, command: Command) -> bool:
    is_stop = command.kind is Kind.STOP_LISTENING and command.sent_at is not None
    return (is_stop and command.expires_at <= view.now) or _may_give_up(view, command)


def _insist_while_fresh(view: LaneView, command: Command) -> bool:
    """A stop that nobody confirms is tried until its own time is over."""
    return command.expires_at <= view.now and _may_give_up(view, command)


def _wait_for_the_user(view: LaneView, command: Command) -> bool:
    """A late release is tried until its user is back."""
    unsaid = replace(command, reason=None)
    return _may_give_up(replace(view, commands=(*view.queue, unsaid)), unsaid)


def _forget_passed(view: LaneView, commands: tuple[Command, ...]) -> Settle:
    settled = _settle(view, commands)
    return replace(settled, lane=replace(settled.lane, passed_sequence=None))


def _jump_for_all(view: LaneView, send: Send) -> tuple[Lane, CommandFlight]:
    """What the wire has left behind is too late, whoever numbers."""
    announced, flight = _announce(view, send)
    return replace(announced, given_sequence=None), flight


def _bar_with_all(view: LaneView, commands: tuple[Command, ...]) -> int | None:
    """A press that is settled unsent bars what is below it, like a release."""
    numbers = [c.sequence for c in commands if c.sequence is not None and view.lane.listens]
    known = view.lane.passed_sequence
    return max([*numbers, known or 0]) or None


def _forget_the_rest(view: LaneView) -> Send | Rest:
    """What one look does not see is not there."""
    return _next(replace(view, is_cut=False))


def _of(name: str, owner: Any, attribute: str, wrong: Any) -> Mutant:
    return Mutant(name=name, owner=owner, attribute=attribute, wrong=wrong)


LANE_MUTANTS = (
    _of("a re-send under a new number", lane_decide, "_number", _new_number_each_time),
    _of("the last number is forgotten with its command", Lane, "release", _forget_numbers),
    _of("the number is not durable", lane_evolve, "announce_lane", _announce_without_number),
    _of("a gap is overtaken", lane_decide, "_gap", _no_gap),
    _of("presses leave as they came", LaneView, "queue", property(_unordered)),
    _of("stale ones are sent", lane_decide, "_superseded", _nothing),
    _of("numbers are mixed", lane_decide, "_misnumbered", _nothing),
    _of("what was passed over is forgotten", lane_decide, "_settle", _forget_passed),
    _of("what was passed over bars a release", lane_decide, "_floor", _bar_every_late_one),
    _of("two in flight", LaneStore, "is_leased", _never_leased),
    _of("a lost flight settles all the same", lane, "is_awaited", _always_awaited),
    _of("everything may be repeated", Kind, "repeatable", property(_always_repeatable)),
    _of("a failed re-send proves nothing was sent", lane_evolve, "_again", _unsent_after_all),
    _of("an unanswered start opened nothing", lane_evolve, "_unknown", _lost_is_unsent),
    _of("stale on a first send is done", lane_evolve, "_stale", _stale_is_done),
    _of("expired presses are sent", lane_decide, "_expire", _never),
    _of("a late stop is dropped", lane_decide, "_must_go", _drop_expired_stop),
    _of("a late stop that was sent is given up at once", lane_decide, "_may_give_up",
        _give_up_at_once),
    _of("a stop holds a press to its own end", lane_decide, "_may_give_up", _insist_while_fresh),
    _of("a late release waits for its user", lane_decide, "_may_give_up", _wait_for_the_user),
    _of("a jump leaves the application behind", lane_evolve, "announce_lane", _jump_for_all),
    _of("a press that was never sent bars others", lane_decide, "_passed", _bar_with_all),
    _of("what is not seen is not there", lane_decide, "_next", _forget_the_rest),
    _of("no effect closes the microphone", lane_evolve, "_untouched", _closed_by_failure),
    _of("old presses reach a new agent", lane_decide, "_ended", _ended_by_standing),
)  # fmt: skip
