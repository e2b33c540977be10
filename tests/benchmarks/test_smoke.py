"""One tiny run of each measurement, so that none of them rots. What they print is not judged."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from benchmarks import __main__ as program
from benchmarks import crash, lanes, lifecycles, llm, presses, rest, resting, wakeup
from benchmarks.databases import Databases, Kind
from benchmarks.figures import Figure, percentile, say_median
from benchmarks.lanes_floor import FLOORS
from benchmarks.programs import run_vendors
from benchmarks.setting import Setting, Vendors
from benchmarks.speakers import Manner

Measure = Callable[[Setting, Kind], Awaitable[list[Figure]]]

TINY: dict[str, Measure] = {
    "lifecycles": partial(
        lifecycles.measure, scale=lifecycles.Scale(rounds=1, warm_up_s=0.5, seconds=0.5)
    ),
    "wakeup": partial(wakeup.measure, scale=wakeup.Scale(at_rest=3, under_load=5)),
    "llm": partial(
        llm.measure,
        scale=llm.Scale(
            agents=4,
            manner=Manner(words=4, per_s=50, think_s=0.01),
            first=Manner(words=1, per_s=50, think_s=0.01),
            rounds=1,
            open_turns=8,
            settle_s=0.1,
        ),
    ),
    "resting": partial(
        resting.measure, scale=resting.Scale(few=10, many=100, passes=10, calm_s=0.5)
    ),
    "rest": partial(rest.measure, scale=rest.Scale(seconds=0.5, agents=10, calm_s=0.5)),
}


@pytest.fixture
async def setting(postgres_server: str, tmp_path: Path) -> AsyncIterator[Setting]:
    async with run_vendors() as url, aiohttp.ClientSession() as http:
        vendors = Vendors(url=url, client=http)
        await vendors.begin_anew()
        databases = Databases(tmp_path, postgres_server, count())
        yield Setting(databases=databases, vendors=vendors)


def test_every_measurement_is_run_here() -> None:
    assert TINY.keys() | {"crash", "lanes"} == program.MEASURES.keys()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("name", TINY)
async def test_a_measurement_comes_to_an_end(setting: Setting, name: str, kind: Kind) -> None:
    figures = await TINY[name](setting, kind)
    assert figures
    assert all(figure.what and figure.said for figure in figures)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_after_a_crash_what_runs_is_what_is_wanted(setting: Setting, kind: Kind) -> None:
    figures = await crash.measure(setting, kind, crash.Scale(intents=40))
    said = {one.what: one.said for one in figures}
    assert said["agents wanted / live at the vendor"] == "20 / 20"


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_presses_arrive_once_and_in_order(setting: Setting, kind: Kind) -> None:
    few = presses.Load(lanes=4, per_s=2, warm_up_s=0.5, seconds=1.0)
    figures = await lanes.measure(setting, kind, lanes.Scale(busy=few, calm=few))
    wrong = [one.said for one in figures if one.what.endswith(lanes.WRONG)]
    assert wrong == ["0 out of order, 0 twice, 0 unsent, 0 refused"] * (3 + len(FLOORS))
    times = [one.said for one in figures if one.what.endswith(lanes.PERCENTILES)]
    assert all(float(part) >= 0 for said in times for part in said.split(" / "))
    assert len(times) == len(wrong)


def test_presses_are_spread_and_alternate() -> None:
    load = presses.Load(lanes=10, per_s=2, warm_up_s=1.0, seconds=9.0)
    planned = list(presses.plan(load))
    times = [due_s for due_s, _ in planned]
    assert times == sorted(times)
    assert max(later - earlier for earlier, later in pairwise(times)) < 4 / 20
    by_lane = {lane: [p for _, p in planned if p.lane == lane] for lane in presses.lanes_of(load)}
    assert [len(ours) for ours in by_lane.values()] == [20, 19] * 5
    for ours in by_lane.values():
        assert [press.sequence for press in ours] == list(range(1, len(ours) + 1))
        assert [press.kind.value for press in ours[:2]] == ["start_listening", "stop_listening"]


def call(sequence: int, at_s: float, code: str = "") -> dict[str, Any]:
    at = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=at_s)
    ids = {"user_id": "lane0", "sequence": sequence}
    return {"action": "StartListening", "ids": ids, "code": code, "at": at.isoformat()}


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([call(1, 0), call(2, 1)], (0, 0, 0, 1)),
        ([call(1, 0), call(3, 1)], (0, 0, 0, 2)),
        ([call(2, 0), call(1, 1, "410001043")], (1, 0, 1, 1)),
        ([call(1, 0), call(1, 1, "410001043"), call(2, 2)], (0, 0, 1, 1)),
        ([call(1, 0), call(1, 1), call(2, 2)], (0, 1, 0, 1)),
    ],
)
def test_what_went_wrong_is_counted(
    calls: list[dict[str, Any]], expected: tuple[int, int, int, int]
) -> None:
    began = datetime(2030, 1, 1, tzinfo=UTC)
    said_at = {presses.Press("lane0", sequence): began for sequence in (1, 2, 9)}
    said = presses.Said(at=said_at, counted=frozenset(said_at), per_s=1.0)
    heard = presses.judge(calls, said)
    assert (heard.disordered, heard.doubled, heard.refused, heard.unsent) == expected


@pytest.mark.parametrize(
    ("part", "expected"), [(0.0, 1.0), (0.5, 2.0), (0.75, 3.0), (0.76, 4.0), (1.0, 4.0)]
)
def test_a_percentile_is_a_sample(part: float, expected: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], part) == expected


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_a_median_is_shown_between_its_extremes() -> None:
    assert say_median([3.0, 1.0, 2.0], ".0f") == "2 (1 to 3)"
