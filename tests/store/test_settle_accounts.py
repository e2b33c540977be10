"""What settled calls tell of their account: denied, expired, well again; when a start is tried."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from orchestrator.core.outcome import Denied, Done, Expired, Gone, Outcome
from orchestrator.daemon import claim as claim_file
from orchestrator.daemon.book import DENIED_RETRY
from orchestrator.daemon.claim import Claimed, claim
from orchestrator.store import accounts
from orchestrator.store.accounts import Standing
from orchestrator.store.engine import Connection, Database
from tests.store.claiming import Daemon, full_room, settled, status, want, wanting
from tests.store.rows import run, update

pytestmark = pytest.mark.anyio

DENIAL = Denied(code="NoMoney", message="pay first")


@pytest.fixture
async def daemon(database: Database) -> Daemon:
    return await Daemon(database).ready()


async def standing(database: Database, account: str = "volc") -> Standing:
    _, standings = await database.read(accounts.read_present)
    return standings[account]


async def deny(daemon: Daemon, *ids: str) -> None:
    """Let the vendor deny the start of these rows."""
    orders = (await daemon.claim(*ids)).orders
    await daemon.settle(*(settled(order, DENIAL) for order in orders))


async def test_a_denial_is_written_with_its_code_and_the_next_try(daemon: Daemon) -> None:
    await want(daemon.database, "a")
    await deny(daemon, "a")
    found = await standing(daemon.database)
    assert found.denied_code == "NoMoney"
    assert found.denied_since is not None
    assert found.probe_at == found.denied_since + DENIED_RETRY
    assert (await standing(daemon.database, "other")).denied_code is None


async def test_a_second_denial_keeps_since_when(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    await deny(daemon, "a")
    first = await standing(daemon.database)
    await run(daemon.database, "UPDATE account_state SET denied_code = NULL")
    await deny(daemon, "b")
    second = await standing(daemon.database)
    assert second.denied_since == first.denied_since
    assert second.probe_at is not None
    assert first.probe_at is not None
    assert second.probe_at >= first.probe_at


async def test_starts_of_a_denied_account_wait_and_stops_do_not(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b", "c")
    await daemon.start("c")
    await deny(daemon, "a")
    await run(daemon.database, "UPDATE agent_task SET desired_state = 'stopped' WHERE id = 'c'")
    claimed = await daemon.claim("a", "b", "c")
    assert [order.flight.task_id for order in claimed.orders] == ["c"]
    assert await status(daemon.database, "b", "waiting_for", "parked_verb") == ("denied", "start")


@pytest.mark.parametrize(
    ("verb_of", "outcome", "well"),
    [("start", Done(handle="h"), True), ("stop", Done(), False), ("stop", Gone(), False)],
)
async def test_a_start_that_is_taken_ends_a_denial_and_a_stop_does_not(
    daemon: Daemon, verb_of: str, outcome: Outcome, *, well: bool
) -> None:
    await want(daemon.database, "a")
    if verb_of == "stop":
        await daemon.start("a")
        await run(daemon.database, "UPDATE agent_task SET desired_state = 'stopped'")
    order = await daemon.claim_one("a")
    now = order.flight.announced_at
    await daemon.database.write(accounts.deny, "volc", "NoMoney", now, now + DENIED_RETRY)
    await daemon.settle(settled(order, outcome), denied=["volc"])
    assert ((await standing(daemon.database)).denied_code is None) is well


async def test_one_denial_among_many_successes_counts(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b", "c")
    orders = (await daemon.claim("a", "b", "c")).orders
    outcomes: list[Outcome] = [Done(handle="1"), DENIAL, Done(handle="3")]
    await daemon.settle(*(settled(o, out) for o, out in zip(orders, outcomes, strict=True)))
    assert (await standing(daemon.database)).denied_code == "NoMoney"


async def test_expired_signatures_are_undated_from_then_on(daemon: Daemon) -> None:
    await want(daemon.database, "a", "b")
    order = await daemon.claim_one("a")
    await daemon.settle(settled(order, Expired(code="Old")))
    assert (await standing(daemon.database)).undated
    account = (await daemon.claim_one("b")).account
    assert not account.backdated
    assert account.send_life == account.caps.signature_window


# --- the one start that is tried


async def denied(daemon: Daemon, probe_in: timedelta) -> datetime:
    """Deny the account now, its next probe due in `probe_in`; return now."""
    await want(daemon.database, "a", "b")
    await deny(daemon, "a")
    since = (await standing(daemon.database)).denied_since
    assert since is not None
    await daemon.database.write(accounts.move_probe, "volc", since, since + probe_in)
    await run(daemon.database, "UPDATE agent_status SET retry_at = NULL")
    return since


async def test_one_probe_is_let_through_and_closes_the_gate_behind_it(daemon: Daemon) -> None:
    await denied(daemon, timedelta(0))
    first = await daemon.claim("a", "b")
    assert len(first.orders) == 1
    again = await daemon.claim("a", "b")
    assert again.orders == []


async def test_probes_are_written_in_the_order_of_the_accounts(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two claims, or a claim and a settle, could each wait for what the other has locked."""
    monkeypatch.setattr(claim_file, "DECIDE_NS_MAX", 10**10)  # both rows, however slow this is
    names = {"a": "volc", "b": "other"}
    for id_, name in names.items():
        await want(daemon.database, id_, account=name)
    await run(
        daemon.database,
        "UPDATE account_state SET denied_code = 'NoMoney', probe_at = '2020-01-01 00:00:00'",
    )
    written: list[str] = []

    def watched(connection: Connection) -> Claimed:
        def note(_conn: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
            if statement.startswith("UPDATE account_state"):
                found = values.values() if isinstance(values, dict) else values
                written.extend(one for one in found if one in names.values())

        event.listen(connection, "before_cursor_execute", note)
        try:
            return claim(connection, daemon.desk, wanting(*names), {}, full_room())
        finally:
            event.remove(connection, "before_cursor_execute", note)

    claimed = await daemon.database.write(watched)
    assert [order.account.name for order in claimed.orders] == ["volc", "other"]
    assert written == ["other", "volc"]


async def test_the_operator_s_word_lets_one_start_through_and_no_more(daemon: Daemon) -> None:
    """A time that was used must not hold the gate open: each claim would let a start through."""
    # As if it had been denied half a minute ago.
    await denied(daemon, DENIED_RETRY / 2)
    assert (await daemon.claim("a", "b")).orders == []
    clock = "clock_timestamp()" if daemon.database.dialect == "postgresql" else "datetime('now')"
    await run(daemon.database, update("account_control", f"retry_at = {clock}"))
    assert len((await daemon.claim("a", "b")).orders) == 1
    assert (await daemon.claim("a", "b")).orders == []
