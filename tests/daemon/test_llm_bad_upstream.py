"""What upstreams get wrong, and what the vendor gets for it: a valid end, and nothing of theirs."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import anyio
import pytest
from aiohttp import web

from orchestrator.providers.ticket import Ticket, derive_key, sign
from tests.daemon.application import quoted
from tests.daemon.customers import TENCENT, VOLCENGINE
from tests.daemon.llm import (
    MODEL_KEY,
    TEXT,
    TOKEN_SECRET,
    WORDS,
    Exchange,
    Gate,
    Heard,
    Script,
    Talker,
    open_gate,
    politely,
    said,
    serve_model,
)
from tests.daemon.quiet import assert_quiet
from tests.daemon.running import USER, Scene
from tests.ports import unused_port

pytestmark = pytest.mark.anyio

APOLOGY = "One moment, please."
SPOKEN = "where-is-my-parcel-93b1"
"""What the user says: nobody else's business."""
OWN_WORDS = "upstream-says-7f3a"
LEAK = f"{OWN_WORDS} {MODEL_KEY}"
"""What an upstream says of itself, with the key that it was given."""
FORBIDDEN = (SPOKEN, OWN_WORDS, MODEL_KEY, TOKEN_SECRET)
HTML = f"<html><body>{LEAK}</body></html>"
MEGABYTE = b"data: " + b"x" * 1_048_576 + b"\n\n"
TOLERATED_S = 3
"""An upstream's time to its first word, where a test waits for it to pass."""


def answer(status: int, content_type: str = "application/json", **headers: str) -> Script:
    """Return the script of an upstream that answers something else than a stream."""

    async def do(_: Exchange) -> web.StreamResponse:
        body = HTML if content_type == "text/html" else json.dumps({"error": {"message": LEAK}})
        return web.Response(status=status, text=body, content_type=content_type, headers=headers)

    return do


def stream(
    *pieces: bytes | str, end: Callable[[Exchange], Awaitable[None]] | None = None
) -> Script:
    """Return the script of an upstream that streams words (text) and raw bytes, and then ends."""

    async def do(one: Exchange) -> None:
        await one.begin()
        for piece in pieces:
            await (one.say(piece) if isinstance(piece, str) else one.write(piece))
        if end is not None:
            await end(one)

    return do


async def break_off(one: Exchange) -> None:
    one.break_off()


async def be_silent(one: Exchange) -> None:
    """Say nothing more for as long as anybody listens."""
    try:
        await anyio.sleep_forever()
    finally:
        one.has_left.set()


@dataclass(frozen=True)
class Fault:
    """An upstream, and what becomes of a turn that asks it."""

    name: str
    script: Script
    reason: str | None
    text: str = APOLOGY

    @property
    def outcome(self) -> str:
        if self.reason is None:
            return "answered"
        return "failed" if self.text == APOLOGY else "cut"


HALF = b'data: {"choices":[{"index":0,"delta":{"content":"' + LEAK.encode()
ERROR = f"data: {json.dumps({'error': {'message': LEAK}})}\n\n".encode()
NO_JSON = f"data: {LEAK}\n\n".encode()
FINISHED = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'

AT_ONCE = (
    Fault("html-with-200", answer(200, "text/html"), "UpstreamNoStream"),
    Fault("json-with-200", answer(200), "UpstreamNoStream"),
    Fault("500-with-its-key", answer(500), "UpstreamStatus500"),
    Fault("401", answer(401), "UpstreamStatus401"),
    Fault("429", answer(429), "UpstreamStatus429"),
    Fault("redirect", answer(307, Location="/v1/chat/completions"), "UpstreamStatus307"),
    Fault("half-a-chunk", stream(HALF, end=break_off), "UpstreamBroken"),
    Fault("half-a-chunk-and-an-orderly-end", stream(HALF), "UpstreamSilent"),
    Fault("words-and-half-a-chunk", stream(*WORDS, HALF, end=break_off), "UpstreamBroken", TEXT),
    Fault("closes-after-words", stream(*WORDS, end=break_off), "UpstreamBroken", TEXT),
    Fault("orderly-end-after-words", stream(*WORDS), "UpstreamBroken", TEXT),
    Fault("orderly-end-without-done", stream(*WORDS, FINISHED), None, TEXT),
    Fault("nothing", stream(), "UpstreamSilent"),
    Fault("done-without-a-word", stream(b"data: [DONE]\n\n"), None, ""),
    Fault("error", stream(ERROR), "UpstreamError"),
    Fault("words-and-an-error", stream(*WORDS, ERROR), "UpstreamError", TEXT),
    Fault("no-json", stream(NO_JSON), "UpstreamGarbled"),
    Fault("words-and-no-json", stream(*WORDS, NO_JSON), "UpstreamGarbled", TEXT),
    Fault("no-utf-8", stream(b'data: {"choices":"\xff"}\n\n'), "UpstreamGarbled"),
    Fault("a-megabyte-in-a-line", stream(MEGABYTE), "UpstreamTooLong"),
    Fault("words-and-a-megabyte", stream(*WORDS, MEGABYTE), "UpstreamTooLong", TEXT),
)
SILENT = (
    Fault("not-even-a-head", be_silent, "NoFirstToken"),
    Fault("a-head-and-silence", stream(end=be_silent), "NoFirstToken"),
    Fault("comments-only", stream(b": still here\n\n", end=be_silent), "NoFirstToken"),
    Fault("words-and-silence", stream(*WORDS, end=be_silent), "TotalTimeout", TEXT),
)


