"""What rows can get wrong, and what each gets for it while all other rows go on."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.daemon.application import SQLITE, delete_task, quoted, update_task
from tests.daemon.customers import (
    CUSTOMERS,
    TENCENT,
    VOLCENGINE,
    VOLCENGINE_FIRST,
    ZEGO,
    Customer,
)
from tests.daemon.running import Scene, as_json, task

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Mistake:
    """A row, and what it fails with."""

    id: str
    customer: Customer
    reason: str
    message: str
    """All of it."""
    columns: dict[str, str] = field(default_factory=dict)


def spec(**changes: Any) -> dict[str, str]:
    return {"spec": as_json(changes)}


VOLCENGINE_CONFIG = VOLCENGINE.spec["Config"]

MISTAKES = (
    Mistake(
        "no-such-account",
        VOLCENGINE,
        "UnknownAccount",
        "account 'nobody' is not under [accounts] of any running daemon",
        {"account": "'nobody'"},
    ),
    Mistake(
        "empty-spec",
        VOLCENGINE,
        "InvalidSpec",
        "spec.Config: expected a value, since it is required, found nothing",
        spec(),
    ),
    Mistake(
        "endpoint-is-missing",
        VOLCENGINE,
        "InvalidSpec",
        "spec.Config.LLMConfig.EndPointId: expected",
        spec(Config={**VOLCENGINE_CONFIG, "LLMConfig": {"Mode": "ArkV3"}}),
    ),
    Mistake(
        "wrong-type",
        TENCENT,
        "InvalidSpec",
        "spec.AgentConfig.MaxIdleTime: expected",
        spec(**TENCENT.spec, AgentConfig={"MaxIdleTime": "long"}),
    ),
    Mistake(
        "no-template",
        ZEGO,
        "InvalidSpec",
        "spec.AgentId: expected",
        spec(RTC={"UserStreamId": "s"}),
    ),
    Mistake(
        "no-such-secret",
        TENCENT,
        "UnknownSecret",
        "spec.AgentConfig.WelcomeMessage: expected a secret that the configuration has under "
        '[secrets], found "nowhere"',
        spec(**TENCENT.spec, AgentConfig={"WelcomeMessage": {"$secret": "nowhere"}}),
    ),
    Mistake(
        "long-user",
        ZEGO,
        "InvalidSpec",
        "user_id: expected 1 to 32 characters out of letters, digits, _ and -, found ",
        {"user_id": quoted("u" * 33)},
    ),
    Mistake(
        "long-room",
        VOLCENGINE,
        "InvalidSpec",
        "room_id: expected 1 to 128 characters out of ",
        {"room_id": quoted("r" * 129)},
    ),
    Mistake(
        "odd-user",
        VOLCENGINE,
        "InvalidSpec",
        "user_id: expected ",
        {"user_id": "'a b'"},
    ),
)


async def test_a_mistake_fails_its_row_alone(scene: Scene) -> None:
    daemon = await scene.start_daemon()
    rows = [task(m.customer, m.id, **m.columns) for m in MISTAKES]
    good = [task(customer, f"good-{customer.name}") for customer in CUSTOMERS]
    await scene.app.write(*(row for pair in zip(rows, good, strict=False) for row in pair))
    await scene.app.write(*rows[len(good) :])
    for customer in CUSTOMERS:
        await scene.wait(f"good-{customer.name}", phase="running")
    for mistake in MISTAKES:
        row = await scene.wait(mistake.id, phase="failed", end_reason="start_failed")
        assert row["reason"] == mistake.reason
        assert row["message"].startswith(mistake.message), row["message"]
        assert await scene.calls(mistake.id) == []
    assert len(await scene.vendors.agents()) == len(CUSTOMERS)
    assert daemon.events("row_failed") == []


async def test_a_mistake_put_right_is_tried_again(scene: Scene) -> None:
    await scene.start_daemon()
    for customer in CUSTOMERS:
        await scene.ask_for(customer, f"mended-{customer.name}", spec="'{}'")
    failed = [one for one in CUSTOMERS if one is not VOLCENGINE_FIRST]
    for customer in failed:
        await scene.wait(f"mended-{customer.name}", phase="failed", reason="InvalidSpec")
        mended = update_task(f"mended-{customer.name}", spec=as_json(customer.spec))
        await scene.app.write(mended)
    for customer in failed:
        await scene.wait(f"mended-{customer.name}", phase="running", incarnation=2, reason=None)


async def test_an_agent_user_id_that_is_in_use(scene: Scene) -> None:
    await scene.start_daemon()
    given = (
        (VOLCENGINE, {**VOLCENGINE.spec, "AgentConfig": {"UserId": "chosen"}}, "'room'"),
        (TENCENT, {**TENCENT.spec, "AgentConfig": {"UserId": "chosen"}}, "'room'"),
        # At ZEGO it must be free in all rooms of the account.
        (ZEGO, {**ZEGO.spec, "RTC": {"UserStreamId": "s", "AgentUserId": "chosen"}}, "'other'"),
    )
    for customer, body, other_room in given:
        first, second = f"first-{customer.name}", f"second-{customer.name}"
        await scene.ask_for(customer, first, spec=as_json(body), room_id="'room'")
        await scene.wait(first, phase="running", agent_user_id="chosen")
        await scene.ask_for(customer, second, spec=as_json(body), room_id=other_room)
        row = await scene.wait(second, phase="failed", reason="AgentUserIdTaken")
        told = "agent user id chosen is in use by another task in room room"
        assert row["message"] == told
        # Once it is free, a new try finds it so.
        await scene.app.write(delete_task(first))
        await scene.wait_gone(first)
        await scene.app.write(update_task(second, restart_token="'try-again'"))
        await scene.wait(second, phase="running", agent_user_id="chosen")


async def test_the_first_api_version_knows_one_agent_for_a_room_and_user(scene: Scene) -> None:
    await scene.start_daemon()
    pair = {"room_id": "'room'", "user_id": "'user'"}
    await scene.app.write(
        task(VOLCENGINE_FIRST, "one", **pair),
        task(VOLCENGINE_FIRST, "two", **pair),
        task(VOLCENGINE_FIRST, "elsewhere", room_id="'other'", user_id="'user'"),
    )
    await scene.wait("elsewhere", phase="running")
    await scene.wait("one", phase="running")
    row = await scene.wait("two", phase="failed", reason="Conflict")
    told = "room room and user user have an agent of another task"
    assert row["message"] == f"{told}; this API version stops by room and user"
    assert len(await scene.vendors.agents()) == 2


async def test_a_row_that_cannot_be_read_fails_alone(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    await scene.start_daemon()
    await scene.ask_for(VOLCENGINE, "runs")
    await scene.wait("runs", phase="running")
    await scene.app.write("UPDATE account_control SET paused = true")
    await scene.app.write(task(VOLCENGINE, "bad-time"), task(TENCENT, "bad-number"))
    write_past_the_checks(
        scene,
        "UPDATE agent_task SET stop_at = 'next week' WHERE id IN ('bad-time', 'runs')",
        "UPDATE agent_task SET heartbeat_timeout_s = 'soon' WHERE id = 'bad-number'",
    )
    await scene.app.write("UPDATE account_control SET paused = false", task(ZEGO, "good"))
    await scene.wait("good", phase="running")
    expected = {
        "bad-time": "stop_at: expected a date and time, found 'next week'",
        "bad-number": "heartbeat_timeout_s: expected a whole number of seconds, found 'soon'",
    }
    for id_, message in expected.items():
        row = await scene.wait(id_, phase="failed", reason="Unreadable")
        assert row["message"] == message
    await scene.wait("runs", phase="failed", reason="Unreadable")
    assert [a["room_id"] for a in await scene.vendors.live()] == ["room-good"]
    await scene.app.write(delete_task("bad-time"), delete_task("runs"))
    await scene.wait_gone("bad-time")
    await scene.wait_gone("runs")


async def test_bytes_that_are_no_text_keep_nothing_from_being_stopped(sqlite_scene: Scene) -> None:
    scene = sqlite_scene
    daemon = await scene.start_daemon()
    await scene.ask_for(VOLCENGINE, "runs")
    await scene.wait("runs", phase="running")
    latin_1 = "CAST(x'7b2261223a22ff227d' AS TEXT)"
    await scene.app.write(update_task("runs", spec=latin_1, desired_state="'stopped'"))
    await scene.wait("runs", phase="stopped", end_reason="requested")
    assert await scene.vendors.live() == []
    assert daemon.events("row_failed") == []


def write_past_the_checks(scene: Scene, *statements: str) -> None:
    """Write what no CHECK would take and no trigger should see, as a damaged file may hold it."""
    path = scene.database_url.removeprefix(SQLITE)
    with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master "
            "WHERE type = 'trigger' AND name LIKE 'agent_task_times%'"
        ).fetchall()
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("BEGIN IMMEDIATE")
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for _, sql in triggers:
            connection.execute(sql)
        connection.execute("COMMIT")
