"""Wishes and deadlines as tables: what the application wrote x how the row stood."""

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.deadline import ends_at, lapse, must_start_by, next_lapse
from orchestrator.core.model import Account, EndReason, Evidence, Row, Task, What
from orchestrator.core.replace import replace
from orchestrator.core.wishes import absorb
from tests.core.builders import NOW, S, account, agent, change, known, row, task, unknown

PENDING = row()
RUNNING = row(known())
STARTING = row(unknown())
STOPPED = row(retired=1, end_reason=EndReason.IDLE)
FAILED = row(retired=1, end_reason=EndReason.START_FAILED, reason="Invalid")
FRESH = row(incarnation=0)

WISHES = [
    # what, row, incarnation and retired afterwards, why the earlier one ended
    (What.INSERT, FRESH, 1, 0, None),
    (What.INSERT, RUNNING, 2, 1, EndReason.DELETED),
    (What.RUN, STOPPED, 2, 1, EndReason.IDLE),
    (What.RUN, FAILED, 2, 1, None),
    (What.RUN, RUNNING, 1, 0, None),
    (What.STOP, RUNNING, 1, 1, EndReason.REQUESTED),
    (What.STOP, STOPPED, 1, 1, EndReason.IDLE),
    (What.DELETE, RUNNING, 1, 1, EndReason.DELETED),
    (What.RESTART, RUNNING, 2, 1, EndReason.SUPERSEDED),
    (What.RESTART, STOPPED, 2, 1, EndReason.IDLE),
    (What.RESTART, FAILED, 2, 1, None),
    (What.SPEC, RUNNING, 2, 1, EndReason.SUPERSEDED),
    (What.SPEC, STARTING, 2, 1, EndReason.SUPERSEDED),
    (What.SPEC, STOPPED, 1, 1, EndReason.IDLE),
    (What.SPEC, FAILED, 2, 1, None),
    (What.START_BY, FAILED, 2, 1, None),
    (What.START_BY, STOPPED, 1, 1, EndReason.IDLE),
    (What.START_BY, RUNNING, 1, 0, None),
    *[
        (what, given, given.status.incarnation, given.status.retired, given.status.end_reason)
        for what in (What.TIMING, What.OWNER, What.LEDGER, What.CANCEL_COMMAND)
        for given in (PENDING, RUNNING, STARTING, STOPPED, FAILED)
    ],
]


@pytest.mark.parametrize(("what", "given", "incarnation", "retired", "end_reason"), WISHES)
def test_what_a_wish_means(
    what: What, given: Row, incarnation: int, retired: int, end_reason: EndReason | None
) -> None:
    status = absorb(given, [change(what)], NOW).row.status
    assert (status.incarnation, status.retired) == (incarnation, retired)
    assert status.end_reason is end_reason
    assert status.generation == 1


def test_a_pending_row_takes_a_new_spec_without_a_new_try_at_waiting() -> None:
    waits = row(agent(), attempt=3, retry_at=NOW + S, reason="500")
    status = absorb(waits, [change(What.SPEC)], NOW).row.status
    assert (status.attempt, status.retry_at, status.reason) == (0, None, None)


FIXED = {"fixed_digest": "same"}

RESPECS = [
    # how the row stands when its spec changes, whether its agent is brought to it as it is
    (row(known(**FIXED), task=task(**FIXED)), True),
    (row(known(**FIXED), task=task(fixed_digest="other")), False),
    (row(known(**FIXED), task=task(fixed_digest=None)), False),
    (row(unknown(**FIXED), task=task(**FIXED)), False),
    (row(known(**FIXED), known(id="a2", **FIXED), task=task(**FIXED)), False),
    (row(known(**FIXED), task=None), False),
]


@pytest.mark.parametrize(("given", "in_place"), RESPECS)
def test_only_one_agent_with_a_known_handle_is_brought_to_a_new_spec(
    given: Row, in_place: bool
) -> None:
    status = absorb(given, [change(What.SPEC)], NOW).row.status
    assert status.update_due is in_place
    assert (status.retired == 0) is in_place


def test_an_update_that_is_due_ends_with_its_agent() -> None:
    given = row(known(**FIXED), task=task(**FIXED), update_due=True)
    status = absorb(given, [change(What.STOP)], NOW).row.status
    assert (status.update_due, status.retired_at) == (False, NOW)


