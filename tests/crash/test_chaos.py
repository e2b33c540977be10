"""A short run of what `make chaos` does at length: one seed, on each database."""

from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

import pytest

from tests.chaos.databases import Kind
from tests.chaos.report import as_text
from tests.chaos.run import Plan, run_chaos
from tests.chaos.times import SHORT
from tests.chaos.troubles import BRIEF

pytestmark = pytest.mark.anyio

TIMES: Final = replace(SHORT, lease_s=6, retry_cap_ms=2_000)
"""Between a claim and its call lies what of a lease a call does not need. On a machine that does
much else that must be more than two seconds, or nothing is ever sent."""
SEED: Final = 4
SECONDS: Final = 20
STARTS: Final = 40
"""Every row at least once: a run in which nothing happens proves nothing."""


@pytest.mark.parametrize("kind", get_args(Kind))
async def test_nothing_leaks_whatever_goes_wrong(kind: Kind, tmp_path: Path) -> None:
    plan = Plan(kind=kind, seed=SEED, seconds=SECONDS, times=TIMES, lengths=BRIEF)
    verdict = await run_chaos(plan, tmp_path)
    told = as_text(verdict)
    print(told)  # noqa: T201 - for people
    assert not verdict.findings, told
    assert verdict.left == 0
    assert len(verdict.picture.agents) > STARTS, told
    assert any(call.fault is not None for call in verdict.calls), told
