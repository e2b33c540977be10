"""What a vendor tells by itself: whose it is, what it proves, and what it must not do."""

import pytest

from orchestrator.core.action import Call, Wait
from orchestrator.core.announce import announce
from orchestrator.core.backoff import spread
from orchestrator.core.caps import Recovery
from orchestrator.core.decide import TOLD_POLLS, decide
from orchestrator.core.evolve import evolve
from orchestrator.core.fact import ASKED, Event, Fact
from orchestrator.core.hearing import hear
from orchestrator.core.incarnation import retire
from orchestrator.core.late import another
from orchestrator.core.model import (
    Agent,
    EndReason,
    Evidence,
    Orphan,
    RestartPolicy,
    Row,
    Step,
    Verb,
)
from orchestrator.core.outcome import Done, Gone, Settled
from orchestrator.core.replace import replace
from tests.core.builders import NOW, S, account, call, known, row, task, unknown

V, T, Z = Recovery.SAME_NAME, Recovery.FIND, Recovery.EVICT


def fact(event: Event, handle: str | None = "h1", **changes: object) -> Fact:
    given = Fact(key="k", event=event, event_at=NOW, vendor_task_id=handle, is_signed=True)
    return replace(given, **changes)  # type: ignore[arg-type]  # a table's columns


def heard(given: Row, *facts: Fact, at: Recovery = T) -> Step:
    return hear(given, facts, account(at), NOW + S)


def only(step: Step) -> Agent:
    (agent,) = step.row.agents
    return agent


# --- whose it is


def test_a_lost_start_is_adopted_by_its_name() -> None:
    step = heard(row(unknown()), fact(Event.STARTED, "h7", name="a1", is_signed=False), at=Z)
    agent, status = only(step), step.row.status
    assert (agent.vendor_task_id, agent.horizon_at) == ("h7", unknown().horizon_at)
    assert (status.vendor_task_id, status.started_at, status.confirmed_at) == ("h7", NOW, NOW)


def test_a_handle_that_anybody_may_have_made_up_does_not_stand_for_the_name() -> None:
    told = fact(Event.STARTED, "made-up", name="a1", is_signed=False)
    row_, agent = (step := heard(row(unknown()), told, at=Z)).row, only(step)
    assert agent.is_hearsay
    late = NOW + 200 * S
    gone = Settled(outcome=Gone(), asked_at=late, answered_at=late)
    polled = settle(row_, Verb.POLL, agent, gone)
    assert (polled.ended, polled.row.status.retired) == ((), 1)
    asked = decide(polled.row, account(Z), late)
    assert isinstance(asked, Call)
    assert asked.verb is Verb.FIND  # by its name, in its room
    found = settle(polled.row, Verb.FIND, only(polled), gone)
    assert [one.evidence for one in found.ended] == [Evidence.ABSENT]


def test_a_made_up_handle_was_stopped_and_the_name_lives_on() -> None:
    told = fact(Event.STARTED, "made-up", name="a1", is_signed=False)
    given = retire(heard(row(unknown()), told, at=Z).row, EndReason.REQUESTED, NOW).row
    done = Settled(outcome=Done(), asked_at=NOW, answered_at=NOW)
    stopped = settle(given, Verb.STOP, given.agents[0], done)
    assert stopped.ended == ()
    seen = settle(stopped.row, Verb.FIND, only(stopped), done)
    kick = decide(seen.row, account(Z), NOW + 99 * S)
    assert isinstance(kick, Call)
    assert kick.verb is Verb.KICK


def test_a_made_up_handle_ends_where_a_later_agent_of_the_name_is_alive() -> None:
    spent = known(is_hearsay=True, spent_at=NOW)
    later = known(id="a2", vendor_task_id="h2", name="a1", session_name="a2")
    given = row(spent, later)
    waits = decide(given, account(Z), NOW)
    assert not isinstance(waits, Call)  # nothing is kicked that bears the same name
    alive = Settled(outcome=Done(), asked_at=NOW, answered_at=NOW)
    step = settle(given, Verb.POLL, later, alive)
    assert [(one.id, one.evidence) for one in step.ended] == [("a1", Evidence.EVICTED)]


