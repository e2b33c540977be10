"""How a session is left by a daemon that froze while its driver prepared a statement."""

from typing import Any, Final

_PARSE: Final = b"P\x00\x00\x00\x10\x00SELECT 1\x00\x00\x00"
"""The message in which a statement without a name is parsed."""
_FLUSH: Final = b"H\x00\x00\x00\x04"


def say_half_a_command(connection: Any) -> None:
    """Ask for a statement on a connection of asyncpg's, and leave out the Sync that ends it."""
    send(connection, _PARSE + _FLUSH)


def send(connection: Any, message: bytes) -> None:
    """Send a message of the protocol by the socket of a connection of asyncpg's."""
    connection._transport.write(message)
