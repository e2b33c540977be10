"""How far ahead a slot is drawn, so that its call can be there before the grace is over.

A slot is a time by the database's clock. Between reading that clock and standing at the slot lie
the rest of the draw, and often a claim. Where that takes longer than the grace (a database far
away, a machine with too much to do) a slot drawn for now is over before anybody can use it, and so
is the next: no call would ever leave. So the way is measured at every call, and slots are drawn as
far ahead as the way is long. Where it is short, that is not at all.
"""

from dataclasses import dataclass

from orchestrator.core.bucket import GRACE_US

LEAD_MAX_US = 1_000_000
"""Shorter than a window: `Bucket` remembers two windows, this one and the one that is drawn."""
AIM_US = GRACE_US // 2
"""A call that needs as long as the last one arrives in the middle of its grace."""
_FADE = 8


@dataclass(frozen=True, slots=True)
class Lead:
    """How far ahead slots are drawn, microseconds."""

    us: int = 0

    def after(self, took_us: int) -> "Lead":
        """Return the lead after a call needed `took_us` to its slot.

        A longer way counts at once, because one that is too long is no call at all; a shorter one
        little by little.
        """
        needed = max(0, took_us - AIM_US)
        if needed >= self.us:
            return Lead(min(needed, LEAD_MAX_US))
        return Lead(self.us - max(1, (self.us - needed) // _FADE))
