"""The service as a test sees it: its configuration, its credentials, its database, its vendors."""

import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass

import anyio
import pytest

from tests.daemon.application import SQLITE, Application, Row, open_application, quoted
from tests.daemon.customers import CUSTOMERS, TENCENT, VOLCENGINE
from tests.daemon.running import Table, to_toml, usual_settings
from tests.daemon.vendors import Vendors, serve_vendors
from tests.service.machine import LOOK_EVERY_S, PATIENCE_S, SERVICE, Machine

CONFIG = "/etc/orchestrator"
DROP_INS = "/run/systemd/system"
DATABASE = "/var/lib/orchestrator/orchestrator.db"
QUICKER = "RestartSec=100ms\nWatchdogSec=6\n"
"""Times of the unit that a test need not wait out."""

_STATUS = "SELECT * FROM agent_status WHERE task_id = "


@dataclass
class Serving:
    """The service on a machine, before simulated vendors."""

    machine: Machine
    vendors: Vendors
    settings: dict[str, Table]
    """Tables of config.toml; `configure` writes them."""

    def configure(self, instance: str = "config") -> None:
        """Write the configuration of the service, or of an instance of the template."""
        path = self.machine.path(f"{CONFIG}/{instance}.toml")
        path.write_text(to_toml(self.settings), "utf-8")
        shutil.chown(path, group=self._group())
        path.chmod(0o640)

    def give_credential(self, vendor: str, name: str, value: str) -> None:
        """Put a key where the unit looks for it, readable by root alone."""
        path = self.machine.path(f"{CONFIG}/credentials/{vendor}/{name}")
        path.write_text(f"{value}\n", "utf-8")
        path.chmod(0o600)

    def take_credential(self, vendor: str, name: str) -> None:
        """Remove a key."""
        self.machine.path(f"{CONFIG}/credentials/{vendor}/{name}").unlink(missing_ok=True)

    async def drop_in(self, text: str) -> None:
        """Change the unit's [Service]."""
        folder = self.machine.path(f"{DROP_INS}/{SERVICE}.service.d")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(f"[Service]\n{text}", "utf-8")
        await self.machine.run("systemctl", "daemon-reload")

    async def start(self) -> int:
        """Start the service and wait until it is ready; return its main process."""
        self.configure()
        done = await self.machine.attempt("systemctl", "start", SERVICE)
        if done.returncode != 0:
            pytest.fail(await self.machine.journal())
        return await self.machine.main_pid()

    async def begin(self, unit: str = SERVICE) -> None:
        """Start a service and wait for nothing."""
        await self.machine.run("systemctl", "start", "--no-block", unit)

    @asynccontextmanager
    async def application(self) -> AsyncIterator[Application]:
        """Open the service's SQLite file as an application of the host."""
        file = self.machine.state / "orchestrator.db"
        async with open_application(f"{SQLITE}{file}") as app:
            yield app

    @contextmanager
    def held_lock(self) -> Iterator[None]:
        """Hold the write lock of the service's SQLite file, as a careless program would."""
        file = self.machine.state / "orchestrator.db"
        with closing(sqlite3.connect(file, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            yield

    async def wait_status(self, app: Application, id_: str, **wanted: object) -> Row:
        """Wait until a task's status has these values; return it."""
        give_up = anyio.current_time() + PATIENCE_S
        while True:
            rows = await app.read(f"{_STATUS}{quoted(id_)}")
            if rows and all(rows[0][name] == value for name, value in wanted.items()):
                return rows[0]
            if anyio.current_time() > give_up:
                pytest.fail(f"{id_} is {rows}, not {wanted}\n{await self.machine.journal()}")
            await anyio.sleep(LOOK_EVERY_S)

    def _group(self) -> int:
        for line in self.machine.path("/etc/group").read_text("utf-8").splitlines():
            name, _, number, _ = line.split(":")
            if name == SERVICE:
                return int(number)
        pytest.fail(f"there is no group {SERVICE}")

    async def clean(self) -> None:
        """End the services, and forget what they left."""
        await self.machine.attempt("systemctl", "stop", SERVICE, f"{SERVICE}@*")
        await self.machine.attempt("systemctl", "reset-failed")
        shutil.rmtree(self.machine.path(f"{DROP_INS}/{SERVICE}.service.d"), ignore_errors=True)
        await self.machine.run("systemctl", "daemon-reload")
        for path in self.machine.state.iterdir():
            path.unlink()


@asynccontextmanager
async def open_serving(machine: Machine) -> AsyncIterator[Serving]:
    """Set the service before simulated vendors; end it when the context closes."""
    await machine.run("systemd-sysusers", "/usr/local/lib/sysusers.d/orchestrator.conf")
    await machine.run("systemd-tmpfiles", "--create", "/usr/local/lib/tmpfiles.d/orchestrator.conf")
    async with serve_vendors([customer.keys for customer in CUSTOMERS]) as vendors:
        serving = Serving(machine, vendors, usual_settings(f"{SQLITE}{DATABASE}", vendors.url))
        for customer, vendor, name in (
            (VOLCENGINE, "volcengine", "secret_access_key"),
            (TENCENT, "tencent", "secret_key"),
        ):
            table = serving.settings["accounts"][customer.name]
            serving.give_credential(vendor, name, table[name])
            table[name] = {"credential": f"{vendor}_{name}"}
        await machine.forget_journal()
        try:
            yield serving
        finally:
            with anyio.CancelScope(shield=True):
                await serving.clean()
