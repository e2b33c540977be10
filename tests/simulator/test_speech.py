"""Conversations over HTTP, with a real server for an LLM: turns, interruptions, repeats, faults."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from orchestrator.simulator import Simulator, Switches, serve
from orchestrator.simulator.keys import DEMO
from orchestrator.simulator.questions import Unheard
from orchestrator.simulator.visitor import visiting
from orchestrator.simulator.world import Agent, Idleness, RoomKey, Vendor, Why
from tests.ports import unused_port

PATIENCE_S = 30
FEATURE = '{"Http": true}'
"""What lets Volcengine ask an LLM without TLS."""

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Llm:
    """A customer's LLM: what it was asked, and how it answers."""

    answering: Answering
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    hung_up: list[int] = field(default_factory=list)
    """The numbers of the requests whose client went away."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        number = len(self.asked)
        self.asked.append(json.loads(await request.read()))
        self.headers.append(request.headers)
        try:
            return await self.answering(request)
        except asyncio.CancelledError:
            self.hung_up.append(number)
            raise


def chunk(words: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": words}, "finish_reason": reason}
    whole = {"object": "chat.completion.chunk", "created": 1, "choices": [choice]}
    return f"data: {json.dumps(whole)}\n\n".encode()


async def head(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


async def say_it_all(request: web.Request) -> web.StreamResponse:
    response = await head(request)
    await response.write(chunk("Good ") + chunk("day.", "stop") + b"data: [DONE]\n\n")
    return response


async def say_three_words_and_hold(request: web.Request) -> web.StreamResponse:
    response = await head(request)
    await response.write(chunk("one ") + chunk("two ") + chunk("three "))
    await anyio.sleep_forever()
    return response


async def say_nothing(request: web.Request) -> web.StreamResponse:
    await anyio.sleep_forever()
    return await head(request)


async def refuse(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": request.path}, status=503)


async def answer_whole(request: web.Request) -> web.StreamResponse:
    choice = {"message": {"content": "Good day."}, "finish_reason": "stop"}
    assert request.method == "POST"
    return web.json_response({"object": "chat.completion", "choices": [choice]})


@dataclass
class Stage:
    """The simulated vendors, the LLM, and a client of `/_sim/`."""

    simulator: Simulator
    session: aiohttp.ClientSession
    url: str
    llm: Llm
    llm_url: str

    def start(self, vendor: Vendor = Vendor.VOLCENGINE, **llm: Any) -> Agent:
        """Let an agent begin whose LLM is the stage's."""
        world, now = self.simulator.world, self.simulator.world_now()
        blocks: dict[Vendor, dict[str, Any]] = {
            Vendor.VOLCENGINE: {"Url": self.llm_url, "Feature": FEATURE, "EnableRoundId": True},
            Vendor.TENCENT: {"APIUrl": self.llm_url, "History": 5},
            Vendor.ZEGO: {"LLM": {"Url": self.llm_url} | llm, "MessageHistory": {}},
        }
        number = world.next_number()
        agent = Agent(
            number=number,
            account=vendor,
            room=world.room(RoomKey(vendor, "app", f"room{number}")),
            user_id="user1",
            agent_user_id=f"agent{number}",
            handle=f"handle{number}",
            idleness=Idleness.USER_ABSENT,
            idle_limit=now - now,
            started_at=now,
            llm=blocks[vendor] | llm,
        )
        world.start(agent)
        return agent

    async def say(self, agent: Agent, text: str = "Hello?", **how: Any) -> dict[str, Any]:
        status, answer = await self.post(f"agents/{agent.id}/say", {"text": text} | how)
        assert status == 200, answer
        turn: dict[str, Any] = answer
        return turn

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        async with self.session.post(f"{self.url}/_sim/{path}", json=body) as response:
            return response.status, await response.json()

    async def turns(self, since: int = 0) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.url}/_sim/turns?since={since}") as response:
            turns: list[dict[str, Any]] = (await response.json())["turns"]
            return turns


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - of the vendors, who tell no event
            await anyio.sleep(0.005)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        yield await staged(stack)


