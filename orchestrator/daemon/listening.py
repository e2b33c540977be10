"""Binds the ports that this daemon listens at: what all its servers share.

Rule 1: a port is bound before anything else begins, so that one that is taken is a sentence at the
start and not a surprise later.
"""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import UsageError

BACKLOG: Final = 128
IDLE_S: Final = 75.0
"""A connection that carries nothing for longer is closed."""

# Whoever speaks no HTTP to a port would else write a traceback into the log each time.
MUTE_LOG: Final = logging.getLogger(f"{__name__}.http")
MUTE_LOG.disabled = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """A place to listen at."""

    key: str
    """Where the configuration says so, for example `callbacks.listen`."""
    host: str
    port: int
    """0: any that is free; the log says which."""


@contextmanager
def bind(listen: Listen | None) -> Iterator[socket.socket | None]:
    """Hold a socket that listens there; nothing is to be heard: null.

    Raises UsageError, which names the key, if the place cannot be had.
    """
    if listen is None:
        yield None
        return
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        bound = socket.create_server((listen.host, listen.port), family=family, backlog=BACKLOG)
    except OSError as taken:
        where = f"{listen.host}:{listen.port}"
        why = taken.strerror or str(taken)
        raise UsageError(f"{listen.key}: cannot listen at {where}: {why}") from taken
    with bound:
        yield bound
