"""What was asked of the vendors: the newest calls, for tests that look at the wire.

Rule: cheap to write, since it is written for every call; whoever reads pays for the shape.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from orchestrator.simulator.wire import Call
from orchestrator.simulator.world import Vendor

KEPT = 50_000
"""Calls that are kept; older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class Record:
    """One call and what became of it. Nothing of its body or headers: they hold keys."""

    seq: int
    at: datetime
    vendor: Vendor
    account: str
    action: str
    version: str
    ids: Mapping[str, Any]
    code: str
    """The vendor's code; empty on success."""
    status: int | None
    """HTTP status; null where nothing was answered."""
    fault: str | None

    def shown(self) -> dict[str, Any]:
        """Return it as `/_sim/calls` shows it."""
        return asdict(self) | {"at": self.at.isoformat()}


class CallLog:
    """A bounded ring of calls, numbered from 1."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque(maxlen=KEPT)
        self._seq = 0

    def add(self, call: Call, code: str, status: int | None, fault: str | None) -> None:
        """Note a call, in the order of the answers."""
        self._seq += 1
        self._records.append(
            Record(
                self._seq,
                call.at,
                call.vendor,
                call.account,
                call.action,
                call.version,
                call.ids,
                code,
                status,
                fault,
            )
        )

    def since(self, seq: int) -> list[dict[str, Any]]:
        """Return the calls after number `seq`, oldest first."""
        return [record.shown() for record in self._records if record.seq > seq]

    @property
    def last(self) -> int:
        """Return the number of the newest call."""
        return self._seq
