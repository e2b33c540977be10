"""An agent that nobody talks to is stopped in time; one that is talked to, or cannot be, is not."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import anyio
import pytest

from tests.daemon.application import update
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO
from tests.daemon.llm import TEXT, Exchange, Gate, open_gate, said
from tests.daemon.running import Scene, until
from tests.daemon.test_deadlines import as_time

pytestmark = pytest.mark.anyio

IDLE_S = 10
IDLE = timedelta(seconds=IDLE_S)


@pytest.fixture
async def gate(scene: Scene) -> AsyncIterator[Gate]:
    for customer in (VOLCENGINE, TENCENT, ZEGO):
        scene.account(customer)["idle_timeout_s"] = IDLE_S
    async with open_gate(scene) as opened:
        yield opened


async def test_who_is_not_talked_to_is_stopped_and_who_is_lives_on(gate: Gate) -> None:
    await gate.scene.start_daemon()
    talked_to = await gate.start_agent(TENCENT, "talked-to")
    for customer in (VOLCENGINE, TENCENT, ZEGO):
        await gate.start_agent(customer, f"silent-{customer.name}")
    await gate.scene.ask_for(ZEGO, "of-another-model")
    await gate.scene.wait("of-another-model", phase="running")
    silent = [f"silent-{customer.name}" for customer in (VOLCENGINE, TENCENT, ZEGO)]
    began = {id_: (await gate.scene.status(id_))["started_at"] for id_ in silent}

    async def talk_until_the_others_are_stopped() -> bool | None:
        assert (await talked_to.ask()).text == TEXT
        rows = [await gate.scene.status(id_) for id_ in silent]
        return all(row["phase"] == "stopped" for row in rows) or None

    await until(talk_until_the_others_are_stopped, lambda: gate.scene.describe(silent[0]))
    for id_ in silent:
        row = await gate.scene.status(id_)
        assert row["end_reason"] == "idle"
        assert as_time(row["phase_since"]) - as_time(began[id_]) >= IDLE
    for id_ in ("talked-to", "of-another-model"):
        assert (await gate.scene.status(id_))["phase"] == "running"
    last = await talked_at(gate, "talked-to")
    row = await gate.scene.wait("talked-to", phase="stopped", end_reason="idle")
    assert as_time(row["phase_since"]) - last >= IDLE
    assert (await gate.scene.status("of-another-model"))["phase"] == "running"


async def test_a_turn_that_lasts_is_talk(gate: Gate) -> None:
    """The agent speaks for longer than it may be idle."""
    is_enough = anyio.Event()

    async def speak(one: Exchange) -> None:
        await one.begin()
        await one.say("Once upon a time")
        await is_enough.wait()
        await one.finish()

    await gate.scene.start_daemon()
    teller = await gate.start_agent(ZEGO, "teller")
    gate.model.script = speak
    async with teller.post(said("A story!")) as response:
        await response.content.readany()
        # Who began after the story did, and is silent, is stopped before it ends.
        await gate.start_agent(TENCENT, "silent")
        await gate.scene.wait("silent", phase="stopped", end_reason="idle")
        assert (await gate.scene.status("teller"))["phase"] == "running"
        is_enough.set()
        assert b"[DONE]" in await response.content.read()


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_daemon_that_was_away_counts_from_when_it_is_back(gate: Gate, how: str) -> None:
    """What was said meanwhile nobody has heard."""
    daemon = await gate.scene.start_daemon()
    await gate.start_agent(ZEGO, "call")
    await (daemon.stop() if how == "stop" else daemon.kill())
    await let_it_be_long_ago(gate, "call")
    await gate.scene.start_daemon("again")
    agent = await gate.talker(ZEGO, "call")
    assert (await agent.ask()).text == TEXT
    last = await talked_at(gate, "call")
    row = await gate.scene.wait("call", phase="stopped", end_reason="idle")
    assert as_time(row["phase_since"]) - last >= IDLE


async def let_it_be_long_ago(gate: Gate, id_: str) -> None:
    """Make it an hour since the daemon ended, and since the agent of a task began."""
    ago = gate.scene.app.in_seconds(-3_600)
    await gate.scene.app.write(
        update("vendor_agent", f"task_id = '{id_}'", announced_at=ago),
        update("agent_status", f"task_id = '{id_}'", started_at=ago),
        update("daemon", "true", heartbeat_at=ago),
    )


async def talked_at(gate: Gate, id_: str) -> datetime:
    """Wait until it is written that a task was talked to; return when that was last."""

    async def look() -> datetime | None:
        rows = await gate.scene.app.read(
            f"SELECT talked_at FROM llm_task WHERE task_id = '{id_}'"  # noqa: S608 - our own words
        )
        return as_time(rows[0]["talked_at"]) if rows and rows[0]["talked_at"] else None

    return await until(look, lambda: gate.scene.describe(id_))
