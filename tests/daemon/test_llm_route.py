"""Every agent's address arrives as what it was, however its room is named."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from orchestrator.providers.ticket import ROUTE, Ticket, read_ticket

pytestmark = pytest.mark.anyio

ROOMS = (
    "room", "a/b", ".", "..", "...", "%", "%2F", "{x}", "a b", "+", "~", "a;b=c", "?#:@", "a\\b",
    "ü", "中🙂",
)  # fmt: skip


async def answer(request: web.Request) -> web.Response:
    """Say whose address was asked."""
    ticket = read_ticket(request.match_info)
    return web.json_response(None if ticket is None else [ticket.room_id, ticket.path])


@pytest.fixture
async def served() -> AsyncIterator[str]:
    """Serve the route; return its URL."""
    app = web.Application()
    app.router.add_post(ROUTE, answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_an_address_reads_back_from_the_wire(served: str) -> None:
    async with aiohttp.ClientSession() as client:
        for room in ROOMS:
            ticket = Ticket(
                upstream="main",
                account="tencent",
                room_id=room,
                user_id=room,
                task_id=room,
                incarnation=1,
                agent_id="agent",
            )
            # As a vendor sends it: to the letter.
            url = URL(served + ticket.path, encoded=True)
            async with client.post(url) as answered:
                assert (room, answered.status) == (room, 200)
                assert await answered.json() == [room, ticket.path]


async def test_a_segment_too_few_or_too_many_is_nowhere(served: str) -> None:
    async with aiohttp.ClientSession() as client:
        for middle in ("a/b/c/d/e/1", "a/b/c/d/e/1/f/g", "a//c/d/e/1/f"):
            async with client.post(f"{served}/llm/{middle}/chat/completions") as answered:
                assert (middle, answered.status) == (middle, 404)
