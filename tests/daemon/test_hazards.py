"""Histories that broke earlier drafts or others' systems, by whole daemons before their vendors.

The name of a test is its history; `docs/reliability.md` says which one it stands for.
"""

import signal
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from structlog.testing import capture_logs

from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite
from orchestrator.daemon import settler
from orchestrator.daemon.call_tally import CallTally
from orchestrator.daemon.choose import IN_FLIGHT
from orchestrator.daemon.janitor import Janitor, Keep
from orchestrator.store import sqlite
from orchestrator.store.engine import Database, open_database, sqlite_path
from orchestrator.store.migrate import upgrade
from tests.daemon import test_settler
from tests.daemon.application import (
    Row,
    delete_task,
    insert,
    open_application,
    update,
    update_task,
)
from tests.daemon.customers import CUSTOMERS, TENCENT, VOLCENGINE, ZEGO
from tests.daemon.running import GIVEN, Daemon, Scene, as_json, open_scene, task, until
from tests.daemon.talk import press, spoken, states, talk_to
from tests.daemon.vendors import doubled
from tests.postgres_server import running_server
from tests.store import claiming
from tests.store.rows import run

pytestmark = pytest.mark.anyio


# --- what starts nothing


async def test_nothing_but_a_wish_starts_what_has_ended(scene: Scene) -> None:
    daemon = await scene.start_daemon()
    app = scene.app
    await app.write(
        insert("task_owner", name="'worker'", heartbeat_timeout_s="600"),
        task(VOLCENGINE, "refused", spec="'{}'", owner="'worker'"),
        task(TENCENT, "late", start_by=app.in_seconds(-1)),
        task(ZEGO, "over", stop_at=app.in_seconds(-1), restart_policy="'always'"),
        task(ZEGO, "died", heartbeat_timeout_s="600"),
    )
    await scene.wait("died", phase="running", confirmed_at=GIVEN)
    (agent,) = await scene.vendors.live()
    await scene.vendors.end(agent, "idle")
    await scene.wait("died", phase="stopped")
    ended = {"refused": "failed", "late": "failed", "over": "stopped", "died": "stopped"}
    for id_, phase in ended.items():
        await scene.wait(id_, phase=phase)

    # What an application goes on writing: heartbeats, labels, all columns as they were.
    same = "desired_state = desired_state, spec = spec, start_by = start_by, owner = owner"
    for _ in range(3):
        await app.write(
            update("task_owner", "name = 'worker'", heartbeat_at=app.in_seconds(0)),
            update("agent_task", "true", heartbeat_at=app.in_seconds(0), priority="priority + 1"),
            f"UPDATE agent_task SET {same}, restart_policy = restart_policy",  # noqa: S608 - a test's own words
            update("agent_task", "true", labels=as_json({"seen": True})),
        )
    await app.write(
        *(update_task(id_, stop_at=app.in_seconds(600)) for id_ in ("over", "died")),
    )
    # Nor does a daemon that starts anew and finds them.
    await daemon.kill()
    await scene.start_daemon("again")
    await scene.ask_for(TENCENT, "asked-later")
    await scene.wait("asked-later", phase="running")
    for id_, phase in ended.items():
        row = await scene.wait(id_, phase=phase)
        assert (row["incarnation"], row["generation"]) == (1, row["observed_generation"])
    assert [one["room_id"] for one in await scene.vendors.agents()] == [
        "room-died",
        "room-asked-later",
    ]


# --- nobody waits for what hangs


