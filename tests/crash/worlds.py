"""Worlds in which a daemon is killed or frozen, and what must be true in the end whatever happened.

A world is a scene (database, simulated vendors, daemons) with the same rows in each: every vendor,
and for each what its user wants while nobody works. Its times are as short as they may be, and they
are real: the simulated vendors enforce the life of a signature.
"""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import anyio
import pytest

from tests.daemon.application import Row, delete_task, quoted, update_task
from tests.daemon.customers import TENCENT, VOLCENGINE, VOLCENGINE_FIRST, ZEGO, Customer
from tests.daemon.running import Daemon, Scene, open_scene, task, until
from tests.daemon.vendors import doubled

PUPPET = Path(__file__).with_name("puppet.py")
PATIENCE_S = 90.0
"""Many horizons: several worlds share two cores."""
LEASE_S = 3
SIGNATURE_LIFE_S = 10
CLOCK_MARGIN_S = 1
SETTLE_IN_S = 1

VENDORS = (VOLCENGINE, VOLCENGINE_FIRST, TENCENT, ZEGO)


class Wish(StrEnum):
    """What the user wants while the daemon is away."""

    RUN = "run"
    STOP = "stop"
    DELETE = "delete"


@dataclass(frozen=True)
class Wished:
    """A row, and what its user will want."""

    id: str
    customer: Customer
    wish: Wish


