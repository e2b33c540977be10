"""Rows, accounts and calls for tables: everything has a default; a test names what it is about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core.action import Call, Flight
from orchestrator.core.announce import Draw, announce, new_agent
from orchestrator.core.backoff import spread
from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.model import (
    Account,
    Agent,
    Change,
    Row,
    Status,
    Task,
    Verb,
    What,
    WorkClass,
)
from orchestrator.core.outcome import Outcome, Settled

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
S = timedelta(seconds=1)


def caps(recovery: Recovery, **changes: Any) -> Caps:
    named = recovery in {Recovery.SAME_NAME, Recovery.STOP_FIRST}
    given = Caps(
        recovery=recovery,
        names_handle=named,
        poll_proves_absence=not named,
        signature_window=300 * S,
        one_per_user=recovery is Recovery.STOP_FIRST,
    )
    return replace(given, **changes)


def account(recovery: Recovery = Recovery.SAME_NAME, **changes: Any) -> Account:
    return replace(Account(name="main", caps=caps(recovery)), **changes)


def task(**changes: Any) -> Task:
    given = Task(id="t1", account="main", room_id="r1", user_id="u1", running=True, created_at=NOW)
    return replace(given, **changes)


def agent(**changes: Any) -> Agent:
    given = Agent(
        id="a1",
        incarnation=1,
        try_=1,
        account="main",
        site="here",
        room_id="r1",
        user_id="u1",
        name="a1",
        session_name="a1",
        stream_id="a1_s1",
        announced_at=NOW,
    )
    return replace(given, **changes)


def status(**changes: Any) -> Status:
    given = Status(
        task_id="t1",
        account="main",
        room_id="r1",
        user_id="u1",
        phase_since=NOW,
        incarnation=1,
        asked_at=NOW,
    )
    return replace(given, **changes)


def row(*agents: Agent, task: Task | None = task(), **changes: Any) -> Row:  # noqa: B008 - a value
    return Row(status=status(**changes), task=task, agents=agents)


def unknown(**changes: Any) -> Agent:
    """An agent of whose start nobody knows whether it had an effect."""
    return agent(**({"horizon_at": NOW + 115 * S} | changes))


def known(**changes: Any) -> Agent:
    """An agent that the vendor took long ago."""
    return agent(**({"horizon_at": NOW - 100 * S, "vendor_task_id": "h1"} | changes))


def change(what: What, at: datetime = NOW) -> Change:
    return Change(seq=1, at=at, task_id="t1", what=what)


def poll_at(agent_id: str = "a1", since: datetime = NOW) -> datetime:
    """When an agent of the default account is polled next: no two at the same moment."""
    return since + spread(60 * S, agent_id)


def call(verb: Verb, target: Agent | None = None) -> Call:
    classes = {Verb.START: WorkClass.START, Verb.POLL: WorkClass.OBSERVE}
    return Call(verb=verb, agent=target, work_class=classes.get(verb, WorkClass.STOP))


def in_flight(
    given: Row, verb: Verb, target: Agent | None, at: datetime, of: Account
) -> tuple[Row, Flight]:
    """Announce a call; a start without a target under a new name."""
    if target is None:
        assert given.task is not None
        draw = Draw(name=f"n{len(given.agents) + 1}", site="here")
        target = new_agent(given, given.task, draw, at)
    return announce(given, call(verb, target), target, of, at)


def settled(outcome: Outcome, asked_at: datetime = NOW, after: timedelta = S) -> Settled:
    return Settled(outcome=outcome, asked_at=asked_at, answered_at=asked_at + after)
