"""Real daemons on a real database before simulated vendors: the scene of the daemon's tests.

Rule 1: a daemon is a process of its own, started by the command that users start it with.
Rule 2: nothing waits for a time. What is awaited is looked for until a deadline, and when that is
missed the failure shows the row, what it says of itself, its history and the daemons' logs.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from tests.daemon.application import (
    SQLITE,
    Application,
    Row,
    insert,
    open_application,
    quoted,
)
from tests.daemon.customers import CUSTOMERS, Customer
from tests.daemon.vendors import Vendors, serve_vendors

PATIENCE_S = 25.0
"""Longer than the horizon of a start whose reply was lost, twice."""
LOOK_EVERY_S = 0.02
LOG_SHOWN = 4_000
USER = "human"

T = TypeVar("T")
Table = dict[str, Any]


class _Given:
    """Equals everything but null."""

    __hash__ = None  # type: ignore[assignment]  # it equals too much

    def __eq__(self, other: object) -> bool:
        return other is not None

    def __repr__(self) -> str:
        return "anything but null"


GIVEN = _Given()


@dataclass
class Daemon:
    """One process of `orchestrator run`."""

    process: "subprocess.Popen[bytes]"
    log_path: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        """Return all it wrote to standard error."""
        return self.log_path.read_text("utf-8")

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines about an event."""
        # It may be in the middle of a line just now.
        whole, _, _ = self.log().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    async def ended(self, within_s: float = PATIENCE_S) -> int:
        """Wait for its end; return its exit code."""

        async def code() -> int | None:
            return self.process.poll()

        return await until(code, self.describe, within_s)

    async def stop(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        await self.ended()

    async def describe(self) -> str:
        return f"pid {self.pid}; its log:\n{self.log()[-LOG_SHOWN:]}"

    def peak_memory_kb(self) -> int:
        """Return the most memory it ever held."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0])


async def until(
    look: Callable[[], Awaitable[T | None]],
    awaited: Callable[[], Awaitable[str]],
    within_s: float = PATIENCE_S,
) -> T:
    """Look until there is something; after `within_s` fail, saying what was awaited."""
    give_up = anyio.current_time() + within_s
    while (found := await look()) is None:
        if anyio.current_time() > give_up:
            pytest.fail(f"after {within_s} s still awaited: {await awaited()}")
        await anyio.sleep(LOOK_EVERY_S)
    return found


@dataclass
class Scene:
    """A database, the vendors, and the daemons that a test starts."""

    folder: Path
    database_url: str
    app: Application
    vendors: Vendors
    settings: dict[str, Table] = field(default_factory=dict)
    """Tables of config.toml. A test may change them before it starts a daemon."""
    daemons: list[Daemon] = field(default_factory=list)

    @property
    def on_sqlite(self) -> bool:
        return self.database_url.startswith(SQLITE)

    def account(self, customer: Customer) -> Table:
        """Return an account's table, to be changed."""
        table: Table = self.settings["accounts"][customer.name]
        return table

    # --- daemons ---

    async def start_daemon(self, name: str = "one", **environ: str) -> Daemon:
        """Start a daemon and wait until it has said in the database that it runs."""
        daemon = self.launch(name, **environ)

        async def is_there() -> bool | None:
            if daemon.process.poll() is not None:
                pytest.fail(f"the daemon ended:\n{daemon.log()}")
            return True if await self.app.read(f"{_DAEMONS}{daemon.pid}") else None

        await until(is_there, daemon.describe)
        return daemon

    def launch(self, name: str = "one", *options: str, **environ: str) -> Daemon:
        """Start a daemon, whatever becomes of it."""
        config = self.write_config(name)
        log_path = self.folder / f"{name}-{len(self.daemons)}.log"
        command = [sys.executable, "-m", "orchestrator", "run", "-c", str(config), *options]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env={**os.environ, **environ}
            )
        daemon = Daemon(process, log_path)
        self.daemons.append(daemon)
        return daemon

    def write_config(self, name: str) -> Path:
        """Write the configuration of one daemon; return its path."""
        path = self.folder / f"{name}.toml"
        daemon = {**self.settings.get("daemon", {}), "name": name}
        path.write_text(to_toml({**self.settings, "daemon": daemon}), "utf-8")
        return path

    # --- rows ---

    async def ask_for(self, customer: Customer, id_: str, **columns: str) -> str:
        """Insert a task; return its id."""
        await self.app.write(task(customer, id_, **columns))
        return id_

    async def status(self, id_: str) -> Row:
        """Return the row of `agent_status`; empty if there is none."""
        rows = await self.app.read(f"{_STATUS}{quoted(id_)}")
        return rows[0] if rows else {}

    async def ledger(self, id_: str) -> list[Row]:
        """Return the rows of `vendor_agent`, oldest first."""
        return await self.app.read(f"{_LEDGER}{quoted(id_)} ORDER BY incarnation, announced_at")

    async def calls(self, id_: str) -> list[Row]:
        """Return the events of a task's calls, oldest first."""
        return await self.app.read(f"{_EVENTS}{quoted(id_)} AND event = 'call' ORDER BY id")

    async def wait(self, id_: str, within_s: float = PATIENCE_S, **wanted: object) -> Row:
        """Wait until a status has these values; return it."""

        async def look() -> Row | None:
            row = await self.status(id_)
            is_right = row and all(wanted[name] == row[name] for name in wanted)
            return row if is_right else None

        async def awaited() -> str:
            return f"{id_} as {wanted}\n{await self.describe(id_)}"

        return await until(look, awaited, within_s)

    async def wait_gone(self, id_: str) -> None:
        """Wait until nothing is left of a deleted task but its ledger and its history."""

        async def look() -> bool | None:
            return None if await self.status(id_) else True

        async def awaited() -> str:
            return f"the end of {id_}\n{await self.describe(id_)}"

        await until(look, awaited)

    async def wait_for_faults(self, within_s: float = PATIENCE_S) -> None:
        """Wait until every scripted fault has been met."""

        async def look() -> bool | None:
            return None if await self.vendors.faults_to_come() else True

        async def awaited() -> str:
            return f"faults to be met: {await self.vendors.faults_to_come()}\n{self.logs()}"

        await until(look, awaited, within_s)

    async def wait_for_calls(self, action: str, count: int, within_s: float = PATIENCE_S) -> None:
        """Wait until the vendors have answered so many calls of an action."""

        async def look() -> bool | None:
            return True if len(await self.vendors.calls(action)) >= count else None

        async def awaited() -> str:
            return f"{count} calls of {action}\n{self.logs()}"

        await until(look, awaited, within_s)

    async def describe(self, id_: str) -> str:
        """Return all there is to know of a task, for a failure."""
        explained = await self.app.read(f"{_EXPLAIN}{quoted(id_)}")
        parts = {
            "row": await self.status(id_),
            "explained": explained,
            "ledger": await self.ledger(id_),
            "history": await self.app.read(f"{_EVENTS}{quoted(id_)} ORDER BY id"),
        }
        told = [f"{name}: {json.dumps(part, default=str)}" for name, part in parts.items()]
        return "\n".join([*told, self.logs()])

    def logs(self) -> str:
        """Return the end of every daemon's log."""
        return "\n".join(f"log {d.log_path.name}:\n{d.log()[-LOG_SHOWN:]}" for d in self.daemons)


