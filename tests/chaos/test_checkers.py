"""Each checker finds what it is there for: one that never failed proves nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.agreement import Picture, disagreements, left_over
from tests.chaos.checkers import disorder, doubles, overshoot, touched_strangers
from tests.chaos.diary import Diary, Span, Spell, Wish, merged
from tests.chaos.leaks import find_leaks, too_long
from tests.chaos.limits import AI_AGENT
from tests.chaos.owners import TIMEOUT_S
from tests.chaos.strangers import NOBODY
from tests.chaos.times import RECOVERY_S, SHORT, USUAL
from tests.chaos.vendors import Called, Lived
from tests.chaos.wants import wanted_spans
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO

ROW = "tencent-1"
NEVER = None


def at(seconds: float) -> datetime:
    return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=seconds)


def lived(started: float, ended: float | None, **more: Any) -> Lived:
    """An agent of the one row; `joined` in seconds, as it joined at once if not said."""
    given: dict[str, Any] = {
        "id": f"a{started}",
        "account": TENCENT.name,
        "room_id": f"room-{ROW}",
        "user_id": "human",
        "agent_user_id": f"agent-{started}",
        "handle": f"handle-{started}",
        "started_at": at(started),
        "joined_at": at(more.pop("joined", started)),
        "ended_at": None if ended is None else at(ended),
        "why": None if ended is None else "requested",
    }
    return Lived(**{**given, **more})


def called(seconds: float, **more: Any) -> Called:
    given: dict[str, Any] = {
        "seq": 1,
        "at": at(seconds),
        "account": ZEGO.name,
        "action": "StartListening",
        "code": "",
        "fault": None,
        "handle": "h1",
        "room_id": "",
        "user_id": "human",
        "sequence": None,
    }
    return Called(**{**given, **more})


def wish(seconds: float, what: str, **more: Any) -> Wish:
    """An edit whose transaction took no time."""
    given: dict[str, Any] = {
        "task_id": ROW,
        "what": what,
        "begun_at": at(seconds),
        "committed_at": at(seconds),
        "wanted": what not in {"stop", "delete"},
        "renews": what in {"insert", "run", "restart", "stop", "delete"},
    }
    return Wish(**{**given, **more})


def diary_of(*wishes: Wish, **more: Any) -> Diary:
    return Diary(wishes={ROW: list(wishes)}, **more)


def trouble(began: float, ended: float, *, is_total: bool = True) -> Spell:
    return Spell(kind="kill", began_at=at(began), ended_at=at(ended), is_total=is_total)


# --- P1

SAME = {"account": ZEGO.name, "agent_user_id": "same"}


@pytest.mark.parametrize(
    ("agents", "count"),
    [
        ([lived(0, 5), lived(5, 9)], 0),
        ([lived(0, 5.1), lived(5, 9)], 1),
        ([lived(0, None), lived(5, 9)], 1),
        ([lived(0, 20), lived(1, 2), lived(10, 11)], 2),
        ([lived(0, None), lived(5, 5)], 0),
        ([lived(0, None), lived(5, None, room_id="room-other")], 0),
        ([lived(0, 6, **SAME), lived(5, 9, joined=6, **SAME)], 0),
        ([lived(0, 7, **SAME), lived(5, 9, joined=6, **SAME)], 1),
        ([lived(0, 6, account=ZEGO.name), lived(5, 9, joined=6, account=ZEGO.name)], 1),
        ([lived(0, None), lived(5, None, agent_user_id="stranger")], 0),
    ],
)
def test_two_agents_of_one_row_at_once(agents: list[Lived], count: int) -> None:
    found = doubles(agents, Diary(strangers={"stranger"}))
    assert [finding.promise for finding in found] == ["P1"] * count


# --- P7


@pytest.mark.parametrize(("ended", "count"), [(NEVER, 0), (9, 1)])
def test_a_stranger_that_was_ended(ended: float | None, count: int) -> None:
    agents = [lived(0, ended, agent_user_id="stranger"), lived(1, 2)]
    assert len(touched_strangers(agents, Diary(strangers={"stranger"}))) == count


# --- P5

OLD = lived(0, 5, account=ZEGO.name, handle="h1")
NEW = lived(5, None, account=ZEGO.name, handle="h2")


@pytest.mark.parametrize(
    ("calls", "count"),
    [
        ([called(1, sequence=1), called(2, sequence=2)], 0),
        # A repeat of a call whose answer was lost is stale to the vendor, and no harm.
        ([called(1, sequence=1, fault="lose_reply"), called(2, sequence=1, code="stale")], 0),
        ([called(1, sequence=1), called(2, sequence=1)], 1),
        ([called(1, sequence=2), called(2, sequence=1, code="stale")], 1),
        # Nobody had said that 2 was taken.
        ([called(1, sequence=2, fault="hang"), called(2, sequence=1, code="stale")], 0),
        # It was sent long before, and arrived late.
        ([called(1, sequence=2), called(2, sequence=1, code="stale", fault="delay")], 0),
        # A number falls over the incarnations of a row: sent stale, and with effect.
        ([called(1, sequence=2), called(6, sequence=1, handle="h2")], 2),
        ([called(1, sequence=2), called(2, sequence=1, user_id="guest")], 0),
        ([called(1, sequence=2), called(2, sequence=1, fault="lose_request")], 1),
    ],
)
def test_listening_calls_out_of_order(calls: list[Called], count: int) -> None:
    assert len(disorder(calls, [OLD, NEW])) == count


# --- P6


def burst(calls: int, over_s: float, **more: Any) -> list[Called]:
    return [called(n * over_s / calls, action=ZEGO.start, **more) for n in range(calls)]


@pytest.mark.parametrize(
    ("calls", "stalls", "count", "unjudged"),
    [
        (burst(AI_AGENT, 0.5), [], 0, 0),
        (burst(AI_AGENT + 1, 0.5), [], 1, 0),
        (burst(2 * AI_AGENT, 2), [], 0, 0),
        (burst(AI_AGENT + 1, 0.5, fault="delay"), [], 0, 0),
        (burst(AI_AGENT + 1, 0.5, user_id=NOBODY), [], 0, 0),
        (burst(AI_AGENT + 1, 0.5, account=VOLCENGINE.name), [], 0, 0),
        (burst(AI_AGENT + 1, 0.5), [trouble(0.6, 0.9)], 0, 1),
        (burst(AI_AGENT + 1, 0.5), [trouble(5, 6)], 1, 0),
    ],
)
def test_too_many_calls_in_a_second(
    calls: list[Called], stalls: list[Spell], count: int, unjudged: int
) -> None:
    above = overshoot(calls, Diary(stalls=stalls))
    assert (len(above.findings), above.unjudged) == (count, unjudged)


# --- what a row wants


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ([wish(0, "insert")], [(0, None)]),
        ([wish(0, "insert"), wish(5, "stop")], [(0, 5)]),
        ([wish(0, "insert"), wish(5, "labels")], [(0, None)]),
        ([wish(0, "insert"), wish(5, "restart")], [(0, 5), (5, None)]),
        ([wish(0, "insert"), wish(5, "stop"), wish(8, "run"), wish(9, "delete")], [(0, 5), (8, 9)]),
        ([wish(0, "insert"), wish(5, "stop_at", stop_at=at(7))], [(0, 7)]),
        ([wish(0, "insert"), wish(5, "stop_at", stop_at=at(3))], [(0, 5)]),
        # What has ended does not begin anew when its deadline is moved.
        (
            [wish(0, "insert", stop_at=at(3)), wish(5, "stop_at", stop_at=at(9))],
            [(0, 3)],
        ),
        # The doubt goes to the daemon.
        (
            [wish(1, "insert", begun_at=at(0)), wish(6, "stop", begun_at=at(5))],
            [(0, 6)],
        ),
    ],
)
def test_when_a_row_wants_an_agent(
    wishes: list[Wish], expected: list[tuple[float, float | None]]
) -> None:
    spans = wanted_spans(diary_of(*wishes), ROW)
    ends = [None if span.ends.year == 9999 else span.ends for span in spans]
    wanted = [None if end is None else at(end) for _, end in expected]
    assert [span.begins for span in spans] == [at(begin) for begin, _ in expected]
    assert ends == wanted


@pytest.mark.parametrize(
    ("spells", "silent"),
    [
        ([], 10 + TIMEOUT_S),
        # Nobody is blamed for his silence after an outage of the daemons'.
        ([trouble(12, 17)], 17 + TIMEOUT_S),
        ([trouble(12, 17, is_total=False)], 10 + TIMEOUT_S),
        ([trouble(12, 13)], 10 + TIMEOUT_S),
        ([trouble(40, 50)], 10 + TIMEOUT_S),
    ],
)
def test_when_an_owner_is_silent(spells: list[Spell], silent: float) -> None:
    diary = diary_of(wish(0, "insert", owner="web"), beats={"web": at(10)}, spells=spells)
    assert [span.ends for span in wanted_spans(diary, ROW)] == [at(silent)]


def test_spans_that_touch_are_one() -> None:
    spans = [Span(at(0), at(2)), Span(at(5), at(6)), Span(at(1), at(3)), Span(at(3), at(4))]
    assert merged(spans) == [Span(at(0), at(4)), Span(at(5), at(6))]


# --- P3

NOW = at(100)


@pytest.mark.parametrize(
    ("agent", "leaked"),
    [
        (lived(1, 9), []),
        (lived(1, 12), [(2.0, False)]),
        (lived(1, None), [(90.0, False)]),
        (lived(11, 15), [(4.0, True)]),
        (lived(11, None, agent_user_id="stranger"), []),
    ],
)
def test_seconds_that_nobody_wanted(agent: Lived, leaked: list[tuple[float, bool]]) -> None:
    diary = diary_of(wish(0, "insert"), wish(10, "stop"), strangers={"stranger"})
    found = find_leaks([agent], diary, NOW)
    assert [(leak.seconds, leak.is_zombie) for leak in found] == leaked


@pytest.mark.parametrize(
    ("ended", "born", "spells", "count"),
    [
        (10 + SHORT.leak_s, 1, [], 0),
        (11 + SHORT.leak_s, 1, [], 1),
        (11 + SHORT.leak_s, 1, [trouble(11, 12)], 0),
        (11 + SHORT.leak_s, 1, [trouble(11, 12, is_total=False)], 1),
        (30 + RECOVERY_S + SHORT.leak_s, 1, [trouble(11, 12)], 1),
        (11 + SHORT.zombie_leak_s, 11, [], 0),
        (12 + SHORT.zombie_leak_s, 11, [], 1),
    ],
)
def test_a_leak_is_bounded_by_the_configuration(
    ended: float, born: float, spells: list[Spell], count: int
) -> None:
    diary = diary_of(wish(0, "insert"), wish(10, "stop"), spells=spells)
    leaks = find_leaks([lived(born, ended)], diary, NOW)
    assert len(too_long(leaks, SHORT)) == count


def test_bounds_grow_with_what_is_configured() -> None:
    assert SHORT.horizon_s < USUAL.horizon_s
    assert SHORT.leak_s < SHORT.zombie_leak_s < SHORT.calm_s < USUAL.calm_s


# --- P8


def picture(agents: list[Lived], phase: str | None, **more: Any) -> Picture:
    given = Picture(
        agents=agents,
        phases={} if phase is None else {ROW: phase},
        open_commands=[],
        seen={agent.id for agent in agents},
        callbacks=0,
        at=NOW,
    )
    return replace(given, **more)


RUNS = [wish(0, "insert")]
ALWAYS = [wish(0, "insert", policy="always")]
STOPS = [wish(0, "insert"), wish(10, "stop")]
GONE = [wish(0, "insert"), wish(10, "delete")]
FAULT = lived(1, 9, why="fault")


@pytest.mark.parametrize(
    ("wishes", "agents", "phase", "is_wrong"),
    [
        (RUNS, [lived(1, None)], "running", False),
        (RUNS, [], "running", True),
        (RUNS, [lived(1, None)], "starting", True),
        (RUNS, [lived(1, None)], "stopped", True),
        (RUNS, [lived(1, 9)], "stopped", True),
        (RUNS, [], None, True),
        (RUNS, [FAULT], "stopped", False),
        (RUNS, [FAULT], "running", True),
        (RUNS, [FAULT, lived(10, None)], "running", False),
        (ALWAYS, [FAULT], "stopped", True),
        (ALWAYS, [FAULT], "failed", False),
        (STOPS, [lived(1, 9)], "stopped", False),
        (STOPS, [lived(1, None)], "stopped", True),
        (STOPS, [lived(1, 9)], "stopping", True),
        (GONE, [lived(1, 9)], None, False),
        (GONE, [lived(1, 9)], "stopped", True),
        (GONE, [lived(1, None)], None, True),
    ],
)
def test_both_sides_must_agree(
    wishes: list[Wish], agents: list[Lived], phase: str | None, is_wrong: bool
) -> None:
    assert bool(disagreements(picture(agents, phase), diary_of(*wishes))) is is_wrong


def test_an_agent_that_nobody_wants_is_left_over() -> None:
    found = disagreements(picture([lived(1, None)], "stopped"), diary_of(*STOPS))
    assert left_over(found) == 1


def test_nobody_can_tell_of_an_agent_that_no_look_ever_saw() -> None:
    unseen = picture([FAULT], "running", seen=set())
    assert disagreements(unseen, diary_of(*RUNS)) == []


def test_a_command_that_is_never_settled() -> None:
    waiting = picture([lived(1, None)], "running", open_commands=["press-1"])
    assert [finding.sentence for finding in disagreements(waiting, diary_of(*RUNS))] == [
        "press-1 is not settled"
    ]
