"""A vendor of walkie-talkie agents, as far as it is documented; what is open is a switch.

It enforces Sequence per instance and user, knows who publishes, and remembers what had an effect.
"""

from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from orchestrator.core.command import Command, Kind
from orchestrator.core.outcome import Done, Gone, Indefinite, Outcome, Refused

STALE, NOT_READY = "410001043", "410001046"


@dataclass(slots=True, kw_only=True)
class LaneRequest:
    """A command on its way; `lost_in_reset` if its connection was reset before it arrived."""

    command: Command
    incarnation: int
    lost_in_reset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a command changed, and when."""

    command: Command
    incarnation: int
    at: datetime


@dataclass(slots=True, kw_only=True)
class Talker:
    """One running instance."""

    last: dict[str, int] = field(default_factory=dict)
    opened_by: dict[str, Command] = field(default_factory=dict)
    """Whose microphone is open, and which press was the last to ask for it."""


@dataclass(slots=True, kw_only=True)
class LaneVendor:
    """All instances of one task, one for each incarnation."""

    lots: Random
    takes_equal: bool
    counts_refused: bool
    """Whether what is refused as not ready uses its number up."""
    is_ahead: bool
    """Whether somebody else has talked to a new instance, under higher numbers."""
    instances: dict[int, Talker] = field(default_factory=dict)
    muted: set[str] = field(default_factory=set)
    """Users who do not publish at present."""
    away: set[str] = field(default_factory=set)
    """Users who are not in the room at present; a microphone that is open stays so."""
    effects: list[Effect] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    """Ids of commands that were answered with success, whether or not anybody heard it."""

    def begin(self, incarnation: int, users: tuple[str, ...]) -> None:
        last = dict.fromkeys(users, 30) if self.is_ahead else {}
        self.instances[incarnation] = Talker(last=last)

    def answer(self, request: LaneRequest, now: datetime) -> Outcome:
        """Carry out a command; return what the vendor says."""
        talker = self.instances.get(request.incarnation)
        if talker is None:
            return Gone(code="410001002")
        command = request.command
        if not command.kind.listens:
            return self._accept(request, now, has_effect=True)
        assert command.sequence is not None
        last = talker.last.get(command.user_id)
        is_newer = last is None or command.sequence > last
        is_equal = command.sequence == last
        if not is_newer and not (is_equal and self.takes_equal):
            return Refused(code=STALE)
        return self._listen(talker, request, command.sequence, now)

    def _listen(
        self, talker: Talker, request: LaneRequest, sequence: int, now: datetime
    ) -> Outcome:
        command, user = request.command, request.command.user_id
        is_open = user in talker.opened_by
        is_start = command.kind is Kind.START_LISTENING
        if user in self.away or (is_start and user in self.muted):
            if self.counts_refused:
                talker.last[user] = sequence
            return Refused(code=NOT_READY)
        if is_start:
            talker.last[user] = sequence
            talker.opened_by[user] = command
            return self._accept(request, now, has_effect=not is_open)
        talker.last[user] = sequence
        if not is_open:
            return Indefinite(code="410001045")
        del talker.opened_by[user]
        return self._accept(request, now, has_effect=True)

    def _accept(self, request: LaneRequest, now: datetime, *, has_effect: bool) -> Outcome:
        self.accepted.add(request.command.id)
        if has_effect:
            effect = Effect(command=request.command, incarnation=request.incarnation, at=now)
            self.effects.append(effect)
        return Done(result={"Round": len(self.effects)})