async def test_starts_that_hang_hold_no_stop_back(scene: Scene) -> None:
    account = scene.account(VOLCENGINE)
    account["qps"] = {VOLCENGINE.start: 0}
    account["call_timeout_ms"] = 5_000
    scene.settings["leases"]["ttl_s"] = 8
    most = IN_FLIGHT[WorkClass.START]
    await scene.start_daemon()
    await scene.ask_for(VOLCENGINE, "ends")
    await scene.wait("ends", phase="running")
    await scene.vendors.script(VOLCENGINE.start, "hang", n=most * 2)
    await scene.app.write(*(task(VOLCENGINE, f"hangs-{n}") for n in range(most + 6)))
    hanging = "SELECT task_id FROM agent_status WHERE intent = 'start'"

    async def all_hang() -> bool | None:
        return True if len(await scene.app.read(hanging)) == most else None

    async def awaited() -> str:
        return f"{most} starts in flight\n{scene.logs()}"

    await until(all_hang, awaited)
    await scene.app.write(update_task("ends", desired_state="'stopped'"))
    await scene.wait_for_calls(VOLCENGINE.stop, 1)
    assert len(await scene.app.read(hanging)) == most


async def test_a_press_overtakes_a_look_at_its_own_agent(scene: Scene) -> None:
    await scene.start_daemon()
    await talk_to(scene, "call")
    await scene.vendors.script(ZEGO.look, "delay_reply", ms=1_500)
    looking = await scene.wait("call", intent="poll")
    await scene.wait_for_faults()
    await scene.app.write(press("call", "p1"))
    assert await states(scene, "p1") == ["done"]
    row = await scene.status("call")
    assert (row["intent"], row["intent_at"]) == ("poll", looking["intent_at"])
    assert (await spoken(scene, "p1"))["sent_at"] is not None


async def test_one_stop_of_an_agent_is_in_flight_whatever_is_written_meanwhile(
    scene: Scene,
) -> None:
    await scene.start_daemon()
    await scene.app.write(task(TENCENT, "stuck"), task(TENCENT, "other"))
    for id_ in ("stuck", "other"):
        await scene.wait(id_, phase="running")
    await scene.vendors.script(TENCENT.stop, "hang")
    await scene.app.write(update_task("stuck", desired_state="'stopped'"))
    await scene.wait_for_faults()
    await scene.app.write(update_task("stuck", desired_state="'running'"))
    await scene.app.write(update_task("stuck", stop_at=scene.app.in_seconds(-1)))
    await scene.app.write(delete_task("stuck"), delete_task("other"))
    await scene.wait_gone("other")
    assert (await scene.status("stuck"))["intent"] == "stop"
    await scene.wait_gone("stuck")
    assert await scene.vendors.live() == []
    assert_one_by_one([one for one in await scene.calls("stuck") if one["action"] == TENCENT.stop])


def assert_one_by_one(calls: list[Row]) -> None:
    """Each call began after the one before had come to something."""
    assert len(calls) > 1
    for earlier, later in pairwise(calls):
        began = as_time(later["at"]) - timedelta(milliseconds=later["latency_ms"])
        assert began >= as_time(earlier["at"]) - timedelta(milliseconds=50)


def as_time(value: Any) -> datetime:
    """Return an instant as either database gives it, in no time zone: both give UTC."""
    told = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return told.replace(tzinfo=None)


# --- the breaker


async def test_a_breaker_tells_its_edges_and_holds_no_stop(scene: Scene) -> None:
    daemon = await scene.start_daemon()
    await scene.vendors.script(VOLCENGINE.start, "http_500", n=12)
    await scene.ask_for(VOLCENGINE, "unwanted")
    await scene.wait("unwanted", waiting_for="circuit_open")
    await scene.ask_for(VOLCENGINE, "wanted")
    await scene.wait("wanted", phase="pending", waiting_for="circuit_open")
    assert len(edges(daemon)) == 1
    await scene.app.write(update_task("unwanted", desired_state="'stopped'"))
    await scene.wait("unwanted", phase="stopped", end_reason="requested")
    await scene.wait("wanted", phase="running")
    told = edges(daemon)
    assert told[0] == "circuit_open"
    assert told[-1] == "circuit_closed"
    assert all(earlier != later for earlier, later in pairwise(told))
    assert await scene.vendors.faults_to_come() == {}


def edges(daemon: Daemon) -> list[str]:
    """Return what the log tells of breakers, in order."""
    lines = daemon.log().splitlines()
    words = ("circuit_open", "circuit_closed")
    return [word for line in lines for word in words if f'"{word}"' in line]


