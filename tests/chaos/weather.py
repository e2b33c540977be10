"""What goes wrong at the vendors: calls and callbacks that meet faults, agents that end.

Rule 1: the weather changes every few seconds, so that there are storms and lulls.
Rule 2: the worst of it leaves most calls alone: the bounds in `times` count on that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

import anyio

from tests.chaos.diary import Diary
from tests.chaos.times import Times
from tests.chaos.vendors import ChaosVendors
from tests.daemon.customers import Customer

CHANGES_S: Final = 3.0
STORM: Final = 0.04
"""The highest share of calls that any one fault meets."""
KINDS: Final = (
    "lose_request",
    "lose_reply",
    "delay",
    "delay_reply",
    "hang",
    "http_500",
    "html",
    "half_json",
    "empty",
)
UNKNOWN: Final = ("delay", "lose_reply", "hang")
UNKNOWN_STORM: Final = 0.15
"""The same for starts of which nobody knows whether they took effect, or will: what a wrong daemon
would leak by."""
DEATHS: Final = 0.02
"""Share of starts whose agents die at once."""
BURST_S: Final = 2.0
"""How long all calls of one action are throttled at most."""
CALLBACK_FAULTS: Final[Mapping[str, float]] = {"drop": 0.1, "double": 0.1, "delay": 0.1}
CALLBACK_LATE_MS: Final = 700
ENDS_EVERY_S: Final = 3.0
WAYS_TO_END: Final = ("idle", "kicked", "fault")


@dataclass
class Weather:
    """The faults of all vendors."""

    lots: Random
    vendors: ChaosVendors
    customers: tuple[Customer, ...]
    times: Times

    async def change(self, calm: anyio.Event) -> None:
        """Change until it is calm; then nothing goes wrong any more."""
        await self._spoil_callbacks()
        while not calm.is_set():
            for kind in KINDS:
                share = self.lots.uniform(0, STORM) if self.lots.random() < 0.5 else 0.0
                await self.vendors.set_ratio("*", kind, share, self._late_ms(kind))
            for customer in self.customers:
                await self._spoil_starts(customer)
            await self._throttle()
            with anyio.move_on_after(CHANGES_S):
                await calm.wait()
        await self.vendors.clear_faults()

    async def _spoil_starts(self, customer: Customer) -> None:
        await self.vendors.set_ratio(customer.start, "dies", DEATHS)
        for kind in UNKNOWN:
            share = self.lots.uniform(0, UNKNOWN_STORM)
            await self.vendors.set_ratio(customer.start, kind, share, self._late_ms(kind))

    def _late_ms(self, kind: str) -> int:
        """Return how late: a request as late as it can be, an answer until nobody waits for it."""
        if kind == "delay":
            return self.lots.randrange(100, self.times.latest_ms)
        return self.lots.randrange(50, self.times.call_timeout_ms * 3 // 2)

    async def _throttle(self) -> None:
        """Let a vendor refuse all calls of an action for a moment."""
        customer = self.lots.choice(self.customers)
        action = self.lots.choice([customer.start, customer.stop, customer.look])
        await self.vendors.set_ratio(action, "throttle", 1.0)
        await anyio.sleep(self.lots.uniform(0, BURST_S))
        await self.vendors.set_ratio(action, "throttle", 0.0)

    async def _spoil_callbacks(self) -> None:
        for kind, share in CALLBACK_FAULTS.items():
            await self.vendors.set_ratio("callback", kind, share, CALLBACK_LATE_MS)


@dataclass
class Fate:
    """Ends agents at the vendors, as idle, kicked or by a fault; never a stranger."""

    lots: Random
    vendors: ChaosVendors
    diary: Diary

    async def strike(self, calm: anyio.Event) -> None:
        """End one now and then until it is calm."""
        while not calm.is_set():
            with anyio.move_on_after(self.lots.uniform(0, 2 * ENDS_EVERY_S)):
                await calm.wait()
                return
            live = await self.vendors.live()
            ours = [one for one in live if one["agent_user_id"] not in self.diary.strangers]
            if ours:
                doomed = self.lots.choice(ours)
                self.diary.ended.add(doomed["id"])
                await self.vendors.end(doomed, self.lots.choice(WAYS_TO_END))
