"""Sums of calls per minute: counted once, in the right cell, in the order of their keys."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core.outcome import Done, Gone, Indefinite, Outcome, Throttled
from orchestrator.daemon.call_tally import CallTally
from orchestrator.daemon.settle import Settlement
from orchestrator.store import call_minutes
from orchestrator.store.engine import Database
from tests.store.claiming import Daemon, settled, want
from tests.store.rows import query

pytestmark = pytest.mark.anyio

AT = datetime(2026, 3, 1, 12, 0, 59, 999999, tzinfo=UTC)
MINUTE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
async def call(database: Database) -> Settlement:
    daemon = await Daemon(database).ready()
    await want(database, "a")
    return settled(await daemon.claim_one("a"), Done(handle="h"), at=AT)


def ending(call: Settlement, outcome: Outcome) -> Settlement:
    return replace(call, settled=replace(call.settled, outcome=outcome))


def count(tally: CallTally, account: str, call: Settlement) -> None:
    """Count a call as the settler does."""
    tally.count(account, call.action, call.settled, call.latency_ms)


async def test_what_had_its_effect_or_found_nothing_is_no_failure(call: Settlement) -> None:
    tally = CallTally()
    for outcome in (Done(handle="h"), Gone(), Throttled(), Indefinite(code="Timeout")):
        count(tally, "volc", ending(call, outcome))
    (one,) = tally.take()
    assert (one.account, one.minute, one.calls, one.failures) == ("volc", MINUTE, 4, 2)
    assert tally.take() == []


@pytest.mark.parametrize(("ms", "bucket"), [(0, 0), (4, 0), (5, 1), (11585, 23), (10**6, 23)])
async def test_the_bucket_is_the_first_that_holds_the_latency(
    call: Settlement, ms: int, bucket: int
) -> None:
    tally = CallTally()
    count(tally, "volc", replace(call, latency_ms=ms))
    assert [one.bucket for one in tally.take()] == [bucket]


async def test_sums_of_two_daemons_add_up(call: Settlement, database: Database) -> None:
    for name in ("b", "a", "b"):
        tally = CallTally()
        count(tally, name, call)
        count(tally, name, ending(call, Throttled()))
        await database.write(call_minutes.add, tally.take())
    found = await query(
        database, "SELECT account, calls, failures FROM call_minute ORDER BY account"
    )
    assert found == [("a", 2, 1), ("b", 4, 2)]


async def test_cells_come_in_the_order_of_their_keys(call: Settlement) -> None:
    tally = CallTally()
    later = replace(call.settled, answered_at=AT + timedelta(minutes=1))
    count(tally, "b", call)
    count(tally, "a", replace(call, settled=later))
    count(tally, "a", call)
    cells = [(one.account, one.minute) for one in tally.take()]
    assert cells == sorted(cells)
