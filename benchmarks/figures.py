"""Numbers from samples: percentiles, and how they are printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a report."""

    what: str
    said: str


def percentile(samples: Sequence[float], part: float) -> float:
    """Return the smallest sample that `part` (0 to 1) of all do not exceed.

    Raises ValueError if there are no samples.
    """
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    return ordered[max(0, ceil(part * len(ordered)) - 1)]


def say_percentiles(samples: Sequence[float]) -> str:
    """Return `p50 / p95 / p99`, with one decimal."""
    return " / ".join(f"{percentile(samples, part):.1f}" for part in (0.50, 0.95, 0.99))


def say_median(samples: Sequence[float], spec: str = ".2f") -> str:
    """Return `median (least to most)`; in words, if the time was too short for one."""
    if not samples:
        return "nothing was measured"
    least, most = min(samples), max(samples)
    return f"{median(samples):{spec}} ({least:{spec}} to {most:{spec}})"
