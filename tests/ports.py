"""Ports for servers that end and come back, or are not there at all.

They lie below those that the kernel gives to connections that leave. One of these would be taken
while its server is away: by whoever calls somebody else, or by a client that calls it so often that
it meets its own call on the way, and is connected to itself.
"""

import secrets
import socket
from contextlib import suppress

FIRST, LAST = 20_000, 32_000


def unused_port() -> int:
    """Return a port of the loopback at which nobody listens."""
    while True:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
