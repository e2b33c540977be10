"""What whoever asks gets wrong: each hears why, costs little, and the next turn is served."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import aiohttp
import anyio
import pytest
from anyio.abc import SocketStream
from yarl import URL

from tests.daemon.application import quoted
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO
from tests.daemon.llm import (
    MODEL_KEY,
    TEXT,
    TOKEN_SECRET,
    WORDS,
    Exchange,
    Gate,
    Heard,
    Talker,
    open_gate,
    politely,
    said,
)
from tests.daemon.quiet import assert_quiet
from tests.daemon.running import Scene, until
from tests.daemon.scraping import Samples, open_window, sample, show_metrics

pytestmark = pytest.mark.anyio

SPOKEN = "where-is-my-parcel-93b1"
MANY = 300
"""Turns at once: a modest number, for a machine that others use too."""
TURN_KB_MAX = 200
"""Of the daemon's memory for one of them, its start-up and history included."""


@pytest.fixture
async def gate(scene: Scene) -> AsyncIterator[Gate]:
    scene.settings["log"] = {"level": "debug"}
    async with open_gate(scene) as opened:
        yield opened


# --- who has no token ---


async def test_who_has_no_token_of_this_agent_is_turned_away(gate: Gate) -> None:
    show_metrics(gate.scene)
    daemon = await gate.scene.start_daemon()
    mine = await gate.start_agent(TENCENT, "mine")
    other = await gate.start_agent(TENCENT, "other")
    authorizations = {
        "none": "",
        "empty": "Bearer ",
        "wrong": f"Bearer llm-{'x' * 43}",
        "cut": f"Bearer {mine.token[:-1]}",
        "another agent's": f"Bearer {other.token}",
        "another way": f"Basic {mine.token}",
        "a model's key": f"Bearer {MODEL_KEY}",
        "no ASCII": "Bearer ü",
    }
    for name, value in authorizations.items():
        heard = await mine.ask(said(SPOKEN), {"Authorization": value})
        assert (name, heard.status) == (name, 401)
        assert heard.error["type"] == "authentication_error"
    stranger = replace(mine, url=mine.url.replace("/main/tencent/", "/main/nobody/"))
    assert (await stranger.ask(said(SPOKEN))).status == 404
    samples = await metrics(gate, "orchestrator_llm_refused_total", account="", why="stranger")
    refused = "orchestrator_llm_refused_total"
    assert sample(samples, refused, account="", why="stranger") == 1
    assert sample(samples, refused, account="tencent", why="forged") == len(authorizations)

    assert (await mine.ask()).text == TEXT
    assert len(await gate.wait_for_turns("mine", 1)) == 1  # of the others there is none
    assert len(gate.model.asked) == 1
    assert len(daemon.events("llm_refused")) == 2  # the log has one line a minute of each
    await assert_nothing_shows(gate, mine, other)


async def metrics(gate: Gate, name: str, **labels: str) -> Samples:
    """Return the daemon's figures once one of them is there."""
    async with open_window(gate.scene.daemons[-1]) as window:
        return await window.wait_for(name, 1, **labels)


async def test_a_token_of_the_secret_before_is_good_while_it_stands_there(gate: Gate) -> None:
    settings = gate.scene.settings["llm_gateway"]
    daemon = await gate.scene.start_daemon()
    agent = await gate.start_agent(ZEGO, "call")
    secrets = {
        "both": {"token_secret": "fake-newer-secret", "former_token_secret": TOKEN_SECRET},
        "the newer alone": {"token_secret": "fake-newer-secret"},
    }
    statuses = {}
    for name, held in secrets.items():
        await daemon.stop()
        del settings["token_secret"]
        settings |= held
        daemon = await gate.scene.start_daemon(name.partition(" ")[0])
        statuses[name] = (await agent.ask()).status
        settings.pop("former_token_secret", None)
    assert statuses == {"both": 200, "the newer alone": 401}
    newer = await gate.talker(ZEGO, "call", "fake-newer-secret")
    assert (await newer.ask()).text == TEXT


async def test_without_a_secret_of_its_own_a_token_is_made_with_the_vendor_s_key(
    gate: Gate,
) -> None:
    del gate.scene.settings["llm_gateway"]["token_secret"]
    await gate.scene.start_daemon()
    await gate.start_agent(ZEGO, "call")
    agent = await gate.talker(ZEGO, "call", str(ZEGO.settings["server_secret"]))
    assert (await agent.ask()).text == TEXT
    forged = await gate.talker(ZEGO, "call")
    assert (await forged.ask()).status == 401


# --- who asks for no chat completion ---


@dataclass(frozen=True)
class Mistake:
    """A body that is none."""

    name: str
    body: bytes


