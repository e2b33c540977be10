"""Wrong cores about what vendors tell, agents without a task, and clocks that are set."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from orchestrator.core import ending, evolve, hearing, incarnation, orphan, steps
from orchestrator.core.caps import Recovery
from orchestrator.core.fact import Event, Fact, bears
from orchestrator.core.model import (
    Account,
    Agent,
    EndReason,
    Evidence,
    Row,
    Step,
)
from orchestrator.core.outcome import Settled
from orchestrator.core.replace import replace
from tests.simulation import facts, orphans
from tests.simulation.mutation import Mutant

_end, _confirm = hearing._end, hearing._confirm
_V, _T, _Z = (Recovery.SAME_NAME,), (Recovery.FIND,), (Recovery.EVICT,)


# --- what an end proves


def _believe_unsigned(row: Row, agent: Agent, fact: Fact, account: Account, now: datetime) -> Step:
    return _end(row, agent, replace(fact, is_signed=True), account, now)


def _not_heard(row: Row, _agent: Agent, _fact: Fact, _account: Account, _now: datetime) -> Step:
    return Step(row=row)


def _always_final(_agent: Agent, _fact: Fact, _account: Account) -> bool:
    return True


def _never_outlived(_agent: Agent, _fact: Fact, _account: Account) -> bool:
    return False


def _retire_reported(row: Row, agent: Agent, fact: Fact, account: Account, now: datetime) -> Step:
    if row.is_reported:
        return incarnation.retire(row, fact.end_reason or EndReason.VENDOR_GONE, now)
    return _end(row, agent, fact, account, now)


# --- whose it is


def _see_by_hearsay(row: Row, agent: Agent, fact: Fact, now: datetime) -> Row:
    """A callback is taken for a look into the room."""
    return _confirm(row.replace_agent(replace(agent, seen_at=now)), agent, fact, now)


def _overwrite(row: Row, fact: Fact, _account: Account) -> tuple[Row, Agent | None]:
    named = [agent for agent in row.agents if bears(agent, fact)]
    if not named or fact.event is Event.ENDED:
        return row, None
    agent = replace(named[0], vendor_task_id=fact.vendor_task_id)
    return row.replace_agent(agent), agent


def _never_past(_fact: Fact, _agents: Sequence[Agent], _past: Any) -> bool:
    return False


# --- orphans


def _has_any(_owner: orphan.Owner, _name: str | None) -> bool:
    return True


def _never_asked(_fact: Fact, _verdict: orphan.Verdict) -> bool:
    return False


def _never_set(_went: timedelta, _passed: timedelta, _noticed: timedelta) -> timedelta:
    return timedelta(0)


def _believe_handle(
    row: Row, agent: Agent, evidence: Evidence, settled: Settled, account: Account
) -> Step:
    """What becomes of a handle that anybody may have made up stands for what bears the name."""
    at = settled.answered_at
    return ending.close_on_evidence(row, agent, evidence, at, account)


def _leave_reported(_store: Any, _status_id: str, _name: str, _now: datetime) -> None:
    return None


TOLD_MUTANTS = (
    Mutant(
        name="an end that is told is not heard",
        owner=hearing,
        attribute="_end",
        wrong=_not_heard,
        vendors=_V,
    ),
    Mutant(
        name="unsigned ends are evidence",
        owner=hearing,
        attribute="_end",
        wrong=_believe_unsigned,
        vendors=_Z,
    ),
    Mutant(
        name="a signed end counts before the horizon",
        owner=hearing,
        attribute="_is_final",
        wrong=_always_final,
        vendors=_V,
    ),
    Mutant(
        name="an end older than the newest send counts",
        owner=hearing,
        attribute="_is_outlived",
        wrong=_never_outlived,
        vendors=_V,
    ),
    Mutant(
        name="a callback proves that a room shows agents",
        owner=hearing,
        attribute="_confirm",
        wrong=_see_by_hearsay,
        vendors=_V,
    ),
    Mutant(
        name="a second handle that is told overwrites the first",
        owner=hearing,
        attribute="_add",
        wrong=_overwrite,
        vendors=_Z,
    ),
    Mutant(
        name="the handle of one that ended goes to another of its name",
        owner=facts,
        attribute="is_past",
        wrong=_never_past,
        vendors=_Z,
    ),
    Mutant(
        name="a reported agent is retired by its end",
        owner=hearing,
        attribute="_end",
        wrong=_retire_reported,
        vendors=_Z + _V,
    ),
    Mutant(
        name="every agent is ours",
        owner=orphan.Owner,
        attribute="has",
        wrong=_has_any,
        vendors=_V + _Z,
    ),
    Mutant(
        name="an agent without a name is a stranger's, unasked",
        owner=orphan,
        attribute="is_to_be_asked",
        wrong=_never_asked,
        vendors=_T,
    ),
    Mutant(
        name="an agent that the vendor knows as ours is only reported",
        owner=orphans,
        attribute="recognise",
        wrong=_leave_reported,
        vendors=_T,
    ),
    Mutant(
        name="an agent that dies at its birth is born again for ever",
        owner=ending,
        attribute="RESTARTS_MAX",
        wrong=10**6,
        vendors=_T + _Z,
    ),
    Mutant(
        name="a handle that anybody may have made up stands for its name",
        owner=evolve,
        attribute="_end_handle",
        wrong=_believe_handle,
        vendors=_Z,
    ),
    Mutant(
        name="a clock that is set ahead puts nothing off",
        owner=steps,
        attribute="set_by",
        wrong=_never_set,
    ),
)
