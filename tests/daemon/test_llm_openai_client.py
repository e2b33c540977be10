"""OpenAI's own client is content with the gateway, however it asks; it judges every answer's form.

Its strict mode refuses what does not fit its types, and its `stream` puts the chunks together.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import openai
import pytest
from aiohttp import web
from anyio import fail_after, to_thread
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO
from tests.daemon.llm import MODEL_KEY, WORDS, Exchange, Gate, Talker, open_gate, said
from tests.daemon.running import PATIENCE_S, Scene

pytestmark = pytest.mark.anyio

APOLOGY = "Sorry, say that again?"
MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Wie spät ist es? 🙂"},
]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "tell_time",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}

Ask = Callable[..., Awaitable[ChatCompletion]]
"""Asks as a talker, with more fields; returns the answer, put together where it streamed."""


@pytest.fixture
async def gate(sqlite_scene: Scene) -> AsyncIterator[Gate]:
    async with open_gate(sqlite_scene, apology=APOLOGY) as opened:
        yield opened


# --- the client, in each of its forms ---


def options(talker: Talker) -> dict[str, Any]:
    """Return what a client is made with: of a talker's URL it wants all but the end."""
    return {
        "base_url": talker.url.removesuffix("/chat/completions"),
        "api_key": talker.token,
        "max_retries": 0,
        "timeout": PATIENCE_S,
        "_strict_response_validation": True,
    }


@contextmanager
def sync_client(talker: Talker) -> Iterator[OpenAI]:
    with OpenAI(**options(talker)) as client:
        yield client


@asynccontextmanager
async def async_client(talker: Talker) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(**options(talker)) as client:
        yield client


def call_whole(talker: Talker, fields: dict[str, Any]) -> ChatCompletion:
    with sync_client(talker) as client:
        answer: ChatCompletion = client.chat.completions.create(**asked(fields))
        return answer


def call_streaming(talker: Talker, fields: dict[str, Any]) -> ChatCompletion:
    with sync_client(talker) as client, client.chat.completions.stream(**asked(fields)) as stream:
        return stream.get_final_completion()


async def ask_whole_in_a_thread(talker: Talker, **fields: Any) -> ChatCompletion:
    return await to_thread.run_sync(partial(call_whole, talker, fields))


async def ask_streaming_in_a_thread(talker: Talker, **fields: Any) -> ChatCompletion:
    return await to_thread.run_sync(partial(call_streaming, talker, fields))


async def ask_whole(talker: Talker, **fields: Any) -> ChatCompletion:
    async with async_client(talker) as client:
        answer: ChatCompletion = await client.chat.completions.create(**asked(fields))
        return answer


async def ask_streaming(talker: Talker, **fields: Any) -> ChatCompletion:
    async with (
        async_client(talker) as client,
        client.chat.completions.stream(**asked(fields)) as stream,
    ):
        return await stream.get_final_completion()


def asked(fields: dict[str, Any]) -> dict[str, Any]:
    return {"model": "any", "messages": MESSAGES, **fields}


FORMS: dict[str, Ask] = {
    "sync, whole": ask_whole_in_a_thread,
    "sync, streaming": ask_streaming_in_a_thread,
    "async, whole": ask_whole,
    "async, streaming": ask_streaming,
}


# --- answers ---


async def test_every_form_of_the_client_hears_the_words_and_the_tokens(gate: Gate) -> None:
    await gate.scene.start_daemon()
    talker = await gate.start_agent(VOLCENGINE, "words")
    for form, ask in FORMS.items():
        more = {"stream_options": {"include_usage": True}} if "streaming" in form else {}
        answer = await ask(talker, temperature=0.5, **more)
        (choice,) = answer.choices
        assert (form, choice.message.content) == (form, "".join(WORDS))
        assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (7, 10)
        at_the_model = gate.model.asked[-1]
        assert at_the_model.fields["messages"] == MESSAGES
        assert at_the_model.fields["temperature"] == 0.5
        assert at_the_model.headers["authorization"] == f"Bearer {MODEL_KEY}"
        assert talker.token not in str(at_the_model.headers)
    turns = await gate.wait_for_turns("words", len(FORMS))
    assert {turn["outcome"] for turn in turns} == {"answered"}


