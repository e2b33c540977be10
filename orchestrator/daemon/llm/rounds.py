"""Recognises repeats: a vendor may ask several times for one turn, and gives each the same id.

It does so before the user has quite finished (Volcengine's Prefill), or when an answer was late
(Tencent's X-Request-Id).
"""

from collections import OrderedDict
from typing import Final

KEPT_MAX: Final = 20_000
"""Rounds that are remembered; a repeat comes within seconds."""


class Rounds:
    """How often each round was asked for, at this daemon."""

    def __init__(self) -> None:
        self._tries: OrderedDict[tuple[str, str], int] = OrderedDict()

    def count(self, agent_id: str, round_: str | None) -> int:
        """Count a request; return the how manieth of its round it is. Without an id: the first."""
        if round_ is None:
            return 1
        key = (agent_id, round_)
        self._tries[key] = self._tries.pop(key, 0) + 1
        if len(self._tries) > KEPT_MAX:
            self._tries.popitem(last=False)
        return self._tries[key]
