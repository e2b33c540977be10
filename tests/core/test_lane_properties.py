"""What holds for every lane: decisions are total, settles come to an end, and it has a time."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.command import OTHERS, Command, CommandState, Kind
from orchestrator.core.lane import (
    Lane,
    LaneView,
    Numbering,
    Reason,
    Refusal,
    Rest,
    Send,
    Settle,
    Situation,
    Standing,
    broken,
)
from orchestrator.core.lane_decide import decide_lane
from orchestrator.core.lane_evolve import announce_lane, evolve_lane
from orchestrator.core.outcome import (
    Denied,
    Done,
    Expired,
    Gone,
    Indefinite,
    NotSent,
    Outcome,
    Refused,
    Throttled,
)
from tests.core.builders import NOW, S, known, settled
from tests.core.lane_builders import ACCOUNT, NOT_READY, STALE, START, STOP, command, view

OUTCOMES: tuple[Outcome, ...] = (
    Done(), Gone(), Throttled(), NotSent(), Denied(), Expired(), Indefinite(), Refused(code="no"),
    Refused(code=STALE), Refused(code=NOT_READY),
)  # fmt: skip
PRESSES, REST = [START, STOP], [k for k in Kind if not k.listens]


def times(low: int = -10, high: int = 10) -> st.SearchStrategy[Any]:
    return st.integers(low, high).map(lambda s: NOW + s * S)


@st.composite
def situations(draw: Any, *, is_ready: bool) -> Situation:
    standing = Standing.RUNNING if is_ready else draw(st.sampled_from(Standing))
    retired = draw(st.integers(0, 2))
    agent = known(incarnation=3) if standing is Standing.RUNNING else None
    ended_at = draw(times(-9, -4 if is_ready else 0)) if retired else None
    return Situation(standing=standing, agent=agent, retired=retired, ended_at=ended_at)


@st.composite
def commands(draw: Any, kinds: list[Kind], least: int) -> tuple[Command, ...]:
    count = draw(st.integers(least, 5))
    # No two of a lane that wait have the same number: the schema refuses it.
    given = draw(st.lists(st.integers(-1, 20), min_size=count, max_size=count, unique=True))
    is_given = draw(st.sampled_from([st.just(value=True), st.just(value=False), st.booleans()]))
    return tuple(
        command(
            draw(st.sampled_from(kinds)),
            number if kinds is PRESSES and draw(is_given) else None,
            position=n,
            created_at=draw(times(-3, 0)),
            expires_at=draw(times(-3)),
        )
        for n, number in enumerate(given, start=1)
    )


@st.composite
def views(draw: Any, *, is_ready: bool = False) -> LaneView:
    """A lane; `is_ready`: one of which something may well leave."""
    user = draw(st.sampled_from(["u1", OTHERS]))
    queue = draw(commands(REST if user == OTHERS else PRESSES, least=int(is_ready)))
    last = draw(st.none() | st.integers(1, 6))
    of = Lane(
        task_id="t1",
        user_id=user,
        incarnation=draw(st.integers(0, 3)),
        last_sequence=last if user != OTHERS else None,
        passed_sequence=draw(st.none() | st.integers(1, 6)) if user != OTHERS else None,
        numbering=draw(st.sampled_from(Numbering)) if last and user != OTHERS else None,
        listening=user != OTHERS and draw(st.booleans()),
        gap_since=draw(st.none() | times(-1, 0)),
    )
    of, queue = draw(with_head(of, queue))
    refused = draw(st.sets(st.integers(1, 5), max_size=1))
    return view(
        *queue,
        of=of,
        situation=draw(situations(is_ready=is_ready)),
        account=replace(ACCOUNT, frozen=not is_ready and draw(st.booleans())),
        refusals={f"c{n}": Refusal(reason=Reason.UNSUPPORTED) for n in refused},
        cancelled=frozenset(f"c{n}" for n in draw(st.sets(st.integers(1, 5), max_size=1))),
        is_cut=draw(st.booleans()),
    )


@st.composite
def with_head(draw: Any, of: Lane, queue: tuple[Command, ...]) -> tuple[Lane, tuple[Command, ...]]:
    """Perhaps let the first command be in flight: sent, or refused for the moment."""
    if not queue or (of.listens and of.last_sequence is None) or draw(st.booleans()):
        return of, queue
    head = replace(queue[0], sequence=of.last_sequence)
    if draw(st.booleans()):
        head = replace(head, state=CommandState.SENDING, sent_at=NOW - S)
    of = replace(
        of,
        command_id=head.id,
        renumber=of.listens and head.sent_at is None and draw(st.booleans()),
        retry_at=draw(st.none() | times(-4, 1)),
    )
    return of, (head, *queue[1:])


def settle_all(of: LaneView) -> tuple[LaneView, Send | Rest]:
    """Decide until it comes to a send or a rest."""
    for _ in range(len(of.commands) + 1):
        action = decide_lane(of)
        if not isinstance(action, Settle):
            return of, action
        assert action.commands
        of = of.after(action)
    raise AssertionError("it never comes to an end")


@given(views())
def test_settles_come_to_an_end_and_a_decision_made_twice_is_the_same(of: LaneView) -> None:
    assert decide_lane(of) == decide_lane(of)
    left, _ = settle_all(of)
    assert list(broken(left.lane, left.commands)) == []


@given(views())
def test_a_lane_with_commands_always_has_a_time_and_it_has_not_passed(of: LaneView) -> None:
    left, action = settle_all(of)
    if isinstance(action, Rest):
        assert (action.until is not None) is (bool(left.commands) or of.is_cut)
        is_over = not left.commands and of.is_cut
        assert action.until is None or is_over or action.until > of.now


@given(views(is_ready=True))
def test_nothing_leaves_but_in_order_in_time_to_an_agent_that_runs(of: LaneView) -> None:
    left, action = settle_all(of)
    if not isinstance(action, Send):
        return
    assert not of.account.frozen
    assert action.agent.incarnation > of.situation.retired
    is_fresh = action.command.expires_at > of.now
    assert is_fresh or (action.command.kind is STOP and left.may_listen)
    if not of.lane.listens:
        assert action.sequence is None
        return
    assert action.sequence is not None
    if action.is_resend:
        assert action.sequence == of.lane.last_sequence
    else:
        assert action.sequence >= (of.lane.last_sequence or 0)
    waiting = [c.sequence for c in left.queue if c.sequence is not None and c != action.command]
    assert action.command.id == of.lane.command_id or all(n > action.sequence for n in waiting)


@given(views(is_ready=True), st.sampled_from(OUTCOMES))
def test_an_outcome_frees_the_lane_or_leaves_its_command_in_flight(
    of: LaneView, outcome: Outcome
) -> None:
    left, action = settle_all(of)
    if not isinstance(action, Send):
        return
    busy, flight = announce_lane(left, action)
    assert flight.outgoing.sequence == busy.last_sequence
    assert list(broken(busy, (flight.command,))) == []
    step = evolve_lane(busy, flight, settled(outcome, of.now), of.account)
    assert step.lane.version == busy.version == of.lane.version + 1
    assert step.lane.last_sequence == busy.last_sequence
    assert (step.lane.command_id is None) is (step.command.done_at is not None)
    if step.lane.command_id is not None:
        assert list(broken(step.lane, (step.command,))) == []
        assert step.lane.retry_at is not None
        assert step.lane.retry_at - of.now <= S + timedelta(minutes=1)


@given(views(is_ready=True), st.sampled_from(OUTCOMES))
def test_only_a_stop_that_was_taken_closes_the_microphone(of: LaneView, outcome: Outcome) -> None:
    left, action = settle_all(of)
    if not isinstance(action, Send):
        return
    busy, flight = announce_lane(left, action)
    step = evolve_lane(busy, flight, settled(outcome, of.now), of.account)
    if left.may_listen and not step.lane.listening:
        assert action.command.kind is STOP
        assert step.command.state is CommandState.DONE
