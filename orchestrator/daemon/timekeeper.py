"""Notices when the database's clock is set, and keeps what depends on it right.

The boot clock of this machine goes on whatever anybody sets, also while the host sleeps. So two
looks at the database's clock tell whether that was set between them.

Rule 1: it looks before anything else in each transaction that decides by the time: no row is read
before what was to come has been put off.
Rule 2: what it remembers of the database is what the database was seen to hold. A transaction that
is rolled back changes nothing of that, and the next one does its work.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from orchestrator.clock import Anchor, boot_ns
from orchestrator.core.steps import NOTICED, set_by
from orchestrator.store import steps
from orchestrator.store.engine import Connection
from orchestrator.store.engine import now as database_now

SHARP_NS: Final = 500_000_000
"""A look that took longer, because something stood still meanwhile, does not tell the time."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreed:
    """A look at which the database was known to have recorded all steps before it."""

    anchor: Anchor
    recorded: timedelta


class Timekeeper:
    """What one daemon knows of the database's clock."""

    def __init__(self) -> None:
        self._last: Anchor | None = None
        self._agreed: _Agreed | None = None
        self._is_written = False
        """Whether it has recorded a step since, in a transaction of which it has not heard."""
        self.set_by = timedelta(0)
        """By how much the clock was set since this daemon began, ahead less back."""

    def now(self) -> datetime:
        """Return the database's time, or a little later, without asking it."""
        assert self._last is not None, "nobody has looked yet"  # noqa: S101 - a look is the first thing a daemon takes
        return self._last.not_earlier(boot_ns())

    def set_since(self, anchor: Anchor) -> timedelta:
        """Return by how much the clock was set since a look, as far as has been noticed."""
        return timedelta(0) if self._last is None else _step(anchor, self._last)

    def look(self, connection: Connection) -> datetime:
        """Return the database's time. See `keep`."""
        anchor = _look(connection)
        self.keep(connection, anchor)
        return anchor.then

    def keep(self, connection: Connection, anchor: Anchor) -> None:
        """Compare a look with the last; if the clock was set ahead, put off what was to come.

        `anchor` is a look of this same transaction, which has locked nothing yet.
        """
        if anchor.after_ns - anchor.before_ns > SHARP_NS:
            anchor = _look(connection)
        self._note(anchor)
        agreed = self._agreed
        if agreed is None:
            self._agree(anchor, steps.read(connection))
            return
        step = _step(agreed.anchor, anchor)
        if not step and not self._is_written:
            self._agree(anchor, agreed.recorded)
            return
        recorded = steps.lock(connection)
        left = step - (recorded - agreed.recorded)
        if abs(left) <= NOTICED:
            # Another daemon was first, or this one, in a transaction that is seen to have held.
            self._agree(anchor, recorded)
            return
        self._is_written = True
        steps.record(connection, recorded + left)
        if left > timedelta(0):
            steps.put_off_horizons(connection, anchor.then, left)

    def _agree(self, anchor: Anchor, recorded: timedelta) -> None:
        self._agreed = _Agreed(anchor=anchor, recorded=recorded)
        self._is_written = False

    def _note(self, anchor: Anchor) -> None:
        step = timedelta(0) if self._last is None else _step(self._last, anchor)
        if step:
            self.set_by += step
            log.warning("clock_stepped", seconds=round(step.total_seconds(), 3))
        self._last = anchor


def _look(connection: Connection) -> Anchor:
    before_ns = boot_ns()
    return Anchor(then=database_now(connection), before_ns=before_ns, after_ns=boot_ns())


def _step(earlier: Anchor, later: Anchor) -> timedelta:
    passed = timedelta(microseconds=(later.before_ns - earlier.after_ns) // 1000)
    return set_by(later.then - earlier.then, passed, NOTICED)
