"""The echo model: what it answers, and each trouble through the vendors' strict reader."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest

from orchestrator.simulator import Simulator, serve
from orchestrator.simulator.answers import EVENT_STREAM, AnswerReader, Rule
from orchestrator.simulator.echo_model import API_KEY, PATH, Trouble
from orchestrator.simulator.keys import DEMO

PATIENCE_S = 30
BODY = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Zero?"},
        {"role": "assistant", "content": "0."},
        {"role": "user", "content": "One two three?"},
    ],
    "stream": True,
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
FAULTS = {
    Trouble.HTML: Rule.CONTENT_TYPE,
    Trouble.CUT: Rule.CONNECTION,
    Trouble.HALF_CHUNK: Rule.CONNECTION,
    Trouble.NO_DONE: Rule.DONE,
    Trouble.NO_FINISH: Rule.FINISH_REASON,
    Trouble.COMMENTS: Rule.LINE,
    Trouble.OBJECT: Rule.OBJECT,
    Trouble.CREATED: Rule.CREATED,
    Trouble.NOT_JSON: Rule.JSON,
}
SILENT = [Trouble.MUTE, Trouble.SILENT]


class Caller:
    """Asks the model as a gateway does."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = f"{url}{PATH}"

    async def ask(
        self, body: Any = BODY, query: str = "", key: str = API_KEY
    ) -> tuple[int, str, bytes]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key}"}
        where = f"{self.url}/chat/completions{query}"
        async with self.session.post(where, data=data, headers=headers) as response:
            return response.status, response.content_type, await response.read()

    async def read(self, body: Any = BODY, query: str = "") -> AnswerReader:
        """Read the answer as strictly as the vendors, until it ends or breaks off."""
        reader = AnswerReader(wants_usage="stream_options" in body)
        headers = {"Authorization": f"Bearer {API_KEY}"}
        where = f"{self.url}/chat/completions{query}"
        async with self.session.post(where, json=body, headers=headers) as response:
            if not reader.begin(response.status, response.content_type):
                return reader
            try:
                async for data in response.content.iter_any():
                    for line in reader.lines(data):
                        reader.take(line)
            except aiohttp.ClientPayloadError:
                reader.break_rule(Rule.CONNECTION, "cut")
        reader.end()
        return reader

    async def counts(self) -> dict[str, int]:
        async with self.session.get(self.url) as response:
            counts: dict[str, int] = await response.json()
            return counts

    async def until(self, **counts: int) -> None:
        with anyio.fail_after(PATIENCE_S):
            while not counts.items() <= (await self.counts()).items():  # noqa: ASYNC110 - it is asked
                await anyio.sleep(0.005)


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with (
        serve(Simulator(DEMO), "127.0.0.1", 0) as url,
        aiohttp.ClientSession() as session,
    ):
        yield Caller(session, url)


@pytest.mark.anyio
async def test_it_says_what_it_hears_word_by_word(caller: Caller) -> None:
    reader = await caller.read()
    assert (reader.fault, reader.words, reader.chunks) == (None, "You said: One two three?", 5)
    assert reader.finish_reason == "stop"
    assert await caller.counts() == {"requests": 1, "answered": 1, "abandoned": 0, "open": 0}


@pytest.mark.anyio
async def test_usage_comes_where_it_was_asked_for(caller: Caller) -> None:
    body = BODY | {"stream_options": {"include_usage": True}}
    assert (await caller.read(body)).fault is None
    _, _, data = await caller.ask(body)
    last, done = data.decode().split("\n\n")[-3:-1]
    assert done == "data: [DONE]"
    assert json.loads(last.removeprefix("data: "))["usage"] == USAGE
    assert b"usage" not in (await caller.ask())[2]


@pytest.mark.anyio
async def test_an_answer_need_not_be_a_stream(caller: Caller) -> None:
    status, content_type, data = await caller.ask(BODY | {"stream": False})
    assert (status, content_type) == (200, "application/json")
    reader = AnswerReader(wants_usage=False)
    reader.take_whole(data)
    assert (reader.fault, reader.words) == (None, "You said: One two three?")
    assert json.loads(data)["usage"] == USAGE


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "query", "key", "status", "told"),
    [
        (BODY, "", "another-key", 401, "API key"),
        (b"no JSON", "", API_KEY, 400, "JSON"),
        ({"messages": "?"}, "", API_KEY, 400, "messages"),
        ({"messages": [{"role": "system", "content": "a"}]}, "", API_KEY, 400, "messages"),
        (BODY, "?fault=boredom", API_KEY, 400, "half_chunk"),
        (BODY, "?fault=status_9", API_KEY, 400, "200 to 599"),
        (BODY, "?delay_ms=-1", API_KEY, 400, "delay_ms"),
        (BODY | {"chunk_ms": "soon"}, "", API_KEY, 400, "chunk_ms"),
        (BODY, "?fault=status_500", API_KEY, 500, "asked for"),
        (BODY | {"fault": "status_429"}, "", API_KEY, 429, "asked for"),
    ],
)
async def test_an_error_has_openai_s_form(
    caller: Caller, body: Any, query: str, key: str, status: int, told: str
) -> None:
    found, content_type, data = await caller.ask(body, query, key)
    assert (found, content_type) == (status, "application/json")
    assert told in json.loads(data)["error"]["message"]


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["query", "body", "path"])
@pytest.mark.parametrize(
    ("trouble", "fault"),
    FAULTS.items(),
)
async def test_a_trouble_is_the_fault_that_a_vendor_sees(
    caller: Caller, trouble: Trouble, fault: Rule, where: str
) -> None:
    if where == "path":
        caller.url += f"/fault={trouble}&delay_ms=0"
    body = BODY | ({"fault": trouble} if where == "body" else {})
    reader = await caller.read(body, f"?fault={trouble}" if where == "query" else "")
    assert str(reader.fault).partition(":")[0] == fault
    if fault is Rule.CONNECTION:
        assert reader.words == "You said:"


def test_every_trouble_is_tried_here() -> None:
    assert {*FAULTS, *SILENT} == set(Trouble)


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", SILENT)
async def test_a_silent_model_notices_that_its_client_has_gone(
    caller: Caller, trouble: Trouble
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller.read, BODY, f"?fault={trouble}")
        await caller.until(requests=1, open=1)
        tasks.cancel_scope.cancel()
    await caller.until(abandoned=1, open=0, answered=0)


@pytest.mark.anyio
async def test_a_client_that_hangs_up_in_mid_answer_is_counted(caller: Caller) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    where = f"{caller.url}/chat/completions?chunk_ms=20"
    long = {"messages": [{"role": "user", "content": "word " * 2000}], "stream": True}
    async with caller.session.post(where, json=long, headers=headers) as response:
        assert (await response.content.readline()).startswith(b"data: ")
        assert response.content_type == EVENT_STREAM
        response.close()
    await caller.until(abandoned=1, open=0)