async def staged(stack: AsyncExitStack, **how: Any) -> Stage:
    llm = Llm(say_it_all)
    app = web.Application()
    app.router.add_post("/chat/completions", llm.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    llm_url = f"http://127.0.0.1:{runner.addresses[0][1]}/chat/completions"
    simulator = Simulator(DEMO, **how)
    url = await stack.enter_async_context(serve(simulator, "127.0.0.1", 0))
    session = await stack.enter_async_context(aiohttp.ClientSession())
    return Stage(simulator, session, url, llm, llm_url)


@pytest.mark.anyio
async def test_a_turn_says_what_was_said_and_answered(stage: Stage) -> None:
    agent = stage.start(APIKey="fake-key")
    turn = await stage.say(agent, "Hello?")
    expected = {
        "seq": 1,
        "vendor": "volcengine",
        "account": "volcengine",
        "agent": agent.id,
        "handle": agent.handle,
        "room_id": "room0",
        "user_id": "user1",
        "round": 1,
        "zombie": False,
        "said": "Hello?",
        "answered": "Good day.",
        "status": 200,
        "chunks": 2,
        "finish_reason": "stop",
        "requests": 1,
        "interrupted": False,
        "fault": None,
        "done": True,
    }
    assert {name: turn[name] for name in expected} == expected
    assert 0 < turn["first_token_ms"] <= turn["total_ms"]
    assert stage.llm.headers[0]["Authorization"] == "Bearer fake-key"
    assert await stage.turns() == [turn]
    assert await stage.turns(since=1) == []


@pytest.mark.anyio
async def test_what_was_said_is_the_history_of_the_next_turn(stage: Stage) -> None:
    agent = stage.start()
    for text in ("One?", "Two?"):
        await stage.say(agent, text)
    assert stage.llm.asked[1]["messages"] == [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "Two?"},
    ]
    assert [body["round_id"] for body in stage.llm.asked] == [1, 2]


@pytest.mark.anyio
@pytest.mark.parametrize("chunks", [1, 2, 3])
async def test_an_interruption_hangs_up_after_so_many_words(stage: Stage, chunks: int) -> None:
    stage.llm.answering = say_three_words_and_hold
    turn = await stage.say(stage.start(), interrupt_after=chunks)
    assert (turn["chunks"], turn["interrupted"], turn["fault"]) == (chunks, True, None)
    assert turn["answered"].split() == ["one", "two", "three"][:chunks]
    await until(lambda: stage.llm.hung_up == [0])


@pytest.mark.anyio
async def test_an_interruption_at_once_hangs_up_when_the_request_is_out(stage: Stage) -> None:
    stage.llm.answering = say_nothing
    turn = await stage.say(stage.start(), "Hello?", interrupt_after=0)
    assert (turn["interrupted"], turn["status"], turn["answered"]) == (True, None, "")
    await until(lambda: stage.llm.hung_up == [0])
    assert stage.llm.asked[0]["messages"][-1]["content"] == "Hello?"


@pytest.mark.anyio
async def test_an_answer_that_is_over_before_is_not_interrupted(stage: Stage) -> None:
    turn = await stage.say(stage.start(), interrupt_after=3)
    assert (turn["interrupted"], turn["answered"], turn["fault"]) == (False, "Good day.", None)


@pytest.mark.anyio
@pytest.mark.parametrize("vendor", Vendor)
async def test_a_repeat_is_the_same_request_after_one_that_was_abandoned(
    stage: Stage, vendor: Vendor
) -> None:
    turn = await stage.say(stage.start(vendor, AddAgentInfo=True), repeat=True)
    assert (turn["requests"], turn["answered"], turn["interrupted"]) == (2, "Good day.", False)
    await until(lambda: len(stage.llm.asked) == 2)
    first, second = stage.llm.asked
    assert first == second
    ids = [headers.get("X-Request-Id") for headers in stage.llm.headers]
    assert ids == [turn["request_id"] if vendor is Vendor.TENCENT else None] * 2
    if vendor is Vendor.ZEGO:
        assert second["agent_info"]["round_id"] == turn["round"]


@pytest.mark.anyio
async def test_nobody_needs_to_wait_for_the_end_of_a_turn(stage: Stage) -> None:
    stage.llm.answering = say_three_words_and_hold
    begun = await stage.say(stage.start(), wait=False)
    assert (begun["done"], begun["total_ms"]) == (False, None)
    await until(lambda: stage.simulator.turns.since(0)[0]["chunks"] == 3)
    (turn,) = await stage.turns()
    assert (turn["answered"], turn["done"]) == ("one two three ", False)


@pytest.mark.anyio
async def test_an_answer_that_is_no_stream_is_read_where_none_was_asked_for(stage: Stage) -> None:
    stage.llm.answering = answer_whole
    turn = await stage.say(stage.start(Vendor.TENCENT, Streaming=False))
    assert (turn["answered"], turn["fault"]) == ("Good day.", None)
    turn = await stage.say(stage.start(Vendor.TENCENT, Streaming=True))
    assert turn["fault"].startswith("content_type: application/json")


@pytest.mark.anyio
async def test_another_status_is_a_fault(stage: Stage) -> None:
    stage.llm.answering = refuse
    turn = await stage.say(stage.start())
    assert (turn["status"], turn["fault"], turn["answered"]) == (503, "status: 503", "")


@pytest.mark.anyio
async def test_an_llm_that_is_late_is_a_fault(stage: Stage) -> None:
    stage.llm.answering = say_nothing
    turn = await stage.say(stage.start(Vendor.TENCENT, Timeout=1))
    assert (turn["fault"], turn["status"]) == ("late: nothing for 1 s", None)
    await until(lambda: stage.llm.hung_up == [0])