@dataclass
class World:
    """A scene with its rows."""

    scene: Scene
    rows: Sequence[Wished]
    trap: Path

    async def insert(self) -> None:
        """Ask for all rows at once."""
        await self.scene.app.write(*(task(row.customer, row.id) for row in self.rows))

    def set_trap(self, step: str, verb: str, name: str) -> None:
        """Let the next daemon that comes to this step of such a call kill or freeze itself."""
        whole = self.trap.with_suffix(".whole")
        whole.write_text(f"{step} {verb} {name}\n", "ascii")
        whole.rename(self.trap)

    async def start(self, name: str) -> Daemon:
        """Start a daemon that minds the trap; wait until it has said that it runs."""
        scene = self.scene
        log_path = scene.folder / f"{name}-{len(scene.daemons)}.log"
        config_path = scene.write_config(name)
        process = launch(PUPPET, str(config_path), str(self.trap), log_path=log_path)
        daemon = Daemon(process, log_path)
        scene.daemons.append(daemon)

        async def is_there() -> bool | None:
            if process.poll() is not None:
                pytest.fail(f"the daemon ended:\n{daemon.log()}")
            return True if await scene.app.read(f"{_DAEMON}{daemon.pid}") else None

        await until(is_there, daemon.describe, PATIENCE_S)
        return daemon

    async def wait_sprung(self, *daemons: Daemon) -> Daemon:
        """Wait until one of these daemons has killed or frozen itself; return it."""

        async def look() -> Daemon | None:
            if not self.trap.with_suffix(".sprung").exists():
                return None
            return next((one for one in daemons if process_state(one.pid) in "TZ"), None)

        async def awaited() -> str:
            return f"a trap to spring\n{await self.describe()}"

        return await until(look, awaited, PATIENCE_S)

    async def change_minds(self) -> None:
        """Let every user wish what its row says; one that shall run has been stopped meanwhile."""
        statements = {
            Wish.RUN: lambda id_: update_task(id_, desired_state="'running'"),
            Wish.STOP: lambda id_: update_task(id_, desired_state="'stopped'"),
            Wish.DELETE: delete_task,
        }
        await self.scene.app.write(*(statements[row.wish](row.id) for row in self.rows))

    async def wait_phase(self, phase: str) -> None:
        """Wait until all rows are in a phase."""

        async def look() -> bool | None:
            rows = await self.scene.app.read(_PHASES)
            return True if {row["phase"] for row in rows} == {phase} else None

        async def awaited() -> str:
            return f"all {phase}\n{await self.describe()}"

        await until(look, awaited, PATIENCE_S)

    async def wait_leases_over(self, name: str) -> None:
        """Wait until the leases of a daemon that sleeps have ended, or others have its rows."""

        async def look() -> bool | None:
            held = f"{_LEASES}{quoted(name)}) AND lease_until > {self.scene.app.in_seconds(0)}"
            return None if await self.scene.app.read(held) else True

        async def awaited() -> str:
            return f"the end of what {name} holds\n{await self.describe()}"

        await until(look, awaited, PATIENCE_S)

    async def wait_taken_over(self, name: str) -> None:
        """Wait until another daemon has taken all changes, and the named one holds no row."""

        async def look() -> bool | None:
            held = await self.scene.app.read(f"{_LEASES}{quoted(name)})")
            return None if held or await self.scene.app.read(_CHANGES) else True

        async def awaited() -> str:
            return f"nothing left to {name}\n{await self.describe()}"

        await until(look, awaited, PATIENCE_S)

    async def wake(self, sleeper: Daemon, other: Daemon) -> None:
        """Wake a daemon whose rows another took, and let both go on, and end, one by one.

        What the sleeper had learnt it writes late, and perhaps when all is settled: then a ledger
        row opens again, and the other looks into it. So the vendors are compared when the sleeper
        has no more to say, and there is still somebody to look.
        """
        sleeper.process.send_signal(signal.SIGCONT)
        await self.wait_rows()
        assert await sleeper.stop() == 0
        await self.wait_settled()
        assert await other.stop() == 0
        await self.check_world()

    async def wait_settled(self) -> None:
        """Wait until the rows are as their users wish, with evidence; then compare the vendors."""
        await self.wait_rows()
        await self.check_world()

    async def wait_rows(self) -> None:
        """Wait until the rows are as their users wish, with evidence."""

        async def look() -> bool | None:
            return None if await self.unsettled() else True

        async def awaited() -> str:
            return f"{await self.unsettled()}\n{await self.describe()}"

        await until(look, awaited, PATIENCE_S)

    async def unsettled(self) -> list[str]:
        """Return what is not as it has to be in the end, by the rows alone."""
        phases = {row["task_id"]: row["phase"] for row in await self.scene.app.read(_PHASES)}
        changes = await self.scene.app.read(_CHANGES)
        wanted = {
            row.id: {Wish.RUN: "running", Wish.STOP: "stopped"}.get(row.wish) for row in self.rows
        }
        ledger: dict[str, int] = {}
        for agent in await self.scene.app.read(_OPEN_AGENTS):
            ledger[agent["task_id"]] = ledger.get(agent["task_id"], 0) + 1
        wrong = [f"{id_} is {phases.get(id_)}" for id_ in wanted if phases.get(id_) != wanted[id_]]
        wrong += [
            f"{id_} has {ledger.get(id_, 0)} open ledger rows"
            for id_, phase in wanted.items()
            if ledger.get(id_, 0) != (1 if phase == "running" else 0)
        ]
        return wrong + [f"{len(changes)} changes not taken" for _ in changes[:1]]

    async def check_world(self) -> None:
        """Compare the vendors' world with the rows, now and at every instant of the past."""
        agents = await self.scene.vendors.agents()
        assert doubled(agents) == [], await self.describe()
        # Volcengine's first version gives no handle: a stop goes by room and user.
        live = {a["room_id"]: a["handle"] or a["agent_user_id"] for a in agents if a["live"]}
        rows = await self.scene.app.read(_HANDLES)
        assert live == {f"room-{row['task_id']}": row["vendor_task_id"] for row in rows}, (
            await self.describe()
        )
        unproven = await self.scene.app.read(_UNPROVEN)
        assert not unproven, unproven

    async def describe(self) -> str:
        """Return all there is to know, for a failure."""
        parts: dict[str, Sequence[Row]] = {
            "rows": await self.scene.app.read(_STATUSES),
            "ledger": await self.scene.app.read(_LEDGER),
            "agents": await self.scene.vendors.agents(),
            "events": await self.scene.app.read(_EVENTS),
        }
        told = [f"{name}: {_lines(part)}" for name, part in parts.items()]
        return "\n".join([*told, self.scene.logs()])