def chat(**fields: object) -> bytes:
    return json.dumps({**said(SPOKEN), **fields}).encode()


MISTAKES = (
    Mistake("nothing", b""),
    Mistake("no JSON", SPOKEN.encode()),
    Mistake("half an object", chat()[:-1]),
    Mistake("no UTF-8", b'{"messages": "\xff"}'),
    Mistake("a list", json.dumps([said(SPOKEN)]).encode()),
    Mistake("no messages", json.dumps({"stream": True, "prompt": SPOKEN}).encode()),
    Mistake("messages that are none", chat(messages=SPOKEN)),
    Mistake("no message", chat(messages=[])),
    Mistake("a message without a role", chat(messages=[{"content": SPOKEN}])),
    Mistake("several answers", chat(n=2)),
    Mistake("a stream of maybe", chat(stream="maybe")),
    Mistake("depth", b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    Mistake("NaN", b'{"messages": [{"role": "user"}], "temperature": NaN}'),
)


async def test_what_is_no_chat_completion_is_said_to_be_none(gate: Gate) -> None:
    await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    for mistake in MISTAKES:
        heard = await agent.ask(mistake.body)
        assert (mistake.name, heard.status) == (mistake.name, 400)
        assert heard.error["type"] == "invalid_request_error"
        assert SPOKEN not in heard.error["message"]
    turns = await gate.wait_for_turns("call", len(MISTAKES))
    assert {(turn["outcome"], turn["reason"]) for turn in turns} == {("refused", "NotChat")}
    events = await gate.scene.app.read(f"{_EVENTS}{quoted('call')} ORDER BY id")
    assert [one["code"] for one in events] == ["NotChat"] * len(MISTAKES)
    assert gate.model.asked == []
    assert (await agent.ask()).text == TEXT
    await assert_nothing_shows(gate, agent)


_EVENTS = "SELECT code FROM agent_event WHERE event = 'llm_turn' AND task_id = "


async def test_a_history_of_ten_megabytes(gate: Gate) -> None:
    await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    body = chat(padding="x" * 10 * 1_048_576)
    async with await connect(gate) as connection, anyio.create_task_group() as tasks:
        tasks.start_soon(send, connection, head(agent, {"Content-Length": str(len(body))}) + body)
        assert (await connection.receive()).startswith(b"HTTP/1.1 413 ")
        tasks.cancel_scope.cancel()
    (turn,) = await gate.wait_for_turns("call", 1)
    assert (turn["outcome"], turn["reason"]) == ("refused", "BodyTooLarge")
    assert (await agent.ask()).text == TEXT


async def send(connection: SocketStream, data: bytes) -> None:
    """Send all of it, if the other side lets us."""
    with suppress(anyio.BrokenResourceError):
        await connection.send(data)


async def test_what_says_nothing_of_its_length_is_bounded_too(gate: Gate) -> None:
    await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    async with await connect(gate) as connection:
        await connection.send(head(agent, {"Transfer-Encoding": "chunked"}))
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(17):  # a little more than a megabyte
            await connection.send(piece)
        assert (await connection.receive()).startswith(b"HTTP/1.1 413 ")
    (turn,) = await gate.wait_for_turns("call", 1)
    assert (turn["outcome"], turn["reason"]) == ("refused", "BodyTooLarge")
    assert (await agent.ask()).text == TEXT


async def test_a_body_that_never_comes_to_its_end_is_not_waited_for(gate: Gate) -> None:
    """One sender stops in the middle and stays; another goes away there."""
    await gate.scene.start_daemon()
    stays = await gate.start_agent(TENCENT, "stays")
    leaves = await gate.start_agent(TENCENT, "leaves")
    half = chat()[:20]
    async with await connect(gate) as connection:
        await connection.send(head(stays, {"Content-Length": "1000"}) + half)
        async with await connect(gate) as other:
            await other.send(head(leaves, {"Content-Length": "1000"}) + half)
        assert (await connection.receive()).startswith(b"HTTP/1.1 408 ")
    (turn,) = await gate.wait_for_turns("stays", 1)
    assert (turn["outcome"], turn["reason"]) == ("refused", "BodySlow")
    (turn,) = await gate.wait_for_turns("leaves", 1)
    assert (turn["outcome"], turn["reason"]) == ("interrupted", None)
    for agent in (stays, leaves):
        assert (await agent.ask()).text == TEXT
    assert len(gate.model.asked) == 2
    await assert_nothing_shows(gate, stays)


async def test_a_vendor_that_does_not_read_ends_its_turn_with_its_time(gate: Gate) -> None:
    gate.scene.settings["llm_gateway"]["total_timeout_ms"] = 1_000

    async def babble(one: Exchange) -> None:
        await one.begin()
        while True:
            await one.say("blah " * 10_000)

    await gate.scene.start_daemon()
    agent = await gate.start_agent(VOLCENGINE, "call")
    gate.model.script = babble
    async with await connect(gate) as connection:
        body = chat(round_id="deaf")
        await connection.send(head(agent, {"Content-Length": str(len(body))}) + body)
        (turn,) = await gate.wait_for_turns("call", 1)
        assert (turn["outcome"], turn["reason"]) == ("cut", "TotalTimeout")
        with anyio.fail_after(30):
            await gate.model.asked[0].has_left.wait()
    gate.model.script = politely
    assert (await agent.ask()).text == TEXT


def head(agent: Talker, headers: Mapping[str, str]) -> bytes:
    """Return the head of a request, for who writes the body by hand."""
    url = URL(agent.url, encoded=True)
    lines = {
        "Host": f"{url.host}:{url.port}",
        "Authorization": f"Bearer {agent.token}",
        "Content-Type": "application/json",
        **headers,
    }
    told = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {url.raw_path} HTTP/1.1\r\n{told}\r\n".encode()


async def connect(gate: Gate) -> SocketStream:
    """Connect to the gateway."""
    url = URL(gate.url)
    assert url.host is not None
    assert url.port is not None
    return await anyio.connect_tcp(url.host, url.port)


# --- many ---


async def test_many_turns_at_once(gate: Gate) -> None:
    """All are open at the same time: none is answered before the last has been asked."""
    gate.scene.settings["llm_gateway"]["first_token_timeout_ms"] = 60_000
    all_are_here = anyio.Event()

    async def wait_for_all(one: Exchange) -> None:
        await one.begin()
        if len(gate.model.asked) == MANY:
            all_are_here.set()
        await all_are_here.wait()
        await politely_on(one)

    daemon = await gate.scene.start_daemon()
    agent = await gate.start_agent(VOLCENGINE, "call")
    assert (await agent.ask(said("Hi", round_id="first"))).text == TEXT
    before_kb = daemon.peak_memory_kb()
    gate.model.asked.clear()
    gate.model.script = wait_for_all
    heard: list[Heard] = []

    async def ask(client: aiohttp.ClientSession, number: int) -> None:
        talker = replace(agent, client=client)
        heard.append(await talker.ask(said(SPOKEN, round_id=f"r{number}")))

    unlimited = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=unlimited) as client,
        anyio.create_task_group() as asking,
    ):
        for number in range(MANY):
            asking.start_soon(ask, client, number)
    assert {one.text for one in heard} == {TEXT}
    turns = await gate.wait_for_turns("call", MANY + 1)
    assert {turn["outcome"] for turn in turns} == {"answered"}
    assert len({turn["round"] for turn in turns}) == MANY + 1
    assert (daemon.peak_memory_kb() - before_kb) / MANY < TURN_KB_MAX