@pytest.mark.anyio
async def test_without_time_limits_nobody_gives_up(stage: Stage) -> None:
    async def answer_late(request: web.Request) -> web.StreamResponse:
        await anyio.sleep(0.05)
        return await say_it_all(request)

    stage.llm.answering = answer_late
    agent = stage.start(Vendor.TENCENT, Timeout=0.01)
    assert (await stage.say(agent))["fault"] == "late: nothing for 0.01 s"
    assert (await stage.post("switches", {"llm_time_limits": False}))[0] == 200
    assert (await stage.say(agent))["answered"] == "Good day."


@pytest.mark.anyio
@pytest.mark.parametrize("how", [{}, {"interrupt_after": 0}, {"repeat": True}])
async def test_nobody_at_the_address_is_a_fault(stage: Stage, how: dict[str, Any]) -> None:
    stage.llm_url = f"http://127.0.0.1:{unused_port()}/chat/completions"
    turn = await stage.say(stage.start(), **how)
    assert turn["fault"].startswith("connection: ")
    assert (turn["done"], turn["interrupted"]) == (True, False)


@pytest.mark.anyio
@pytest.mark.parametrize("header", ["two\r\nlines: 1", "\x00"])
async def test_a_header_that_is_none_is_a_fault(stage: Stage, header: str) -> None:
    turn = await stage.say(stage.start(ExtraHeader={"X-Trace": header}))
    assert turn["fault"] == "connection: ValueError"
    assert stage.llm.asked == []
    assert (await stage.say(stage.start()))["fault"] is None


@pytest.mark.anyio
async def test_an_agent_that_ended_speaks_as_a_zombie_alone(stage: Stage) -> None:
    agent = stage.start()
    stage.simulator.world.end(agent, Why.REQUESTED, stage.simulator.world_now())
    status, answer = await stage.post(f"agents/{agent.id}/say", {"text": "Hello?"})
    assert (status, answer["error"]) == (409, agent.id)
    assert "ended" in answer["expected"]
    turn = await stage.say(agent, zombie=True)
    assert (turn["zombie"], turn["answered"]) == (True, "Good day.")


@pytest.mark.anyio
async def test_a_visitor_speaks_to_who_runs_in_a_room(stage: Stage) -> None:
    first, second = stage.start(), stage.start(Vendor.ZEGO)
    async with visiting(stage.url) as visitor:
        assert await visitor.live_agent("room1") == second.id
        turn = await visitor.say(first.id, "Hello?")
        assert (turn["answered"], turn["done"]) == ("Good day.", True)
        first.llm = None
        with pytest.raises(Unheard, match="no LLM"):
            await visitor.say(first.id, "Hello?")
        with pytest.raises(Unheard, match="no agent"):
            await visitor.live_agent("room9")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "a string"),
        ({"text": ""}, "a string"),
        ({"text": "a", "interrupt_after": -1}, "an integer from 0"),
        ({"text": "a", "interrupt_after": True}, "an integer from 0"),
        ({"text": "a", "repeat": 1}, "true or false"),
        ({"text": "a", "wait": "no"}, "true or false"),
        ({"text": "a", "zombie": None}, "true or false"),
    ],
)
async def test_wrong_requests_are_told_what_was_expected(
    stage: Stage, body: Any, expected: str
) -> None:
    agent = stage.start()
    assert (await stage.post(f"agents/{agent.id}/say", body))[0] == 400
    status, answer = await stage.post(f"agents/{agent.id}/say", body)
    assert (status, expected in answer["expected"]) == (400, True)
    assert (await stage.post("agents/a7/say", {"text": "a"}))[0] == 404
    assert await stage.turns() == []


@pytest.mark.anyio
async def test_users_talk_by_themselves_at_a_pace() -> None:
    async with AsyncExitStack() as stack:
        switches = Switches(talk_every_s=1)
        stage = await staged(stack, seed=4, speed=200, switches=switches)
        talking = [stage.start(vendor) for vendor in Vendor]
        silent = stage.start()
        stage.simulator.world.end(silent, Why.REQUESTED, stage.simulator.world_now())
        await until(lambda: stage.simulator.turns.last >= 12)
        turns = await stage.turns()
        assert {turn["agent"] for turn in turns} == {agent.id for agent in talking}
        assert {turn["fault"] for turn in turns} == {None}
        assert (await stage.post("switches", {"talk_every_s": 0}))[0] == 200
        await until(lambda: all(turn["done"] for turn in stage.simulator.turns.since(0)))


@pytest.mark.anyio
async def test_a_turn_that_is_open_ends_with_the_simulator() -> None:
    async with AsyncExitStack() as stack:
        stage = await staged(stack)
        stage.llm.answering = say_nothing
        await stage.say(stage.start(), wait=False)
        await until(lambda: len(stage.llm.asked) == 1)
        assert not stage.simulator.turns.since(0)[0]["done"]
    assert stage.simulator.turns.since(0)[0]["done"]
