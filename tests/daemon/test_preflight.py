"""What a start must pass before it is announced: each verdict, through a real claim."""

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.outcome import Indefinite
from orchestrator.daemon.book import Keys
from orchestrator.store.engine import Database
from tests.store.claiming import SPEC, Daemon, ledger, make_book, make_desk, settled, status, want
from tests.store.rows import quoted, run

pytestmark = pytest.mark.anyio

KEY = {"$secret": "model-key"}
KEYED = {"Config": {"LLMConfig": {"Mode": "ArkV3", "EndPointId": KEY}}}
CHOSEN = {**SPEC, "AgentConfig": {"UserId": "bot"}}
"""A body that gives the agent's own user id."""


@pytest.fixture
async def daemon(database: Database) -> Daemon:
    book = make_book(secrets={"model-key": "fake-key"})
    return await Daemon(database, make_desk(book)).ready()


async def ask(daemon: Daemon, id_: str, spec: Any = SPEC, **literals: str) -> None:
    """Insert a task and claim it."""
    await want(daemon.database, id_, spec=quoted(json.dumps(spec)), **literals)
    await daemon.claim(id_)


async def verdict(daemon: Daemon, id_: str) -> tuple[str, str | None]:
    """Return the phase of a row, and the reason."""
    phase, reason = await status(daemon.database, id_, "phase", "reason")
    return phase, reason


async def message(daemon: Daemon, id_: str) -> str:
    (said,) = await status(daemon.database, id_, "message")
    return str(said)


PASSED = ("starting", None)


# --- the spec


@pytest.mark.parametrize(
    ("spec", "reason", "said"),
    [
        (SPEC, None, ""),
        (KEYED, None, ""),
        ({"Config": 1}, "InvalidSpec", "Config"),
        ({**SPEC, "AppId": "mine"}, "InvalidSpec", "AppId"),
        ({"Config": {"LLMConfig": {"$secret": "nobody-s"}}}, "UnknownSecret", "nobody-s"),
    ],
)
async def test_a_spec_is_sent_or_says_what_is_wrong_with_it(
    daemon: Daemon, spec: Any, reason: str | None, said: str
) -> None:
    await ask(daemon, "a", spec)
    if reason is None:
        assert await verdict(daemon, "a") == PASSED
        return
    assert await verdict(daemon, "a") == ("failed", reason)
    assert said in await message(daemon, "a")
    assert await ledger(daemon.database, "a", "id") == []


async def test_many_mistakes_are_counted_and_not_all_shown(daemon: Daemon) -> None:
    spec = {f"key{n}": {"$secret": f"nobody{n}"} for n in range(8)}
    await ask(daemon, "a", spec)
    assert (await message(daemon, "a")).endswith("; and 3 more")


# --- who is in the way


async def test_an_agent_s_user_id_is_one_task_s_at_a_time(daemon: Daemon) -> None:
    room = {"room_id": "'room'"}
    await ask(daemon, "a", CHOSEN, **room)
    await ask(daemon, "b", CHOSEN, **room)
    assert await verdict(daemon, "a") == PASSED
    assert await verdict(daemon, "b") == ("failed", "AgentUserIdTaken")
    assert "bot" in await message(daemon, "b")


async def test_another_account_s_agent_of_that_name_is_in_nobody_s_way(daemon: Daemon) -> None:
    await ask(daemon, "a", CHOSEN, room_id="'room'")
    await ask(daemon, "b", CHOSEN, room_id="'room'", account="other")
    assert await verdict(daemon, "b") == PASSED


async def test_neighbours_of_one_claim_see_each_other(daemon: Daemon) -> None:
    spec = quoted(json.dumps(CHOSEN))
    await want(daemon.database, "a", "b", spec=spec, room_id="'room'")
    # A claim decides as long as its time allows: the second may have to come again.
    await daemon.claim("a", "b")
    await daemon.claim("b")
    assert await verdict(daemon, "b") == ("failed", "AgentUserIdTaken")


@pytest.mark.parametrize(
    ("account", "reason"), [("first", "Conflict"), ("volc", None)], ids=["by-user", "by-task"]
)
async def test_where_stops_go_by_room_and_user_a_user_has_one_agent(
    daemon: Daemon, account: str, reason: str | None
) -> None:
    for id_ in ("a", "b"):
        await ask(daemon, id_, account=account, room_id="'room'")
    assert await verdict(daemon, "a") == PASSED
    assert await verdict(daemon, "b") == (PASSED if reason is None else ("failed", reason))


# --- the same start again


async def unknown(daemon: Daemon) -> None:
    """Start a task with a key, and never learn what became of it."""
    await want(daemon.database, "a", spec=quoted(json.dumps(KEYED)))
    order = await daemon.claim_one("a")
    await daemon.settle(settled(order, Indefinite(code="Reset")))
    await run(daemon.database, "UPDATE agent_status SET retry_at = NULL")


async def test_the_same_body_is_sent_again_under_the_same_name(daemon: Daemon) -> None:
    await unknown(daemon)
    ((before,),) = await ledger(daemon.database, "a", "body_digest")
    again = await daemon.claim_one("a")
    assert await ledger(daemon.database, "a", "body_digest") == [(before,)]
    assert len(before) == 16
    assert again.flight.agent.body_digest == before


async def test_a_changed_secret_ends_the_unknown_start_before_another(daemon: Daemon) -> None:
    await unknown(daemon)
    book = daemon.desk.book
    changed = Keys(accounts=book.runtimes, secrets={"model-key": "another-fake-key"})
    book.renew(changed)
    assert (await daemon.claim("a")).orders == []
    incarnation, retired = await status(daemon.database, "a", "incarnation", "retired")
    assert (incarnation, retired) == (2, 1)
    # What was sent with the old key may run: it must be proven gone, not replaced unseen.
    assert await ledger(daemon.database, "a", "incarnation", "ended_at") == [(1, None)]


async def test_no_secret_is_in_what_a_row_says(daemon: Daemon) -> None:
    daemon = replace(daemon, desk=make_desk(daemon.desk.book, redact=lambda _: "***"))
    await ask(daemon, "a", {"Config": 1})
    assert await message(daemon, "a") == "***"
