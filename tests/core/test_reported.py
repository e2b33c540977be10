"""Who is only reported is watched to its end: by its handle, its place, or two looks in vain."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from orchestrator.core.action import Call, Forget, Wait
from orchestrator.core.arrange import arrange
from orchestrator.core.caps import Recovery
from orchestrator.core.decide import TOLD_POLLS, decide
from orchestrator.core.evolve import evolve
from orchestrator.core.fact import Event, Fact
from orchestrator.core.hearing import hear
from orchestrator.core.invariants import broken
from orchestrator.core.model import (
    Account,
    Evidence,
    Orphan,
    Phase,
    Row,
    Step,
    Verb,
    What,
    WorkClass,
)
from orchestrator.core.orphan import refence
from orchestrator.core.outcome import Done, Gone, Indefinite, Outcome
from orchestrator.core.wishes import absorb
from tests.core.builders import NOW, S, account, change, in_flight, known, settled
from tests.core.builders import row as task_row
from tests.core.test_orphans import SISTER, fact, orphan

NAMED = account(Recovery.SAME_NAME)
EVICTED = account(Recovery.EVICT)
SEEN_AS = fact(Event.SEEN, vendor_task_id=None, name=SISTER)
"""All that a room tells of another database's agent."""


def looks(
    row: Row, of: Account, outcomes: Sequence[Outcome], since: datetime = NOW
) -> Iterator[tuple[datetime, Verb, Step]]:
    """Yield the looks at a row with these outcomes: when, what, and what became of the row."""
    at = since
    for outcome in outcomes:
        row = arrange(row, of, at)
        assert list(broken(row, of)) == []
        at = max(at, row.status.due_at or at)
        call = decide(row, of, at)
        assert isinstance(call, Call)
        assert call.work_class is WorkClass.OBSERVE
        flying, flight = in_flight(row, call.verb, call.agent, at, of)
        step = evolve(flying, flight, settled(outcome, asked_at=at), of)
        yield at, call.verb, step
        row, at = step.row, at + S


def look(row: Row, of: Account, *outcomes: Outcome) -> Step:
    """Return what the last of several looks makes of a row. None but it may end anything."""
    steps = [step for _, _, step in looks(row, of, outcomes)]
    assert all(step.row.agents for step in steps[:-1])
    assert steps[-1].row.status.retired == 0
    return steps[-1]


# --- a room is all that shows it


ENDS: list[tuple[str, list[Outcome], bool]] = [
    ("never seen", [Gone(), Gone(), Gone()], False),
    ("seen, missed once", [Done(), Gone()], False),
    ("seen, missed twice", [Done(), Gone(), Gone()], True),
    ("seen between two misses", [Done(), Gone(), Done(), Gone()], False),
    ("nobody knows in between", [Done(), Gone(), Indefinite(), Gone()], True),
]


@pytest.mark.parametrize(("outcomes", "ends"), [e[1:] for e in ENDS], ids=[e[0] for e in ENDS])
def test_what_a_room_has_shown_has_ended_when_two_looks_miss_it(
    outcomes: list[Outcome], *, ends: bool
) -> None:
    step = look(orphan(NAMED, stop=False), NAMED, *outcomes)
    assert [one.evidence for one in step.ended] == [Evidence.ABSENT] * ends
    assert isinstance(decide(step.row, NAMED, NOW), Forget) is ends


def test_the_second_look_comes_after_a_while_but_not_as_late_as_when_all_is_well() -> None:
    row = orphan(NAMED, stop=False)
    told = row.replace_agent(replace(row.agents[0], told_at=NOW))
    first, second, third = (at for at, _, _ in looks(told, NAMED, [Done(), Gone(), Gone()]))
    assert second - first > TOLD_POLLS * NAMED.poll / 2
    assert NAMED.poll / 2 < third - second < 2 * NAMED.poll


def test_what_is_told_to_have_ended_is_looked_for_at_once_and_one_miss_ends_it() -> None:
    ((_, _, shown),) = looks(orphan(NAMED, stop=False), NAMED, [Done()])
    ended = Fact(key="e", event=Event.ENDED, event_at=NOW, vendor_task_id="h1")
    heard = hear(shown.row, [ended], NAMED, NOW + 2 * S)
    assert heard.ended == ()
    ((at, _, step),) = looks(heard.row, NAMED, [Gone()], since=NOW + 2 * S)
    assert at == NOW + 2 * S
    assert [one.evidence for one in step.ended] == [Evidence.ABSENT]


