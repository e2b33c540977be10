"""What must hold, judged by whoever knows nothing of the daemons.

Rule 1: a checker looks at the vendors' world, at the diary, and in the end at what any application
can read. It reads no ledger, no log and no configuration but the times.
Rule 2: what a checker cannot know it does not hold against the daemon.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from typing import Final

from tests.chaos.diary import Diary, Span
from tests.chaos.limits import PER_SECOND
from tests.chaos.strangers import NOBODY
from tests.chaos.vendors import Called, Lived
from tests.daemon.customers import ZEGO
from tests.daemon.talk import START, STOP

SECOND: Final = timedelta(seconds=1)
NEAR: Final = timedelta(milliseconds=300)
"""Beside a standstill: what it kept waiting comes then."""


@dataclass(frozen=True)
class Finding:
    """A promise that was broken."""

    promise: str
    sentence: str
    task_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overshoot:
    """How far the calls of one second were above the limit."""

    findings: list[Finding]
    unjudged: int
    """Windows above the limit while the machine stood still."""


# --- P1


def doubles(agents: Sequence[Lived], diary: Diary) -> list[Finding]:
    """Return pairs of agents that lived for one row at the same instant."""
    by_row: defaultdict[tuple[str, str], list[Lived]] = defaultdict(list)
    for agent in ours(agents, diary):
        by_row[agent.account, agent.room_id].append(agent)
    return [
        Finding("P1", f"{one.id} and {other.id} lived at once", (one.task_id,))
        for row in by_row.values()
        for one, other in combinations(sorted(row, key=lambda a: a.started_at), 2)
        if _are_double(one, other)
    ]


def _are_double(earlier: Lived, later: Lived) -> bool:
    if earlier.ended_at is not None and earlier.ended_at <= later.started_at:
        return False
    if later.ended_at == later.started_at:
        return False  # it never lived
    if earlier.account != ZEGO.name or earlier.agent_user_id != later.agent_user_id:
        return True
    # ZEGO evicts the earlier one when the later one joins.
    joined_at = later.joined_at
    return joined_at is not None and (earlier.ended_at is None or earlier.ended_at > joined_at)


# --- P7


def touched_strangers(agents: Iterable[Lived], diary: Diary) -> list[Finding]:
    """Return somebody else's agents that do not live any more."""
    return [
        Finding("P7", f"{agent.agent_user_id} was ended: {agent.why}", (agent.task_id,))
        for agent in agents
        if agent.agent_user_id in diary.strangers and agent.ended_at is not None
    ]


# --- P5


def disorder(calls: Iterable[Called], agents: Iterable[Lived]) -> list[Finding]:
    """Return listening calls that had effect out of order or twice, or were sent stale."""
    rows = {agent.handle: agent.task_id for agent in agents if agent.account == ZEGO.name}
    lanes: defaultdict[tuple[str, str], list[Called]] = defaultdict(list)
    for call in calls:
        if call.action in {START, STOP} and call.sequence is not None:
            lanes[rows.get(call.handle, call.handle), call.user_id].append(call)
    return [
        Finding("P5", sentence, (task_id,))
        for (task_id, _), lane in lanes.items()
        for sentence in _disorder_of(sorted(lane, key=lambda call: call.at))
    ]


def _disorder_of(lane: Sequence[Called]) -> Iterable[str]:
    effect = acknowledged = -1
    for call in lane:
        number = call.sequence or 0
        # Nobody can tell when a request that was late on its way had been sent.
        if call.fault != "delay" and number < acknowledged:
            yield f"{call.action} {number} was sent after {acknowledged} was acknowledged"
        if not call.code and call.fault not in {"lose_request", "throttle"}:
            if number <= effect:
                yield f"{call.action} {number} had effect after {effect}"
            effect = max(effect, number)
        if not call.code and call.fault is None:
            acknowledged = max(acknowledged, number)


# --- P6


def overshoot(calls: Iterable[Called], diary: Diary) -> Overshoot:
    """Return windows of one second in which an account's action was called too often."""
    arrivals: defaultdict[tuple[str, str], list[datetime]] = defaultdict(list)
    for call in calls:
        is_limited = call.action in PER_SECOND.get(call.account, ())
        # A late one was sent at another time, and a stranger's not by a daemon.
        if is_limited and call.fault != "delay" and call.user_id != NOBODY:
            arrivals[call.account, call.action].append(call.at)
    findings: list[Finding] = []
    unjudged = 0
    stalls = [Span(one.began_at - NEAR, one.ended_at + NEAR) for one in diary.stalls]
    for (account, action), times in arrivals.items():
        for window, count in _crowded(sorted(times), PER_SECOND[account][action]):
            if any(stall.common(window).seconds for stall in stalls):
                unjudged += 1
                continue
            told = f"{count} {action} of {account} in the second from {window.begins.time()}"
            findings.append(Finding("P6", told))
    return Overshoot(findings, unjudged)


def _crowded(times: Sequence[datetime], limit: int) -> Iterable[tuple[Span, int]]:
    """Return the windows that hold more than the limit, each with its calls."""
    first = 0
    for last, at in enumerate(times):
        while times[first] <= at - SECOND:
            first += 1
        if last - first + 1 > limit:
            yield Span(times[first], at + timedelta(microseconds=1)), last - first + 1


# --- all of ours


def ours(agents: Iterable[Lived], diary: Diary) -> list[Lived]:
    """Return the agents that no stranger started."""
    return [agent for agent in agents if agent.agent_user_id not in diary.strangers]
