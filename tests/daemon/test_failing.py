"""Rows that fail: the wait doubles to a minute, ends with a success, and is kept for so many."""

from orchestrator.daemon.failing import FIRST_NS, LONGEST_NS, MOST_ROWS, Failing


def waits(failing: Failing, id_: str, times: int) -> list[int]:
    """Let a row fail so often, each time as soon as it is tried again; return the waits."""
    found, now_ns = [], 0
    for _ in range(times):
        failing.note(id_, now_ns)
        until_ns = now_ns
        while id_ in failing.left_alone(until_ns):
            until_ns += FIRST_NS
        found.append(until_ns - now_ns)
        now_ns = until_ns
    return found


def test_the_wait_doubles_up_to_a_minute() -> None:
    seconds = [wait // 10**9 for wait in waits(Failing(), "a", 8)]
    assert seconds == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (FIRST_NS, LONGEST_NS) == (10**9, 60 * 10**9)


def test_a_success_forgets_and_each_row_has_a_wait_of_its_own() -> None:
    failing = Failing()
    waits(failing, "a", 5)
    assert waits(failing, "b", 1) == [FIRST_NS]
    failing.forget(["a", "unknown"])
    assert failing.left_alone(0) == {"b"}
    assert waits(failing, "a", 1) == [FIRST_NS]


def test_only_so_many_are_kept_and_the_soonest_goes_first() -> None:
    failing = Failing()
    for number in range(MOST_ROWS + 1):
        failing.note(f"t{number}", number)
    left = failing.left_alone(0)
    assert len(left) == MOST_ROWS
    assert "t0" not in left