# --- a name in a room is all that is known of it


def test_who_is_known_by_name_is_looked_for_in_its_room_like_others() -> None:
    row = orphan(EVICTED, stop=False, told=SEEN_AS)
    made = list(looks(row, EVICTED, [Done(), Done(), Done(), Gone()]))
    assert {verb for _, verb, _ in made} == {Verb.FIND}
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(made)]
    assert all(EVICTED.poll / 2 < gap < 2 * EVICTED.poll for gap in gaps)
    shown, left = made[0][2].row, made[-1][2]
    assert shown.agents[0].seen_at == NOW + S
    assert arrange(shown, EVICTED, NOW).status.phase is Phase.RUNNING
    assert [one.evidence for one in left.ended] == [Evidence.ABSENT]
    assert decide(left.row, EVICTED, NOW) == Forget()


def test_who_is_missed_just_after_it_was_seen_is_looked_for_again() -> None:
    row = orphan(EVICTED, stop=False, told=SEEN_AS)
    (first, _, hinted), (second, _, step) = looks(row, EVICTED, [Gone(), Gone()])
    assert (hinted.ended, second - first) == ((), EVICTED.settle_in)
    assert [one.evidence for one in step.ended] == [Evidence.ABSENT]


def test_a_look_by_name_may_tell_the_handle() -> None:
    row = orphan(EVICTED, stop=False, told=SEEN_AS)
    made = list(looks(row, EVICTED, [Done(handle="h1"), Done()]))
    assert [verb for _, verb, _ in made] == [Verb.FIND, Verb.POLL]
    assert made[-1][2].row.agents[0].vendor_task_id == "h1"


def test_a_look_by_name_that_fails_is_made_again() -> None:
    row = orphan(EVICTED, stop=False, told=SEEN_AS)
    first, second = (at for at, _, _ in looks(row, EVICTED, [Indefinite(), Done()]))
    assert timedelta() < second - first <= 2 * S + EVICTED.retry_base


# --- it is to be stopped after all


def turned(of: Account, at: datetime) -> Row:
    """Return a report as a claim sees it that reads that it is to be stopped."""
    told = replace(orphan(of, stop=False), orphan=Orphan(id="o1", stop=True))
    return refence(absorb(told, [change(What.STOP)], at).row, of)


@pytest.mark.parametrize("of", [NAMED, EVICTED])
def test_who_is_stopped_after_all_may_have_been_started_as_late_as_that(of: Account) -> None:
    row = turned(of, NOW + 3600 * S)
    assert row.agents[0].horizon_at == NOW + 3715 * S
    row, flight = in_flight(row, Verb.STOP, row.agents[0], NOW + 3600 * S, of)
    step = evolve(row, flight, settled(Gone(), asked_at=NOW + 3600 * S), of)
    assert step.ended == ()
    assert isinstance(decide(step.row, of, NOW + 3700 * S), Wait)
    row, flight = in_flight(step.row, Verb.STOP, step.row.agents[0], NOW + 3715 * S, of)
    step = evolve(row, flight, settled(Gone(), asked_at=NOW + 3715 * S), of)
    assert [one.evidence for one in step.ended] == [Evidence.ABSENT]


def test_that_horizon_is_set_once_and_never_moves_back() -> None:
    row = turned(NAMED, NOW)
    later = absorb(row, [change(What.FACT)], NOW + 60 * S).row
    assert refence(later, NAMED) is later
    far = row.replace_agent(replace(row.agents[0], horizon_at=NOW + 900 * S))
    assert refence(far, NAMED) is far


@pytest.mark.parametrize("stop", [True, False])
def test_no_other_orphan_has_another_horizon_than_it_was_found_with(*, stop: bool) -> None:
    row = absorb(orphan(NAMED, stop=stop), [], NOW).row
    assert refence(row, NAMED) is row


def test_a_task_has_no_horizon_but_that_of_its_sends() -> None:
    row = absorb(task_row(known()), [change(What.STOP)], NOW).row
    assert refence(row, NAMED) is row
