"""P3 by the second: how long agents lived at a vendor after their rows had stopped wanting them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.chaos.checkers import Finding, ours
from tests.chaos.diary import Diary, Span
from tests.chaos.times import RECOVERY_S, Times
from tests.chaos.vendors import Lived
from tests.chaos.wants import born_in, wanted_spans


@dataclass(frozen=True)
class Leak:
    """The seconds of one agent that nobody wanted."""

    agent: Lived
    is_zombie: bool
    """Whether its start took effect when the row did not want it any more."""
    seconds: float
    excused_s: float
    """Of these: nobody could work, since there was no daemon, no database, or no machine."""

    @property
    def owed_s(self) -> float:
        """Return the rest, which the bounds are about."""
        return self.seconds - self.excused_s


def find_leaks(agents: Sequence[Lived], diary: Diary, now: datetime) -> list[Leak]:
    """Return the leak of every agent that outlived its row's wish, however short."""
    excuses = diary.excuses(timedelta(seconds=RECOVERY_S))
    leaks = (_leak(agent, diary, excuses, now) for agent in ours(agents, diary))
    return [leak for leak in leaks if leak.seconds > 0]


def too_long(leaks: Sequence[Leak], times: Times) -> list[Finding]:
    """Return the leaks that are longer than what follows from the configuration."""
    return [
        Finding(
            "P3",
            f"{leak.agent.id} lived {leak.seconds:.1f} s unwanted, {leak.excused_s:.1f} excused",
            (leak.agent.task_id,),
        )
        for leak in leaks
        if leak.owed_s > (times.zombie_leak_s if leak.is_zombie else times.leak_s)
    ]


def _leak(agent: Lived, diary: Diary, excuses: Sequence[Span], now: datetime) -> Leak:
    span = born_in(wanted_spans(diary, agent.task_id), agent.started_at)
    unwanted_at = agent.started_at if span is None else span.ends
    ended_at = agent.ended_at or now
    if ended_at <= unwanted_at:
        return Leak(agent, span is None, 0.0, 0.0)
    leaked = Span(unwanted_at, ended_at)
    excused_s = sum(excuse.common(leaked).seconds for excuse in excuses)
    return Leak(agent, span is None, leaked.seconds, excused_s)
