"""What vendors told, as the store keeps it: each fact once, whom it concerns, and what nobody took.

Rule: nothing is judged here. A fact waits until a claim applies it to its row, or until the watch
has found that it fits none.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchestrator.core.fact import Event, Fact, is_past
from orchestrator.core.model import Agent

SIGNS_OF_LIFE = {Event.ALIVE, Event.SEEN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A fact in the store."""

    account: str
    fact: Fact
    received_at: datetime
    is_taken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A ledger row with the id of the row that it belongs to."""

    owner: str
    agent: Agent


@dataclass(slots=True, kw_only=True)
class Facts:
    """The table of facts. `ledger` is given where facts are compared with it."""

    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)
    untaken: dict[tuple[str, str], None] = field(default_factory=dict)
    """The keys of those that nobody took, in the order in which they came."""

    def receive(
        self, account: str, fact: Fact, entries: Iterable[Entry], now: datetime
    ) -> set[str]:
        """Keep a fact that is new; return the rows that it may concern. No time is yet to come."""
        concerned = {one.owner for one in entries if speaks_of(fact, one.agent)}
        key = (account, fact.key)
        is_sign = fact.event in SIGNS_OF_LIFE and not fact.is_asking
        if key in self.kept or (is_sign and _is_known(fact, entries)):
            return set()
        fact = replace(fact, event_at=min(fact.event_at, now))
        self.kept[key] = Kept(account=account, fact=fact, received_at=now)
        self.untaken[key] = None
        return concerned

    def about(self, agents: Sequence[Agent], past: Collection[str]) -> list[Fact]:
        """Take what was told of open ledger rows of one owner; return what is not `past`."""
        found = [
            key
            for key in self.untaken
            if any(
                key[0] == agent.account and speaks_of(self.kept[key].fact, agent)
                for agent in agents
            )
        ]
        for key in found:
            self.take(key)
        facts = [self.kept[key].fact for key in found]
        return [fact for fact in facts if not is_past(fact, agents, past)]

    def loose(self, ended_by: datetime) -> Iterator[Kept]:
        """Yield what nobody took; ends only if they were told by then, for they make no orphan."""
        for key in list(self.untaken):
            one = self.kept[key]
            if one.fact.event is not Event.ENDED or one.received_at <= ended_by:
                yield one

    def is_parked(self, account: str, handle: str) -> bool:
        """Return whether a handle was spoken of before anybody knew it."""
        return any(
            key[0] == account and self.kept[key].fact.vendor_task_id == handle
            for key in self.untaken
        )

    def tells_end(self, agent: Agent) -> bool:
        """Return whether the end of a ledger row's agent was told, and not of an earlier send."""
        return any(
            one.fact.event is Event.ENDED
            and one.account == agent.account
            and one.fact.vendor_task_id == agent.vendor_task_id
            and one.fact.event_at >= agent.announced_at
            for one in self.kept.values()
        )

    def take(self, key: tuple[str, str]) -> None:
        self.kept[key] = replace(self.kept[key], is_taken=True)
        self.untaken.pop(key, None)

    def copy(self) -> "Facts":
        return Facts(kept=dict(self.kept), untaken=dict(self.untaken))


def speaks_of(fact: Fact, agent: Agent) -> bool:
    """Return whether a fact may be about a ledger row, by its handle or by a name."""
    if fact.vendor_task_id is not None and fact.vendor_task_id == agent.vendor_task_id:
        return True
    return fact.name is not None and fact.name in (agent.name, agent.id)


def _is_known(fact: Fact, entries: Iterable[Entry]) -> bool:
    """Return whether a sign of life tells nothing: its agent's handle is in the ledger."""
    if fact.vendor_task_id is None:
        return any(speaks_of(fact, one.agent) for one in entries)
    return any(fact.vendor_task_id == one.agent.vendor_task_id for one in entries)


def entries_of(
    ledger: Mapping[str, Agent], owners: Mapping[str, str], account: str, *, is_open: bool
) -> list[Entry]:
    """Return the ledger rows of an account that are open, or those that have ended."""
    return [
        Entry(owner=owners[id_], agent=agent)
        for id_, agent in ledger.items()
        if agent.account == account and (agent.ended_at is None) is is_open
    ]
