"""A throw-away machine for a test: a real systemd as PID 1 of its own namespaces.

Rule 1: it ends with the test, however that ends: all its processes are one PID namespace, whose
first process dies with its launcher, and the launcher with this process. Its mounts and its control
groups go with it.
Rule 2: what it lacks on this machine is said in words (`missing`), never found out by a failure.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

PATIENCE_S = 60.0
LOOK_EVERY_S = 0.05
SERVICE = "orchestrator"
BOOT = Path(__file__).with_name("boot.py")
NAMESPACES = ("--pid", "--mount", "--cgroup", "--uts", "--ipc")
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "umount", "pivot_root", "make")


def missing() -> list[str]:
    """Return what this machine lacks for another one inside of it; empty: nothing."""
    if sys.platform != "linux":
        return ["Linux"]
    lacks = [f"the command {tool}" for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        lacks.append("root")
    if not Path("/lib/systemd/systemd").exists():
        lacks.append("systemd (it need not run)")
    known = Path("/proc/filesystems").read_text("ascii").split()
    lacks += [f"the file system {kind}" for kind in ("overlay", "cgroup2") if kind not in known]
    return lacks


@dataclass
class Machine:
    """A machine that runs."""

    pid: int
    """Of its systemd, as the host counts."""
    state: Path
    """Its /var/lib/orchestrator, as the host sees it."""
    window: Path
    """Its /srv/window."""

    def path(self, inside: str) -> Path:
        """Return a path to one of its files that this process can open."""
        return Path(f"/proc/{self.pid}/root{inside}")

    async def run(self, *command: str) -> str:
        """Run a command in it; return what it printed. Fails if the command does."""
        done = await self.attempt(*command)
        assert done.returncode == 0, f"{command}: {done.stderr.decode()}{done.stdout.decode()}"
        return done.stdout.decode()

    async def attempt(self, *command: str) -> "subprocess.CompletedProcess[bytes]":
        """Run a command in it, whatever becomes of it."""
        return await anyio.run_process(
            ["nsenter", "--target", str(self.pid), "--all", *command], check=False
        )

    async def show(self, unit: str, name: str) -> str:
        """Return a property of a unit, as systemd spells it."""
        return (await self.run("systemctl", "show", "--property", name, "--value", unit)).strip()

    async def main_pid(self, unit: str = SERVICE) -> int:
        """Return the main process of a unit, as the machine counts; 0: there is none."""
        return int(await self.show(unit, "MainPID"))

    async def wait(self, unit: str, **wanted: str) -> None:
        """Wait until properties of a unit begin with these values."""
        give_up = anyio.current_time() + PATIENCE_S
        while True:
            found = {name: await self.show(unit, name) for name in wanted}
            if all(found[name].startswith(wanted[name]) for name in wanted):
                return
            if anyio.current_time() > give_up:
                pytest.fail(f"{unit}: {found}, not {wanted}\n{await self.journal()}")
            await anyio.sleep(LOOK_EVERY_S)

    async def wait_for_line(self, part: str) -> str:
        """Wait until the journal holds a line with this in it; return the first."""
        give_up = anyio.current_time() + PATIENCE_S
        while not (lines := await self.lines(part)):
            if anyio.current_time() > give_up:
                pytest.fail(f"no {part!r} in the journal:\n{await self.journal()}")
            await anyio.sleep(LOOK_EVERY_S)
        return lines[0]

    async def lines(self, part: str) -> list[str]:
        """Return the journal's lines with this in them."""
        return [line for line in (await self.journal()).splitlines() if part in line]

    async def journal(self) -> str:
        """Return what was logged since the last `forget_journal`."""
        await self.run("journalctl", "--sync")
        return await self.run("journalctl", "--output", "cat", "--no-pager", "--quiet")

    async def forget_journal(self) -> None:
        """Empty the journal."""
        await self.run("journalctl", "--sync")
        await self.run("journalctl", "--rotate", "--vacuum-size=1", "--quiet")


@contextmanager
def booted(folder: Path, image: Path) -> Iterator[Machine]:
    """Boot a machine with what is installed in `image`; end it and all of it when the test does."""
    for name in ("state", "window"):
        (folder / name).mkdir()
    (folder / "window").chmod(0o755)
    with _control_group(folder) as group, (folder / "console").open("wb") as console:
        launcher = _launch(group, folder, image, console.fileno())
        try:
            pid = _first_process(launcher)
            _wait_until_up(pid, folder / "console")
            yield Machine(pid, folder / "state", folder / "window")
        finally:
            launcher.kill()  # and with it, by --kill-child, the machine
            launcher.wait()


@contextmanager
def _control_group(folder: Path) -> Iterator[Path]:
    with _cgroup_root(folder / "cgroups") as root:
        group = root / f"orchestrator-test-{os.getpid()}-{folder.name}"
        group.mkdir()
        try:
            yield group
        finally:
            _empty(group)
            for inner in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
                inner.rmdir()
            group.rmdir()


def _empty(group: Path) -> None:
    """Wait until no process is left in a control group: they are being killed."""
    give_up = time.monotonic() + PATIENCE_S  # noqa: TID251 - processes are waited for
    while "populated 1" in (group / "cgroup.events").read_text("ascii"):
        if time.monotonic() > give_up:  # noqa: TID251 - as above
            pytest.fail(f"the machine does not end: see {group}/cgroup.procs")
        time.sleep(LOOK_EVERY_S)


@contextmanager
def _cgroup_root(own: Path) -> Iterator[Path]:
    """Find where this machine has its control groups of version 2; else mount them at `own`."""
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(place, os.W_OK):
            yield Path(place)
            return
    own.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(own)], check=True)
    try:
        yield own
    finally:
        subprocess.run(["umount", str(own)], check=True)


def _launch(group: Path, folder: Path, image: Path, console: int) -> "subprocess.Popen[bytes]":
    """Start what starts systemd in namespaces of its own, and dies with this process."""
    enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    boot = (sys.executable, str(BOOT), str(folder), str(image))
    unshare = ("setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child", *NAMESPACES)
    return subprocess.Popen(
        ["sh", "-c", enter, "sh", *unshare, *boot],
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
    )


def _first_process(launcher: "subprocess.Popen[bytes]") -> int:
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    while launcher.poll() is None:
        if found := children.read_text("ascii").split():
            return int(found[0])
        time.sleep(LOOK_EVERY_S)
    pytest.fail("the launcher of the machine ended")


def _wait_until_up(pid: int, console: Path) -> None:
    command = ("nsenter", "--target", str(pid), "--all", "systemctl", "is-active", "test.target")
    give_up = time.monotonic() + PATIENCE_S  # noqa: TID251 - a boot is waited for
    while not _succeeds(command):
        if not Path(f"/proc/{pid}").exists() or time.monotonic() > give_up:  # noqa: TID251 - as above
            pytest.fail(f"the machine did not boot:\n{console.read_text(errors='replace')}")
        time.sleep(LOOK_EVERY_S)


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