def by_name(faults: Sequence[Fault]) -> Script:
    """Return the script of an upstream that does what the user names, else answers politely."""
    scripts = {fault.name: fault.script for fault in faults}

    async def do(one: Exchange) -> web.StreamResponse | None:
        name = one.fields["messages"][-1]["content"].split()[0]
        return await scripts.get(name, politely)(one)

    return do


@pytest.fixture
async def gate(scene: Scene) -> AsyncIterator[Gate]:
    scene.settings["log"] = {"level": "debug"}
    async with open_gate(scene, apology=APOLOGY) as opened:
        yield opened


# --- one upstream ---


async def test_each_fault_ends_the_turn_politely_and_shows_nothing_of_the_upstream(
    gate: Gate,
) -> None:
    gate.scene.settings["llm_gateway"]["first_token_timeout_ms"] = 30_000
    await check(gate, AT_ONCE)


async def test_an_upstream_that_falls_silent_is_not_waited_for(gate: Gate) -> None:
    gate.scene.settings["llm_gateway"] |= {
        "first_token_timeout_ms": TOLERATED_S * 1_000,
        "total_timeout_ms": TOLERATED_S * 1_000 + 1_000,
    }
    await check(gate, SILENT)
    for one in gate.model.asked[: 2 * len(SILENT)]:
        await one.has_left.wait()


async def test_an_upstream_that_is_not_there(gate: Gate) -> None:
    gate.scene.settings["llm_upstreams"]["main"]["url"] = f"http://127.0.0.1:{unused_port()}/v1"
    await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    for stream_ in (True, False):
        heard = await agent.ask(said(SPOKEN, stream=stream_))
        assert (heard.status, heard.text) == (200, APOLOGY)
    for turn in await gate.wait_for_turns("call", 2):
        assert (turn["outcome"], turn["reason"]) == ("failed", "UpstreamUnreachable")
    await assert_quiet(gate.scene, FORBIDDEN)


async def test_an_upstream_that_a_reload_has_taken_away(gate: Gate) -> None:
    await gate.scene.start_daemon()
    await gate.start_agent(TENCENT, "call")
    agent = await talker_at(gate, "gone")
    assert (await agent.ask()).text == APOLOGY
    (turn,) = await gate.wait_for_turns("call", 1)
    assert (turn["upstream"], turn["reason"]) == ("gone", "UnknownUpstream")
    assert gate.model.asked == []


async def check(gate: Gate, faults: Sequence[Fault]) -> None:
    """Meet each fault, by a request that streams and by one that does not; then ask once more."""
    await gate.scene.start_daemon()
    agent = await gate.start_agent(VOLCENGINE, "call")
    gate.model.script = by_name(faults)
    heard: dict[str, Heard] = {}

    async def ask(name: str, how: str) -> None:
        round_ = f"{name}/{how}"
        fields = said(f"{name} {SPOKEN}", round_id=round_, stream=how == "stream")
        heard[round_] = await agent.ask(fields)

    async with anyio.create_task_group() as asking:
        for fault in faults:
            asking.start_soon(ask, fault.name, "stream")
            asking.start_soon(ask, fault.name, "whole")
    expected = {f"{fault.name}/{how}": fault for fault in faults for how in ("stream", "whole")}
    for round_, fault in expected.items():
        got = heard[round_]
        kind = "text/event-stream" if round_.endswith("stream") else "application/json"
        assert (round_, got.status, got.content_type) == (round_, 200, kind)
        assert (round_, got.text) == (round_, fault.text)
        assert not [word for word in FORBIDDEN if word in got.body.decode()], round_

    turns = {turn["round"]: turn for turn in await gate.wait_for_turns("call", len(expected))}
    told = {round_: (turn["outcome"], turn["reason"]) for round_, turn in turns.items()}
    assert told == {round_: (fault.outcome, fault.reason) for round_, fault in expected.items()}
    events = await gate.scene.app.read(f"{_EVENTS}{quoted('call')}")
    assert Counter((one["outcome"], one["code"]) for one in events) == Counter(
        (fault.outcome, fault.reason) for fault in expected.values() if fault.reason is not None
    )
    assert (await agent.ask(said("Hi"))).text == TEXT
    await assert_quiet(gate.scene, FORBIDDEN)
    assert len(gate.model.asked) == len(expected) + 1  # no redirect was followed


