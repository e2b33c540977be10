"""Lanes, commands and views for tables: everything has a default; a test names what it is about."""

from dataclasses import replace
from typing import Any

from orchestrator.core.command import OTHERS, Command, CommandState, Kind
from orchestrator.core.lane import (
    Lane,
    LaneStep,
    LaneView,
    Numbering,
    Send,
    Settle,
    Situation,
    Standing,
)
from orchestrator.core.lane_decide import decide_lane
from orchestrator.core.lane_evolve import announce_lane, evolve_lane
from orchestrator.core.outcome import Outcome
from tests.core.builders import NOW, S, account, caps, known, settled

START, STOP = Kind.START_LISTENING, Kind.STOP_LISTENING
STALE, NOT_READY = "stale", "not ready"
GAP = S * 0.3
TTL = 5 * S

ACCOUNT = account(
    caps=replace(
        caps(account().caps.recovery),
        stale_codes=frozenset({STALE}),
        not_ready_codes=frozenset({NOT_READY}),
    )
)
RUNNING = Situation(standing=Standing.RUNNING, agent=known())
COMING = Situation(standing=Standing.COMING)
ENDED = Situation(standing=Standing.ENDED, retired=1, ended_at=NOW)


def lane(**changes: Any) -> Lane:
    return replace(Lane(task_id="t1", user_id="u1"), **changes)


def others(**changes: Any) -> Lane:
    return lane(user_id=OTHERS, **changes)


def command(kind: Kind, sequence: int | None = None, **changes: Any) -> Command:
    """A command that was just inserted; its position is its sequence, unless it is given."""
    position = changes.pop("position", sequence or 1)
    given = Command(
        id=f"c{position}",
        position=position,
        task_id="t1",
        kind=kind,
        user_id="u1",
        sequence=sequence,
        created_at=NOW,
        expires_at=NOW + TTL,
    )
    return replace(given, **changes)


def view(*commands: Command, of: Lane | None = None, **changes: Any) -> LaneView:
    given = LaneView(
        lane=of or lane(),
        commands=commands,
        situation=RUNNING,
        account=ACCOUNT,
        gap_timeout=GAP,
        now=NOW,
    )
    return replace(given, **changes)


def in_flight(kind: Kind, sequence: int, **changes: Any) -> tuple[Lane, Command]:
    """A lane whose command was sent, and nobody knows what became of it."""
    sent = command(kind, sequence, state=CommandState.SENDING, sent_at=NOW - S, **changes)
    busy = lane(
        incarnation=1,
        last_sequence=sequence,
        numbering=Numbering.GIVEN,
        command_id=sent.id,
        listening=kind is START,
    )
    return busy, sent


def sends(given: LaneView) -> Send:
    action = decide_lane(given)
    assert isinstance(action, Send), action
    return action


def settles(given: LaneView) -> dict[str, tuple[str, str | None]]:
    """What becomes of the commands that this decision settles: state and reason by sequence."""
    action = decide_lane(given)
    assert isinstance(action, Settle), action
    assert all(c.done_at == given.now for c in action.commands)
    return {c.id: (str(c.state), c.reason) for c in action.commands}


def try_once(given: LaneView, outcome: Outcome) -> LaneStep:
    """Decide, announce and settle one send."""
    busy, flight = announce_lane(given, sends(given))
    return evolve_lane(busy, flight, settled(outcome, given.now), given.account)


def after(given: LaneView, step: LaneStep, **changes: Any) -> LaneView:
    """The view once an outcome is written, when the next try is due."""
    is_open = step.command.done_at is None
    rest = tuple(c for c in given.commands if c.id != step.command.id)
    now = max(given.now + S, step.lane.retry_at or given.now)
    commands = (step.command, *rest) if is_open else rest
    return replace(given, lane=step.lane, commands=commands, now=now, **changes)
