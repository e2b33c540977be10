"""A process that sends more than its peer reads, by the daemon's transport: `sender.py PORT`."""

import sys

import anyio

from orchestrator.clock import boot_ns, utc_now
from orchestrator.core.model import WorkClass
from orchestrator.daemon.transport import Transport
from orchestrator.providers.base import Request

BODY = b"x" * 8_000_000
LONG_NS = 60_000_000_000


async def send(port: int) -> None:
    request = Request(
        action="Start", method="POST", url=f"http://127.0.0.1:{port}/", headers={}, body=BODY
    )
    async with Transport(now=utc_now, on_date=lambda _host, _offset: None) as transport:
        deadline_ns = boot_ns() + LONG_NS
        await transport.send(request, deadline_ns=deadline_ns, work_class=WorkClass.START)


if __name__ == "__main__":
    anyio.run(send, int(sys.argv[1]))
