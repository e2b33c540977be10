"""A model for measurements, which says when it says a word: `python -m benchmarks.model`.

Each word is two instants of `boot_ns`, "ASKED/SAID": when the request had been read, and when the
word left. It knows its keys (`words`, `per_s`, `think_s`, `hold_s`) from the request's body.
"""

import sys
from random import Random
from typing import Any, Final

import anyio
from aiohttp import web

from orchestrator.clock import boot_ns

KEYS: Final = ("words", "per_s", "think_s", "hold_s")
"""Fields of a request beside OpenAI's: how many words, how many a second, and how many seconds of
silence there are before the first and after the last."""
_CHUNK: Final = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"bench","system_fingerprint":"fp_0123456789",'
    b'"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]}\n\n'
)
_BEGIN: Final = _CHUNK % (b'{"role":"assistant","content":""}', b"null")
_END: Final = _CHUNK % (b"{}", b'"stop"') + b"data: [DONE]\n\n"


class Model:
    """Says words at a pace."""

    def __init__(self) -> None:
        self._lots = Random(1)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Stream one answer."""
        body: dict[str, Any] = await request.json()
        asked_ns = boot_ns()
        words, per_s, think_s, hold_s = (body[key] for key in KEYS)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_BEGIN)
        await anyio.sleep(think_s)
        for number in range(words):
            if number:
                # Streams that keep step would all speak at once, or never meet.
                await anyio.sleep(self._lots.uniform(0.5, 1.5) / per_s)
            said = b'{"content":"%d/%d"}' % (asked_ns, boot_ns())
            await response.write(_CHUNK % (said, b"null"))
        await anyio.sleep(hold_s)
        await response.write(_END)
        await response.write_eof()
        return response


async def _serve() -> None:
    app = web.Application()
    app.router.add_post("/chat/completions", Model().answer)
    # Whoever hangs up is not spoken to any longer.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1_024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]} ready", flush=True)
    await anyio.sleep_forever()


if __name__ == "__main__":
    sys.exit(anyio.run(_serve))
