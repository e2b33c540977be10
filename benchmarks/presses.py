"""Presses of talk buttons: when each is due, when it was committed, what the vendor saw of it.

Rule 1: nothing comes in bursts. Lanes take turns, evenly over time but for a little jitter, and
half of them press while the other half let go.
Rule 2: the wire is judged by what the simulated vendor read, and not by what its client says.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from random import Random
from typing import Any, Final

import anyio

from benchmarks.setting import Vendors
from orchestrator.clock import boot_ns, utc_now
from orchestrator.core.command import Kind

ACTIONS: Final = frozenset({"StartListening", "StopListening"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How many lanes there are, and how often each presses or lets go."""

    lanes: int = 200
    per_s: int = 2
    warm_up_s: float = 3.0
    """Presses that do not count: connections are made, statements prepared."""
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Press:
    """A press, or the release after it: the `sequence`-th of its lane, from 1."""

    lane: str
    """The id of its task, and of its room."""
    sequence: int

    @property
    def kind(self) -> Kind:
        """Return what it is: a lane begins with a press."""
        return Kind.START_LISTENING if self.sequence % 2 else Kind.STOP_LISTENING


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What an application committed."""

    at: Mapping[Press, datetime]
    """When the commit of each returned."""
    counted: frozenset[Press]
    """Those after the warm-up."""
    per_s: float
    """How many it committed in a second, once warm."""


def lanes_of(load: Load) -> list[str]:
    """Return the lanes' names."""
    return [f"lane{number}" for number in range(load.lanes)]


def plan(load: Load) -> Iterator[tuple[float, Press]]:
    """Yield every press with the second at which it is due, in order. The same each time."""
    lots, lanes = Random(1), lanes_of(load)
    every_s = 1 / load.per_s
    apart_s = every_s / len(lanes)
    for turn in range(int((load.warm_up_s + load.seconds) * load.per_s)):
        for number, lane in enumerate(lanes):
            # Every other lane begins a turn later, so that presses and releases mix.
            sequence = turn + 1 - number % 2
            due_s = turn * every_s + (number + lots.random()) * apart_s
            if sequence > 0:
                yield due_s, Press(lane, sequence)


async def say(load: Load, commit: Callable[[Press], Awaitable[None]]) -> Said:
    """Commit every press when it is due; later only if those before it took too long."""
    began_ns, at, counted = boot_ns(), dict[Press, datetime](), set[Press]()
    warm_ns = 0
    for due_s, press in plan(load):
        await anyio.sleep(max(0.0, due_s - (boot_ns() - began_ns) / 1e9))
        await commit(press)
        at[press] = utc_now()
        if due_s >= load.warm_up_s:
            warm_ns = warm_ns or boot_ns()
            counted.add(press)
    per_s = len(counted) / ((boot_ns() - warm_ns) / 1e9)
    return Said(at=at, counted=frozenset(counted), per_s=per_s)


# --- what became of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the vendor saw of what was said."""

    late_ms: Sequence[float]
    """From the commit of each counted press to its arrival; those that arrived."""
    unsent: int
    """Presses that never arrived."""
    disordered: int
    """Calls of a lane that came after one with a higher Sequence."""
    doubled: int
    """Calls that had an effect which the same Sequence had had before."""
    refused: int
    """Calls that the vendor did not take."""
    busiest: int
    """Calls of one action in the busiest window of one second."""


async def hear(vendors: Vendors, said: Said, since: int) -> Heard:
    """Ask the vendor what it read after the call `since`."""
    return judge(await vendors.calls(since), said)


def judge(everything: Iterable[Mapping[str, Any]], said: Said) -> Heard:
    """Compare the vendor's calls, in its order, with what was said."""
    calls = [call for call in everything if call["action"] in ACTIONS]
    arrived: dict[Press, datetime] = {}
    for call in calls:
        arrived.setdefault(_press(call), _arrival(call))
    return Heard(
        late_ms=[
            (arrived[press] - at).total_seconds() * 1000
            for press, at in said.at.items()
            if press in said.counted and press in arrived
        ],
        unsent=len(said.at.keys() - arrived.keys()),
        disordered=_count_disordered(calls),
        doubled=_count_doubled(calls),
        refused=sum(bool(call["code"]) for call in calls),
        busiest=_count_busiest(calls),
    )


def _count_disordered(calls: Iterable[Mapping[str, Any]]) -> int:
    by_lane: dict[str, list[int]] = defaultdict(list)
    for call in calls:
        press = _press(call)
        by_lane[press.lane].append(press.sequence)
    return sum(
        later < earlier for numbers in by_lane.values() for earlier, later in pairwise(numbers)
    )


def _count_doubled(calls: Iterable[Mapping[str, Any]]) -> int:
    had_effect = [_press(call) for call in calls if not call["code"]]
    return len(had_effect) - len(set(had_effect))


def _count_busiest(calls: Iterable[Mapping[str, Any]]) -> int:
    by_action: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        by_action[call["action"]].append(_arrival(call).timestamp())
    return max((_busiest_second(times) for times in by_action.values()), default=0)


def _busiest_second(times: list[float]) -> int:
    times.sort()
    most, first = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def _press(call: Mapping[str, Any]) -> Press:
    return Press(call["ids"]["user_id"], call["ids"]["sequence"])


def _arrival(call: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(call["at"])
