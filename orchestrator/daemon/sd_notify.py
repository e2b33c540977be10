"""What a service manager hears from this process: systemd's notification protocol.

A message is one datagram of `KEY=value` lines to the Unix socket that $NOTIFY_SOCKET names
(sd_notify(3), https://www.freedesktop.org/software/systemd/man/252/sd_notify.html). It is written
here because it is this short, and no library for it that does no more is kept up.

Rule 1: nothing waits for the service manager, and nothing fails because of it.
Rule 2: who runs under none has a `Notifier` too, to which nobody listens.
"""

import socket
from typing import Final

from orchestrator.clock import monotonic_us

STATUS_MAX: Final = 200
"""Characters of a status: `systemctl status` shows one line."""


class Notifier:
    """Tells the service manager.

    Args:
        address: the socket's path; `@` in front means the abstract one of that name. Null: nobody
            listens.
        watchdog_s: how long this process may be silent before it is ended; null: for ever.
    """

    def __init__(self, address: str | None, watchdog_s: float | None) -> None:
        self._address = None if address is None else _spell_abstract(address)
        self._said = ""
        self.watchdog_s = watchdog_s if address else None
        self.is_heard = address is not None

    def ready(self) -> bool:
        """Say that the start, or a reload, is finished. Return false if it is to be said again.

        A service manager that is busy takes no more messages, and no later one tells of this.
        """
        return self._tell("READY=1")

    def reloading(self) -> None:
        """Say that a reload begins; `ready` ends it. From systemd 253 on the time is asked for."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_us()}")

    def stopping(self, within_s: float) -> None:
        """Say that this process will end within so many seconds, and give no sign of life again.

        It is given that time, however short the unit's own TimeoutStopSec= is.
        """
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within_s * 1_000_000)}")

    def alive(self) -> None:
        """Give a sign of life."""
        self._tell("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Say in one line what this process does; the same line is not said twice."""
        line = " ".join(text.split())[:STATUS_MAX]
        if line != self._said:
            self._said = line
            self._tell(f"STATUS={line}")

    def _tell(self, *lines: str) -> bool:
        """Return whether it was told, as far as anybody is there to be told."""
        if self._address is None:
            return True
        try:
            self._send("\n".join(lines).encode(), self._address)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    @staticmethod
    def _send(message: bytes, address: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
            telling.settimeout(0)
            telling.sendto(message, address)


def _spell_abstract(address: str) -> str:
    return f"\0{address[1:]}" if address.startswith("@") else address


SILENT: Final = Notifier(None, None)
"""To which nobody listens."""
