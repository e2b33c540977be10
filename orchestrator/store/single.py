"""One daemon for one SQLite file: a lock file beside it that names its holder.

The lock is the kernel's and ends with the process, however that ends. The file stays: removing it
would let two daemons lock two files of one name.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.clock import utc_now
from orchestrator.errors import OrchestratorError, UsageError


@contextmanager
def hold_single_daemon(path: Path, name: str) -> Iterator[None]:
    """Hold the database file for the daemon `name` while the context lasts.

    Raises UsageError with the holder's name, process id, host and time if another holds it, or if
    the lock file is one that this user may not write; OrchestratorError if it cannot be written.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    except PermissionError as error:
        raise UsageError(f"cannot hold the database: {error}") from error
    except OSError as error:
        raise OrchestratorError(f"cannot hold the database: {error}") from error
    try:
        _take(descriptor, path)
        _sign(descriptor, name)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 4096).decode(errors="replace").strip()
        message = (
            f"{path} is held by the daemon {holder or '(starting)'}; one daemon at a time works "
            "on an SQLite file: stop that one, or use Postgres"
        )
        raise UsageError(message) from None


def _sign(descriptor: int, name: str) -> None:
    since = utc_now().strftime("%Y-%m-%d %H:%M:%S UTC")
    text = f"{name} pid {os.getpid()} on {socket.gethostname()} since {since}\n"
    # The lock is what counts: on a full disk it only has no name.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
