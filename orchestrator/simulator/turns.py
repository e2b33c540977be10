"""The turns of the conversations with the customers' own LLMs: the newest, for whoever looks.

Rule 1: bounded. What was said and answered is shown: it is a test's own; a key never is.
Rule 2: a turn is there as soon as the user speaks, and filled in as the answer comes.
"""

from collections import deque
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from orchestrator.simulator.world import Vendor

KEPT = 1000
"""Turns that are kept; older ones are forgotten."""


@dataclass(slots=True, kw_only=True)
class Turn:
    """One thing that the user said, and what came of it."""

    seq: int
    at: datetime
    vendor: Vendor
    account: str
    agent: str
    """The agent's name in this simulator."""
    handle: str
    room_id: str
    user_id: str
    round: int
    request_id: str
    zombie: bool
    """The agent had ended when the user spoke."""
    said: str
    answered: str = ""
    """The words that came back."""
    status: int | None = None
    """HTTP status; null where nothing was answered."""
    chunks: int = 0
    """Those with words."""
    first_token_ms: float | None = None
    total_ms: float | None = None
    finish_reason: str | None = None
    requests: int = 0
    """How many were sent: 2 where an early one was abandoned."""
    interrupted: bool = False
    fault: str | None = None
    """The first rule that the answer broke, a colon, and what was found."""
    done: bool = False

    def shown(self) -> dict[str, Any]:
        """Return it as `/_sim/turns` shows it."""
        return asdict(self) | {"at": self.at.isoformat()}


class TurnLog:
    """A bounded ring of turns, numbered from 1."""

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque(maxlen=KEPT)
        self.last = 0
        """The number of the newest turn."""

    def next_seq(self) -> int:
        """Return the number of the turn that begins now."""
        self.last += 1
        return self.last

    def add(self, turn: Turn) -> None:
        """Keep a turn that has begun."""
        self._turns.append(turn)

    def since(self, seq: int) -> list[dict[str, Any]]:
        """Return the turns after number `seq`, oldest first."""
        return [turn.shown() for turn in self._turns if turn.seq > seq]
