"""Whether the vendors can be reached from here, and how far their clocks are from ours.

Rule 1: no request is signed, so none does anything: whatever is answered, somebody is there.
Rule 2: all are asked side by side.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import assert_never

import anyio

from orchestrator import settings
from orchestrator.clock import boot_ns, utc_now
from orchestrator.commands.checks.finding import Finding, judge_clock
from orchestrator.config import Config
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import Indefinite, NotSent
from orchestrator.daemon.transport import Transport
from orchestrator.providers.base import Request


async def judge_vendors(config: Config) -> Sequence[Finding]:
    """Return a finding for each place that the accounts call, in the file's order."""
    places = [
        (name, account, endpoint)
        for name, account in config.accounts.items()
        for endpoint in _endpoints(account)
    ]
    found: dict[int, Finding] = {}

    async def judge(index: int) -> None:
        found[index] = await judge_vendor(*places[index])

    async with anyio.create_task_group() as asking:
        for index in range(len(places)):
            asking.start_soon(judge, index)
    return [found[index] for index in range(len(places))]


async def judge_vendor(name: str, account: settings.Account, endpoint: str) -> Finding:
    """Return whether a vendor answers at all, and how far its clock is from ours."""
    offsets: list[timedelta] = []
    deadline_ns = boot_ns() + account.call_timeout_ms * 1_000_000
    request = Request(action="", method="GET", url=f"{endpoint}/", headers={}, body=b"")
    async with Transport(
        now=utc_now, on_date=lambda _, offset: offsets.append(offset)
    ) as transport:
        reply = await transport.send(request, deadline_ns=deadline_ns, work_class=WorkClass.OBSERVE)
    what = f"account {name}: {endpoint}"
    if isinstance(reply, NotSent | Indefinite):
        advice = "is the endpoint right, and may this machine reach it?"
        return Finding("trouble", f"{what}: {reply.code}: {reply.message}", advice)
    if not offsets:
        return Finding("warning", f"{what}: reachable, tells no time", "compare the clock yourself")
    margin = timedelta(seconds=account.clock_margin_s)
    return judge_clock(f"{what}: reachable, its clock", offsets[-1], margin)


def _endpoints(account: settings.Account) -> Sequence[str]:
    match account:
        case settings.ZegoAccount():
            return tuple(dict.fromkeys((account.endpoint, account.rtc_endpoint)))
        case settings.VolcengineAccount() | settings.TencentAccount():
            return (account.endpoint,)
        case _:
            assert_never(account)
