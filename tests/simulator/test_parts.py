"""Switches, faults, pace and keys: the parts that have no vendor."""

import re
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator import Simulator, Switches
from orchestrator.simulator.faults import ANY_ACTION, Fault, Faults, Kind
from orchestrator.simulator.keys import DEMO, Keys
from orchestrator.simulator.pace import Pace
from orchestrator.simulator.times import from_unix, parse_basic

DOCUMENT = Path(__file__).parents[2] / "docs" / "simulator.md"


# --- switches


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ({"zego_capacity": 3}, None),
        ({"zego_capacity": -1}, "an integer from 0"),
        ({"zego_capacity": True}, "an integer from 0"),
        ({"users_present": 1}, "true or false"),
        ({"zego_equal_sequence": "perhaps"}, "reject or accept or legacy_pairing"),
        ({"no_such_switch": 1}, "expected one of"),
    ],
)
def test_a_switch_is_turned_or_told_why_not(wanted: dict[str, Any], problem: str | None) -> None:
    switches = Switches()
    wrong = switches.turn(wanted | {"join_delay_ms": 5})
    if problem is None:
        assert wrong == []
        assert switches == replace(Switches(), **wanted, join_delay_ms=5)
    else:
        assert problem in wrong[0]
        assert switches == Switches()


def test_every_switch_and_its_default_is_in_the_document() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert dict(rows) == {
        f.name: str(f.default).lower() if isinstance(f.default, bool) else str(f.default)
        for f in fields(Switches)
    }


def test_every_fault_is_in_the_document() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?!`)", DOCUMENT.read_text(), re.MULTILINE)
    assert set(rows) >= set(Kind)


# --- faults

THROTTLE, EMPTY = Fault(kind=Kind.THROTTLE), Fault(kind=Kind.EMPTY)


def test_scripts_are_met_in_their_order_and_own_action_first() -> None:
    faults = Faults(0)
    faults.script(ANY_ACTION, 1, EMPTY)
    faults.script("Stop", 2, THROTTLE)
    faults.script("Stop", 1, EMPTY)
    drawn = [faults.draw("Stop", ANY_ACTION) for _ in range(5)]
    assert drawn == [THROTTLE, THROTTLE, EMPTY, EMPTY, None]


@given(st.integers())
def test_the_same_seed_gives_the_same_history(seed: int) -> None:
    histories = []
    for _ in range(2):
        faults = Faults(seed)
        faults.set_ratio("Start", 0.3, THROTTLE)
        faults.set_ratio("Start", 0.3, EMPTY)
        histories.append([faults.draw("Start") for _ in range(30)])
    assert histories[0] == histories[1]


def test_ratios_add_up_and_end_with_zero() -> None:
    faults = Faults(1)
    faults.set_ratio("Start", 0.5, THROTTLE)
    faults.set_ratio(ANY_ACTION, 0.5, EMPTY)
    drawn = [faults.draw("Start", ANY_ACTION) for _ in range(1000)]
    assert set(drawn) == {THROTTLE, EMPTY}
    assert 400 < drawn.count(THROTTLE) < 600
    faults.set_ratio("Start", 0, THROTTLE)
    faults.set_ratio(ANY_ACTION, 0, EMPTY)
    assert faults.draw("Start", ANY_ACTION) is None


# --- pace


@given(
    st.lists(st.integers(min_value=0, max_value=400_000), max_size=60),
    st.integers(min_value=1, max_value=5),
)
def test_no_second_admits_more_than_the_limit(gaps: list[int], limit: int) -> None:
    pace, now, admitted = Pace(), 0, []
    for gap in gaps:
        now += gap
        if pace.admit(("key",), limit, now):
            admitted.append(now)
        else:
            # It was refused only because the second was full.
            assert sum(now - 1_000_000 < at <= now for at in admitted) == limit
    for end in admitted:
        assert sum(end - 1_000_000 < at <= end for at in admitted) <= limit


def test_the_busiest_second_counts_what_was_refused() -> None:
    pace = Pace()
    for now in (0, 1, 2, 1_000_002):
        pace.arrive(("key",), now)
    assert pace.worst() == {("key",): 3}


def test_a_limit_of_zero_is_none() -> None:
    pace = Pace()
    assert all(pace.admit(("key",), 0, 0) for _ in range(100))


# --- keys and clocks


@pytest.mark.parametrize("keys", DEMO, ids=lambda keys: keys.account)
def test_keys_show_no_secret(keys: Keys) -> None:
    shown = repr(keys)
    secrets = [f.name for f in fields(keys) if not f.repr]
    assert len(secrets) >= 2
    assert not any(str(getattr(keys, name)) in shown for name in secrets if getattr(keys, name))


@pytest.mark.parametrize(
    "twin",
    [
        replace(DEMO[0], account="twin", secret_access_key="other"),
        replace(DEMO[1], account="twin", secret_key="other"),
        replace(DEMO[2], account="twin", server_secret="other"),
    ],
    ids=["volcengine", "tencent", "zego"],
)
def test_one_key_has_one_secret(twin: Keys) -> None:
    with pytest.raises(ValueError, match="different secrets"):
        Simulator([*DEMO, twin])


def test_two_apps_of_one_key_are_two_accounts(world: Any) -> None:
    first = DEMO[0]
    second = replace(first, account="second", app_id="f" * 24)
    world.simulator = Simulator([first, second], clock=world.clock)
    for keys in (first, second):
        start = world.volcengine_start() | {"AppId": keys.app_id}
        assert world.volcengine("StartVoiceChat", start)[1] == ""
    assert [a.account for a in world.simulator.world.agents] == ["volcengine", "second"]


def test_the_world_runs_faster_and_signatures_do_not(world: Any) -> None:
    world.simulator = Simulator(DEMO, clock=world.clock, speed=60)
    world.turn(users_present=False)
    assert world.volcengine("StartVoiceChat", world.volcengine_start(), signed_ago_s=800)[1] == ""
    world.clock.move(0.4)
    assert world.live() == ["agent-t1"]
    world.clock.move(0.1)
    assert world.ended() == {"agent-t1": "idle"}
    assert world.simulator.world.agents[0].billed_s(world.clock()) == 30


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("20250228T010203Z", datetime(2025, 2, 28, 1, 2, 3, tzinfo=UTC)),
        ("20250230T010203Z", None),
        ("2025-02-28T01:02:03Z", None),
        ("20250228T010203", None),
        ("", None),
    ],
)
def test_basic_dates(text: str, instant: datetime | None) -> None:
    assert parse_basic(text) == instant


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("86400", datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=1)),
        ("1" * 30, None),
        ("-1", None),
        ("", None),
        ("٣", None),
    ],
)
def test_unix_dates(text: str, instant: datetime | None) -> None:
    assert from_unix(text) == instant