def settle(given: Row, verb: Verb, agent: Agent, settled: Settled) -> Step:
    announced, flight = announce(given, call(verb, agent), agent, account(Z), settled.asked_at)
    return evolve(announced, flight, settled, account(Z))


def test_where_we_name_the_handle_the_name_is_the_handle() -> None:
    step = heard(row(unknown()), fact(Event.STARTED, "a1", name="a1"), at=V)
    assert only(step).vendor_task_id == "a1"


def test_a_handle_is_never_overwritten() -> None:
    told = fact(Event.STARTED, "h2", name="a1", is_signed=False)
    extra, first = heard(row(known()), told, at=Z).row.agents
    assert (extra.vendor_task_id, first.vendor_task_id) == ("h2", "h1")
    assert extra == replace(another(known(), "h2"), told_at=NOW + S)
    assert extra.announced_at < first.announced_at


def test_of_two_lost_ones_nobody_knows_which_it_is() -> None:
    lost = (unknown(), unknown(id="a2", name="a1"))
    told = fact(Event.ALIVE, "h2", name="a1", is_signed=False)
    assert [a.vendor_task_id for a in heard(row(*lost), told, at=Z).row.agents] == [
        "h2",
        None,
        None,
    ]


@pytest.mark.parametrize("event", [Event.ENDED, Event.SEEN])
def test_what_does_not_live_gets_no_row_of_its_own(event: Event) -> None:
    given = row(known())
    assert heard(given, fact(event, "h2", name="a1"), at=Z) == Step(row=given)


def test_an_earlier_one_learns_its_handle_and_the_row_goes_on() -> None:
    given = row(unknown(hinted_at=NOW), known(id="a2", vendor_task_id="h2", name="a1"))
    step = heard(given, fact(Event.STARTED, "h1", name="a1", is_signed=False), at=Z)
    earlier, newest = step.row.agents
    assert (earlier.vendor_task_id, earlier.hinted_at) == ("h1", None)
    assert newest == given.agents[1]
    assert step.row.status == given.status


def test_what_lives_lives_even_if_the_vendor_had_refused_it() -> None:
    refused = known(horizon_at=None, vendor_task_id=None)
    assert only(heard(row(refused), fact(Event.STARTED, "h1", name="a1"), at=Z)).is_known


def test_a_name_alone_confirms_and_tells_no_handle() -> None:
    step = heard(row(unknown()), fact(Event.STARTED, None, name="a1"), at=T)
    assert (only(step).vendor_task_id, step.row.status.confirmed_at) == (None, None)


def test_a_name_that_was_seen_in_a_room_is_no_handle() -> None:
    step = heard(row(unknown()), fact(Event.SEEN, None, name="a1"), at=V)
    assert only(step) == replace(unknown(), told_at=NOW + S)


# --- what it means


def test_who_lives_is_confirmed_once() -> None:
    step = heard(row(known()), fact(Event.ALIVE), fact(Event.ALIVE, key="l", event_at=NOW + 9 * S))
    assert step.row.status.confirmed_at == NOW
    assert heard(row(known()), fact(Event.ALIVE, event_at=NOW + 9 * S)).row.status.confirmed_at == (
        NOW + S
    )


@pytest.mark.parametrize(("hinted_at", "left"), [(NOW - S, None), (NOW, NOW)])
def test_who_lived_later_was_not_gone(hinted_at: object, left: object) -> None:
    given = row(known(hinted_at=hinted_at), retired=1)
    assert only(heard(given, fact(Event.STARTED))).hinted_at == left


def test_an_agent_that_cannot_hear_or_speak() -> None:
    told = fact(Event.FAULT, code="30100", message="speech recognition: timeout")
    status = heard(row(known()), told).row.status
    assert (status.reason, status.message) == ("30100", "speech recognition: timeout")
    assert heard(row(known(), retired=1), told).row.status.reason is None


