"""The rate limit as arithmetic: a log of the last slots of one account's action.

A token bucket lets twice its rate through in an unlucky second. This log does not: a new slot is
`max(now, slot of L calls ago + WINDOW)`, and a call leaves not before its slot and not more than
`GRACE` after it. `WINDOW` is a second and what a call may be late on our side (grace) and on the
way (jitter), so that no window of one second, as the vendor sees it, holds more than L calls.

Slots may be drawn ahead, each by less than a window, and given back in any order. So the log is
twice as long as L: a slot that is still to come must not push one out that counts until then.

Times are whole microseconds since 1970, by the database's clock. If that is set back, slots of
before lie ahead, and no call would leave until they have passed: see `as_of`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

SECOND_US = 1_000_000
GRACE_US = 100_000
JITTER_US = 150_000
WINDOW_US = SECOND_US + GRACE_US + JITTER_US
KEPT_WINDOWS = 2
AHEAD_MAX_US = 60 * SECOND_US
"""Nothing is drawn or put off as far ahead as that."""

Slot = int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The last slots of one action, oldest first: at most `KEPT_WINDOWS * limit` of them."""

    limit: int
    slots: tuple[Slot, ...] = ()

    def as_of(self, now: Slot) -> "Bucket":
        """Return the bucket at `now`: a slot that no clock can have meant counts as used now."""
        if not self.slots or self.slots[-1] <= now + AHEAD_MAX_US:
            return self
        return self._with(*(s if s <= now + AHEAD_MAX_US else now for s in self.slots))

    def next_slot(self, since: Slot, kept: int = 0) -> Slot:
        """Return when the first call from `since` on may leave.

        `kept` of the slots stay for a higher class.
        """
        usable = max(1, self.limit - kept)
        if len(self.slots) < usable:
            return since
        return max(since, self.slots[-usable] + WINDOW_US)

    def draw(
        self, since: Slot, count: int, *, until: Slot, kept: int = 0
    ) -> tuple["Bucket", tuple[Slot, ...]]:
        """Return up to `count` slots from `since` to `until`, both included, and what is left."""
        bucket, drawn = self, list[Slot]()
        while len(drawn) < count and (slot := bucket.next_slot(since, kept)) <= until:
            drawn.append(slot)
            bucket = bucket._with(*bucket.slots, slot)
        return bucket, tuple(drawn)

    def give_back(self, unused: Iterable[Slot]) -> "Bucket":
        """Return the bucket without slots that no call used."""
        left = list(self.slots)
        for slot in unused:
            if slot in left:
                left.remove(slot)
        return replace(self, slots=tuple(left))

    def throttle(self, until: Slot) -> "Bucket":
        """Return the bucket after the vendor said "too many": no slot before `until`."""
        blocked = until - WINDOW_US
        return self._with(*(max(s, blocked) for s in self.slots), *[blocked] * self.limit)

    def _with(self, *slots: Slot) -> "Bucket":
        return replace(self, slots=tuple(sorted(slots)[-KEPT_WINDOWS * self.limit :]))
