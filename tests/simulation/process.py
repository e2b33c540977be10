"""A process of a simulated daemon: it is up or down, and sometimes stopped by SIGSTOP."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar


class Timeline(Protocol):
    """Where steps are put to be taken at their time."""

    now: datetime

    def at(self, when: datetime, step: Callable[[], None]) -> None:
        """Take a step then."""


World = TypeVar("World", bound=Timeline)


@dataclass(slots=True, kw_only=True)
class Process(Generic[World]):
    """What a daemon is to its machine."""

    name: str
    world: World
    is_up: bool = True
    lives: int = 0
    frozen_until: datetime | None = None

    def after(self, delay: timedelta, step: Callable[[], None]) -> None:
        """Take a step later, if this life of the process lasts; not before it thaws."""
        world, life = self.world, self.lives

        def run() -> None:
            if not self.is_up or self.lives != life:
                return
            if self.frozen_until is not None and self.frozen_until > world.now:
                world.at(self.frozen_until, run)
                return
            step()

        world.at(world.now + delay, run)

    def die(self) -> None:
        """Forget everything: nothing of this life is done any more."""
        self.is_up = False
        self.lives += 1
        self.frozen_until = None
