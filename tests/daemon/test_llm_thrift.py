"""What is written of requests that came to nothing, and how little of the first is held."""

from orchestrator.daemon.llm.budget import Budget
from orchestrator.daemon.llm.thrift import BURST, EVERY_NS, Thrift


def test_a_handful_is_written_at_once_and_then_one_a_second() -> None:
    thrift = Thrift()
    assert [thrift.allows("a", 0) for _ in range(BURST + 1)] == [True] * BURST + [False]
    assert [thrift.allows("a", EVERY_NS) for _ in range(2)] == [True, False]


def test_an_agent_s_haste_is_its_own() -> None:
    thrift = Thrift()
    assert {thrift.allows("a", 0) for _ in range(2 * BURST)} == {True, False}
    assert thrift.allows("b", 0)


def test_who_rests_has_a_handful_again() -> None:
    thrift = Thrift()
    for _ in range(2 * BURST):
        thrift.allows("a", 0)
    later = 2 * BURST * EVERY_NS
    assert [thrift.allows("a", later) for _ in range(BURST + 1)] == [True] * BURST + [False]


def test_a_budget_is_given_back() -> None:
    budget = Budget(10)
    first = budget.reserve(7)
    assert (first, budget.reserve(4)) == (7, 0)
    assert budget.reserve(0) == 1
    budget.release(first)
    assert budget.reserve(9) == 9
    assert budget.reserve(1) == 0


def test_what_was_reserved_and_not_needed_is_given_back_at_once() -> None:
    budget = Budget(10)
    reserved = budget.reserve(10)
    assert (budget.reserve(1), budget.shrink(reserved, 4)) == (0, 4)
    assert budget.reserve(6) == 6
    assert budget.shrink(6, 0) == 1
