"""What a vendor tells without being asked, as values, and which agent it speaks of.

Rule 1: a fact is a hint that something has happened. It is evidence only where its signature covers
what it says (`Fact.is_signed`), and then only if no later send of the name can undo it.
Rule 2: facts come late, twice and in any order. What counts is when it happened at the vendor.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from orchestrator.core.model import Agent, EndReason

CLOCK_NOISE: Final = timedelta(seconds=1)
"""How far a vendor's time may be off although its clock is known: a `Date` has whole seconds."""


ASKED: Final = "AskedGateway"
"""The code of a fact that no callback told: an agent asked our LLM gateway for words. A name in it
is that of one ledger row, for it came with that row's token."""


class Event(StrEnum):
    """`vendor_fact.event`: what happened, the same words for every vendor."""

    STARTED = "started"  # the agent is there
    ENDED = "ended"  # it is not there any more, or never came to be
    FAULT = "fault"  # it is there, and cannot hear or speak
    ALIVE = "alive"  # something that only a living agent does
    SEEN = "seen"  # its user id stood in a room, when another agent was looked for


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A row of `vendor_fact`: one event in the life of one agent."""

    key: str
    """The vendor's own, so that a repeated callback is one fact."""
    event: Event
    event_at: datetime
    """When it happened, by the database's clock as far as the vendor's is known."""
    position: int = 0
    """The vendor's order among the facts of one agent, where it gives one."""
    vendor_task_id: str | None = None
    name: str | None = None
    """A name that we may have given: the session's, or the agent's user id."""
    room_id: str | None = None
    user_id: str | None = None
    code: str | None = None
    message: str | None = None
    """What the code means, in our words: never a word that was spoken."""
    end_reason: EndReason | None = None
    """Why it ended; null where the vendor does not say."""
    is_signed: bool = False
    """The signature covers what is said here. Else somebody may have repeated an old one."""

    @property
    def is_asking(self) -> bool:
        """Whether it is a request at our LLM gateway: its time is ours, a name in it is certain."""
        return self.code == ASKED


def in_order(facts: Iterable[Fact]) -> list[Fact]:
    """Return facts in the order in which they happened: the vendor's own, where it gives one.

    Its times are put right by an estimate of its clock, which may differ from one to the next.
    """
    return sorted(facts, key=lambda fact: (fact.position, fact.event_at, fact.key))


def is_past(fact: Fact, agents: Sequence[Agent], past: Collection[str]) -> bool:
    """Return whether a fact about a row is about an agent of it that has ended.

    `agents` are the row's open ones, `past` the handles of ended ones. Several agents may bear one
    name, and one whose handle is not known must not be given that of another.
    """
    if fact.vendor_task_id not in past:
        return False
    return all(agent.vendor_task_id != fact.vendor_task_id for agent in agents)


def find(agents: Sequence[Agent], fact: Fact) -> Agent | None:
    """Return the agent, of several of one row, that a fact speaks of; null if that is not certain.

    A handle decides. A name alone stands for the newest agent that bears it, and a handle that
    nobody has may only be that of the one agent of the name whose handle is not known.
    """
    if fact.vendor_task_id is not None:
        for agent in agents:
            if agent.vendor_task_id == fact.vendor_task_id:
                return agent
    named = [agent for agent in agents if bears(agent, fact)]
    if fact.vendor_task_id is None:
        return named[-1] if named else None
    nameless = [agent for agent in named if agent.vendor_task_id is None]
    return nameless[0] if len(nameless) == 1 else None


def bears(agent: Agent, fact: Fact) -> bool:
    """Return whether an agent was announced under the name in a fact."""
    return fact.name is not None and fact.name in (agent.session_name, agent.name)
