"""A listener between a daemon and the simulated vendors: what was sent, to the last field.

The vendors keep no bodies, since those hold keys. Here they are what a test asks about.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL


@dataclass(kw_only=True)
class Wiretap:
    """Passes each call on as it came, and keeps its body."""

    vendors_url: str
    client: aiohttp.ClientSession
    url: str = ""
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """By the vendor's name of the call, in the order in which they came."""

    def of(self, action: str) -> list[dict[str, Any]]:
        """Return the bodies of one action's calls."""
        return [body for name, body in self.bodies if name == action]

    async def pass_on(self, request: web.Request) -> web.Response:
        """Answer what the vendor answers. Signatures hold: not even the Host is another one."""
        sent = await request.read()
        if sent:
            action = request.query.get("Action") or request.headers["X-TC-Action"]
            self.bodies.append((action, json.loads(sent)))
        url = URL(self.vendors_url + request.raw_path, encoded=True)
        async with self.client.request(
            request.method, url, data=sent, headers=request.headers
        ) as answer:
            body = await answer.read()
            return web.Response(body=body, status=answer.status, content_type=answer.content_type)


@asynccontextmanager
async def tap(vendors_url: str) -> AsyncIterator[Wiretap]:
    """Listen before the vendors."""
    async with aiohttp.ClientSession() as client:
        wiretap = Wiretap(vendors_url=vendors_url, client=client)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", wiretap.pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            _, port = runner.addresses[0][:2]
            wiretap.url = f"http://127.0.0.1:{port}"
            yield wiretap
        finally:
            await runner.cleanup()
