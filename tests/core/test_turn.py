"""Who is served at the LLM gateway, and of whom there is something to learn: the whole table."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.core.turn import Caller, Standing, TurnOutcome, is_news, stand
from tests.core.builders import NOW

GOOD = Caller(
    vendor_task_id="h1",
    ended_at=None,
    incarnation=2,
    retired=1,
    is_wanted=True,
    is_confirmed=True,
)
CALLERS = st.builds(
    Caller,
    vendor_task_id=st.sampled_from([None, "h1"]),
    ended_at=st.sampled_from([None, NOW]),
    incarnation=st.integers(1, 3),
    retired=st.sampled_from([None, 0, 1, 2, 3]),
    is_wanted=st.booleans(),
    is_confirmed=st.booleans(),
)


@pytest.mark.parametrize(
    ("caller", "standing"),
    [
        (GOOD, Standing.WANTED),
        (None, Standing.UNKNOWN),
        (replace(GOOD, ended_at=NOW), Standing.GONE),
        (replace(GOOD, is_wanted=False), Standing.STOPPED),
        (replace(GOOD, retired=None), Standing.STOPPED),  # its task is forgotten, or an orphan
        (replace(GOOD, retired=2), Standing.SUPERSEDED),
        (replace(GOOD, retired=3), Standing.SUPERSEDED),
        (replace(GOOD, retired=0), Standing.WANTED),
        # What was never seen alive, or has no handle yet, is served: it has just proved both.
        (replace(GOOD, vendor_task_id=None), Standing.WANTED),
        (replace(GOOD, is_confirmed=False), Standing.WANTED),
        # Of two reasons the one that was evidence is said.
        (replace(GOOD, ended_at=NOW, is_wanted=False, retired=2), Standing.GONE),
        (replace(GOOD, is_wanted=False, retired=2), Standing.STOPPED),
    ],
)
def test_who_is_wanted(caller: Caller | None, standing: Standing) -> None:
    assert stand(caller) is standing


@pytest.mark.parametrize(
    ("caller", "handle", "news"),
    [
        (GOOD, None, False),
        (GOOD, "h1", False),
        (GOOD, "h2", True),  # two agents have one token
        (None, None, True),
        (replace(GOOD, vendor_task_id=None), None, True),
        (replace(GOOD, is_confirmed=False), "h1", True),
        (replace(GOOD, ended_at=NOW), "h1", True),
        (replace(GOOD, is_wanted=False), None, True),
        (replace(GOOD, retired=2), None, True),
    ],
)
def test_what_is_worth_writing_down(
    caller: Caller | None, handle: str | None, *, news: bool
) -> None:
    assert is_news(caller, handle) is news


@given(CALLERS)
def test_whoever_is_not_served_is_written_down(caller: Caller) -> None:
    assert stand(caller) is Standing.WANTED or is_news(caller, None)


@given(CALLERS, st.integers(0, 3))
def test_who_was_retired_is_never_served_again(caller: Caller, later: int) -> None:
    assume(caller.retired is not None and stand(caller) is not Standing.WANTED)
    retired = replace(caller, retired=(caller.retired or 0) + later)
    assert stand(retired) is not Standing.WANTED


def test_only_what_somebody_may_want_to_know_is_an_event() -> None:
    quiet = {outcome for outcome in TurnOutcome if not outcome.is_trouble}
    assert quiet == {TurnOutcome.ANSWERED, TurnOutcome.INTERRUPTED}
