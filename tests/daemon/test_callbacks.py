"""The vendors post to a real daemon: what is genuine is stored, and nothing else leaves a trace."""

import json
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import anyio
import pytest

from tests.daemon.application import Row, quoted, update_task
from tests.daemon.customers import TENCENT, VOLCENGINE, VOLCENGINE_NEXT, ZEGO, Customer
from tests.daemon.posts import Mailbox, Written, open_mailbox, tencent, tencent_raw, zego
from tests.daemon.running import Scene, until

pytestmark = pytest.mark.anyio

TELLING = (VOLCENGINE, VOLCENGINE_NEXT, TENCENT, ZEGO)
"""Those whose callbacks name an agent in a way that its row knows."""
IDLE: Mapping[Customer, tuple[str | None, str | None, bool]] = {
    VOLCENGINE: (None, None, True),
    VOLCENGINE_NEXT: (None, None, True),
    TENCENT: ("99", "idle", True),
    ZEGO: ("1202", "idle", False),
}
"""The end of an idle agent: its code, its reason, and whether the signature covers them."""
FLOOD = 2_000
SPOKEN = "a sentence that nobody else may read"


async def facts(scene: Scene, handle: str) -> list[Row]:
    """Return what was stored about an agent's beginning and end, in the order of the events.

    A sign of life that came before the start was answered may be there too.
    """
    who = f"vendor_task_id = {quoted(handle)} AND event <> 'alive'"
    where = f"{who} ORDER BY event_at, position"
    return await scene.app.read(f"SELECT * FROM vendor_fact WHERE {where}")  # noqa: S608 - our own words


async def wait_facts(scene: Scene, handle: str, *events: str) -> list[Row]:
    """Wait until these events have been stored about an agent, and no others."""

    async def look() -> list[Row] | None:
        rows = await facts(scene, handle)
        return rows if sorted(row["event"] for row in rows) == sorted(events) else None

    async def awaited() -> str:
        rows = [dict(row) for row in await facts(scene, handle)]
        return f"{events} of {handle}, found {rows}\n{scene.logs()}"

    return await until(look, awaited)


async def start(scene: Scene, customer: Customer, **columns: str) -> dict[str, Any]:
    """Start an agent; return it as its vendor knows it."""
    id_ = await scene.ask_for(customer, f"told-{customer.name}", **columns)
    await scene.wait(id_, phase="running")
    (agent,) = await scene.vendors.live(account=customer.name)
    return agent


async def test_what_vendors_tell_is_stored_as_they_tell_it(scene: Scene) -> None:
    async with open_mailbox(scene):
        agents = {customer: await start(scene, customer) for customer in TELLING}
        for agent in agents.values():
            await scene.vendors.end(agent, "idle")
        for customer, agent in agents.items():
            started, ended = await wait_facts(scene, agent["handle"], "started", "ended")
            assert started["room_id"] == ended["room_id"] == agent["room_id"]
            assert (started["account"], started["code"]) == (customer.name, None)
            told = (ended["code"], ended["end_reason"], bool(ended["is_signed"]))
            assert told == IDLE[customer]
            assert ended["event_at"] <= ended["received_at"]


async def test_doubled_and_overtaken_callbacks_are_one_fact_each(scene: Scene) -> None:
    async with open_mailbox(scene):
        await scene.vendors.script("callback", "delay", ms=500)
        await scene.vendors.script("callback", "double", n=10)
        agent = await start(scene, ZEGO)
        await scene.vendors.end(agent, "kicked")
        started, ended = await wait_facts(scene, agent["handle"], "started", "ended")
        assert started["position"] < ended["position"]
        assert started["received_at"] > ended["received_at"]
        assert (ended["code"], ended["end_reason"]) == ("1203", "kicked")


def refused(limit: int) -> list[tuple[str, Written, int]]:
    """What is posted, and what the daemon says."""
    good = tencent(902, "h1", LeaveCode=99)
    forged = Written(TENCENT.name, good.body + b" ", good.headers)
    return [
        ("forged", forged, 401),
        ("not signed", Written(TENCENT.name, good.body), 401),
        ("another account's", Written(ZEGO.name, good.body, good.headers), 401),
        ("no such account", Written("nobody", good.body, good.headers), 404),
        ("a path below", Written(f"{TENCENT.name}/more", good.body, good.headers), 404),
        ("not JSON", tencent_raw(b"\x00\xff not JSON"), 400),
        ("a list", tencent_raw(b"[]"), 400),
        ("nothing", tencent_raw(b""), 400),
        ("no task", tencent_raw(json.dumps({"EventGroupId": 9, "EventType": 902}).encode()), 400),
        ("too large", tencent_raw(b" " * (limit + 1)), 413),
        ("just not too large", tencent_raw(b" " * limit), 400),
        ("an unknown event", tencent(999, "h1"), 200),
        ("unknown fields", tencent(902, "h2", LeaveCode=99, Later={"deep": [[[]]]}), 200),
    ]


