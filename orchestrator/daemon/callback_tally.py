"""How many callbacks came, and what became of them: by account and result.

Rule 1: a sender decides how many there are, so the log has at most one line a minute for each
account and result, and none while nothing is refused.
Rule 2: no key is chosen by a sender.
"""

from collections import Counter
from enum import StrEnum
from typing import Final

import anyio
import structlog

TELL_EVERY_S: Final = 60.0

log = structlog.get_logger(__name__)


class Result(StrEnum):
    """What became of a callback."""

    KEPT = "kept"
    NOTHING = "nothing"  # genuine, and about no agent's life
    FORGED = "forged"
    GARBLED = "garbled"
    STRANGER = "stranger"  # no such account
    LARGE = "large"
    SLOW = "slow"
    BUSY = "busy"  # the vendor sends it again
    FAILED = "failed"

    @property
    def is_refusal(self) -> bool:
        """Whether somebody should hear of it."""
        return self not in {Result.KEPT, Result.NOTHING}


class CallbackTally:
    """Counts callbacks, and tells of those refused."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Result]] = Counter()
        """By account and result, since the start; all accounts that there are not are one: ''."""
        self._told: Counter[tuple[str, Result]] = Counter()
        """As they were when the log last had the sums."""

    def count(self, account: str, result: Result, why: str) -> None:
        """Count a callback; say at once why the first of its kind in this minute was refused.

        `why` holds nothing of what was received.
        """
        key = (account, result)
        if result.is_refusal and self.counts[key] == self._told[key]:
            log.warning("callback_refused", account=account, result=result.value, message=why)
        self.counts[key] += 1

    async def run(self) -> None:
        """Say once a minute how many were refused, where the first was not the only one."""
        while True:
            await anyio.sleep(TELL_EVERY_S)
            self.tell()

    def tell(self) -> None:
        """Say how many were refused since the last time."""
        for key, number in sorted((self.counts - self._told).items()):
            account, result = key
            if result.is_refusal and number > 1:
                log.warning("callbacks_refused", account=account, result=result.value, count=number)
        self._told = self.counts.copy()