async def call_a_tool(one: Exchange) -> None:
    """Call two tools, the arguments of one in pieces."""
    begun = {"id": "call-1", "type": "function"}
    await one.begin()
    for call in (
        {"index": 0, **begun, "function": {"name": "tell_time", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"pla'}},
        {"index": 0, "function": {"arguments": 'ce": "Köln"}'}},
        {"index": 1, "id": "call-2", "function": {"name": "tell_time", "arguments": "{}"}},
    ):
        await one.send({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    await one.send({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    await one.write(b"data: [DONE]\n\n")


async def test_every_form_of_the_client_can_be_asked_to_call_tools(gate: Gate) -> None:
    gate.model.script = call_a_tool
    await gate.scene.start_daemon()
    talker = await gate.start_agent(ZEGO, "tools")
    for form, ask in FORMS.items():
        answer = await ask(talker, tools=[TOOL], parallel_tool_calls=True)
        (choice,) = answer.choices
        calls = choice.message.tool_calls or []
        told = [
            (call.id, call.function.name, call.function.arguments)
            for call in calls
            if call.type == "function"
        ]
        assert (form, told) == (
            form,
            [("call-1", "tell_time", '{"place": "Köln"}'), ("call-2", "tell_time", "{}")],
        )
        assert choice.finish_reason == "tool_calls"
        assert gate.model.asked[-1].fields["tools"] == [TOOL]


async def test_chunks_are_as_openai_sends_them(gate: Gate) -> None:
    await gate.scene.start_daemon()
    talker = await gate.start_agent(TENCENT, "chunks")
    async with async_client(talker) as client:
        stream = await client.chat.completions.create(model="any", messages=MESSAGES, stream=True)
        chunks: list[ChatCompletionChunk] = [chunk async for chunk in stream]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    # Nobody asked for the tokens, so there is no chunk without a choice.
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert len(choices) == len(chunks)
    assert [one.delta.role for one in choices] == ["assistant"] + [None] * (len(chunks) - 1)
    assert tuple(one.delta.content for one in choices if one.delta.content) == WORDS
    assert [one.finish_reason for one in choices] == [None] * (len(chunks) - 1) + ["stop"]


async def fail(_one: Exchange) -> web.StreamResponse:
    return web.json_response({"error": {"message": "quota of the model's owner"}}, status=429)


async def test_a_model_that_fails_is_no_failure_for_the_client(gate: Gate) -> None:
    gate.model.script = fail
    await gate.scene.start_daemon()
    talker = await gate.start_agent(VOLCENGINE, "failing")
    for form, ask in FORMS.items():
        (choice,) = (await ask(talker)).choices
        heard = (choice.message.content, choice.finish_reason)
        assert (form, heard) == (form, (APOLOGY, "stop"))


async def test_a_client_that_leaves_is_not_spoken_to_any_longer(gate: Gate) -> None:
    async def speak_for_ever(one: Exchange) -> None:
        await one.begin()
        while True:
            await one.say("on ")

    gate.model.script = speak_for_ever
    await gate.scene.start_daemon()
    talker = await gate.start_agent(VOLCENGINE, "leaving")
    async with async_client(talker) as client:
        stream = await client.chat.completions.create(model="any", messages=MESSAGES, stream=True)
        async with stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
    with fail_after(PATIENCE_S):
        await gate.model.asked[-1].has_left.wait()
    (turn,) = await gate.wait_for_turns("leaving", 1)
    assert turn["outcome"] == "interrupted"


# --- refusals ---


async def test_refusals_are_the_client_s_own_errors(gate: Gate) -> None:
    await gate.scene.start_daemon()
    talker = await gate.start_agent(VOLCENGINE, "refused")
    other = await gate.start_agent(ZEGO, "other")
    nowhere = talker.url.replace(f"/{VOLCENGINE.name}/", "/no-such-account/")
    forged = Talker(url=talker.url, token=other.token, client=gate.client)
    stranger = Talker(url=nowhere, token=talker.token, client=gate.client)
    large = said("x" * 2_000_000)["messages"]
    refusals: list[tuple[Talker, dict[str, Any], type[openai.APIStatusError], int]] = [
        (forged, {}, openai.AuthenticationError, 401),
        (stranger, {}, openai.NotFoundError, 404),
        (talker, {"n": 2}, openai.BadRequestError, 400),
        (talker, {"messages": []}, openai.BadRequestError, 400),
        (talker, {"messages": large}, openai.APIStatusError, 413),
    ]
    for form, ask in FORMS.items():
        for who, fields, error, status in refusals:
            with pytest.raises(error) as refused:
                await ask(who, **fields)
            assert (form, refused.value.status_code) == (form, status)
            assert refused.value.type is not None, "the client has understood the body"
    assert gate.model.asked == []
