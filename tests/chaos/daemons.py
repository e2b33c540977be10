"""The daemons of a run: processes that are killed, frozen and started again.

Rule: what a daemon says goes through a pipe. A disk that is full for the database is none for the
log, as under systemd.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio

from tests.chaos.diary import Diary
from tests.daemon.running import Daemon, to_toml

START_S: Final = 60
"""How long a daemon may take to start on a machine that does much else."""
LOOK_EVERY_S: Final = 0.05


class NotStartedError(RuntimeError):
    """A daemon did not start."""


@dataclass
class Fleet:
    """All daemons, by name. Each has a configuration of its own."""

    folder: Path
    configs: Mapping[str, Mapping[str, dict[str, Any]]]
    diary: Diary
    running: dict[str, Daemon] = field(default_factory=dict)
    _launched: int = 0
    _keepers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return list(self.configs)

    async def start(self, name: str) -> None:
        """Start a daemon; return when it has said that it runs."""
        self.running[name] = daemon = self._launch(name)
        with anyio.move_on_after(START_S):
            while daemon.process.poll() is None:
                if daemon.events("started"):
                    return
                await anyio.sleep(LOOK_EVERY_S)
        raise NotStartedError(await daemon.describe())

    async def start_all(self) -> None:
        """Start all that do not run."""
        async with anyio.create_task_group() as starts:
            for name in self.names:
                if name not in self.running:
                    starts.start_soon(self.start, name)

    def kill(self, name: str) -> None:
        """End a daemon as a power cut would."""
        daemon = self.running.pop(name)
        self._note_death(name, daemon)
        daemon.process.kill()
        daemon.process.wait()

    def freeze(self, name: str) -> None:
        """Stop its time."""
        self.running[name].process.send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let its time go on."""
        self.running[name].process.send_signal(signal.SIGCONT)

    async def revive(self) -> None:
        """Note who ended by itself, and start it again."""
        for name, daemon in list(self.running.items()):
            if daemon.process.poll() is not None:
                self._note_death(name, daemon)
                del self.running[name]
        await self.start_all()

    async def stop_all(self) -> None:
        """Ask all to end; note who does not end well."""
        for name, daemon in self.running.items():
            code = await daemon.stop()
            if code != 0:
                self.diary.deaths.append(f"{name} ended with {code} when asked to stop")

    def end(self) -> None:
        """Leave no process behind."""
        for daemon in self.running.values():
            daemon.process.kill()
            daemon.process.wait()
        for keeper in self._keepers:
            keeper.wait()

    def _note_death(self, name: str, daemon: Daemon) -> None:
        code = daemon.process.poll()
        if code is not None:
            self.diary.deaths.append(f"{name} ended by itself with {code}; log {daemon.log_path}")

    def _launch(self, name: str) -> Daemon:
        self._launched += 1
        config_path = self.folder / f"{name}.toml"
        config_path.write_text(to_toml(self.configs[name]), "utf-8")
        log_path = self.folder / f"{name}-{self._launched}.log"
        with log_path.open("wb") as log:
            keeper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
        self._keepers.append(keeper)
        if keeper.stdin is None:
            raise NotStartedError("no pipe for the log")
        with keeper.stdin as pipe:
            command = [sys.executable, "-m", "orchestrator", "run", "-c", str(config_path)]
            process = subprocess.Popen(command, stdout=pipe, stderr=pipe, env={**os.environ})
        return Daemon(process, log_path)


@asynccontextmanager
async def open_fleet(
    folder: Path, configs: Mapping[str, Mapping[str, dict[str, Any]]], diary: Diary
) -> AsyncIterator[Fleet]:
    """Yield daemons that are not started yet; end all when it closes."""
    fleet = Fleet(folder, configs, diary)
    try:
        yield fleet
    finally:
        fleet.end()
