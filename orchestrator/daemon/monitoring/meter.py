"""What is counted while the work is done: calls, their times, and our own trouble.

Rule 1: a label is a word of ours or of the configuration: an account, an action, a class, a kind.
Never a task, a room, a user, or a code that a vendor makes up; so nobody outside decides how many
series there are.
Rule 2: counting waits for nothing and raises nothing. What is only looked up when somebody asks is
in `vitals` (this process) and `figures` (the database).
"""

from contextlib import AbstractContextManager
from typing import Final

import anyio
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from orchestrator import __version__
from orchestrator.clock import boot_ns
from orchestrator.core.model import WorkClass
from orchestrator.core.outcome import NotSent, Outcome
from orchestrator.store.engine import DatabaseAway, DatabaseRefuses

LAG_EVERY_S: Final = 1.0
"""How often the event loop is asked how late it is. It wakes as often for the bounded poll."""

CALL_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 10.0)
WIRE_MS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 15, 25, 50, 100, 250, 500, 1_000, 5_000, 15_000, 60_000)
"""Fine where the targets are: a press within 5 ms, anything within 3, 6 and 15."""
SLOT_SECONDS: Final = (0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
LAG_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Meter:
    """The instruments of one daemon, in a registry of their own."""

    def __init__(self) -> None:
        # Each counter would else be exposed a second time, with the instant of its first use.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type for it
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Info("orchestrator_build", "The version that runs.", registry=self.registry)
        build.info({"version": __version__})
        self._calls = Counter(
            "orchestrator_calls",
            "Calls to a vendor by what they came to (agent_event.outcome).",
            ("account", "action", "outcome"),
            registry=self.registry,
        )
        self._call_seconds = Histogram(
            "orchestrator_call_seconds",
            "How long a vendor took to answer.",
            ("account", "action"),
            registry=self.registry,
            buckets=CALL_SECONDS,
        )
        wire = Histogram(
            "orchestrator_commit_to_wire_seconds",
            "From an application's change to the call that it asked for, where nothing but this "
            "daemon was waited for: no slot, no agent, no earlier failure.",
            ("class",),
            registry=self.registry,
            buckets=[ms / 1_000 for ms in WIRE_MS],
        )
        self._wire = {each: wire.labels(each.value) for each in WorkClass}
        self._slot_seconds = Histogram(
            "orchestrator_rate_limit_wait_seconds",
            "How long an announced call waited for its slot. What is not announced for want of one "
            "is in orchestrator_parked.",
            ("account", "action"),
            registry=self.registry,
            buckets=SLOT_SECONDS,
        )
        flying = Gauge(
            "orchestrator_calls_in_flight",
            "Calls announced and not answered.",
            ("class",),
            registry=self.registry,
        )
        self._in_flight = {each: flying.labels(each.value) for each in WorkClass}
        errors = Counter(
            "orchestrator_database_errors",
            "Operations that failed. away: the database could not be reached; refused: it lets "
            "nobody in; statement: it did not carry one out (a lock not had in time, too).",
            ("kind",),
            registry=self.registry,
        )
        self._errors = {kind: errors.labels(kind) for kind in ("away", "refused", "statement")}
        self._lag = Histogram(
            "orchestrator_event_loop_lag_seconds",
            "How much later than asked the event loop wakes.",
            registry=self.registry,
            buckets=LAG_SECONDS,
        )

    def count_call(self, account: str, action: str, outcome: Outcome, latency_ms: int) -> None:
        """Count a call that has ended."""
        self._calls.labels(account, action, type(outcome).__name__).inc()
        if isinstance(outcome, NotSent):
            return  # the vendor was not asked, so it took no time to answer
        self._call_seconds.labels(account, action).observe(latency_ms / 1000)

    def in_flight(self, work_class: WorkClass) -> AbstractContextManager[None]:
        """Count a call that is on its way while the context is open."""
        return self._in_flight[work_class].track_inprogress()

    def note_wire(self, work_class: WorkClass, seconds: float) -> None:
        """Note how long ago an application asked for the call that leaves now."""
        # A clock that was set back between the two says nothing.
        self._wire[work_class].observe(max(0.0, seconds))

    def note_slot(self, account: str, action: str, seconds: float) -> None:
        """Note how long a call waited for its slot."""
        self._slot_seconds.labels(account, action).observe(seconds)

    def count_error(self, error: Exception) -> None:
        """Count an operation that the database did not carry out."""
        self._errors[_kind_of(error)].inc()

    async def watch_loop(self) -> None:
        """Note for ever how late the event loop wakes."""
        while True:
            asked_ns = boot_ns()
            await anyio.sleep(LAG_EVERY_S)
            self._lag.observe(max(0.0, (boot_ns() - asked_ns) / 1e9 - LAG_EVERY_S))


def _kind_of(error: Exception) -> str:
    match error:
        case DatabaseRefuses():
            return "refused"
        case DatabaseAway():
            return "away"
        case _:
            return "statement"
