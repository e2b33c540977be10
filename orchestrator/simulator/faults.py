"""What goes wrong on purpose: scripted for the next calls, or by a seeded ratio.

Rule 1: a fault is drawn once per call, before the vendor looks at it; a script goes before a ratio.
Rule 2: the name of a fault says whether the call has its effect. A client must never be able to
tell from the answer when a real vendor's answer would not tell.
"""

import random
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.simulator.wire import Refusal


class Kind(StrEnum):
    """The faults. Without effect: lose_request, throttle, code. All others come after the effect.

    `delay` holds the request before its effect, which then comes even if the client has gone.
    """

    LOSE_REQUEST = "lose_request"  # the connection is reset before the effect
    LOSE_REPLY = "lose_reply"  # the effect, then the connection is reset
    DELAY = "delay"  # `ms` later: effect and answer
    DELAY_REPLY = "delay_reply"  # the effect, and `ms` later the answer
    HANG = "hang"  # the effect, and no answer until the client gives up
    HTTP_500 = "http_500"
    HTML = "html"
    HALF_JSON = "half_json"
    HUGE = "huge"  # 30 MB
    EMPTY = "empty"
    THROTTLE = "throttle"  # the vendor's own words for too many calls
    CODE = "code"  # a code of the vendor's, given as `code`
    DIES = "dies"  # the start is answered well, and the agent ends at once by a fault
    DROP = "drop"  # of a callback: it is never sent
    DOUBLE = "double"  # of a callback: it is sent twice


OF_CALLBACKS = frozenset({Kind.DROP, Kind.DOUBLE, Kind.DELAY})
"""What can go wrong with a callback. A delayed one is overtaken by later ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one call."""

    kind: Kind
    ms: int = 0
    code: str = ""
    status: int = 200
    message: str = "scripted"

    def refusal(self) -> Refusal:
        """Return what a vendor would say with this code."""
        return Refusal(self.code, self.message, self.status)


@dataclass(slots=True)
class _Script:
    fault: Fault
    left: int


OF_CALLS = frozenset(Kind) - {Kind.DROP, Kind.DOUBLE}

ANY_ACTION = "*"


class Faults:
    """The faults to come. The same seed and the same calls give the same faults."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.clear()

    def clear(self) -> None:
        """Forget all scripts and ratios and begin the seed anew."""
        self._lots = random.Random(self._seed)  # noqa: S311 - a seeded history, not a secret
        self._scripts: dict[str, deque[_Script]] = {}
        self._ratios: dict[str, list[tuple[float, Fault]]] = {}

    def script(self, action: str, n: int, fault: Fault) -> None:
        """Let the next `n` calls of `action` (`*`: any) meet `fault`, after those asked before."""
        self._scripts.setdefault(action, deque()).append(_Script(fault, n))

    def set_ratio(self, action: str, ratio: float, fault: Fault) -> None:
        """Let calls of `action` (`*`: any) meet `fault` with this probability; 0 ends it."""
        others = [r for r in self._ratios.get(action, []) if r[1].kind is not fault.kind]
        self._ratios[action] = [*others, (ratio, fault)] if ratio else others

    def draw(self, *actions: str) -> Fault | None:
        """Return what this call meets, if anything. Of the names given, the first goes first."""
        for name in actions if self._scripts else ():
            if name in self._scripts:
                return self._next_scripted(name)
        return self._by_lot(actions) if self._ratios else None

    def pending(self) -> dict[str, int]:
        """Return how many scripted faults are still to come, by action."""
        return {name: sum(s.left for s in queue) for name, queue in self._scripts.items()}

    def _next_scripted(self, action: str) -> Fault:
        queue = self._scripts[action]
        script = queue[0]
        script.left -= 1
        if script.left == 0:
            queue.popleft()
        if not queue:
            del self._scripts[action]
        return script.fault

    def _by_lot(self, actions: tuple[str, ...]) -> Fault | None:
        lot = self._lots.random()
        for ratio, fault in [r for name in actions for r in self._ratios.get(name, [])]:
            if lot < ratio:
                return fault
            lot -= ratio
        return None
