"""What is read off the parts of a running daemon when somebody asks: nothing is counted twice.

Metrics of this process alone; and whether its loops turn, in a sentence for whoever watches it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, runtime_checkable

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.daemon.book import Book
from orchestrator.daemon.callback_tally import CallbackTally, Result
from orchestrator.daemon.pulse import Pulse
from orchestrator.wake.base import Waker

SILENT_S: Final = 30.0
"""A loop turns about once a second; one that waits for a database that does not answer gives up
and turns after 20 s. So one that is silent for longer is stuck."""

_SECOND: Final = timedelta(seconds=1)


@runtime_checkable
class Listener(Protocol):
    """A waker that hears notifications, and proves it again and again."""

    round_trip: timedelta | None
    """How long the last notification of its own took; null while it hears none."""


@dataclass(frozen=True, kw_only=True)
class Vitals(Collector):
    """The parts of a daemon that runs, as they are seen from outside."""

    book: Book
    callbacks: CallbackTally
    pulse: Pulse
    waker: Waker
    is_draining: Callable[[], bool]

    def find_stuck(self) -> str | None:
        """Return which loop does not turn any more, in a sentence; null: all do.

        A daemon that drains ends its loops, and then waits for its last calls.
        """
        if self.is_draining():
            return None
        for loop, silent_ns in self.pulse.silence_ns().items():
            if silent_ns > SILENT_S * 1e9:
                return f"the loop of the {loop.value} has not turned for {silent_ns / 1e9:.0f} s"
        return None

    def collect(self) -> Iterable[Metric]:
        """Return how the parts are."""
        yield self._callbacks()
        yield from self._accounts()
        yield from self._loops()
        yield from self._listening()

    def _callbacks(self) -> Metric:
        family = CounterMetricFamily(
            "orchestrator_callbacks",
            "Callbacks by what became of them; account '': there is no such account.",
            labels=("account", "result"),
        )
        counts = dict.fromkeys(((name, each) for name in self.book.names for each in Result), 0)
        for (account, result), count in sorted((counts | self.callbacks.counts).items()):
            family.add_metric((account, result.value), count)
        return family

    def _accounts(self) -> Iterator[Metric]:
        offset = GaugeMetricFamily(
            "orchestrator_clock_offset_seconds",
            "By how much the vendor's clock is ahead of the database's; 0 while nothing is known.",
            labels=("account",),
        )
        is_open = GaugeMetricFamily(
            "orchestrator_circuit_open",
            "Whether starts wait because the vendor does not answer.",
            labels=("account",),
        )
        for name in self.book.names:
            offset.add_metric((name,), self.book.offset(name) / _SECOND)
            is_open.add_metric((name,), float(self.book.breaker(name).is_open))
        return iter((offset, is_open))

    def _loops(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "orchestrator_loop_age_seconds", "How long ago a loop turned.", labels=("loop",)
        )
        for loop, silent_ns in self.pulse.silence_ns().items():
            age.add_metric((loop.value,), silent_ns / 1e9)
        draining = GaugeMetricFamily(
            "orchestrator_draining",
            "Whether this daemon claims nothing more.",
            value=float(self.is_draining()),
        )
        return iter((age, draining))

    def _listening(self) -> Iterator[Metric]:
        """Return whether wake-ups are heard; nothing where they are not listened for."""
        if not isinstance(self.waker, Listener):
            return
        heard = self.waker.round_trip
        yield GaugeMetricFamily(
            "orchestrator_listen_up",
            "Whether the database's notifications are heard, as of the last one sent to ourselves.",
            value=float(heard is not None),
        )
        if heard is not None:
            yield GaugeMetricFamily(
                "orchestrator_listen_round_trip_seconds",
                "How long that one took.",
                value=heard / _SECOND,
            )
