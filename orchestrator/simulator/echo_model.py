"""A model that says what it hears: OpenAI-compatible, for a gateway that needs somebody to ask.

`POST /_sim/model/chat/completions`. Rule: what goes wrong with an answer is asked for in the
request, so that tests at the same time do not meet: as a key of the body, in the query, or as a
query that is a piece of the path (`/_sim/model/fault=cut/chat/completions`), since an OpenAI
client's `base_url` has no query.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import anyio
from aiohttp import web

from orchestrator.simulator.simulation import Simulator
from orchestrator.simulator.wire import Fields, parse_object, to_json

PATH = "/_sim/model"
"""Below the simulator's URL: an OpenAI client's `base_url`."""
API_KEY = "demo-model-key"
"""Printed for everybody."""
MODEL = "echo"
SILENT_S = 300
"""How long a silent answer is silent, if its client never gives up."""
LOOK_S = 0.05
"""How often it is looked whether the client of a silent answer has gone."""

_HTML = "<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"


class Trouble(StrEnum):
    """What can go wrong with an answer; `status_<number>` is another HTTP status."""

    HTML = "html"  # a page with status 200
    MUTE = "mute"  # not even a head
    SILENT = "silent"  # a head, and nothing after it
    CUT = "cut"  # the connection ends between two chunks
    HALF_CHUNK = "half_chunk"  # the connection ends within a chunk
    NO_DONE = "no_done"  # no [DONE]
    NO_FINISH = "no_finish"  # no finish_reason
    COMMENTS = "comments"  # a comment before each chunk
    OBJECT = "object"  # chunks whose object is another
    CREATED = "created"  # chunks of different seconds
    NOT_JSON = "not_json"


_STATUS = "status_"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manner:
    """How one request is answered."""

    trouble: Trouble | None
    status: int
    delay_ms: int
    """Before the first word."""
    chunk_ms: int
    """Before each other word."""


class _Rejected(Exception):  # noqa: N818 - it is the request that is wrong
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class EchoModel:
    """The model of one simulator, and what was asked of it."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._counts = {"requests": 0, "answered": 0, "abandoned": 0, "open": 0}

    async def show(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's
        """GET /_sim/model: how many requests there were, and how many of them were hung up on."""
        return web.json_response(self._counts)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """POST /_sim/model/chat/completions: answer with the user's last words."""
        self._counts["requests"] += 1
        self._counts["open"] += 1
        outcome = "answered"
        try:
            return await self._complete(request)
        except _Rejected as rejected:
            return _error(rejected.status, rejected.message)
        except ConnectionError:
            outcome = "abandoned"
            return web.Response()  # for nobody: the client has gone
        finally:
            self._counts["open"] -= 1
            self._counts[outcome] += 1

    async def list_models(self, request: web.Request) -> web.Response:
        """GET /_sim/model/models: the one that there is, for who has the key."""
        if not _has_key(request):
            return _error(HTTPStatus.UNAUTHORIZED, "incorrect API key")
        one = {"id": MODEL, "object": "model", "created": 0, "owned_by": "simulator"}
        return web.json_response({"object": "list", "data": [one]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if not _has_key(request):
            raise _Rejected(HTTPStatus.UNAUTHORIZED, "incorrect API key")
        body = parse_object(await request.read())
        if body is None:
            raise _Rejected(HTTPStatus.BAD_REQUEST, "the body is no JSON object")
        path = request.match_info.get("manner", "")
        manner = _manner({**body, **dict(parse_qsl(path)), **request.query})
        words = f"You said: {_last_words(body)}".split()
        if manner.status != HTTPStatus.OK:
            return _error(manner.status, "asked for")
        if manner.trouble is Trouble.HTML:
            return web.Response(text=_HTML, content_type="text/html")
        if manner.trouble is Trouble.MUTE:
            await _wait_until_gone(request)
        usage = _usage(body, words)
        if body.get("stream") is not True:
            await anyio.sleep(manner.delay_ms / 1000)
            return web.json_response(self._whole(words, usage))
        stream = _Stream(request, manner, created=int(self._simulator.clock().timestamp()))
        await stream.send(words, usage if _wants_usage(body) else None)
        return stream.response

    def _whole(self, words: list[str], usage: Fields) -> Fields:
        message = {"role": "assistant", "content": " ".join(words)}
        return {
            "id": "chatcmpl-echo",
            "object": "chat.completion",
            "created": int(self._simulator.clock().timestamp()),
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        }


class _Stream:
    """One streamed answer, with its trouble."""

    def __init__(self, request: web.Request, manner: _Manner, *, created: int) -> None:
        self._request = request
        self._manner = manner
        self._created = created
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})

    async def send(self, words: list[str], usage: Fields | None) -> None:
        """Send the words one by one, the usage if it was asked for, and the end."""
        await self.response.prepare(self._request)
        if self._manner.trouble is Trouble.SILENT:
            await _wait_until_gone(self._request)
        await self._send_choice({"role": "assistant", "content": ""})
        for number, word in enumerate(words):
            await anyio.sleep((self._manner.chunk_ms if number else self._manner.delay_ms) / 1000)
            if number and number == len(words) // 2:
                await self._break_off()
            await self._send_choice({"content": word if number == 0 else f" {word}"})
        if self._manner.trouble is not Trouble.NO_FINISH:
            await self._send_choice({}, "stop")
        if usage is not None:
            await self._send_chunk({"choices": [], "usage": usage})
        if self._manner.trouble is not Trouble.NO_DONE:
            await self.response.write(b"data: [DONE]\n\n")
        await self.response.write_eof()

    async def _break_off(self) -> None:
        """Do in the middle of the answer what was asked for."""
        match self._manner.trouble:
            case Trouble.HALF_CHUNK:
                await self.response.write(b'data: {"id":"chatcmpl-echo","obj')
                _hang_up(self._request)
            case Trouble.CUT:
                _hang_up(self._request)
            case Trouble.CREATED:
                self._created += 1
            case Trouble.NOT_JSON:
                await self.response.write(b"data: {not json}\n\n")
            case _:
                pass

    async def _send_choice(self, delta: Fields, finish_reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        await self._send_chunk({"choices": [choice]})

    async def _send_chunk(self, fields: Fields) -> None:
        wrong = self._manner.trouble is Trouble.OBJECT
        chunk = {
            "id": "chatcmpl-echo",
            "object": "chat.completion" if wrong else "chat.completion.chunk",
            "created": self._created,
            "model": MODEL,
            **fields,
        }
        comment = b": still here\n\n" if self._manner.trouble is Trouble.COMMENTS else b""
        await self.response.write(comment + b"data: " + to_json(chunk) + b"\n\n")


def add_model_routes(app: web.Application, simulator: Simulator) -> None:
    """Add the model to the application."""
    model = EchoModel(simulator)
    app.router.add_get(PATH, model.show)
    app.router.add_get(f"{PATH}/models", model.list_models)
    app.router.add_post(f"{PATH}/chat/completions", model.complete)
    app.router.add_post(f"{PATH}/{{manner}}/chat/completions", model.complete)


def _has_key(request: web.Request) -> bool:
    return request.headers.get("Authorization") == f"Bearer {API_KEY}"


def _manner(asked: Mapping[str, Any]) -> _Manner:
    """Return how to answer; all that is asked for may be a string, as in a query."""
    trouble, status = str(asked.get("fault") or ""), HTTPStatus.OK.value
    if trouble.startswith(_STATUS):
        status, trouble = _number({"fault": trouble.removeprefix(_STATUS)}, "fault"), ""
    if trouble and trouble not in set(Trouble):
        expected = " or ".join([f"{_STATUS}<number>", *Trouble])
        raise _Rejected(HTTPStatus.BAD_REQUEST, f"fault: expected {expected}")
    if not 200 <= status <= 599:
        raise _Rejected(HTTPStatus.BAD_REQUEST, "fault: expected a status from 200 to 599")
    return _Manner(
        trouble=Trouble(trouble) if trouble else None,
        status=status,
        delay_ms=_number(asked, "delay_ms"),
        chunk_ms=_number(asked, "chunk_ms"),
    )


def _number(asked: Mapping[str, Any], name: str) -> int:
    text = str(asked.get(name) or 0)
    if not (text.isascii() and text.isdecimal()) or len(text) > 6:
        raise _Rejected(HTTPStatus.BAD_REQUEST, f"{name}: expected an integer from 0")
    return int(text)


def _last_words(body: Fields) -> str:
    """Return what the user said last."""
    messages = body.get("messages")
    for message in reversed(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            return content if isinstance(content, str) else ""
    raise _Rejected(HTTPStatus.BAD_REQUEST, "messages: expected one of a user")


def _wants_usage(body: Fields) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _usage(body: Fields, words: list[str]) -> Fields:
    """Return the tokens: here a word is one."""
    contents = [m.get("content") for m in body["messages"] if isinstance(m, dict)]
    prompt = sum(len(content.split()) for content in contents if isinstance(content, str))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": len(words),
        "total_tokens": prompt + len(words),
    }


def _error(status: int, message: str) -> web.Response:
    """Return an error in OpenAI's form."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


def _hang_up(request: web.Request) -> None:
    """End the connection without an orderly end of the answer.

    Raises:
        ConnectionError: always, since there is nobody to write to any more.
    """
    if request.transport is not None:
        request.transport.close()
    raise ConnectionAbortedError


async def _wait_until_gone(request: web.Request) -> None:
    """Say nothing until the client has gone.

    Raises:
        ConnectionError: it has.
    """
    for _ in range(int(SILENT_S / LOOK_S)):
        if _has_gone(request):
            break
        await anyio.sleep(LOOK_S)
    raise ConnectionAbortedError


def _has_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
