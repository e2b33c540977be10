"""What a wrong core is, and how it is caught.

A mutant replaces one name of a module for as long as it runs; the world is the same as ever.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.core.caps import Recovery
from tests.simulation.checkers import Broken
from tests.simulation.world import build

SEEDS = 300
"""Seeds after which a mutant counts as escaped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A core without one of its rules."""

    name: str
    owner: Any
    """The module or class whose attribute is replaced."""
    attribute: str
    wrong: Any
    vendors: tuple[Recovery, ...] = tuple(Recovery)


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Let the wrong rule hold for a while."""
    right = mutant.owner.__dict__[mutant.attribute]
    setattr(mutant.owner, mutant.attribute, mutant.wrong)
    try:
        yield
    finally:
        setattr(mutant.owner, mutant.attribute, right)


def catch(mutant: Mutant) -> str | None:
    """Return which checker catches a mutant, and at which seed; None if none does."""
    with applied(mutant):
        for seed in range(SEEDS):
            kind = mutant.vendors[seed % len(mutant.vendors)]
            try:
                build(seed, (kind,) * 3).run()
            except Broken as broken:
                return f"{broken.check} at seed {seed}, {kind}"
    return None
