"""Troubles of the daemons' own world, one after the other with quiet between them.

Rule 1: the kinds are drawn like cards from a shuffled deck, so that even a short run meets each.
Rule 2: a trouble is over when what it broke works again; only then is its end noted.
"""

import resource
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Final

import anyio

from orchestrator.clock import utc_now
from tests.chaos.daemons import Fleet
from tests.chaos.databases import Base, PostgresOfOurOwn, SqliteFile
from tests.chaos.diary import Diary, Spell

FROZEN_LEASES: Final = 3.0
"""How long a daemon is frozen at most."""
SMALL_BYTES: Final = 8_192
"""Less than the write-ahead log has."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long troubles last, in seconds, from … to …."""

    quiet: tuple[float, float]
    dead: tuple[float, float]
    """Until a killed daemon or server is started again."""
    full: tuple[float, float]
    deaf: tuple[float, float]
    locked: tuple[float, float]


LONG: Final = Lengths(quiet=(1, 8), dead=(0, 4), full=(2, 10), deaf=(6, 15), locked=(30, 30))
BRIEF: Final = Lengths(quiet=(0.5, 2), dead=(0, 1), full=(1, 3), deaf=(5, 6), locked=(3, 5))


@dataclass
class Troubles:
    """All that can go wrong with daemons and their database."""

    lots: Random
    fleet: Fleet
    base: Base
    diary: Diary
    lease_s: float
    lengths: Lengths

    async def come(self, seconds: float) -> None:
        """Let one trouble follow the other for about so long, and each kind come at least once."""
        until = anyio.current_time() + seconds
        deck: list[str] = []
        kinds = self._kinds()
        while anyio.current_time() < until or len(self.diary.count_spells()) < len(kinds):
            await self._wait(self.lengths.quiet)
            deck = deck or self.lots.sample([*kinds], len(kinds))
            kind = deck.pop()
            began_at = utc_now()
            is_total = await kinds[kind]()
            spell = Spell(kind=kind, began_at=began_at, ended_at=utc_now(), is_total=is_total)
            self.diary.spells.append(spell)
            await self.fleet.revive()

    def _kinds(self) -> Mapping[str, Callable[[], Awaitable[bool]]]:
        """Return the troubles that this database can have; each returns whether it was total."""
        ours = {"kill": self._kill, "kill_all": self._kill_all, "freeze": self._freeze}
        match self.base:
            case SqliteFile() as file:
                return ours | {
                    "disk_full": self._fill_disk,
                    "foreign_lock": lambda: self._hold_lock(file),
                }
            case PostgresOfOurOwn() as server:
                return ours | {
                    "server_killed": lambda: self._fell(server, signal.SIGKILL),
                    "server_immediate": lambda: self._fell(server, signal.SIGQUIT),
                    "sessions_ended": lambda: self._end_sessions(server),
                    "listen_deaf": lambda: self._deafen(server),
                }

    # --- daemons ---

    async def _kill(self) -> bool:
        name = self.lots.choice(self.fleet.names)
        self.fleet.kill(name)
        await self._wait(self.lengths.dead)
        await self.fleet.start(name)
        return self._is_alone

    async def _kill_all(self) -> bool:
        for name in self.fleet.names:
            self.fleet.kill(name)
        await self._wait(self.lengths.dead)
        await self.fleet.start_all()
        return True

    async def _freeze(self) -> bool:
        name = self.lots.choice(self.fleet.names)
        self.fleet.freeze(name)
        await self._wait((0.2, FROZEN_LEASES * self.lease_s))
        self.fleet.thaw(name)
        return self._is_alone

    @property
    def _is_alone(self) -> bool:
        return len(self.fleet.names) == 1

    # --- SQLite ---

    async def _fill_disk(self) -> bool:
        (daemon,) = self.fleet.running.values()
        full = (SMALL_BYTES, resource.RLIM_INFINITY)
        limits = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, full)
        await self._wait(self.lengths.full)
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, limits)
        return True

    async def _hold_lock(self, file: SqliteFile) -> bool:
        await file.hold_lock(self.lots.uniform(*self.lengths.locked))
        return True

    # --- Postgres ---

    async def _fell(self, server: PostgresOfOurOwn, how: signal.Signals) -> bool:
        await server.fall(how, timedelta(seconds=self.lots.uniform(*self.lengths.dead)))
        return True

    async def _end_sessions(self, server: PostgresOfOurOwn) -> bool:
        await server.end_sessions()
        return False

    async def _deafen(self, server: PostgresOfOurOwn) -> bool:
        await server.go_deaf(self.lots.uniform(*self.lengths.deaf))
        return False

    async def _wait(self, length: tuple[float, float]) -> None:
        await anyio.sleep(self.lots.uniform(*length))
