"""P8: whether the vendors' world equals the rows, by what any application can read."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.clock import utc_now
from tests.chaos.checkers import Finding, ours
from tests.chaos.client import Client
from tests.chaos.diary import Diary, Wish
from tests.chaos.vendors import Called, ChaosVendors, Lived
from tests.chaos.wants import wanted_spans
from tests.daemon.customers import VOLCENGINE, VOLCENGINE_FIRST

PHASES: Final = "SELECT task_id, phase FROM agent_status"
FACTS: Final = "SELECT count(*) AS heard FROM vendor_fact"
OPEN_COMMANDS: Final = "SELECT id FROM agent_command WHERE state IN ('queued', 'sending')"
LOOKED_AT_BY_ROOM: Final = frozenset({VOLCENGINE.name, VOLCENGINE_FIRST.name})
LOOKS: Final = 2
"""What one of them saw, a kill may have made the daemon forget."""
OVER: Final = frozenset({"stopped", "failed"})


@dataclass(frozen=True)
class Picture:
    """Both sides, as they are at one moment."""

    agents: Sequence[Lived]
    phases: Mapping[str, str]
    open_commands: Sequence[str]
    seen: AbstractSet[str]
    """Agents of which a look could tell that they were in their room."""
    callbacks: int
    """How many were heard."""
    at: datetime


async def take_picture(vendors: ChaosVendors, client: Client) -> Picture:
    """Look at both sides."""
    rows = await client.read(PHASES)
    commands = await client.read(OPEN_COMMANDS)
    (facts,) = await client.read(FACTS)
    await vendors.collect()
    agents = await vendors.lived()
    return Picture(
        agents=agents,
        phases={row["task_id"]: row["phase"] for row in rows},
        open_commands=[row["id"] for row in commands],
        seen=_seen(agents, vendors.called),
        callbacks=facts["heard"],
        at=utc_now(),
    )


def _seen(agents: Iterable[Lived], calls: Iterable[Called]) -> set[str]:
    """Return the agents that showed themselves to several looks at their room that were answered.

    Volcengine's look shows users, not tasks, so an absence means something only after a presence.
    The other vendors' looks ask for the agent itself.
    """
    looks: defaultdict[tuple[str, str], list[datetime]] = defaultdict(list)
    for call in calls:
        if call.action == VOLCENGINE.look and not call.code and call.fault is None:
            looks[call.account, call.room_id].append(call.at)
    return {
        agent.id
        for agent in agents
        if agent.account not in LOOKED_AT_BY_ROOM
        or sum(_lived_at(agent, at) for at in looks[agent.account, agent.room_id]) >= LOOKS
    }


def _lived_at(agent: Lived, at: datetime) -> bool:
    return agent.started_at < at and (agent.ended_at is None or at < agent.ended_at)


def disagreements(picture: Picture, diary: Diary) -> list[Finding]:
    """Return where the vendors' world, the rows, and what their users wish are not the same."""
    by_row: defaultdict[str, list[Lived]] = defaultdict(list)
    for agent in ours(picture.agents, diary):
        by_row[agent.task_id].append(agent)
    known = {*diary.wishes, *by_row, *picture.phases}
    wrong = [
        Finding("P8", f"{task_id} {sentence}", (task_id,))
        for task_id in sorted(known)
        for sentence in _judge(task_id, by_row[task_id], picture, diary)
    ]
    unsettled = picture.open_commands
    return wrong + [Finding("P8", f"{id_} is not settled") for id_ in unsettled]


def left_over(findings: Iterable[Finding]) -> int:
    """Return how many rows have an agent that they do not want."""
    return sum(LEFT in finding.sentence for finding in findings)


LEFT: Final = "wants none and has"


def _judge(task_id: str, agents: Sequence[Lived], picture: Picture, diary: Diary) -> Iterable[str]:
    live = sum(agent.ended_at is None for agent in agents)
    phase = picture.phases.get(task_id)
    wishes = diary.wishes.get(task_id)
    if not wishes or not _is_wanted(diary, task_id, picture.at):
        if live:
            yield f"{LEFT} {live}"
        if phase is not None and (phase not in OVER or _is_deleted(wishes)):
            yield f"is {phase}, and nobody wants it"
        return
    ended = _ended_by_vendor(wishes, agents, diary)
    if phase in _allowed(wishes[-1], ended) and live == (phase == "running"):
        return
    if phase == "running" and not live and any(one.id not in picture.seen for one in ended):
        return  # nobody could tell
    yield f"is {phase} and has {live} agents"


def _is_wanted(diary: Diary, task_id: str, at: datetime) -> bool:
    return any(span.holds(at) for span in wanted_spans(diary, task_id))


def _is_deleted(wishes: Sequence[Wish] | None) -> bool:
    return not wishes or wishes[-1].what == "delete"


def _ended_by_vendor(wishes: Sequence[Wish], agents: Iterable[Lived], diary: Diary) -> list[Lived]:
    """Return the agents that the vendor ended since the row's last incarnation was asked for."""
    begun_at = next(wish.begun_at for wish in reversed(wishes) if wish.renews)
    return [
        agent
        for agent in agents
        if agent.ended_at is not None
        and agent.ended_at >= begun_at
        and (agent.id in diary.ended or agent.why in {"idle", "fault"})
    ]


def _allowed(last: Wish, ended: Sequence[Lived]) -> AbstractSet[str]:
    """Return the phases in which a row may rest that wants to run."""
    if not ended:
        return {"running"}
    # One that is always restarted fails when it dies too often.
    return {"running", "failed"} if last.policy == "always" else {"running", *OVER}