async def test_what_is_not_genuine_leaves_nothing(scene: Scene) -> None:
    limit = 4_096
    scene.settings["callbacks"] = {"listen": "127.0.0.1:0", "max_body_bytes": limit}
    async with open_mailbox(scene) as mailbox:
        cases = refused(limit)
        told = {what: await mailbox.post(written) for what, written, _ in cases}
        assert told == {what: status for what, _, status in cases}
        assert await mailbox.ask("GET", TENCENT.name) == 405
        endless = {"data": endless_body(limit)}
        assert await mailbox.ask("POST", TENCENT.name, **endless) == 413
        # Only the one with unknown fields told something.
        rows = await scene.app.read("SELECT vendor_task_id, taken_at FROM vendor_fact")
        assert [row["vendor_task_id"] for row in rows] == ["h2"]
        assert await scene.app.read("SELECT * FROM task_change") == []
        assert await mailbox.daemon.stop() == 0
    lines = mailbox.daemon.events("callback_refused")
    # One line for the first of each kind, and one with the sum at the end.
    kinds = [(line["account"], line["result"]) for line in lines]
    assert sorted(kinds) == sorted(set(kinds))
    assert (TENCENT.name, "forged") in kinds
    sums = {(line["account"], line["result"]): line for line in summed(mailbox)}
    assert sums[TENCENT.name, "forged"]["count"] == 2


async def endless_body(limit: int) -> Any:
    """A body whose length nobody says beforehand."""
    for _ in range(limit):
        yield b" " * 100


def summed(mailbox: Mailbox) -> list[dict[str, Any]]:
    return mailbox.daemon.events("callbacks_refused")


async def test_a_flood_of_turns_does_not_delay_a_stop(scene: Scene) -> None:
    async with open_mailbox(scene) as mailbox:
        agent = await start(scene, TENCENT)
        statuses: list[int] = []
        ahead = iter(range(FLOOD))

        async def talk() -> None:
            for _ in ahead:
                turn = tencent(903, agent["handle"], UserId="human", Text=SPOKEN)
                statuses.append(await mailbox.post(turn))

        async with anyio.create_task_group() as talkers:
            for _ in range(32):
                talkers.start_soon(talk)

            async def has_begun() -> bool | None:
                return True if len(statuses) > FLOOD // 10 else None

            await until(has_begun, mailbox.daemon.describe)
            await scene.app.write(
                update_task(f"told-{TENCENT.name}", desired_state=quoted("stopped"))
            )
            await scene.wait(f"told-{TENCENT.name}", phase="stopped")
            answered = len(statuses)
        assert answered < FLOOD
        assert statuses == [200] * FLOOD
        rows = await scene.app.read("SELECT event FROM vendor_fact WHERE event = 'alive'")
        # At most the first that came when the agent had ended.
        assert len(rows) <= 1


async def test_nothing_that_was_spoken_is_kept(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    async with open_mailbox(scene) as mailbox:
        agent = await start(scene, ZEGO)
        spoken = {"Data": {"UserId": "human", "Round": 1, "Text": SPOKEN}}
        for event in ("ASRResult", "LLMResult", "Exception"):
            assert await mailbox.post(zego(event, agent["handle"], **spoken)) in {200, 400}
        assert await mailbox.post(zego("ASRResult", "unknown", **spoken)) == 200
        fault = {"Data": {"Code": 2201, "Message": SPOKEN}}
        assert await mailbox.post(zego("Exception", agent["handle"], **fault)) == 200
        await wait_facts(scene, agent["handle"], "started", "fault")
    kept = [path for path in scene.folder.iterdir() if path.is_file()]
    assert {path.suffix for path in kept} >= {".db", ".db-wal", ".log"}
    assert [path.name for path in kept if SPOKEN.encode() in path.read_bytes()] == []


async def test_what_could_not_be_kept_the_vendor_sends_again(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    async with open_mailbox(scene):
        agent = await start(scene, ZEGO)
        await wait_facts(scene, agent["handle"], "started")
        with holding_the_lock(scene):
            await scene.vendors.end(agent, "idle")
            await wait_attempts(scene, "AgentInstanceDeleted", 503)
        await wait_attempts(scene, "AgentInstanceDeleted", 200)
        await wait_facts(scene, agent["handle"], "started", "ended")


@contextmanager
def holding_the_lock(scene: Scene) -> Iterator[None]:
    """Let nobody else write."""
    path = scene.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


async def wait_attempts(scene: Scene, event: str, status: int) -> None:
    """Wait until a vendor has had this answer to its post about an event."""

    async def look() -> bool | None:
        attempts = await scene.vendors.callbacks()
        had = ((one["event"], one["status"]) for one in attempts)
        return True if (event, status) in had else None

    async def awaited() -> str:
        return f"{status} for {event}: {await scene.vendors.callbacks()}\n{scene.logs()}"

    await until(look, awaited)


async def test_a_port_that_is_taken_is_told_in_a_sentence(sqlite_scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        sqlite_scene.settings["callbacks"] = {"listen": where}
        daemon = sqlite_scene.launch()
        assert await daemon.ended() == 2
    assert f"callbacks.listen: cannot listen at {where}: Address already in use" in daemon.log()
    assert await sqlite_scene.app.read("SELECT id FROM daemon") == []
