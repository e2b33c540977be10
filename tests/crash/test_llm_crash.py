"""A daemon that ends while its agents ask for words: by a power cut, and in good order."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.daemon.customers import VOLCENGINE
from tests.daemon.llm import (
    MODEL_KEY,
    TEXT,
    TOKEN_SECRET,
    WORDS,
    Exchange,
    Gate,
    Heard,
    open_gate,
    politely,
    said,
)
from tests.daemon.orphanage import orphans
from tests.daemon.quiet import assert_quiet
from tests.daemon.running import open_scene

pytestmark = pytest.mark.anyio

SPOKEN = "where-is-my-parcel-93b1"


@pytest.fixture
async def gate(database_url: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Gate]:
    del anyio_backend  # asked for, so that it is there before this
    async with open_scene(database_url, tmp_path) as scene, open_gate(scene) as opened:
        scene.settings["log"] = {"level": "debug"}
        yield opened


async def never_end(one: Exchange) -> None:
    """Say something, and then nothing for as long as anybody listens."""
    await one.begin()
    await one.say(*WORDS)
    try:
        await anyio.sleep_forever()
    finally:
        one.has_left.set()


async def test_a_power_cut_in_the_middle_of_a_turn(gate: Gate) -> None:
    first = await gate.scene.start_daemon()
    agent = await gate.start_agent(VOLCENGINE, "call")
    await agent.ask(said(SPOKEN, round_id="before"))
    await gate.wait_for_turns("call", 1)
    gate.model.script = never_end
    async with agent.post(said(SPOKEN, round_id="cut")) as response:
        got = b""
        while WORDS[-1].encode() not in got:
            got += await response.content.readany()
        await first.kill()
        with pytest.raises(aiohttp.ClientError):
            await response.content.read()
    with anyio.fail_after(30):
        await gate.model.asked[-1].has_left.wait()

    gate.model.script = politely
    second = await gate.scene.start_daemon("two")
    assert (await agent.ask(said(SPOKEN, round_id="after"))).text == TEXT
    turns = await gate.wait_for_turns("call", 2)
    assert [turn["round"] for turn in turns] == ["before", "after"]
    for turn in turns:
        assert (turn["outcome"], turn["try"], turn["prompt_tokens"]) == ("answered", 1, 7)
    row = await gate.scene.wait("call", phase="running", incarnation=1)
    (living,) = await gate.scene.vendors.agents()
    assert living["handle"] == row["vendor_task_id"]
    assert await orphans(gate.scene) == []
    assert await second.stop() == 0
    await assert_quiet(gate.scene, [SPOKEN, MODEL_KEY, TOKEN_SECRET, agent.token])


async def test_a_daemon_that_is_told_to_end_ends_its_turns_politely(gate: Gate) -> None:
    first = await gate.scene.start_daemon()
    agent = await gate.start_agent(VOLCENGINE, "call")
    gate.model.script = never_end
    heard: list[Heard] = []

    async def ask() -> None:
        async with agent.post(said(SPOKEN)) as response:
            got = b""
            while WORDS[-1].encode() not in got:
                got += await response.content.readany()
            begun.set()
            got += await response.content.read()
            heard.append(
                Heard(status=response.status, content_type=response.content_type, body=got)
            )

    begun = anyio.Event()
    async with anyio.create_task_group() as asking:
        asking.start_soon(ask)
        await begun.wait()
        assert await first.stop() == 0
    assert [one.text for one in heard] == [TEXT]
    (turn,) = await gate.turns("call")
    assert (turn["outcome"], turn["reason"]) == ("cut", "Draining")
    gate.model.script = politely
    await gate.scene.start_daemon("two")
    assert (await agent.ask()).text == TEXT
    assert (await gate.scene.status("call"))["phase"] == "running"