@pytest.mark.parametrize(
    ("at", "told", "horizon", "evidence"),
    [
        (T, fact(Event.ENDED), 60, Evidence.TOLD),  # its handle stands for one start
        (T, fact(Event.ENDED, is_signed=False), -60, None),  # anybody may have said so
        (Z, fact(Event.ENDED, is_signed=False), -60, None),
        (V, fact(Event.ENDED), -16, Evidence.TOLD),
        (V, fact(Event.ENDED), -14, None),  # the vendor's clock may be ahead of ours
        (V, fact(Event.ENDED), 60, None),  # a send may still be on its way
        (V, fact(Event.ENDED, is_signed=False), -60, None),
    ],
)
@pytest.mark.parametrize("retired", [0, 1])
def test_what_an_end_proves(
    at: Recovery, told: Fact, horizon: int, evidence: Evidence | None, retired: int
) -> None:
    given = row(known(horizon_at=NOW + horizon * S, announced_at=NOW - 99 * S), retired=retired)
    step = heard(given, told, at=at)
    assert [agent.evidence for agent in step.ended] == [evidence] * (evidence is not None)
    assert len(step.row.agents) == (evidence is None)
    assert step.row.status.retired == 1


def test_an_end_has_the_vendors_reason() -> None:
    ended = heard(row(known()), fact(Event.ENDED, end_reason=EndReason.IDLE))
    assert ended.row.status.end_reason is EndReason.IDLE
    assert heard(row(known()), fact(Event.ENDED)).row.status.end_reason is EndReason.VENDOR_GONE


def test_what_was_asked_to_end_ended_for_that() -> None:
    given = row(known(), retired=1, end_reason=EndReason.REQUESTED)
    step = heard(given, fact(Event.ENDED, end_reason=EndReason.KICKED))
    assert step.row.status.end_reason is EndReason.REQUESTED


def test_an_end_before_the_start_was_known() -> None:
    step = heard(row(unknown()), fact(Event.ENDED, "h1", name="a1", is_signed=False), at=Z)
    assert only(step).vendor_task_id == "h1"
    assert step.row.status.retired == 1


@pytest.mark.parametrize(("sent_at", "retired"), [(NOW + S, 1), (NOW + 2 * S, 0)])
def test_an_end_older_than_the_newest_send_of_its_name(sent_at: object, retired: int) -> None:
    given = row(known(vendor_task_id="a1", announced_at=sent_at))
    told = fact(Event.ENDED, "a1", is_signed=False)
    assert heard(given, told, at=V).row.status.retired == retired


def test_facts_are_taken_in_their_order() -> None:
    late = fact(Event.STARTED, key="1", event_at=NOW - S)
    assert heard(row(unknown(), retired=1), fact(Event.ENDED), late).row.agents == (unknown(),)
    step = heard(row(known()), fact(Event.ENDED, end_reason=EndReason.IDLE), late)
    assert step.row.status.confirmed_at == NOW - S


def test_the_end_of_an_evicted_one_leaves_the_later_alone() -> None:
    given = row(known(), known(id="a2", vendor_task_id="h2"))
    unsigned = fact(Event.ENDED, end_reason=EndReason.KICKED, is_signed=False)
    assert heard(given, unsigned, at=Z).row.status == given.status
    step = heard(given, fact(Event.ENDED))
    assert ([a.id for a in step.ended], step.row.status.retired) == (["a1"], 0)


@pytest.mark.parametrize("handle", [None, "h9"])
def test_who_was_evicted_by_its_own_late_twin_gives_way(handle: str | None) -> None:
    twin = unknown(vendor_task_id=handle)
    evicted = known(
        id="a2", name="a1", session_name="a2", vendor_task_id="h2", announced_at=NOW + S
    )
    told = fact(Event.ENDED, "h2", end_reason=EndReason.KICKED, is_signed=False)
    step = heard(row(twin, evicted, vendor_task_id="h2"), told, at=Z)
    assert [agent.id for agent in step.row.agents] == ["a2", "a1"]
    assert step.row.agents[0].announced_at < step.row.agents[1].announced_at
    assert step.row.status.retired == 0
    assert step.row.status.vendor_task_id == (handle or "h2")
    asked = decide(step.row, account(Z), NOW)
    assert isinstance(asked, Call)
    assert (asked.verb, asked.agent and asked.agent.id) == (Verb.STOP, "a2")


# --- beginning anew


@pytest.mark.parametrize(
    ("policy", "reason", "incarnation"),
    [
        (RestartPolicy.ON_FAILURE, EndReason.VENDOR_FAULT, 2),
        (RestartPolicy.ON_FAILURE, EndReason.IDLE, 1),
        (RestartPolicy.ALWAYS, EndReason.IDLE, 2),
        (RestartPolicy.NEVER, EndReason.VENDOR_FAULT, 1),
    ],
)
def test_what_is_begun_anew(policy: RestartPolicy, reason: EndReason, incarnation: int) -> None:
    given = row(known(), task=task(restart_policy=policy))
    step = heard(given, fact(Event.ENDED, end_reason=reason))
    assert step.row.status.incarnation == incarnation