@pytest.mark.parametrize(
    ("given", "end_reason"),
    [
        (row(known(), task=None), EndReason.DELETED),
        (row(known(), task=task(running=False)), EndReason.REQUESTED),
    ],
)
def test_the_row_as_it_stands_has_the_last_word(given: Row, end_reason: EndReason) -> None:
    """Also where a trigger was lost: nothing in the inbox."""
    assert absorb(given, [], NOW).row.status.end_reason is end_reason


def test_a_stop_is_carried_out_whatever_follows() -> None:
    step = absorb(RUNNING, [change(What.STOP), change(What.RUN)], NOW)
    assert [each.incarnation for each in step.row.unwanted] == [1]
    assert (step.row.status.incarnation, step.row.status.generation) == (2, 2)


def test_what_was_never_sent_ends_at_once() -> None:
    step = absorb(row(agent()), [change(What.STOP)], NOW)
    assert step.row.agents == ()
    assert [each.evidence for each in step.ended] == [Evidence.NEVER_STARTED]


@pytest.mark.parametrize(("given", "retired"), [(RUNNING, 1), (STARTING, 0)])
def test_a_persons_word_closes_everything(given: Row, retired: int) -> None:
    step = absorb(given, [change(What.ASSUME_GONE)], NOW)
    assert step.row.agents == ()
    assert [each.evidence for each in step.ended] == [Evidence.ASSUMED]
    assert step.row.status.retired == retired


def test_a_retired_agent_is_asked_anew_whatever_it_was_asked_before() -> None:
    hinted = known(hinted_at=NOW, kicked_at=NOW, retry_at=NOW + S, attempt=3)
    (left,) = absorb(row(hinted), [change(What.STOP)], NOW).row.agents
    assert (left.hinted_at, left.kicked_at, left.retry_at, left.attempt) == (None, None, None, 0)


def test_a_handle_that_turned_up_is_asked_about_at_once() -> None:
    given = row(known(hinted_at=NOW), unknown(id="a2", hinted_at=NOW), retired=1)
    first, second = absorb(given, [change(What.LEDGER)], NOW).row.agents
    assert (first.hinted_at, second.hinted_at) == (None, NOW)


# --- deadlines

MINUTE = timedelta(minutes=1)
ALONE = {"heartbeat_timeout": MINUTE}
OWNED = {"owner_timeout": MINUTE}

ENDS: list[tuple[dict[str, Any], dict[str, Any], object, EndReason | None]] = [
    # the task, the account, when it ends, why
    ({}, {}, None, None),
    ({"stop_at": NOW + MINUTE}, {}, NOW + MINUTE, EndReason.DEADLINE),
    (ALONE, {}, NOW + MINUTE, EndReason.HEARTBEAT_LOST),
    (ALONE | {"heartbeat_at": NOW + S}, {}, NOW + MINUTE + S, EndReason.HEARTBEAT_LOST),
    (ALONE | {"start_at": NOW + S}, {}, NOW + MINUTE + S, EndReason.HEARTBEAT_LOST),
    (ALONE, {"amnesty_at": NOW + S}, NOW + MINUTE + S, EndReason.HEARTBEAT_LOST),
    (OWNED, {}, NOW + MINUTE, EndReason.HEARTBEAT_LOST),
    (OWNED | {"owner_heartbeat_at": NOW + S}, {}, NOW + MINUTE + S, EndReason.HEARTBEAT_LOST),
    ({"owner_missing": True}, {}, NOW, EndReason.HEARTBEAT_LOST),
    ({}, {"max_duration": MINUTE}, NOW + MINUTE, EndReason.DEADLINE),
    (ALONE | {"stop_at": NOW + S}, {}, NOW + S, EndReason.DEADLINE),
]


@pytest.mark.parametrize(("of_task", "of_account", "ends", "end_reason"), ENDS)
def test_when_time_alone_ends_it(
    of_task: dict[str, Any], of_account: dict[str, Any], ends: Any, end_reason: EndReason | None
) -> None:
    given: Row = row(known(announced_at=NOW), task=task(**of_task))
    of: Account = account(**of_account)
    assert next_lapse(given, of) == ends
    if ends is None:
        assert lapse(given, of, NOW + timedelta(days=1)).row is given
        return
    assert lapse(given, of, ends - timedelta(microseconds=1)).row is given
    assert lapse(given, of, ends).row.status.end_reason is end_reason


ASKS = {"upstream": "main"}
LIMITED: dict[str, Any] = {"idle_timeout": MINUTE}
IDLE: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], object]] = [
    # the task, the account, the status, since when it is idle
    (ASKS, LIMITED, {}, NOW),
    (ASKS | {"talked_at": NOW + S}, LIMITED, {}, NOW + S),
    (ASKS | {"talked_at": NOW - S}, LIMITED, {}, NOW),  # to an agent before this one
    (ASKS, LIMITED, {"started_at": NOW + S}, NOW + S),
    (ASKS, LIMITED | {"amnesty_at": NOW + S}, {}, NOW + S),
    (ASKS | {"talked_at": NOW + 2 * S}, LIMITED | {"amnesty_at": NOW + S}, {}, NOW + 2 * S),
    (ASKS, {}, {}, None),  # the account has no limit
    ({}, LIMITED, {}, None),  # its model is not ours, so nobody hears who talks to it
    ({"talked_at": NOW + S}, LIMITED, {}, None),
]


@pytest.mark.parametrize(("of_task", "of_account", "of_status", "since"), IDLE)
def test_when_an_agent_is_idle(
    of_task: dict[str, Any], of_account: dict[str, Any], of_status: dict[str, Any], since: Any
) -> None:
    given: Row = row(known(announced_at=NOW), task=task(**of_task), **of_status)
    of = account(**of_account)
    if since is None:
        assert next_lapse(given, of) is None
        return
    assert next_lapse(given, of) == since + MINUTE
    assert lapse(given, of, since + MINUTE - timedelta(microseconds=1)).row is given
    assert lapse(given, of, since + MINUTE).row.status.end_reason is EndReason.IDLE


@pytest.mark.parametrize("given", [PENDING, STARTING])
def test_what_does_not_run_yet_is_not_idle(given: Row) -> None:
    asking = replace(given, task=task(**ASKS))
    assert ends_at(asking, account(**LIMITED)) is None


def test_the_newest_agent_is_the_one_that_is_talked_to() -> None:
    later = known(id="a2", vendor_task_id="h2", announced_at=NOW + MINUTE)
    given = row(known(announced_at=NOW), later, task=task(**ASKS))
    assert ends_at(given, account(**LIMITED)) == (NOW + 2 * MINUTE, EndReason.IDLE)


def test_the_longest_duration_needs_an_agent() -> None:
    of = account(max_duration=MINUTE, start_within=2 * MINUTE)
    assert next_lapse(PENDING, of) == NOW + 2 * MINUTE


BY: list[tuple[Task, dict[str, Any], object]] = [
    (task(), {}, NOW + timedelta(hours=1)),
    (task(), {"asked_at": None}, NOW + timedelta(hours=1)),
    (task(start_at=NOW + MINUTE), {}, NOW + timedelta(hours=1) + MINUTE),
    (task(start_by=NOW + MINUTE), {}, NOW + MINUTE),
    (task(start_by=NOW + MINUTE), {"start_by_holds": False}, NOW + timedelta(hours=1)),
    (task(start_by=NOW + timedelta(hours=9)), {}, NOW + timedelta(hours=1)),
]


@pytest.mark.parametrize(("of_task", "of_status", "expected"), BY)
def test_by_when_a_start_must_have_been_taken(
    of_task: Task, of_status: dict[str, Any], expected: Any
) -> None:
    given = row(task=of_task, **of_status)
    assert must_start_by(given, account()) == expected
    status = lapse(given, account(), expected).row.status
    assert (status.end_reason, status.reason) == (EndReason.START_FAILED, "StartDeadlineMissed")


@pytest.mark.parametrize("given", [RUNNING, row(task=None)])
def test_what_was_taken_or_deleted_has_no_such_time(given: Row) -> None:
    assert must_start_by(given, account()) is None


def test_a_deleted_task_has_no_deadline() -> None:
    assert ends_at(row(known(), task=None), account()) is None


@pytest.mark.parametrize("given", [row(retired=1), row(task=None)])
def test_nothing_lapses_where_nothing_is_wanted(given: Row) -> None:
    assert next_lapse(given, account()) is None
    assert lapse(given, account(), NOW + timedelta(days=9)).row is given
