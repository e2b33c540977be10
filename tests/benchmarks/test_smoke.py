"""One tiny run of each measurement, so that none of them rots. What they print is not judged."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from benchmarks import __main__ as program
from benchmarks import crash, lifecycles, rest, resting, wakeup
from benchmarks.databases import Databases, Kind
from benchmarks.figures import Figure, percentile, say_median
from benchmarks.programs import run_vendors
from benchmarks.setting import Setting, Vendors

Measure = Callable[[Setting, Kind], Awaitable[list[Figure]]]

TINY: dict[str, Measure] = {
    "lifecycles": partial(
        lifecycles.measure, scale=lifecycles.Scale(rounds=1, warm_up_s=0.5, seconds=0.5)
    ),
    "wakeup": partial(wakeup.measure, scale=wakeup.Scale(at_rest=3, under_load=5)),
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
    assert TINY.keys() | {"crash"} == program.MEASURES.keys()


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
