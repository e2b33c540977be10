"""Drills: a daemon is killed or frozen at a named step, and what must be true whatever happened.

A drill is a scene of its own (database, simulated vendors, daemons) with a row for each vendor and
each wish that its user may come to while nobody works. Its times are as short as the configuration
allows, and they are real: the simulated vendors refuse a signature that has run out.
"""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import anyio
import pytest

from orchestrator.core.model import Verb
from tests.daemon.application import delete_task, quoted, update_task
from tests.daemon.customers import TENCENT, VOLCENGINE, VOLCENGINE_FIRST, ZEGO, Customer
from tests.daemon.running import Daemon, Scene, open_scene, task, until
from tests.resilience.convergence import PATIENCE_S, describe, wait_converged

PUPPET = Path(__file__).with_name("puppet.py")
LEASE_S = 3
CALL_TIMEOUT_MS = 800
HANGS_MS = 60_000
"""Longer than any daemon waits."""
HORIZON_S = LEASE_S + 11
"""After its lease: what is left of a signature, and what a vendor takes to know its own task."""
AT_ONCE = 7
"""Drills at a time."""

SENT = "sent"
"""The request has arrived and the reply has not left. Only the vendor knows this step."""
ALL = ("drawn", "claiming", "claimed", "leaving", SENT, "answered", "settling", "settled")
STEPS = {
    Verb.START: ALL,
    Verb.STOP: ALL,
    Verb.FIND: ("claimed", "leaving", "answered", "settling"),
    Verb.KICK: ("claiming", "leaving", "answered", "settled"),
}


class Wish(StrEnum):
    """What a row's user comes to want while nobody works."""

    RUN = "run"
    STOP = "stop"
    DELETE = "delete"
    AGAIN = "again"
    """Stopped, and then running again: the next incarnation."""


@dataclass(frozen=True)
class Wished:
    """A row, and what its user will want."""

    customer: Customer
    wish: Wish

    @property
    def id(self) -> str:
        return f"{self.customer.name}-{self.wish}"

    def change(self) -> tuple[str, ...]:
        """Return what the user writes."""
        stop = update_task(self.id, desired_state="'stopped'")
        match self.wish:
            case Wish.RUN:
                return ()
            case Wish.STOP:
                return (stop,)
            case Wish.DELETE:
                return (delete_task(self.id),)
            case Wish.AGAIN:
                return (stop, update_task(self.id, desired_state="'running'"))

    @property
    def phase_in_the_end(self) -> str | None:
        match self.wish:
            case Wish.RUN | Wish.AGAIN:
                return "running"
            case Wish.STOP:
                return "stopped"
            case Wish.DELETE:
                return None


@dataclass(frozen=True)
class Blow:
    """What strikes a daemon, and where."""

    step: str
    verb: Verb
    signal: signal.Signals

    @property
    def customers(self) -> tuple[Customer, ...]:
        """Those whose rows come to such a call."""
        match self.verb:
            case Verb.FIND:
                return (TENCENT,)
            case Verb.KICK:
                return (ZEGO,)
            case _ if self.step in {"claimed", "leaving"}:
                return (VOLCENGINE, VOLCENGINE_FIRST, TENCENT, ZEGO)
            case _:
                return (VOLCENGINE, TENCENT, ZEGO)