# --- another place


async def test_a_stop_goes_to_where_its_agent_was_started(scene: Scene) -> None:
    first = await scene.start_daemon()
    await scene.ask_for(VOLCENGINE, "moved")
    await scene.wait("moved", phase="running")
    assert await first.stop() == 0
    scene.account(VOLCENGINE)["api_version"] = "2025-06-01"
    await scene.start_daemon("elsewhere")
    await scene.ask_for(VOLCENGINE, "new")
    await scene.wait("new", phase="running")
    await scene.app.write("UPDATE agent_task SET desired_state = 'stopped'")
    for id_ in ("moved", "new"):
        await scene.wait(id_, phase="stopped")
    stops = await scene.vendors.calls(VOLCENGINE.stop)
    versions = {call["ids"]["room_id"]: call["version"] for call in stops}
    assert versions == {"room-moved": "2024-12-01", "room-new": "2025-06-01"}
    assert await scene.vendors.live() == []


# --- daemons that freeze, drain and share a name


async def test_a_daemon_that_wakes_after_a_long_sleep_blames_nobody(scene: Scene) -> None:
    rows = (VOLCENGINE, TENCENT, ZEGO)
    for customer in rows:  # a daemon that sleeps in the middle of a look would hold SQLite's lock
        scene.account(customer)["poll_s"] = 600
    daemon = await scene.start_daemon()
    await scene.app.write(
        insert("task_owner", name="'worker'", heartbeat_timeout_s="600"),
        *(task(one, f"alive-{one.name}", heartbeat_timeout_s="600") for one in rows),
        task(ZEGO, "owned", owner="'worker'"),
    )
    ids = [*(f"alive-{one.name}" for one in rows), "owned"]
    for id_ in ids:
        await scene.wait(id_, phase="running")
    daemon.process.send_signal(signal.SIGSTOP)
    # An hour goes by for all of them.
    ago = scene.app.in_seconds(-3_600)
    await scene.app.write(
        update("daemon", "true", heartbeat_at=ago),
        update("agent_task", "true", created_at=ago, heartbeat_at=ago),
        update("task_owner", "true", heartbeat_at=ago),
        update("agent_status", "true", stop_due_at=ago),
    )
    daemon.process.send_signal(signal.SIGCONT)
    await scene.ask_for(VOLCENGINE, "asked-later", stop_at=scene.app.in_seconds(3))
    await scene.wait("asked-later", phase="stopped", end_reason="deadline")
    for id_ in ids:
        row = await scene.wait(id_, phase="running", end_reason=None)
        assert row["incarnation"] == 1
    assert len(daemon.events("gap_ended")) <= 2


async def test_a_daemon_of_the_same_name_begins_while_the_other_drains(
    postgres_scene: Scene,
) -> None:
    scene = postgres_scene
    first = await scene.start_daemon("same")
    for customer in CUSTOMERS:
        await scene.vendors.script(customer.start, "delay_reply", ms=1_200)
    ids = [f"shared-{one.name}" for one in CUSTOMERS]
    await scene.app.write(*(task(one, f"shared-{one.name}") for one in CUSTOMERS))
    await scene.wait_for_faults()
    first.process.send_signal(signal.SIGTERM)
    second = await scene.start_daemon("same")
    assert await first.ended() == 0
    for id_ in ids:
        await scene.wait(id_, phase="running")
    assert len(await scene.vendors.agents()) == len(ids)
    assert len(await scene.app.read("SELECT id FROM daemon")) == 1
    await scene.app.write("DELETE FROM agent_task")
    for id_ in ids:
        await scene.wait_gone(id_)
    assert await scene.vendors.live() == []
    assert await second.stop() == 0


