"""How often what came to nothing is written of one agent: who asks in vain may ask as he likes.

A handful at once, and then one a second; what is not written is counted all the same.
"""

from collections import OrderedDict
from typing import Final

BURST: Final = 30
EVERY_NS: Final = 1_000_000_000
AGENTS_MAX: Final = 10_000


class Thrift:
    """Lets through what is rare."""

    def __init__(self) -> None:
        self._paid_until_ns: OrderedDict[str, int] = OrderedDict()
        """By agent: each that is let through moves it by `EVERY_NS`."""

    def allows(self, agent_id: str, now_ns: int) -> bool:
        """Return whether one more may be written of an agent at `now_ns` (`boot_ns`)."""
        paid_ns = max(now_ns, self._paid_until_ns.pop(agent_id, now_ns))
        is_rare = paid_ns < now_ns + BURST * EVERY_NS
        self._paid_until_ns[agent_id] = paid_ns + EVERY_NS if is_rare else paid_ns
        if len(self._paid_until_ns) > AGENTS_MAX:
            self._paid_until_ns.popitem(last=False)
        return is_rare
