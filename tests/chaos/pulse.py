"""Feels whether the machine stands still: then nobody can be judged by the second.

A call that waited in a socket while the simulated vendors could not run would seem to be one of a
burst. So their process is asked something small all the time, and a beat that was late is noted.
"""

from datetime import datetime, timedelta
from typing import Final

import anyio

from orchestrator.clock import utc_now
from tests.chaos.diary import Diary, Spell
from tests.chaos.vendors import ChaosVendors

EVERY: Final = timedelta(milliseconds=100)
LATE: Final = timedelta(milliseconds=100)
"""Less than the grace and jitter by which the daemon stays away from a vendor's limit."""


async def feel(vendors: ChaosVendors, diary: Diary) -> None:
    """Note until cancelled when a beat was late."""
    last = utc_now()
    while True:
        await vendors.faults_to_come()
        last = _note(diary, last)
        await anyio.sleep(EVERY.total_seconds())
        last = _note(diary, last)


def _note(diary: Diary, last: datetime) -> datetime:
    now = utc_now()
    if now - last > EVERY + LATE:
        diary.stalls.append(Spell(kind="stall", began_at=last, ended_at=now, is_total=True))
    return now