@dataclass
class Drill:
    """A scene with its rows."""

    scene: Scene
    rows: Sequence[Wished]

    # --- users ---

    async def insert(self) -> None:
        """Ask for all rows at once."""
        await self.scene.app.write(*(task(row.customer, row.id) for row in self.rows))

    async def change_minds(self) -> None:
        """Let every user come to want what the row says, all at once."""
        await self.scene.app.write(*(said for row in self.rows for said in row.change()))

    # --- daemons ---

    def launch(self, blow: Blow) -> Daemon:
        """Start a daemon that will strike itself."""
        scene = self.scene
        config, log_path = scene.write_config("one"), scene.folder / "one.log"
        words = [str(config), blow.step, blow.verb.value, blow.signal.name]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(PUPPET), *words], cwd=Path.cwd(), stdout=log, stderr=log
            )
        daemon = Daemon(process, log_path)
        scene.daemons.append(daemon)
        return daemon

    async def strike(self, blow: Blow) -> Daemon:
        """Run a daemon into the blow; return it, killed or frozen, with all minds changed.

        But for those whose users have to wait for the lock that it holds.
        """
        match blow.verb:
            case Verb.START:
                return await self._strike_start(blow)
            case Verb.STOP:
                return await self._strike_stop(blow)
            case _:
                return await self._strike_unknown(blow)

    async def _strike_start(self, blow: Blow) -> Daemon:
        if blow.step == SENT:
            await self._hold_replies({c.start: len(Wish) for c in blow.customers})
        await self.insert()
        daemon = self.launch(blow)
        await self.wait_struck(daemon, blow)
        if not self.holds_lock(blow):
            await self.change_minds()
        return daemon

    async def _strike_stop(self, blow: Blow) -> Daemon:
        await self.insert()
        daemon = self.launch(blow)
        await self.wait_phase("running")
        if blow.step == SENT:
            await self._hold_replies({c.stop: len(Wish) - 1 for c in blow.customers})
        await self.change_minds()
        await self.wait_struck(daemon, blow)
        return daemon

    async def _strike_unknown(self, blow: Blow) -> Daemon:
        """Lose the replies of all starts, so that the daemon has to look, or to kick."""
        await self._hold_replies({c.start: len(Wish) for c in blow.customers})
        await self.insert()
        daemon = self.launch(blow)
        if blow.verb is Verb.KICK:  # only what is not wanted any more is kicked
            await self.scene.wait_for_faults()
            await self.change_minds()
            await self.wait_struck(daemon, blow)
            return daemon
        await self.wait_struck(daemon, blow)
        if not self.holds_lock(blow):
            await self.change_minds()
        return daemon

    def holds_lock(self, blow: Blow) -> bool:
        """Return whether the daemon, while frozen, keeps everybody from writing."""
        is_inside = blow.step in {"claiming", "settling"}
        return is_inside and blow.signal is signal.SIGSTOP and self.scene.on_sqlite

    async def _hold_replies(self, calls: dict[str, int]) -> None:
        for action, count in calls.items():
            await self.scene.vendors.script(action, "delay_reply", n=count, ms=HANGS_MS)

    async def wait_struck(self, daemon: Daemon, blow: Blow) -> None:
        """Wait until a daemon is killed or frozen; strike it if only the vendor knows the step."""
        if blow.step == SENT:
            await self.scene.wait_for_faults()
            daemon.process.send_signal(blow.signal)

        async def look() -> bool | None:
            return True if state_of(daemon) in _STRUCK[blow.signal] else None

        async def awaited() -> str:
            return f"{blow}\n{await self.describe()}"

        await until(look, awaited, PATIENCE_S)

    # --- time ---

    async def wait_seconds(self, seconds: int) -> None:
        """Wait until the database's clock has gone on: no event tells of a lease's end."""
        app = self.scene.app
        (begun,) = await app.read(f"SELECT {app.in_seconds(seconds)} AS ends_at")

        async def look() -> bool | None:
            (now,) = await app.read(f"SELECT {app.in_seconds(0)} AS at")
            return True if now["at"] > begun["ends_at"] else None

        await until(look, self.describe, PATIENCE_S)

    async def wait_call_by(self, name: str) -> None:
        """Wait until a daemon has settled a call."""

        async def look() -> bool | None:
            calls = await self.scene.app.read(f"{_CALLS_BY}{quoted(name)}")
            return True if calls else None

        await until(look, self.describe, PATIENCE_S)

    # --- what must be true ---

    async def wait_phase(self, phase: str) -> None:
        """Wait until all rows are in a phase."""

        async def look() -> bool | None:
            rows = await self.scene.app.read(_PHASES)
            return True if {row["phase"] for row in rows} == {phase} else None

        async def awaited() -> str:
            return f"all {phase}\n{await self.describe()}"

        await until(look, awaited, PATIENCE_S)

    async def wait_converged(self) -> None:
        """Wait until the rows are as their users want, and the vendors' world is as the rows."""
        await wait_converged(self.scene, {row.id: row.phase_in_the_end for row in self.rows})

    async def describe(self) -> str:
        return await describe(self.scene)


_STRUCK = {signal.SIGKILL: "Z", signal.SIGSTOP: "T"}
_PHASES = "SELECT task_id, phase FROM agent_status"
_CALLS_BY = "SELECT id FROM agent_event WHERE event = 'call' AND actor = "


def state_of(daemon: Daemon) -> str:
    """Return the state letter of its process: T is frozen, Z has ended."""
    if daemon.process.poll() is not None:
        return "Z"
    return Path(f"/proc/{daemon.pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]


def rows_of(customers: Collection[Customer]) -> list[Wished]:
    """Return a row for each account and each wish."""
    return [Wished(customer, wish) for customer in customers for wish in Wish]


def shorten(scene: Scene) -> None:
    """Let calls and leases end soon, and each daemon have few connections."""
    for table in scene.settings["accounts"].values():
        table["call_timeout_ms"] = CALL_TIMEOUT_MS
    scene.settings["leases"] = {"ttl_s": LEASE_S}
    if not scene.on_sqlite:
        scene.settings["database"]["pool_size"] = 4


@asynccontextmanager
async def open_drill(
    url: str, folder: Path, customers: Collection[Customer]
) -> AsyncIterator[Drill]:
    """Set up a drill; end all its daemons when it closes."""
    await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
    async with open_scene(url, folder) as scene:
        shorten(scene)
        yield Drill(scene, rows_of(customers))


Round = Callable[[Blow], Awaitable[None]]


async def run_all(blows: Sequence[Blow], drill_of: Round) -> None:
    """Run a drill for each blow, several at a time; fail with what is wrong in each."""
    wrong: dict[Blow, str] = {}
    places = anyio.CapacityLimiter(AT_ONCE)

    async def run_one(blow: Blow) -> None:
        async with places:
            try:
                await drill_of(blow)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - told below
                wrong[blow] = f"{type(error).__name__}: {error}"

    async with anyio.create_task_group() as tasks:
        for blow in blows:
            tasks.start_soon(run_one, blow)
    if wrong:
        pytest.fail("\n\n".join(f"=== {blow}\n{text}" for blow, text in wrong.items()))
