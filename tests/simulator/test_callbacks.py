"""Callbacks on their way: posted, repeated byte for byte, dropped, doubled, overtaken."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from orchestrator.simulator import Simulator, serve
from orchestrator.simulator.faults import Fault, Kind
from orchestrator.simulator.keys import DEMO
from orchestrator.simulator.world import Agent, Why

ZEGO = DEMO[2]


class Receiver:
    """Takes callbacks, after refusing as many as it is told to."""

    def __init__(self) -> None:
        self.refusals = 0
        self._put, self._got = anyio.create_memory_object_stream[bytes](100)

    async def answer(self, request: web.Request) -> web.Response:
        await self._put.send(await request.read())
        if self.refusals == 0:
            return web.Response(status=204)
        self.refusals -= 1
        return web.Response(status=503)

    async def next(self) -> bytes:
        with anyio.fail_after(5):
            return await self._got.receive()

    async def next_event(self) -> str:
        return str(json.loads(await self.next())["Event"])

    def close(self) -> None:
        self._put.close()
        self._got.close()


@asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/callbacks", receiver.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks"
    await runner.cleanup()
    receiver.close()


class Vendors:
    """A served simulator whose ZEGO account posts to a receiver, a thousand times as fast."""

    def __init__(self, simulator: Simulator, receiver: Receiver, url: str) -> None:
        self.simulator = simulator
        self.receiver = receiver
        self.url = url

    def start(self, world: Any) -> Agent:
        """Create an instance, by the caller of another simulator with the same keys."""
        world.clock.now = self.simulator.clock()
        call = world.zego_call("CreateAgentInstance", world.zego_create())
        call.world_at = self.simulator.world_now()
        assert self.simulator.serve(call).code == ""
        return self.simulator.world.agents[-1]

    def end(self, agent: Agent) -> None:
        self.simulator.world.end(agent, Why.FAULT, self.simulator.world_now())


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    receiver = Receiver()
    async with listening(receiver) as target:
        simulator = Simulator([replace(ZEGO, callback_url=target)], speed=1000)
        async with serve(simulator, "127.0.0.1", 0) as url:
            yield Vendors(simulator, receiver, url)


@pytest.mark.anyio
async def test_what_happens_is_posted(vendors: Vendors, world: Any) -> None:
    agent = vendors.start(world)
    assert await vendors.receiver.next_event() == "AgentInstanceCreated"
    vendors.end(agent)
    assert await vendors.receiver.next_event() == "AgentInstanceDeleted"


@pytest.mark.anyio
async def test_an_idle_agent_ends_and_is_reported_without_being_asked_for(
    vendors: Vendors, world: Any
) -> None:
    vendors.simulator.switches.turn({"users_present": False})
    vendors.start(world)
    events = [await vendors.receiver.next_event() for _ in range(2)]
    assert events == ["AgentInstanceCreated", "AgentInstanceDeleted"]


@pytest.mark.anyio
async def test_what_is_not_taken_is_repeated_byte_for_byte(vendors: Vendors, world: Any) -> None:
    vendors.receiver.refusals = 2
    vendors.start(world)
    posts = [await vendors.receiver.next() for _ in range(3)]
    assert len(set(posts)) == 1


@pytest.mark.anyio
async def test_callbacks_are_dropped_and_doubled(vendors: Vendors, world: Any) -> None:
    faults = vendors.simulator.faults
    faults.script("callback", 1, Fault(kind=Kind.DROP))
    faults.script("callback", 1, Fault(kind=Kind.DOUBLE))
    vendors.end(vendors.start(world))
    first, second = [await vendors.receiver.next() for _ in range(2)]
    assert first == second
    assert json.loads(first)["Event"] == "AgentInstanceDeleted"


@pytest.mark.anyio
async def test_a_delayed_callback_is_overtaken(vendors: Vendors, world: Any) -> None:
    vendors.simulator.faults.script("callback", 1, Fault(kind=Kind.DELAY, ms=100))
    vendors.end(vendors.start(world))
    events = [await vendors.receiver.next_event() for _ in range(2)]
    assert events == ["AgentInstanceDeleted", "AgentInstanceCreated"]


@pytest.mark.anyio
async def test_callbacks_are_redirected_and_attempts_shown(vendors: Vendors, world: Any) -> None:
    vendors.receiver.refusals = 1
    vendors.start(world)
    # The second attempt has come, so the first one is on record.
    await vendors.receiver.next()
    await vendors.receiver.next()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{vendors.url}/_sim/callbacks") as response:
            first = (await response.json())["attempts"][0]
        body = {"account": "zego", "url": ""}
        async with session.post(f"{vendors.url}/_sim/callbacks", json=body) as response:
            assert await response.json() == {"urls": {}}
    assert first == {"account": "zego", "event": "AgentInstanceCreated", "status": 503}
