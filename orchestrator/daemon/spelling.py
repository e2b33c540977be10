"""What a spec's own words stand for: `{"$secret": "name"}`, and `"$llm_gateway": "upstream"`.

They are spelled out before a spec is judged, and again when its call is made: nothing of what they
stand for is stored. Both times it is the same, unless the configuration was read again in between.

Rule 1: secrets first, since they may stand anywhere; the gateway's address last, since it is one
agent's, and a new agent is named by its spec.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from orchestrator.core.model import Agent
from orchestrator.daemon.book import Book
from orchestrator.providers.base import Problem, Provider, Spec
from orchestrator.providers.llm import asked_upstream, fill_in
from orchestrator.providers.spec import resolve_secrets

PROBLEMS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Misspelt:
    """Words that stand for nothing."""

    reason: str
    """As `agent_status.reason` says it."""
    problems: tuple[Problem, ...]

    @property
    def message(self) -> str:
        """Return it in sentences."""
        return say(self.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Whose spec it is."""

    task_id: str
    agent: Agent
    provider: Provider


def spell(spec: Any, book: Book, speaker: Speaker) -> Spec | Misspelt:
    """Return a spec with all its words spelled out for one agent, or what stands for nothing."""
    resolved = resolve(spec, book)
    return resolved if isinstance(resolved, Misspelt) else connect(resolved, book, speaker)


def resolve(spec: Any, book: Book) -> Spec | Misspelt:
    """Return a spec with its secrets, or those that the configuration does not know."""
    resolved: Spec
    resolved, unknown = resolve_secrets(spec, book.secrets)
    return Misspelt(reason="UnknownSecret", problems=unknown) if unknown else resolved


def connect(spec: Spec, book: Book, speaker: Speaker) -> Spec | Misspelt:
    """Return a spec with the gateway's address of this agent, if it asks for one.

    Which is refused where there is no gateway or no such upstream, or where it asks wrongly.
    """
    find = partial(book.endpoint, speaker.agent.account, speaker.agent, speaker.task_id)
    filled: Spec
    filled, wrong = fill_in(speaker.provider.llm, spec, find)
    if not wrong:
        return filled
    upstream = asked_upstream(speaker.provider.llm, spec)
    is_unknown = upstream is not None and find(upstream) is None
    return Misspelt(reason="UnknownUpstream" if is_unknown else "InvalidSpec", problems=wrong)


def say(problems: tuple[Problem, ...]) -> str:
    """Return the first few problems as sentences, and how many more there are."""
    shown = "; ".join(str(problem) for problem in problems[:PROBLEMS_SHOWN])
    more = len(problems) - PROBLEMS_SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown
