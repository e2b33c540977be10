"""Which rows a pass claims: places by account and class, slots, and what is not worth a claim."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest

from orchestrator.core.model import Verb, WorkClass
from orchestrator.daemon.choose import (
    IN_FLIGHT,
    admit,
    choose,
    class_of,
    count_wishes,
    find_crowded,
    free_places,
    full_accounts,
)
from orchestrator.daemon.claim import Room
from orchestrator.daemon.look import Seen
from orchestrator.store.accounts import Standing
from orchestrator.store.queue import Candidate, Queue
from tests.store.claiming import make_book, ticket

BOOK = make_book("volc", "other")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
STARTS = Queue("volc", WorkClass.START, Verb.START)
STOPS = Queue("volc", WorkClass.STOP, Verb.STOP)
START, STOP, OBSERVE = WorkClass.START, WorkClass.STOP, WorkClass.OBSERVE


def rows(account: str | None, verb: Verb, count: int) -> list[Candidate]:
    return [Candidate(task_id=f"{account}{n}", account=account, verb=verb) for n in range(count)]


def seen(
    *candidates: Candidate,
    parked: Mapping[Queue, Sequence[str]] | None = None,
    standings: Sequence[Standing] = (),
) -> Seen:
    return Seen(
        now=NOW,
        candidates=candidates,
        parked=parked or {},
        standings={one.account: one for one in standings},
        next_due=None,
        queues=None,
        elsewhere=frozenset(),
    )


def standing(**changes: bool | str | datetime) -> Standing:
    usual = dict.fromkeys(("max_agents", "retry_at", "denied_code", "denied_since", "probe_at"))
    flags = dict.fromkeys(("paused", "frozen", "undated"), False)
    return Standing(account="volc", **{**usual, **flags, **changes})  # type: ignore[arg-type]  # any of its fields


def busy(**in_flight: int) -> Room:
    """Return the room that is left while so many starts of each account are in flight."""
    return free_places(BOOK.names, {(name, START): count for name, count in in_flight.items()})


@pytest.mark.parametrize("work_class", [START, STOP, OBSERVE])
def test_an_account_that_hangs_takes_no_place_of_another(work_class: WorkClass) -> None:
    room = free_places(BOOK.names, {("volc", work_class): IN_FLIGHT[work_class]})
    verb = next(verb for verb in Verb if class_of(verb) is work_class)
    admitted = admit([*rows("volc", verb, 5), *rows("other", verb, 5)], room)
    assert {one.account for one in admitted} == {"other"}
    assert full_accounts(room, ()) == {
        each: frozenset({"volc"} if each is work_class else ()) for each in WorkClass
    }


@pytest.mark.parametrize(
    ("in_flight", "wishes", "admitted"),
    [
        (0, 100, 64),
        (48, 100, 16),
        (49, 100, 0),  # more want in than there are places: wait for a quarter
        (49, 15, 15),
        (64, 1, 0),
    ],
)
def test_a_crowd_is_let_in_once_a_quarter_is_free(
    in_flight: int, wishes: int, admitted: int
) -> None:
    room = busy(volc=in_flight)
    assert len(list(admit(rows("volc", Verb.START, wishes), room))) == admitted


@pytest.mark.parametrize(("in_flight", "is_full"), [(48, False), (49, True), (64, True)])
def test_a_crowded_account_is_left_out_until_a_quarter_is_free(
    in_flight: int, *, is_full: bool
) -> None:
    room = busy(volc=in_flight)
    wishes = count_wishes(seen(*rows("volc", Verb.START, 99)), BOOK)
    crowded = find_crowded(wishes, room)
    assert crowded == {("volc", START)}
    assert ("volc" in full_accounts(room, crowded)[START]) is is_full


def test_a_row_of_an_account_that_nobody_has_takes_no_place() -> None:
    nobody_s = rows("gone", Verb.START, 3)
    assert list(admit(nobody_s, busy(volc=64, other=64))) == nobody_s
    assert count_wishes(seen(*nobody_s), BOOK) == {}


def test_a_row_without_a_status_gets_one_and_is_not_claimed() -> None:
    wanted = choose(seen(*rows(None, Verb.START, 1)), {}, busy(), BOOK, 9)
    assert (wanted.ids, wanted.without_status) == ([], ["None0"])


def test_of_those_that_are_parked_as_many_are_claimed_as_have_a_slot() -> None:
    parked = {STARTS: ["a", "b", "c"], STOPS: ["s"]}
    tickets = {("volc", Verb.START): [ticket(), ticket()]}
    assert choose(seen(parked=parked), tickets, busy(), BOOK, 9).ids == ["a", "b", "s"]
    assert choose(seen(parked=parked), tickets, busy(volc=64), BOOK, 9).ids == ["s"]
    assert choose(seen(parked=parked), tickets, busy(), BOOK, 1).ids == ["a"]


@pytest.mark.parametrize(
    ("changes", "ids"),
    [
        ({}, ["a", "b", "s"]),
        ({"paused": True}, ["s"]),
        ({"frozen": True}, []),
        ({"denied_code": "NoMoney", "probe_at": NOW}, ["a", "s"]),
        ({"denied_code": "NoMoney", "probe_at": NOW.replace(year=2027)}, ["s"]),
    ],
)
def test_what_holds_an_account_back_holds_its_parked_starts_back(
    changes: dict[str, bool | str | datetime], ids: list[str]
) -> None:
    found = seen(parked={STARTS: ["a", "b"], STOPS: ["s"]}, standings=[standing(**changes)])
    assert choose(found, {}, busy(), BOOK, 9).ids == ids
