"""Whose an agent without a task is, and that one which is only reported is never asked to end."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import names
from orchestrator.core.action import Call, Forget, Wait
from orchestrator.core.arrange import NET, arrange
from orchestrator.core.caps import Recovery
from orchestrator.core.deadline import lapse
from orchestrator.core.decide import TOLD_POLLS, decide
from orchestrator.core.evolve import evolve
from orchestrator.core.fact import ASKED, Event, Fact
from orchestrator.core.hearing import hear
from orchestrator.core.model import (
    Account,
    Agent,
    Evidence,
    Orphan,
    Phase,
    Row,
    Verb,
    What,
    WorkClass,
)
from orchestrator.core.orphan import (
    Owner,
    Sighting,
    Verdict,
    attend,
    describe,
    fence,
    is_to_be_asked,
    judge,
    parked,
)
from orchestrator.core.outcome import Done, Gone, Indefinite
from orchestrator.core.wishes import absorb
from tests.core.builders import NOW, S, account, agent, change, in_flight, settled

OWNER = Owner(prefix="orc", mark="abcde")
OURS = names.compose("orc", "abcde", bytes(16))
SISTER = names.compose("orc", "fghij", bytes(16))
STRANGER = "bot-of-somebody"
TIMEOUT = 5 * S
PARKED = 15 * S
"""`settle_in` of the default account, and the time-out."""

NAMED = account(Recovery.SAME_NAME)
FOUND = account(Recovery.FIND)
EVICTED = account(Recovery.EVICT)


def fact(event: Event = Event.ALIVE, **changes: Any) -> Fact:
    given = Fact(key="k1", event=event, event_at=NOW, vendor_task_id="h1", room_id="r1")
    return replace(given, **changes)


# --- whose name it is


@pytest.mark.parametrize(
    ("name", "has", "may_have"),
    [
        (OURS, True, True),
        (f"{OURS}_s2", True, False),
        (SISTER, False, True),
        (STRANGER, False, False),
        (OURS[:-1], False, False),
        (f"x{OURS}", False, False),
        ("", False, False),
    ],
)
def test_ours_is_prefix_and_mark(name: str, *, has: bool, may_have: bool) -> None:
    assert (OWNER.has(name), OWNER.may_have(name)) == (has, may_have)
    assert not OWNER.has(None)


# --- what is to be done about it


def sighting(told: Fact, **changes: Any) -> Sighting:
    given = Sighting(fact=told, age=PARKED, ended_at=None, is_start_open=False)
    return replace(given, **changes)


def verdict(given: Sighting) -> Verdict:
    return judge(given, OWNER, NAMED, TIMEOUT)


def asked(**changes: Any) -> Fact:
    return fact(**{"name": OURS, "code": ASKED} | changes)


MARGIN = NAMED.clock_margin
TICK = timedelta(microseconds=1)
YOUNG = PARKED - TICK
JUDGED: list[tuple[str, Sighting, Verdict]] = [
    ("our name", sighting(fact(name=OURS)), Verdict.OURS),
    ("our name without a handle", sighting(fact(name=OURS, vendor_task_id=None)), Verdict.OURS),
    ("our name, just seen", sighting(fact(name=OURS), age=0 * S), Verdict.OURS),
    ("another database of ours", sighting(fact(name=SISTER)), Verdict.FOREIGN),
    ("a stranger's", sighting(fact(name=STRANGER)), Verdict.FOREIGN),
    ("no name", sighting(fact()), Verdict.FOREIGN),
    ("nothing", sighting(fact(vendor_task_id=None)), Verdict.SKIP),
    ("a start is open", sighting(fact(), age=YOUNG, is_start_open=True), Verdict.WAIT),
    ("it was long enough", sighting(fact(), is_start_open=True), Verdict.FOREIGN),
    (
        "ours, a start is open",
        sighting(fact(name=OURS), age=YOUNG, is_start_open=True),
        Verdict.WAIT,
    ),
    ("another account's", sighting(fact(name=OURS), is_elsewhere=True), Verdict.SKIP),
    ("an end", sighting(fact(Event.ENDED, name=OURS)), Verdict.SKIP),
    ("an end just now", sighting(fact(Event.ENDED), age=YOUNG), Verdict.WAIT),
    ("it ended later", sighting(fact(name=OURS), ended_at=NOW + S), Verdict.SKIP),
    ("it ended then", sighting(fact(name=OURS), ended_at=NOW - MARGIN), Verdict.SKIP),
    ("it lives on", sighting(fact(name=OURS), ended_at=NOW - MARGIN - S), Verdict.OURS),
    # Who asks our gateway does so by our own clock, and its name is certain.
    ("asks, and had ended", sighting(asked(), ended_at=NOW - TICK), Verdict.OURS),
    ("asked when it ended", sighting(asked(), ended_at=NOW), Verdict.SKIP),
    ("asks while a start is open", sighting(asked(), age=0 * S, is_start_open=True), Verdict.OURS),
    ("asks without a handle", sighting(asked(vendor_task_id=None), age=0 * S), Verdict.OURS),
    ("asks in a sister's name", sighting(asked(name=SISTER), age=0 * S), Verdict.FOREIGN),
    ("asks, and is another account's", sighting(asked(), is_elsewhere=True), Verdict.SKIP),
]


@pytest.mark.parametrize(
    ("given", "expected"), [case[1:] for case in JUDGED], ids=[case[0] for case in JUDGED]
)
def test_sightings_are_judged(given: Sighting, expected: Verdict) -> None:
    assert verdict(given) is expected


sightings = st.builds(
    Sighting,
    fact=st.builds(
        fact,
        event=st.sampled_from(Event),
        name=st.sampled_from([None, OURS, SISTER, STRANGER]),
        vendor_task_id=st.sampled_from([None, "h1"]),
    ),
    age=st.timedeltas(min_value=timedelta(0), max_value=4 * PARKED),
    ended_at=st.one_of(
        st.none(), st.timedeltas(min_value=-60 * S, max_value=60 * S).map(lambda d: NOW + d)
    ),
    is_start_open=st.booleans(),
)


@given(sightings)
def test_no_orphan_comes_of_an_end_and_none_is_ours_without_our_name(seen: Sighting) -> None:
    found = verdict(seen)
    assert found not in {Verdict.OURS, Verdict.FOREIGN} or seen.fact.event is not Event.ENDED
    assert (found is not Verdict.OURS) or seen.fact.name == OURS
    # Nothing waits for ever.
    assert found is not Verdict.WAIT or seen.age < parked(NAMED, TIMEOUT)


@pytest.mark.parametrize(
    ("name", "judged", "asked"),
    [
        (None, Verdict.FOREIGN, True),
        (STRANGER, Verdict.FOREIGN, False),
        (OURS, Verdict.OURS, False),
    ],
)
def test_who_has_no_name_is_asked_for_it(name: str | None, judged: Verdict, *, asked: bool) -> None:
    assert is_to_be_asked(fact(name=name), judged) is asked


# --- its ledger row


def described(told: Fact, of: Account, *, ours: bool = False, stop: bool = False) -> Agent:
    return describe(told, of, "here", "~o1", ours=ours, stop=stop)


WHO: list[tuple[str, Fact, Account, bool, tuple[str, str | None]]] = [
    (
        "ours by a handle that is a name",
        fact(vendor_task_id=OURS, name=OURS),
        NAMED,
        True,
        (OURS, OURS),
    ),
    (
        "ours, seen in the room",
        fact(Event.SEEN, vendor_task_id=None, name=OURS),
        NAMED,
        True,
        (OURS, OURS),
    ),
    (
        "a stranger's TaskId is no user id",
        fact(vendor_task_id="T", name="T"),
        NAMED,
        False,
        ("", "T"),
    ),
    (
        "a sister's, seen",
        fact(Event.SEEN, vendor_task_id=None, name=SISTER),
        NAMED,
        False,
        (SISTER, SISTER),
    ),
    ("a stranger's user id", fact(name=STRANGER), EVICTED, False, (STRANGER, "h1")),
    (
        "ours without a handle",
        fact(Event.SEEN, vendor_task_id=None, name=OURS),
        EVICTED,
        True,
        (OURS, None),
    ),
    ("a TaskId alone", fact(), FOUND, False, ("", "h1")),
]


@pytest.mark.parametrize(
    ("told", "of", "ours", "expected"), [case[1:] for case in WHO], ids=[case[0] for case in WHO]
)
def test_what_is_told_names_the_agent(
    told: Fact, of: Account, expected: tuple[str, str | None], *, ours: bool
) -> None:
    found = described(told, of, ours=ours, stop=ours)
    assert (found.name, found.vendor_task_id) == expected
    assert (found.id, found.account, found.site, found.room_id) == ("~o1", of.name, "here", "r1")
    assert (found.user_id, found.session_name, found.stream_id) == ("", "", "")
    assert found.announced_at == NOW


def test_a_place_that_is_not_told_is_empty() -> None:
    found = described(fact(room_id=None, user_id="u1"), FOUND)
    assert (found.room_id, found.user_id) == ("", "u1")


@pytest.mark.parametrize("of", [NAMED, FOUND, EVICTED])
def test_who_is_to_be_stopped_may_have_been_started_as_late_as_it_was_seen(of: Account) -> None:
    assert described(fact(), of, stop=True).horizon_at == NOW + 115 * S
    assert fence(agent(), of, NOW).horizon_at == NOW + 115 * S


@pytest.mark.parametrize(
    ("of", "since"), [(NAMED, NOW - 15 * S), (FOUND, NOW + 10 * S), (EVICTED, NOW + 10 * S)]
)
def test_of_who_is_watched_the_vendors_word_counts_soon(of: Account, since: datetime) -> None:
    assert described(fact(), of).horizon_at == since


# --- its status


def orphan(of: Account, *, stop: bool, told: Fact | None = None) -> Row:
    """Return the row that stands for an orphan that was just found."""
    found = described(told or fact(), of, stop=stop)
    status = attend(found, "~o1", NOW, stop=stop)
    return Row(status=status, task=None, orphan=Orphan(id="o1", stop=stop), agents=(found,))


def test_who_is_to_be_stopped_is_due_at_once() -> None:
    row = orphan(EVICTED, stop=True)
    assert (row.status.phase, row.status.due_at, row.status.stop_due_at) == (
        Phase.STOPPING,
        None,
        NOW,
    )
    assert decide(row, EVICTED, NOW) == Call(
        verb=Verb.STOP, agent=row.agents[0], work_class=WorkClass.STOP
    )


@pytest.mark.parametrize("of", [NAMED, FOUND, EVICTED])
def test_who_is_reported_is_looked_at_once(of: Account) -> None:
    row = orphan(of, stop=False)
    assert (row.status.phase, row.status.due_at, row.status.stop_due_at) == (
        Phase.RUNNING,
        NOW,
        None,
    )
    assert decide(row, of, NOW) == Call(
        verb=Verb.POLL, agent=row.agents[0], work_class=WorkClass.OBSERVE
    )


@pytest.mark.parametrize("place", [{"name": SISTER, "room_id": None}, {"name": None}])
def test_who_is_reported_without_a_handle_or_a_place_cannot_be_looked_at(place: Any) -> None:
    row = orphan(EVICTED, stop=False, told=fact(Event.SEEN, vendor_task_id=None, **place))
    assert decide(row, EVICTED, NOW) == Wait()
    assert arrange(row, EVICTED, NOW).status.due_at == NOW + NET


def test_who_is_reported_and_gone_is_forgotten() -> None:
    assert decide(replace(orphan(FOUND, stop=False), agents=()), FOUND, NOW) == Forget()


def test_a_paused_account_stops_orphans_and_a_frozen_one_does_not() -> None:
    row = orphan(FOUND, stop=True)
    assert isinstance(decide(row, replace(FOUND, paused=True), NOW), Call)
    assert isinstance(decide(row, replace(FOUND, frozen=True), NOW), Wait)


def test_who_is_told_of_is_looked_at_seldom() -> None:
    row = orphan(FOUND, stop=False)
    told = row.replace_agent(replace(row.agents[0], told_at=NOW, seen_at=NOW))
    row = replace(told, status=replace(told.status, polled_at=NOW))
    wait = decide(row, FOUND, NOW)
    assert isinstance(wait, Wait)
    assert wait.until is not None
    assert wait.until - NOW > TOLD_POLLS * FOUND.poll / 2


# --- who is only reported is never asked to end, whatever happens to it


def polled(row: Row, outcome: Done | Gone | Indefinite, of: Account, at: datetime = NOW) -> Row:
    row, flight = in_flight(row, Verb.POLL, row.agents[0], at, of)
    return evolve(row, flight, settled(outcome, asked_at=at), of).row


@pytest.mark.parametrize("of", [NAMED, FOUND, EVICTED])
@pytest.mark.parametrize("outcome", [Done(), Gone(), Indefinite()])
def test_no_answer_of_a_look_retires_it(of: Account, outcome: Done | Gone | Indefinite) -> None:
    row = polled(polled(orphan(of, stop=False), Done(), of), outcome, of, NOW + S)
    assert row.status.retired == 0
    assert row.agents
    later = decide(row, of, NOW + 1200 * S)
    assert isinstance(later, Call)
    assert later.verb is Verb.POLL


@pytest.mark.parametrize(("of", "ends"), [(NAMED, False), (FOUND, True), (EVICTED, True)])
def test_who_is_gone_by_its_handle_has_ended(of: Account, *, ends: bool) -> None:
    row = polled(orphan(of, stop=False), Gone(), of, NOW + 10 * S)
    assert (row.agents == ()) is ends
    assert isinstance(decide(row, of, NOW + 10 * S), Forget) is ends


@pytest.mark.parametrize("of", [NAMED, FOUND, EVICTED])
def test_a_signed_end_closes_it_however_short_it_lived(of: Account) -> None:
    ended = fact(Event.ENDED, event_at=NOW + S, is_signed=True)
    step = hear(orphan(of, stop=False), [ended], of, NOW + 2 * S)
    assert [one.evidence for one in step.ended] == [Evidence.TOLD]
    assert decide(step.row, of, NOW + 2 * S) == Forget()


HARMLESS = [What.FACT, What.LEDGER, What.TIMING, What.OWNER, What.CANCEL_COMMAND]


@pytest.mark.parametrize("what", HARMLESS)
def test_what_the_daemon_says_to_itself_does_not_stop_it(what: What) -> None:
    row = absorb(orphan(FOUND, stop=False), [change(what)], NOW).row
    assert (row.status.retired, row.status.generation) == (0, 1)


def test_it_has_no_deadline() -> None:
    strict = replace(FOUND, max_duration=S, start_within=S)
    row = orphan(strict, stop=False)
    assert lapse(row, strict, NOW + 3600 * S).row == row


def test_a_person_s_word_ends_it() -> None:
    step = absorb(orphan(FOUND, stop=False), [change(What.ASSUME_GONE)], NOW)
    assert [one.evidence for one in step.ended] == [Evidence.ASSUMED]
    assert decide(step.row, FOUND, NOW) == Forget()


# --- who was reported and is to be stopped after all


@pytest.mark.parametrize("changes", [[], [change(What.STOP)]])
def test_another_action_stops_it(changes: list[Any]) -> None:
    reported = orphan(EVICTED, stop=False)
    row = replace(reported, orphan=Orphan(id="o1", stop=True))
    row = absorb(row, changes, NOW).row
    assert row.status.retired == 1
    assert decide(row, EVICTED, NOW) == Call(
        verb=Verb.STOP, agent=row.agents[0], work_class=WorkClass.STOP
    )


@pytest.mark.parametrize("of", [NAMED, FOUND, EVICTED])
def test_what_is_stopped_by_evidence_is_forgotten(of: Account) -> None:
    row = absorb(orphan(of, stop=True), [], NOW).row
    at = NOW + 115 * S
    row, flight = in_flight(row, Verb.STOP, row.agents[0], at, of)
    step = evolve(row, flight, settled(Done(), asked_at=at), of)
    assert [one.evidence for one in step.ended] == [Evidence.STOPPED]
    assert decide(step.row, of, at) == Forget()


def test_a_name_may_be_started_again_until_the_horizon() -> None:
    row = absorb(orphan(NAMED, stop=True), [], NOW).row
    row, flight = in_flight(row, Verb.STOP, row.agents[0], NOW, NAMED)
    row = evolve(row, flight, settled(Gone()), NAMED).row
    assert decide(row, NAMED, NOW + S) == Wait(
        until=NOW + 115 * S, waiting_for=arrange(row, NAMED, NOW + S).status.waiting_for
    )


def test_one_without_a_row_of_its_own_would_be_stopped() -> None:
    """Why a deleted report must be dropped before anything is decided (see `daemon.claim`)."""
    row = replace(orphan(FOUND, stop=False), orphan=None)
    assert absorb(row, [], NOW).row.status.retired == 1