@pytest.mark.parametrize(
    ("before", "lived", "after", "incarnation"),
    [(0, 30, 1, 2), (7, 30, 8, 2), (8, 30, 8, 1), (8, 600, 1, 2)],
)
def test_who_ends_too_soon_too_often_rests(
    before: int, lived: int, after: int, incarnation: int
) -> None:
    always = task(restart_policy=RestartPolicy.ALWAYS)
    started = NOW + S - lived * S
    agent = known(announced_at=started)
    given = row(agent, task=always, started_at=started, restarts=before)
    status = heard(given, fact(Event.ENDED)).row.status
    assert (status.restarts, status.incarnation) == (after, incarnation)
    assert status.reason == (None if incarnation == 2 else "RestartedTooOften")


# --- who asks our gateway


def asked(handle: str | None = None, **changes: object) -> Fact:
    """An agent asked for words: its name is that of one ledger row."""
    return fact(Event.ALIVE, handle, **{"name": "a1", "code": ASKED, "is_signed": False} | changes)


@pytest.mark.parametrize(
    ("at", "handle", "expected"),
    [(V, None, "a1"), (V, "a1", "a1"), (T, "h7", "h7"), (Z, "h7", "h7")],
)
def test_who_asks_is_adopted_and_confirmed(at: Recovery, handle: str | None, expected: str) -> None:
    step = heard(row(unknown()), asked(handle), at=at)
    assert only(step).vendor_task_id == expected
    assert step.row.status.vendor_task_id == expected
    assert step.row.status.confirmed_at == NOW


def test_who_asks_is_polled_as_before() -> None:
    step = heard(row(known()), asked("h1"))
    assert only(step).told_at is None
    assert only(heard(row(known()), fact(Event.ALIVE))).told_at == NOW + S
    waits = decide(step.row, account(T), NOW)
    assert isinstance(waits, Wait)
    assert waits.until == NOW + spread(60 * S, "a1")


def test_who_asks_after_it_was_gone_is_stopped_anew() -> None:
    given = row(known(hinted_at=NOW - S), retired=1)
    step = heard(given, asked("h1"))
    assert only(step).hinted_at is None
    call_ = decide(step.row, account(T), NOW)
    assert isinstance(call_, Call)
    assert call_.verb is Verb.STOP


def test_who_asks_does_not_come_back_to_life() -> None:
    given = row(known(), retired=1, end_reason=EndReason.REQUESTED)
    step = heard(given, asked("h1"))
    assert (step.row.status.retired, step.row.status.confirmed_at) == (1, None)


# --- what is only reported


def watched(*agents: Agent) -> Row:
    return replace(row(*agents, task=None), orphan=Orphan(id="o1", stop=False))


def test_what_is_only_watched_is_never_asked_to_end() -> None:
    step = heard(watched(known()), fact(Event.ENDED, is_signed=False), at=Z)
    assert (only(step).hinted_at, step.row.status.retired) == (NOW + S, 0)


def test_what_is_only_watched_may_end() -> None:
    step = heard(watched(known()), fact(Event.ENDED))
    assert ([a.evidence for a in step.ended], step.row.status.retired) == ([Evidence.TOLD], 0)


# --- lies


def test_it_never_ran_before_it_was_announced() -> None:
    told = fact(Event.STARTED, "h7", name="a1", event_at=NOW - 86_400 * S, is_signed=False)
    assert heard(row(unknown()), told, at=Z).row.status.started_at == NOW


def test_what_is_in_trouble_is_looked_at_as_often_as_others() -> None:
    told = heard(row(known()), fact(Event.ALIVE)).row
    failing = heard(row(known()), fact(Event.FAULT, code="30100")).row
    for given, times in ((told, TOLD_POLLS), (failing, 1)):
        waits = decide(given, account(T), NOW)
        assert isinstance(waits, Wait)
        assert waits.until == NOW + spread(60 * times * S, "a1")
