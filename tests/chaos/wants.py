"""When each row wanted an agent, from the diary alone.

Rule: the doubt goes to the daemon. A span begins with the first try to write the wish, and ends
when what ended it was committed for sure, or when the deadline or the last heartbeat ran out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tests.chaos.diary import Diary, Span, Wish
from tests.chaos.owners import TIMEOUT_S

FOR_EVER: Final = datetime.max.replace(tzinfo=UTC)
OWNER_TIMEOUT: Final = timedelta(seconds=TIMEOUT_S)
GAP: Final = timedelta(seconds=3)
"""An outage of the daemons after which no application is blamed for its silence; theirs is two
seconds longer, and their last heartbeat before it may be that old."""


@dataclass
class _Open:
    """A span whose end is not known yet."""

    begins: datetime
    lapses: datetime


def wanted_spans(diary: Diary, task_id: str) -> list[Span]:
    """Return when a row wanted an agent: one span for each incarnation, oldest first."""
    spans: list[Span] = []
    current: _Open | None = None
    for wish in diary.wishes.get(task_id, ()):
        if wish.renews and current is not None:
            spans.append(_closed(current, wish.committed_at))
            current = None
        if not wish.wanted:
            continue
        if wish.renews:
            current = _Open(wish.begun_at, _lapse(diary, wish))
        elif current is not None and current.lapses > wish.begun_at:
            current.lapses = _lapse(diary, wish)
    return spans if current is None else [*spans, _closed(current, FOR_EVER)]


def born_in(spans: Sequence[Span], at: datetime) -> Span | None:
    """Return the newest span that holds an instant."""
    return next((span for span in reversed(spans) if span.holds(at)), None)


def _closed(current: _Open, at: datetime) -> Span:
    return Span(current.begins, max(current.begins, min(current.lapses, at)))


def _lapse(diary: Diary, wish: Wish) -> datetime:
    """Return when time alone ends what a row wants."""
    deadline = FOR_EVER if wish.stop_at is None else max(wish.stop_at, wish.committed_at)
    return deadline if wish.owner is None else min(deadline, _silent(diary, wish))


def _silent(diary: Diary, wish: Wish) -> datetime:
    """Return when an owner's silence counts: a full time-out after each gap of the daemons."""
    last = max(diary.beats.get(wish.owner or "", wish.committed_at), wish.committed_at)
    silent = last + OWNER_TIMEOUT
    for spell in diary.spells:
        is_gap = spell.is_total and spell.ended_at - spell.began_at > GAP
        if is_gap and spell.ended_at > last and spell.began_at < silent:
            silent = max(silent, spell.ended_at + OWNER_TIMEOUT)
    return silent
