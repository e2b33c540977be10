"""P5 as checks, which know the store's commits and the vendor's world, and not how they came."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.core.command import Command, CommandState, Kind
from orchestrator.core.lane import CommandFlight, Lane, LaneView, Numbering, Reason, broken
from orchestrator.core.outcome import Indefinite, Outcome
from tests.simulation.checkers import Broken
from tests.simulation.lanes_vendor import NOT_READY, LaneVendor

if TYPE_CHECKING:
    from tests.simulation.lanes_store import LaneStore

CALL_TIMEOUT = timedelta(seconds=2)
TRIES_ENOUGH = 3
"""A release may be left at that after so many tries, of which one may have been heard."""
Key = tuple[str, str]
UNHEARD = {Reason.CANCELLED, Reason.MIXED_SEQUENCE, Reason.INVALID_SEQUENCE}
UNHEARD |= {Reason.INVALID_PAYLOAD, Reason.STALE_SEQUENCE}


@dataclass(slots=True, kw_only=True)
class LaneCheckers:
    """All checks of one world of lanes, with the little that they must remember."""

    gap_timeout: timedelta
    last: dict[Key, tuple[int, str]] = field(default_factory=dict)
    """The highest number announced in a lane, and the command that has it."""
    wire: dict[str, int | None] = field(default_factory=dict)
    """The number that a command was last announced under."""
    first_at: dict[str, datetime] = field(default_factory=dict)
    """When a command was first announced, whatever became of it."""
    busy_until: dict[Key, datetime] = field(default_factory=dict)
    opened: dict[Key, int] = field(default_factory=dict)
    """Lanes whose microphone may be open, and the incarnation that listens."""
    inserted: dict[Key, set[int]] = field(default_factory=lambda: defaultdict(set))
    was_given: dict[Key, bool] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    resent: set[str] = field(default_factory=set)
    """Commands that were announced again, so that "stale" was taken for a proof."""
    vain: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How often a command's outcome was heard to be unknown."""
    away: set[str] = field(default_factory=set)
    """Commands that were refused since their user was not there."""

    # --- when a send is committed

    def announced(self, view: LaneView, flight: CommandFlight) -> None:
        """Order, in time, to the right agent, once. `view` is what the decision saw."""
        command, before, now = flight.command, view.lane, view.now
        key, ended_at = (before.task_id, before.user_id), view.situation.ended_at
        if ended_at is not None and command.created_at <= ended_at:
            raise Broken("incarnation", f"{command.id} was meant for an agent that ended")
        if flight.sent_before is not None and not command.kind.repeatable:
            raise Broken("P5", f"{command.id} may be {command.kind} twice")
        self._in_time(key, flight, now)
        self._before_others(view, command)
        self._holds_nobody(view, command)
        if flight.sequence is not None:
            self._in_order(key, before, flight, now)
        if flight.sent_before is not None:
            self.resent.add(command.id)
        self.tries[command.id] += 1
        self.wire[command.id] = flight.sequence
        self.first_at.setdefault(command.id, now)
        if command.kind is Kind.START_LISTENING:
            self.opened[key] = flight.agent.incarnation

    def _in_time(self, key: Key, flight: CommandFlight, now: datetime) -> None:
        command = flight.command
        if command.expires_at > now:
            return
        may_be_open = self.opened.get(key) == flight.agent.incarnation
        if command.kind is not Kind.STOP_LISTENING or not may_be_open:
            raise Broken("expired", f"{command.kind} {command.id} is sent too late")

    def _before_others(self, view: LaneView, command: Command) -> None:
        """Whatever waits, and is not in flight already, comes later."""
        if command.id == view.lane.command_id:
            return
        first = min((c for c in view.commands), key=lambda c: (c.sequence or 0, c.position))
        if first.id != command.id:
            raise Broken("order", f"{command.id} leaves before {first.id}")

    def _holds_nobody(self, view: LaneView, command: Command) -> None:
        """A stop that nobody confirms is left at that, once a fresh press waits behind it."""
        is_late = command.kind is Kind.STOP_LISTENING and view.now > command.expires_at
        if is_late and command.reason == NOT_READY:
            raise Broken("away", f"{command.id} is tried for a user who is away, and too late")
        if command.kind is not Kind.STOP_LISTENING or self.vain[command.id] < TRIES_ENOUGH:
            return
        if command.reason == NOT_READY:
            return  # Whose microphone it is, is away: no press of theirs would fare better.
        for other in view.commands:
            is_press = other.id not in {command.id, *view.refusals}
            if is_press and other.expires_at > view.now:
                raise Broken("held", f"{other.id} waits for {command.id}, which nobody confirms")

    def _in_order(self, key: Key, before: Lane, flight: CommandFlight, now: datetime) -> None:
        command, sequence = flight.command, flight.sequence
        assert sequence is not None
        last, owner = self.last.get(key, (0, ""))
        if flight.sent_before is not None and self.wire.get(command.id) != sequence:
            raise Broken("P5", f"{command.id} may have left under another number")
        if sequence < last or (sequence == last and owner != command.id):
            raise Broken("P5", f"{command.id} is sent as {sequence}, after {last}")
        self.last[key] = (sequence, command.id)
        is_given = self.was_given.setdefault(key, sequence in self.inserted[key])
        if command.id not in self.wire and (before.numbering is Numbering.GIVEN) > is_given:
            raise Broken("P5", f"{command.id} mixes the numbers of its lane")
        self._no_gap(key, before, flight, now)

    def _no_gap(self, key: Key, before: Lane, flight: CommandFlight, now: datetime) -> None:
        """A number that was never inserted is waited for, whatever the wire's numbers are."""
        command, sequence = flight.command, flight.command.sequence or 0
        is_first = before.last_sequence is None or before.command_id == command.id
        if is_first or sequence not in self.inserted[key]:
            return
        missing = set(range((before.floor or 0) + 1, sequence)) - self.inserted[key]
        since = min(command.created_at, before.gap_since or command.created_at)
        if missing and now - since < self.gap_timeout:
            raise Broken("gap", f"{command.id} overtakes {missing}")

    # --- when a request leaves, and when its sender has heard or given up

    def left(self, key: Key, command: Command, now: datetime) -> None:
        """One in flight."""
        if self.busy_until.get(key, now) > now:
            raise Broken("P5", f"{command.id} leaves while its lane has another in flight")
        self.busy_until[key] = now + CALL_TIMEOUT

    def landed(self, key: Key, now: datetime) -> None:
        self.busy_until[key] = now

    # --- after every commit

    def heard(self, command: Command, outcome: Outcome) -> None:
        if isinstance(outcome, Indefinite):
            self.vain[command.id] += 1
        if outcome.code == NOT_READY:
            self.away.add(command.id)

    def committed(self, lane: Lane, commands: tuple[Command, ...], settled: Command | None) -> None:
        for sentence in broken(lane, commands):
            raise Broken("invariant", f"lane {lane.user_id!r}: {sentence}")
        if settled is None or settled.kind is not Kind.STOP_LISTENING:
            return
        if settled.state is CommandState.DONE:
            self.opened.pop((lane.task_id, lane.user_id), None)

    # --- at every effect

    def took(self, vendor: LaneVendor) -> None:
        """Each command has its effect once, and the presses of a user in order."""
        latest = vendor.effects[-1]
        if latest.command.kind in {Kind.INTERRUPT, Kind.UPDATE}:
            return
        for earlier in vendor.effects[:-1]:
            if earlier.command.id == latest.command.id:
                raise Broken("P5", f"{latest.command.id} had its effect twice")

    # --- at the end, after a quiet time

    def rested(self, store: "LaneStore", vendor: LaneVendor) -> None:
        """Everything is settled as it really went, and no microphone is open for nothing."""
        for command in store.commands.values():
            if command.done_at is None:
                raise Broken("rest", f"{command.id} is {command.state} for ever")
            self._went_so(command, vendor)
            self._was_late(command, store)
        for key, lane in store.lanes.items():
            if lane.command_id is not None:
                raise Broken("rest", f"lane {key} waits for {lane.command_id} for ever")
            self._closed(key, store, vendor)

    def _went_so(self, command: Command, vendor: LaneVendor) -> None:
        was_taken = command.id in vendor.accepted
        # "Stale" to a re-send proves what it should only if the vendor counts what it refuses as
        # little as what others send. A stop that finds nothing to close needs no effect.
        blurs = vendor.is_ahead or vendor.counts_refused
        is_guess = command.kind is Kind.STOP_LISTENING or blurs
        is_guess = is_guess and command.id in self.resent
        if command.state is CommandState.DONE and not was_taken and not is_guess:
            raise Broken("truth", f"{command.id} is done, and the vendor never took it")
        if command.reason == Reason.STALE_SEQUENCE and was_taken:
            raise Broken("truth", f"{command.id} is stale, and the vendor took it")
        if command.state in {CommandState.EXPIRED, CommandState.SUPERSEDED} and was_taken:
            raise Broken("truth", f"{command.id} is {command.state}, and the vendor took it")

    def _was_late(self, command: Command, store: "LaneStore") -> None:
        """What is superseded came after one with its number, or a higher one, was dealt with.

        A press that was never sent is none of these, except under the same number.
        """
        number = store.written[command.id].sequence
        if command.reason != Reason.SUPERSEDED or number is None:
            return
        for other in store.written.values():
            is_same_lane = other.kind.listens and other.user_id == command.user_id
            given = other.sequence if is_same_lane and other.id != command.id else None
            was_sent = other.id in self.wire or other.kind is Kind.STOP_LISTENING
            if given is not None and (given == number or (given > number and was_sent)):
                return
        raise Broken("late", f"{command.id} is superseded, and nothing above {number} was sent")

    def _closed(self, key: Key, store: "LaneStore", vendor: LaneVendor) -> None:
        """An open microphone has no later release, as the application meant the order."""
        press = vendor.instances[max(vendor.instances)].opened_by.get(key[1])
        if press is None:
            return
        opened = order_of(store.written[press.id])
        for command in store.written.values():
            is_release = command.kind is Kind.STOP_LISTENING and command.user_id == key[1]
            reason = store.commands[command.id].reason
            is_tried = command.id in self.away or self.tries[command.id] >= TRIES_ENOUGH
            is_tried = is_tried and reason == Reason.OUTCOME_UNKNOWN
            was_heard = reason not in {*UNHEARD, NOT_READY} and not is_tried
            was_heard = was_heard and not self._was_overtaken(store.commands[command.id], store)
            # Written before the press, whatever its number, and for an agent that has ended.
            is_of_another = reason == Reason.AGENT_ENDED and command.position < press.position
            was_heard = was_heard and not is_of_another
            if is_release and was_heard and order_of(command) > opened:
                raise Broken("microphone", f"{press.id} opened it, {command.id} did not close it")

    def _was_overtaken(self, release: Command, store: "LaneStore") -> bool:
        """Whether a higher number had been sent when it came: it was too late then."""
        if release.reason != Reason.SUPERSEDED or release.done_at is None:
            return False
        for other in store.written.values():
            first_at = self.first_at.get(other.id)
            is_later = other.user_id == release.user_id and order_of(other) > order_of(release)
            if is_later and first_at is not None and first_at <= release.done_at:
                return True
        return False


def order_of(command: Command) -> tuple[int, int]:
    """The order that the application means."""
    return (command.sequence or 0, command.position)
