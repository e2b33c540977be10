"""Who says something by themselves: users who talk at a pace, interrupt and hesitate. No I/O.

Rule 1: an agent's user says the same at the same rounds of the same seed, whatever others do.
Rule 2: an agent that is left out once is forgotten; who comes back begins anew.
"""

import random
from collections.abc import Iterable
from datetime import datetime, timedelta

from orchestrator.simulator.questions import Utterance
from orchestrator.simulator.world import Agent

INTERRUPTED = 0.2
"""The share of the answers that the user interrupts, after 0 to 3 chunks with words."""
REPEATED = 0.1
"""The share of the rounds of which an early request is abandoned."""

_SENTENCES = (
    "What is the weather like tomorrow?",
    "Tell me something about lighthouses.",
    "How long does an egg have to boil?",
    "Wait, what did you say?",
    "And why is that so?",
    "Thank you, that was all.",
)


class Chatter:
    """The pace of all conversations, and what is said in them."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._next: dict[Agent, datetime] = {}

    def due(
        self, agents: Iterable[Agent], now: datetime, every: timedelta
    ) -> list[tuple[Agent, Utterance]]:
        """Return whose user says something now, and what. `agents`: all that could be spoken to."""
        upcoming = {
            agent: self._next.get(agent, (agent.joined_at or now) + every) for agent in agents
        }
        due = [agent for agent, at in upcoming.items() if at <= now]
        self._next = upcoming | dict.fromkeys(due, now + every)
        return [(agent, self._utterance(agent)) for agent in due]

    def _utterance(self, agent: Agent) -> Utterance:
        lots = random.Random(f"{self._seed}/{agent.number}/{agent.round}")  # noqa: S311 - a history
        return Utterance(
            text=lots.choice(_SENTENCES),
            interrupt_after=lots.randrange(4) if lots.random() < INTERRUPTED else None,
            repeat=lots.random() < REPEATED,
        )