_DAEMON = "SELECT id FROM daemon WHERE pid = "
_PHASES = "SELECT task_id, phase FROM agent_status"
_CHANGES = "SELECT seq FROM task_change"
_STATUSES = """SELECT task_id, phase, incarnation, retired, intent, reason, waiting_for, version,
    lease_owner, lease_until, due_at, stop_due_at FROM agent_status ORDER BY task_id"""
_LEDGER = """SELECT task_id, incarnation, try, vendor_task_id, announced_at, horizon_at, hinted_at,
    kicked_at, ended_at, evidence FROM vendor_agent ORDER BY task_id, announced_at"""
_EVENTS = """SELECT task_id, at, actor, incarnation, event, action, outcome, code, message,
    phase_before, phase_after FROM agent_event ORDER BY task_id, id"""
_OPEN_AGENTS = "SELECT task_id FROM vendor_agent WHERE ended_at IS NULL"
_HANDLES = "SELECT task_id, vendor_task_id FROM vendor_agent WHERE ended_at IS NULL"
_UNPROVEN = "SELECT * FROM vendor_agent WHERE ended_at IS NOT NULL AND evidence IS NULL"
_LEASES = """SELECT task_id FROM agent_status
    WHERE lease_owner IN (SELECT id FROM daemon WHERE name = """


def _lines(rows: Sequence[Row]) -> str:
    return "".join(f"\n  {json.dumps(row, default=str)}" for row in rows)


def launch(
    script: Path, *arguments: str, log_path: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start a script of ours; what it says goes to `log_path`, or where the tests' words go."""
    command = [sys.executable, str(script), *arguments]
    if log_path is None:
        return subprocess.Popen(command)
    with log_path.open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def process_state(pid: int) -> str:
    """Return the state letter of a process: T is stopped, Z has ended and is not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def every_wish(customers: Sequence[Customer], copies: int = 1) -> list[Wished]:
    """Return rows of each vendor for each wish."""
    return [
        Wished(f"{customer.name}-{wish}-{n}", customer, wish)
        for customer in customers
        for wish in Wish
        for n in range(copies)
    ]


async def run_side_by_side(works: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
    """Run worlds at the same time, each to its end; then raise what went wrong in any."""
    failures: list[Exception] = []

    async def run(name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as failure:  # noqa: BLE001 - raised below, when the others have ended
            failure.add_note(f"in the world {name}")
            failures.append(failure)

    async with anyio.create_task_group() as worlds:
        for name, work in works.items():
            worlds.start_soon(run, name, work)
    if failures:
        raise ExceptionGroup("worlds that ended wrong", failures)


@asynccontextmanager
async def open_world(url: str, folder: Path, rows: Sequence[Wished]) -> AsyncIterator[World]:
    """Set up a world; end all its daemons when it closes."""
    await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
    async with open_scene(url, folder) as scene:
        for table in scene.settings["accounts"].values():
            table |= {
                "signature_life_s": SIGNATURE_LIFE_S,
                "clock_margin_s": CLOCK_MARGIN_S,
                "settle_in_s": SETTLE_IN_S,
                "call_timeout_ms": 1_000,
                "poll_s": 1,
            }
        scene.settings["leases"] = {"ttl_s": LEASE_S}
        if not scene.on_sqlite:
            scene.settings["database"]["pool_size"] = 4
        try:
            yield World(scene, rows, folder / "trap")
        except pytest.fail.Exception as failed:
            # Worlds run side by side, and pytest knows no failure among several exceptions.
            raise AssertionError(str(failed)) from None
