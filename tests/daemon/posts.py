"""Callbacks that a test writes itself, signed as the vendor would; and where to post them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from orchestrator.clock import utc_now
from orchestrator.providers.signing import tencent_callback_sign, zego_callback_signature
from orchestrator.simulator.keys import TencentKeys, ZegoKeys
from tests.daemon.customers import CUSTOMERS, TENCENT, ZEGO
from tests.daemon.running import Daemon, Scene, until


@dataclass(frozen=True)
class Written:
    """One callback, complete to the byte."""

    account: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def tencent(event: int, handle: str, *, at_ms: int | None = None, **payload: Any) -> Written:
    """Return an AI event of Tencent's."""
    assert isinstance(TENCENT.keys, TencentKeys)
    moment = now_ms() if at_ms is None else at_ms
    info = {"EventMsTs": moment, "TaskId": handle, "RoomId": "room", "Payload": payload}
    envelope = {"EventGroupId": 9, "EventType": event, "CallbackTs": moment, "EventInfo": info}
    return tencent_raw(json.dumps(envelope).encode())


def tencent_raw(body: bytes) -> Written:
    """Return a body that Tencent signed, whatever it is."""
    sign = tencent_callback_sign(body, key=str(TENCENT.keys.callback_secret))
    return Written(TENCENT.name, body, {"Sign": sign})


def zego(event: str, handle: str, **more: Any) -> Written:
    """Return an event of ZEGO's. What is signed is the time and a nonce."""
    assert isinstance(ZEGO.keys, ZegoKeys)
    timestamp, nonce = now_ms(), "123456"
    secret = str(ZEGO.keys.callback_secret)
    signature = zego_callback_signature(
        callback_secret=secret, timestamp=str(timestamp), nonce=nonce
    )
    envelope = {
        "AppId": ZEGO.keys.app_id,
        "Event": event,
        "Nonce": nonce,
        "Timestamp": timestamp,
        "Signature": signature,
        "AgentInstanceId": handle,
        "Sequence": timestamp,
        **more,
    }
    return Written(ZEGO.name, json.dumps(envelope).encode())


def now_ms() -> int:
    """Return the vendor's clock."""
    return int(utc_now().timestamp() * 1000)


@dataclass
class Mailbox:
    """A daemon that receives callbacks, seen from outside."""

    daemon: Daemon
    base_url: str
    session: aiohttp.ClientSession

    async def post(self, written: Written) -> int:
        """Post a callback to its account; return the status."""
        return await self.ask("POST", written.account, data=written.body, headers=written.headers)

    async def ask(self, method: str, path: str, **options: Any) -> int:
        """Send a request to a path below `/callbacks/`; return the status."""
        async with self.session.request(method, f"{self.base_url}/{path}", **options) as answer:
            await answer.read()
            return answer.status


@asynccontextmanager
async def open_mailbox(scene: Scene, listen: str = "127.0.0.1:0") -> AsyncIterator[Mailbox]:
    """Start a daemon that receives callbacks, and let all vendors post to it."""
    scene.settings.setdefault("callbacks", {"listen": listen})
    daemon = await scene.start_daemon()

    async def heard() -> str | None:
        lines = daemon.events("hearing_callbacks")
        return f"http://{lines[0]['host']}:{lines[0]['port']}/callbacks" if lines else None

    base_url = await until(heard, daemon.describe)
    for customer in CUSTOMERS:
        await scene.vendors.post_callbacks(customer.name, f"{base_url}/{customer.name}")
    async with aiohttp.ClientSession() as session:
        yield Mailbox(daemon, base_url, session)
