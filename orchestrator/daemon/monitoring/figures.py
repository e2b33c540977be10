"""Metrics of what the database says: the same at every daemon, read when somebody asks.

A database that is away leaves its figures out: `orchestrator_database_figures_up` says 0, and no
old number stands for a present one.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.daemon.monitoring.cached import Cached, Missing
from orchestrator.store.engine import Database
from orchestrator.store.figures import AccountFigures, read_figures

KEEP_S: Final = 10.0
"""How long figures are good: as often as Prometheus asks, and for every Prometheus together."""

Figures = Sequence[AccountFigures]


class FiguresCollector(Collector):
    """Shows the newest figures. `look` before each collection, since a collector may not wait."""

    def __init__(self, database: Database) -> None:
        self.reading: Cached[Figures] = Cached(lambda: database.read(read_figures), KEEP_S)
        self._shown: Figures | Missing = Missing("not asked yet")

    async def look(self) -> None:
        """Bring the figures up to date, if the database answers soon."""
        self._shown = await self.reading.get()

    def collect(self) -> Iterable[Metric]:
        """Return the figures as metrics."""
        shown = self._shown
        is_up = not isinstance(shown, Missing)
        up = GaugeMetricFamily(
            "orchestrator_database_figures_up",
            "Whether the figures from the database are here. While they are not, all of them lack.",
        )
        up.add_metric((), float(is_up))
        yield up
        if not isinstance(shown, Missing):
            yield from _tasks(shown)
            yield from _orphans(shown)
            yield from _accounts(shown)
            yield from _waits(shown)


def _tasks(shown: Figures) -> Iterator[Metric]:
    tasks = _gauge("tasks", "Tasks by phase (agent_status).", "account", "phase")
    behind = _gauge("unconverged", "Tasks not as desired (view convergence).", "account")
    oldest = _gauge(
        "oldest_unconverged_seconds", "For how long the oldest of those has been so.", "account"
    )
    for one in shown:
        for phase, count in one.tasks.items():
            tasks.add_metric((one.account, phase.value), count)
        behind.add_metric((one.account,), one.unconverged.count)
        oldest.add_metric((one.account,), one.unconverged.oldest_s)
    return iter((tasks, behind, oldest))


def _orphans(shown: Figures) -> Iterator[Metric]:
    orphans = _gauge(
        "orphans", "Agents that may run and have no task (view orphan_overview).", "account", "ours"
    )
    leaked = CounterMetricFamily(
        "orchestrator_orphan_seconds",
        "Seconds that all known orphans have run. Falls when retention forgets one: use it only "
        "where resets() is 0.",
        labels=("account",),
    )
    for one in shown:
        for ours, count in one.orphans.items():
            orphans.add_metric((one.account, "true" if ours else "false"), count)
        leaked.add_metric((one.account,), one.leaked_s)
    return iter((orphans, leaked))


def _accounts(shown: Figures) -> Iterator[Metric]:
    denied = _gauge("account_denied", "Whether the vendor denies the account.", "account")
    paused = _gauge("account_paused", "Whether the operator lets no start leave.", "account")
    frozen = _gauge("account_frozen", "Whether the operator lets no call leave.", "account")
    for one in shown:
        denied.add_metric((one.account,), float(one.denied))
        paused.add_metric((one.account,), float(one.paused))
        frozen.add_metric((one.account,), float(one.frozen))
    return iter((denied, paused, frozen))


def _waits(shown: Figures) -> Iterator[Metric]:
    parked = _gauge("parked", "Rows that wait, by what for.", "account", "waiting_for")
    longest = _gauge(
        "oldest_parked_seconds", "How long the first of those has waited.", "account", "waiting_for"
    )
    presses = _gauge("presses", "Listening commands that have not ended.", "account")
    oldest = _gauge("oldest_press_seconds", "How old the oldest of those is.", "account")
    for one in shown:
        for reason, waiting in one.parked.items():
            parked.add_metric((one.account, reason.value), waiting.count)
            longest.add_metric((one.account, reason.value), waiting.oldest_s)
        presses.add_metric((one.account,), one.presses.count)
        oldest.add_metric((one.account,), one.presses.oldest_s)
    return iter((parked, longest, presses, oldest))


def _gauge(name: str, sentence: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"orchestrator_{name}", sentence, labels=labels)