_EVENTS = "SELECT outcome, code FROM agent_event WHERE event = 'llm_turn' AND task_id = "


async def talker_at(gate: Gate, upstream: str) -> Talker:
    """Return the agent of `call` as one whose address names another upstream."""
    (agent,) = await gate.scene.ledger("call")
    ticket = Ticket(
        upstream=upstream,
        account=agent["account"],
        room_id=agent["room_id"],
        user_id=USER,
        task_id="call",
        incarnation=1,
        agent_id=agent["id"],
    )
    token = sign(ticket, derive_key(TOKEN_SECRET, ticket.account))
    return Talker(url=gate.url + ticket.path, token=token, client=gate.client)


# --- two ---


FALLBACKS: Mapping[str, tuple[Script, str]] = {
    "500": (answer(500), "UpstreamStatus500"),
    "silent": (stream(end=be_silent), "NoFirstToken"),
    "broken": (stream(HALF, end=break_off), "UpstreamBroken"),
}


async def test_who_says_nothing_is_replaced_by_its_fallback(gate: Gate) -> None:
    gate.scene.settings["llm_gateway"]["first_token_timeout_ms"] = TOLERATED_S * 1_000
    faults = [Fault(name, script, reason) for name, (script, reason) in FALLBACKS.items()]
    async with serve_model() as spare:
        add_fallback(gate, spare.url)
        await gate.scene.start_daemon()
        agent = await gate.start_agent(VOLCENGINE, "call")
        gate.model.script = by_name(faults)

        async def ask(name: str) -> None:
            assert (await agent.ask(said(name, round_id=name))).text == TEXT

        async with anyio.create_task_group() as asking:
            for fault in faults:
                asking.start_soon(ask, fault.name)
        for turn in await gate.wait_for_turns("call", len(faults)):
            assert (turn["outcome"], turn["upstream"]) == ("answered", "spare")
            assert turn["is_fallback"]
            assert turn["reason"] == FALLBACKS[turn["round"]][1]
        assert len(spare.asked) == len(faults)
        assert {one.headers["authorization"] for one in spare.asked} == {"Bearer fake-spare-key"}
        # Who has begun to speak is not replaced, and who answers needs nobody.
        gate.model.script = stream("Well", end=break_off)
        assert (await agent.ask()).text == "Well"
        gate.model.script = politely
        assert (await agent.ask()).text == TEXT
        assert len(spare.asked) == len(faults)


async def test_if_both_fail_the_turn_ends_with_an_apology(gate: Gate) -> None:
    async with serve_model() as spare:
        add_fallback(gate, spare.url)
        spare.script, gate.model.script = answer(503), answer(500)
        await gate.scene.start_daemon()
        agent = await gate.start_agent(TENCENT, "call")
        for stream_ in (True, False):
            assert (await agent.ask(said(SPOKEN, stream=stream_))).text == APOLOGY
        for turn in await gate.wait_for_turns("call", 2):
            assert (turn["outcome"], turn["upstream"]) == ("failed", "main")
            assert turn["reason"] == "UpstreamStatus500"
        await assert_quiet(gate.scene, FORBIDDEN)
        assert (len(gate.model.asked), len(spare.asked)) == (2, 2)


def add_fallback(gate: Gate, url: str) -> None:
    """Let another upstream be asked where the first fails."""
    upstreams = gate.scene.settings["llm_upstreams"]
    upstreams["main"]["fallback"] = "spare"
    upstreams["spare"] = {"url": url, "api_key": "fake-spare-key"}
