"""The programs of a measurement, each a process of its own: vendors, a model, and the daemon."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import Process

from benchmarks.application import Application

START_TIMEOUT_S: Final = 30
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def run_vendors() -> AsyncIterator[str]:
    """Run the simulated vendors and yield their URL."""
    async with _run_server(_orchestrator("simulate", "--listen", "127.0.0.1:0")) as url:
        yield url


@asynccontextmanager
async def run_model() -> AsyncIterator[str]:
    """Run the model that says when it says a word (`benchmarks.model`), and yield its URL."""
    async with _run_server([sys.executable, "-m", "benchmarks.model"]) as url:
        yield url


@asynccontextmanager
async def _run_server(command: list[str]) -> AsyncIterator[str]:
    """Run what prints a URL, and "ready" when it answers there."""
    async with _running(command, subprocess.PIPE) as process:
        if process.stdout is None:
            raise RuntimeError("a process without an output")
        said = ""
        with anyio.fail_after(START_TIMEOUT_S):
            while not said.rstrip().endswith("ready"):
                said += (await process.stdout.receive()).decode()
        found = re.search(r"http://\S+", said)
        if found is None:
            raise RuntimeError(f"no URL in {said!r}")
        yield found[0]


@asynccontextmanager
async def run_daemon(config: Path, application: Application) -> AsyncIterator[Process]:
    """Run the daemon and yield its process once it is at work. Its log is beside its file.

    It may be killed before the context ends.
    """
    known = {row[0] for row in await application.ask("SELECT id FROM daemon")}
    with config.with_suffix(".log").open("ab") as log:
        async with _running(_orchestrator("run", "-c", str(config)), log.fileno()) as process:
            await _until_registered(process, application, known, config)
            yield process


async def _until_registered(
    process: Process, application: Application, known: set[Any], config: Path
) -> None:
    with anyio.fail_after(START_TIMEOUT_S):
        while not {row[0] for row in await application.ask("SELECT id FROM daemon")} - known:
            if process.returncode is not None:
                raise RuntimeError(config.with_suffix(".log").read_text(encoding="utf-8"))
            await anyio.sleep(0.02)


@asynccontextmanager
async def _running(command: list[str], output: int) -> AsyncIterator[Process]:
    quiet: Mapping[str, str] = {**os.environ, "PYTHONUNBUFFERED": "1"}
    errors = subprocess.STDOUT if output != subprocess.PIPE else None
    async with await anyio.open_process(
        command, stdout=output, stderr=errors, env=quiet
    ) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def _orchestrator(*words: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", *words]


def can_read_processes() -> bool:
    """Return whether this system shows what a process has used, as Linux does in `/proc`."""
    return Path("/proc/self/stat").exists()


def cpu_s(process: Process) -> float:
    """Return the seconds of processor time that a process has used so far."""
    text = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii")
    # The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15.
    used = text.rpartition(")")[2].split()[11:13]
    return sum(int(ticks) for ticks in used) / TICKS_PER_S


def memory_mb(process: Process) -> float:
    """Return the resident memory of a process, MiB."""
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    if found is None:
        raise RuntimeError("a process without memory")
    return int(found[1]) / 1024