async def test_a_server_that_dies_while_rows_are_taken_over(tmp_path: Path) -> None:
    # Durable settings: what was committed must be there afterwards.
    with running_server(tmp_path / "server", settings=()) as server:
        await upgrade(server.url())
        async with open_scene(server.url(), tmp_path) as scene:
            first = await scene.start_daemon("one")
            for customer in (VOLCENGINE, TENCENT, ZEGO):
                await scene.vendors.script(customer.start, "hang", n=4)
            asked = [
                (one, f"taken-{one.name}-{n}") for one in (VOLCENGINE, TENCENT, ZEGO) for n in "ab"
            ]
            await scene.app.write(*(task(one, id_) for one, id_ in asked))
            await scene.wait_for_calls(VOLCENGINE.start, 2)
            await first.kill()
            second = await scene.start_daemon("two")
            await scene.wait(f"taken-{VOLCENGINE.name}-a", intent="start")
            server.kill()
            server.start()
            async with open_application(server.url()) as scene.app:
                for _, id_ in asked:
                    await scene.wait(id_, phase="running")
                assert doubled(await scene.vendors.agents()) == []
                assert len(await scene.vendors.live()) == len(asked)
                assert await second.stop() == 0


# --- what a daemon does beside its work


class Impatient:
    """A database whose writes are counted."""

    def __init__(self, database: Database) -> None:
        self.dialect = database.dialect
        self.writes = 0
        self._database = database

    async def write(self, *args: Any, **options: Any) -> Any:
        self.writes += 1
        return await self._database.write(*args, **options)


async def test_an_outage_is_told_once_by_who_waits_to_settle(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(sqlite_url)
    hands = await claiming.Daemon(database).ready()
    await claiming.want(database, "a")
    order = await hands.claim_one("a")
    counted = Impatient(database)
    bench = test_settler.Bench(replace(hands, database=cast("Database", counted)))
    monkeypatch.setattr(settler, "AWAY_WAIT_S", 0.01)
    monkeypatch.setattr(sqlite, "LOCK_WAIT_S", 0.01)
    with closing(sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with capture_logs() as lines:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bench.settle, [claiming.settled(order, Indefinite(code="E"))])

                async def tried_often() -> bool | None:
                    return True if counted.writes > 5 else None

                async def awaited() -> str:
                    return f"more than {counted.writes} tries to settle"

                await until(tried_often, awaited)
                stranger.execute("ROLLBACK")
    assert [line["event"] for line in lines] == ["settle_failed"]
    await database.close()


async def test_a_walk_that_cannot_go_on_keeps_no_other_from_its_way(database: Database) -> None:
    """Tasks of which nobody can be told, and an open ledger row that nobody would look at."""
    hands = await claiming.Daemon(database).ready()
    await claiming.want(database, "bad", "good", "leak")
    await hands.start("leak")
    await run(
        database,
        "DELETE FROM task_change",
        "DELETE FROM agent_status WHERE task_id IN ('bad', 'good')",
        "UPDATE agent_status SET phase = 'stopped', due_at = NULL, stop_due_at = NULL",
        "CREATE UNIQUE INDEX one_word ON task_change (what)",
    )
    with capture_logs() as lines:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(make_janitor(hands).sweep)

            async def is_told() -> bool | None:
                is_mended = "leak" in await claiming.inbox(database)
                return True if is_mended and failed_works(lines) else None

            async def awaited() -> str:
                return f"a walk through the ledger beside one that fails; {lines}"

            await until(is_told, awaited, within_s=5)
            tasks.cancel_scope.cancel()
    assert failed_works(lines) == ["sweep_tasks"]


def failed_works(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the janitor could not do, each told once."""
    return [line["work"] for line in lines if line["event"] == "janitor_failed"]


def make_janitor(hands: claiming.Daemon) -> Janitor:
    return Janitor(
        database=hands.database,
        book=hands.desk.book,
        tally=CallTally(),
        daemon_id="d1",
        daemon_name="d1",
        keep=Keep(
            events=timedelta(days=1),
            commands=timedelta(days=1),
            turns=timedelta(days=1),
            ended=None,
        ),
        is_draining=lambda: False,
    )