_STATUS = "SELECT * FROM agent_status WHERE task_id = "
_LEDGER = "SELECT * FROM vendor_agent WHERE task_id = "
_EVENTS = "SELECT * FROM agent_event WHERE task_id = "
_EXPLAIN = "SELECT * FROM task_explain WHERE task_id = "
_DAEMONS = "SELECT id FROM daemon WHERE pid = "


def task(customer: Customer, id_: str, **columns: str) -> str:
    """Return the INSERT of a task in a room of its own."""
    given = {
        "id": quoted(id_),
        "account": quoted(customer.name),
        "room_id": quoted(f"room-{id_}"),
        "user_id": quoted(USER),
        "spec": as_json(customer.spec),
    }
    return insert("agent_task", **{**given, **columns})


def as_json(value: object) -> str:
    """Return the SQL literal of a JSON value."""
    return quoted(json.dumps(value))


def usual_settings(database_url: str, vendors_url: str) -> dict[str, Table]:
    """Return a configuration whose times are as short as they may be."""
    shared = {
        "endpoint": vendors_url,
        "poll_s": 1,
        "settle_in_s": 1,
        "signature_life_s": 10,
        "clock_margin_s": 0,
        "call_timeout_ms": 2_000,
    }
    accounts = {one.name: {**shared, **one.settings} for one in CUSTOMERS}
    accounts["zego"]["rtc_endpoint"] = vendors_url
    return {
        "daemon": {"shutdown_timeout_s": 10},
        "database": {"url": database_url},
        "accounts": accounts,
        "leases": {"ttl_s": 5},
        "retry": {"base_ms": 50, "cap_ms": 1_000},
    }


def to_toml(tables: Mapping[str, Table]) -> str:
    """Return TOML. A table in a table is inline where it holds no table itself."""
    lines: list[str] = []
    for name, table in tables.items():
        nested = {k: v for k, v in table.items() if name in {"accounts", "llm_upstreams"}}
        for key, inner in nested.items():
            lines += [f"[{name}.{json.dumps(key)}]", *_pairs(inner)]
        if not nested:
            lines += [f"[{name}]", *_pairs(table)]
    return "\n".join([*lines, ""])


def _pairs(table: Table) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items()]


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(_pairs(value)) + " }"
    return json.dumps(value)


@asynccontextmanager
async def open_scene(database_url: str, folder: Path) -> AsyncIterator[Scene]:
    """Set the scene; end all daemons when it closes."""
    keys = [customer.keys for customer in CUSTOMERS]
    async with serve_vendors(keys) as vendors, open_application(database_url) as app:
        settings = usual_settings(database_url, vendors.url)
        scene = Scene(folder, database_url, app, vendors, settings)
        try:
            yield scene
        finally:
            for daemon in scene.daemons:
                daemon.process.kill()
                daemon.process.wait()