async def politely_on(one: Exchange) -> None:
    """Say what is polite, where the head is sent already."""
    await one.say(*WORDS)
    await one.finish()


# --- what is left of it ---


async def assert_nothing_shows(gate: Gate, *agents: Talker) -> None:
    """No key, no token and no spoken word is anywhere."""
    tokens = [agent.token for agent in agents]
    await assert_quiet(gate.scene, [SPOKEN, MODEL_KEY, TOKEN_SECRET, *tokens])


async def test_kept_words_are_any_words_and_not_in_the_log(gate: Gate) -> None:
    gate.scene.settings["llm_gateway"]["keep_text"] = True
    daemon = await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    odd = f"{SPOKEN} nul \0, half a pair \ud83d, 中🙂 "

    async def echo(one: Exchange) -> None:
        await one.begin()
        await one.say(odd, "x" * 10_000)
        await one.finish()

    gate.model.script = echo
    await agent.ask(said(odd + "y" * 10_000))
    (turn,) = await gate.wait_for_turns("call", 1)
    shown = f"{SPOKEN} nul  , half a pair ?, 中🙂 "
    for column, filler in (("user_text", "y"), ("agent_text", "x")):
        assert turn[column] == (shown + filler * 10_000)[:4_000]
    assert SPOKEN not in daemon.log()


async def test_a_refused_request_of_a_task_is_nobody_else_s(gate: Gate) -> None:
    """A body that is refused makes no agent idle, superseded or unknown."""
    await gate.scene.start_daemon()
    agent = await gate.start_agent(ZEGO, "call")
    await agent.ask(b"no JSON")

    async def look() -> bool | None:
        return len(await gate.turns("call")) == 1 or None

    await until(look, lambda: gate.scene.describe("call"))
    assert (await gate.scene.status("call"))["phase"] == "running"
    assert await gate.scene.app.read("SELECT id FROM orphan_task") == []
