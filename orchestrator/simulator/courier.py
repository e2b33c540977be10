"""Posts the vendors' callbacks to whoever asked for them, and keeps the world's time moving.

Rule 1: a callback never holds up a call: the world tells, the courier carries.
Rule 2: a notice is repeated byte for byte by the vendor's rule, then given up.
Rule 3: what goes wrong on the way is a fault of the action `callback`: drop, double, delay.
"""

import random
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import aiohttp
import anyio
from anyio.abc import TaskGroup

from orchestrator.simulator.faults import Fault, Kind
from orchestrator.simulator.notices import Notice, write_notices
from orchestrator.simulator.simulation import Simulator
from orchestrator.simulator.world import Agent, Happened

CALLBACK = "callback"
"""The action under which faults of callbacks are scripted."""
ANSWER_WITHIN_S = 5
"""How long the vendors wait for the receiver's answer."""
LONGEST_SLEEP_S = 1.0
WAITING_MAX = 10_000
"""Notices that wait to be carried; beyond that the oldest are lost, as the vendors' may be."""
KEPT = 1000
"""Attempts that are remembered, for `/_sim/callbacks`."""


class Courier:
    """Carries the callbacks of one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._keys = {keys.account: keys for keys in simulator.keys}
        self._urls = {k.account: k.callback_url for k in simulator.keys if k.callback_url}
        self._lots = random.SystemRandom()
        self._waiting: deque[Notice] = deque(maxlen=WAITING_MAX)
        self._woken = anyio.Event()
        self.attempts: deque[dict[str, Any]] = deque(maxlen=KEPT)
        simulator.listen(self._hear)

    @property
    def urls(self) -> Mapping[str, str]:
        """Return where each account's callbacks go."""
        return self._urls

    def redirect(self, account: str, url: str) -> None:
        """Post an account's callbacks to `url` from now on; empty: nowhere."""
        self._urls.pop(account, None)
        if url:
            self._urls[account] = url

    async def run(self) -> None:
        """Carry callbacks until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            anyio.create_task_group() as deliveries,
        ):
            while True:
                self._woken = anyio.Event()
                self._simulator.world_now()
                self._send_out(session, deliveries)
                with anyio.move_on_after(self._until_due()):
                    await self._woken.wait()

    def _hear(self, happened: Happened, agent: Agent, at: datetime) -> None:
        if agent.account in self._urls:
            notices = write_notices(self._keys[agent.account], happened, agent, at, self._lots)
            self._waiting.extend(notices)
        self._woken.set()

    def _until_due(self) -> float:
        due = self._simulator.world.next_due()
        if due is None:
            return LONGEST_SLEEP_S
        left = (due - self._simulator.world_time(self._simulator.clock())).total_seconds()
        # Something is due again after a thousandth: a clock that stands still must not spin.
        return min(max(self._simulator.real_s(left), 0.001), LONGEST_SLEEP_S)

    def _send_out(self, session: aiohttp.ClientSession, deliveries: TaskGroup) -> None:
        while self._waiting:
            notice = self._waiting.popleft()
            fault = self._simulator.faults.draw(CALLBACK)
            if fault is not None and fault.kind is Kind.DROP:
                continue
            deliveries.start_soon(self._deliver, session, notice, fault)
            if fault is not None and fault.kind is Kind.DOUBLE:
                deliveries.start_soon(self._deliver, session, notice, None)

    async def _deliver(
        self, session: aiohttp.ClientSession, notice: Notice, fault: Fault | None
    ) -> None:
        """Post the notice until it is taken, by the vendor's rule."""
        if fault is not None and fault.kind is Kind.DELAY:
            await anyio.sleep(fault.ms / 1000)
        for retry_s in (*notice.retries_s, None):
            if await self._post(session, notice) or retry_s is None:
                return
            await anyio.sleep(self._simulator.real_s(retry_s))

    async def _post(self, session: aiohttp.ClientSession, notice: Notice) -> bool:
        """Post it once; return whether it was taken, or nobody wants it any more."""
        url = self._urls.get(notice.account)
        if url is None:
            return True
        status = None
        try:
            async with session.post(url, data=notice.body, headers=notice.headers) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            pass  # an attempt without a status
        self.attempts.append({"account": notice.account, "event": notice.event, "status": status})
        return status is not None and 200 <= status < 300
