"""One installation and one machine for all tests of the service, and a service for each."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.service.machine import Machine, booted, missing
from tests.service.serving import Serving, open_serving

ROOT = Path(__file__).parents[2]
FIGURE = pytest.StashKey[str]()
"""What `systemd-analyze security` says, for the summary."""


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make install` writes, below a directory of its own."""
    folder = tmp_path_factory.mktemp("image")
    done = subprocess.run(
        ["make", "--no-print-directory", "install", f"DESTDIR={folder}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def bootable() -> None:
    """Fail in CI, and skip elsewhere, where no machine can be booted."""
    lacks = ", ".join(missing())
    if lacks and "CI" in os.environ:
        pytest.fail(f"the service must be tried under a real systemd; this machine lacks {lacks}")
    if lacks:
        pytest.skip(f"no systemd can be booted: this machine lacks {lacks}")


@pytest.fixture(scope="session")
def machine(
    bootable: None, image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A machine on which the service is installed, and does not run."""
    del bootable  # asked for, so that nothing is installed in vain
    with booted(tmp_path_factory.mktemp("machine"), image) as running:
        yield running


@pytest.fixture
async def serving(machine: Machine, anyio_backend: str) -> AsyncIterator[Serving]:
    """The service before simulated vendors, with a configuration that works and no database."""
    del anyio_backend  # asked for, so that it is there before this
    async with open_serving(machine) as opened:
        yield opened


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print how exposed the service is."""
    if figure := config.stash.get(FIGURE, None):
        terminalreporter.section("systemd-analyze security")
        terminalreporter.write_line(figure)
