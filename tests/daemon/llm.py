"""A scene with an LLM gateway: a model that does as it is told behind it, who asks before it.

Rule 1: the model is a real HTTP server; what it does with a request is a script of the test's.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import anyio
from aiohttp import web
from yarl import URL

from orchestrator.providers.ticket import Ticket, derive_key, sign
from tests.daemon.application import Row, quoted
from tests.daemon.customers import Customer
from tests.daemon.running import USER, Scene, as_json, until
from tests.ports import unused_port

TOKEN_SECRET = "fake-token-secret"
MODEL_KEY = "fake-model-key"
WORDS = ("Hello", " there", ".")
TEXT = "".join(WORDS)


def asking(customer: Customer, upstream: Any = "main", **more: Any) -> dict[str, Any]:
    """Return a spec whose words come from the gateway, with more in the model's block."""
    block = {"$llm_gateway": upstream, **more}
    match customer.name.partition("-")[0]:
        case "volcengine":
            return {"Config": {**customer.spec["Config"], "LLMConfig": block}}
        case "tencent":
            return {**customer.spec, "LLMConfig": block}
        case _:
            return {**customer.spec, "LLM": block}


# --- the model ---


@dataclass
class Exchange:
    """One request at the model, and the answer that a script gives."""

    fields: Mapping[str, Any]
    headers: Mapping[str, str]
    response: web.StreamResponse
    request: web.Request
    has_left: anyio.Event = field(default_factory=anyio.Event)
    """Set when whoever asked has gone before the end."""

    async def begin(self) -> None:
        await self.response.prepare(self.request)

    async def say(self, *words: str) -> None:
        for word in words:
            await self.send({"choices": [{"index": 0, "delta": {"content": word}}]})

    async def send(self, chunk: object) -> None:
        await self.write(f"data: {json.dumps(chunk)}\n\n".encode())

    async def write(self, data: bytes) -> None:
        await self.response.write(data)

    async def finish(self, usage: Mapping[str, int] | None = None) -> None:
        await self.send({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if usage is not None:
            await self.send({"choices": [], "usage": usage})
        await self.write(b"data: [DONE]\n\n")

    def break_off(self) -> None:
        """End the connection in the middle."""
        if self.request.transport is not None:
            self.request.transport.abort()


Script = Callable[[Exchange], Awaitable[web.StreamResponse | None]]
"""Answers; what it returns is the answer instead."""


async def politely(one: Exchange) -> None:
    """Say `WORDS`, and count."""
    await one.begin()
    await one.say(*WORDS)
    await one.finish({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})


class Model:
    """A model. Each request takes the next script, and the last one stays."""

    def __init__(self) -> None:
        self.url = ""
        self.script: Script = politely
        self.asked: list[Exchange] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        one = Exchange(
            fields=await request.json(),
            headers={name.lower(): value for name, value in request.headers.items()},
            response=web.StreamResponse(headers={"Content-Type": "text/event-stream"}),
            request=request,
        )
        self.asked.append(one)
        try:
            return await self.script(one) or one.response
        except (ConnectionError, anyio.get_cancelled_exc_class()):
            one.has_left.set()
            raise


@asynccontextmanager
async def serve_model() -> AsyncIterator[Model]:
    """Serve a model while the context is open."""
    model = Model()
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", model.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        model.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield model
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


# --- who asks ---


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What came back."""

    status: int
    content_type: str
    body: bytes

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The chunks of a stream, each as the vendors insist on it, to its valid end."""
        lines = self.body.decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""], self.body
        chunks: list[dict[str, Any]] = [
            json.loads(line.removeprefix("data: ")) for line in lines[:-2]
        ]
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
        finishes = [one["choices"][0]["finish_reason"] for one in chunks if one["choices"]]
        assert finishes[-1] is not None
        assert set(finishes[:-1]) <= {None}
        return chunks

    @property
    def text(self) -> str:
        """What was said, of a stream that is as it should be or of a whole answer."""
        if self.content_type == "application/json":
            return json.loads(self.body)["choices"][0]["message"]["content"] or ""
        deltas = [chunk["choices"][0]["delta"] for chunk in self.chunks if chunk["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def error(self) -> dict[str, Any]:
        """What OpenAI's clients read of a failure."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


@dataclass(frozen=True, kw_only=True)
class Talker:
    """An agent at its vendor, as far as it asks for words."""

    url: str
    token: str
    client: aiohttp.ClientSession

    def post(
        self, fields: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Ask, as a context whose value is aiohttp's response."""
        body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        url = URL(self.url, encoded=True)
        return self.client.post(url, data=body, headers={**sent, **(headers or {})})

    async def ask(
        self,
        fields: Mapping[str, Any] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Heard:
        """Ask, and read the answer to its end."""
        async with self.post(said("Hi") if fields is None else fields, headers) as response:
            return Heard(
                status=response.status,
                content_type=response.content_type,
                body=await response.read(),
            )


def said(text: str, **more: Any) -> dict[str, Any]:
    """Return the request of a user who said this."""
    return {"messages": [{"role": "user", "content": text}], "stream": True, **more}


@dataclass
class Gate:
    """A scene whose daemons have a gateway."""

    scene: Scene
    model: Model
    url: str
    client: aiohttp.ClientSession

    async def start_agent(self, customer: Customer, id_: str, **columns: str) -> Talker:
        """Ask for an agent, wait until it runs, and return it as one who asks."""
        columns = {"spec": as_json(asking(customer)), **columns}
        await self.scene.ask_for(customer, id_, **columns)
        await self.scene.wait(id_, phase="running")
        return await self.talker(customer, id_)

    async def talker(self, customer: Customer, id_: str, secret: str = TOKEN_SECRET) -> Talker:
        """Return the newest agent of a task as one who asks."""
        newest = (await self.scene.ledger(id_))[-1]
        return self.talker_of(customer, id_, newest["id"], newest["incarnation"], secret)

    def talker_of(
        self,
        customer: Customer,
        id_: str,
        agent_id: str,
        incarnation: int = 1,
        secret: str = TOKEN_SECRET,
    ) -> Talker:
        """Return an agent as one who asks, whatever the ledger knows of it."""
        ticket = Ticket(
            upstream="main",
            account=customer.name,
            room_id=f"room-{id_}",
            user_id=USER,
            task_id=id_,
            incarnation=incarnation,
            agent_id=agent_id,
        )
        token = sign(ticket, derive_key(secret, customer.name))
        return Talker(url=self.url + ticket.path, token=token, client=self.client)

    async def turns(self, id_: str) -> list[Row]:
        """Return a task's turns, oldest first."""
        return await self.scene.app.read(f"{_TURNS}{quoted(id_)} ORDER BY id")

    async def wait_for_turns(self, id_: str, count: int) -> list[Row]:
        """Wait until so many turns of a task are written; return them."""

        async def look() -> list[Row] | None:
            turns = await self.turns(id_)
            return turns if len(turns) >= count else None

        async def awaited() -> str:
            return f"{count} turns of {id_}\n{await self.scene.describe(id_)}"

        return await until(look, awaited)


_TURNS = "SELECT * FROM llm_turn WHERE task_id = "


@asynccontextmanager
async def open_gate(scene: Scene, **frame: Any) -> AsyncIterator[Gate]:
    """Serve a model, and give the scene's daemons a gateway. `frame`: more of its keys."""
    connector = aiohttp.TCPConnector(limit=0)
    async with serve_model() as model, aiohttp.ClientSession(connector=connector) as client:
        place = f"127.0.0.1:{unused_port()}"
        scene.settings["llm_gateway"] = {
            "listen": place,
            "public_url": f"http://{place}",
            "token_secret": TOKEN_SECRET,
            **frame,
        }
        scene.settings["llm_upstreams"] = {"main": {"url": model.url, "api_key": MODEL_KEY}}
        yield Gate(scene, model, f"http://{place}", client)
