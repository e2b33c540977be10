"""What the harness itself did, and when: the checkers' only source beside the vendors and the rows.

Rule: an instant that is not known exactly is kept as two, and whoever judges gives the doubt to the
daemon: a wish to run counts from before its transaction, the end of one from after its commit.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One committed edit of a row, and what the row wanted from then on."""

    task_id: str
    what: str
    begun_at: datetime
    committed_at: datetime
    wanted: bool
    renews: bool
    """Whether it ends what ran before, and begins anew if the row is wanted."""
    stop_at: datetime | None = None
    owner: str | None = None
    policy: str = "never"


@dataclass(frozen=True, kw_only=True)
class Spell:
    """A time in which something was wrong."""

    kind: str
    began_at: datetime
    ended_at: datetime
    is_total: bool
    """Whether nobody could work meanwhile: no daemon, or no database."""

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.began_at).total_seconds()


@dataclass
class Diary:
    """Everything, oldest first."""

    wishes: dict[str, list[Wish]] = field(default_factory=dict)
    spells: list[Spell] = field(default_factory=list)
    stalls: list[Spell] = field(default_factory=list)
    """When the machine, or the simulated vendors' process, stood still."""
    beats: dict[str, datetime] = field(default_factory=dict)
    """The last heartbeat of each owner."""
    strangers: set[str] = field(default_factory=set)
    """User ids of the agents that the harness started beside the daemons."""
    ended: set[str] = field(default_factory=set)
    """Agents that the harness let the vendor end."""
    presses: int = 0
    """Listening commands that were inserted."""
    deaths: list[str] = field(default_factory=list)
    """Daemons that ended without being asked to."""

    @property
    def edits(self) -> int:
        """Return how many edits of rows there were."""
        return sum(map(len, self.wishes.values()))

    def note(self, wish: Wish) -> None:
        """Note an edit."""
        self.wishes.setdefault(wish.task_id, []).append(wish)

    def count_spells(self) -> Counter[str]:
        """Return how many troubles of each kind there were."""
        return Counter(spell.kind for spell in self.spells)

    def excuses(self, recovery: timedelta) -> list["Span"]:
        """Return when nobody could work, with the time to notice that it is over."""
        total = [
            Span(spell.began_at, spell.ended_at + recovery)
            for spell in self.spells
            if spell.is_total
        ]
        return merged([*total, *(Span(one.began_at, one.ended_at) for one in self.stalls)])

    def shown(self, task_id: str) -> list[dict[str, Any]]:
        """Return the edits of a row, for people."""
        return [asdict(wish) for wish in self.wishes.get(task_id, [])]


@dataclass(frozen=True)
class Span:
    """From an instant to a later one."""

    begins: datetime
    ends: datetime

    @property
    def seconds(self) -> float:
        return max(0.0, (self.ends - self.begins).total_seconds())

    def holds(self, at: datetime) -> bool:
        """Return whether an instant lies in it."""
        return self.begins <= at < self.ends

    def common(self, other: "Span") -> "Span":
        """Return what two have in common; of no length if nothing."""
        begins = max(self.begins, other.begins)
        return Span(begins, max(begins, min(self.ends, other.ends)))


def merged(spans: Sequence[Span]) -> list[Span]:
    """Return spans that do not overlap, and cover the same instants."""
    whole: list[Span] = []
    for span in sorted(spans, key=lambda one: one.begins):
        if whole and span.begins <= whole[-1].ends:
            whole[-1] = Span(whole[-1].begins, max(whole[-1].ends, span.ends))
        else:
            whole.append(span)
    return whole
