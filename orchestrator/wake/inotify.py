"""Linux's inotify for one file in one directory, as a callback in the event loop.

The directory is watched, not the file: so a file that is not there yet, or that is deleted and
made again, needs no second watch. The price is an event, thrown away here, for each write to
another file beside it.

Numbers and the layout of `struct inotify_event`: inotify(7).
"""

import asyncio
import ctypes
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_IN_MODIFY: Final = 0x00000002
_IN_MOVED_TO: Final = 0x00000080
_IN_CREATE: Final = 0x00000100
_IN_Q_OVERFLOW: Final = 0x00004000
_IN_ONLYDIR: Final = 0x01000000
_WATCHED: Final = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE | _IN_ONLYDIR

_EVENT: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_READ_BYTES: Final = 1 << 16


@contextmanager
def watch_file(file: Path, changed: Callable[[], None]) -> Iterator[None]:
    """Call `changed` in the running loop when `file` is written to, made, or moved into place.

    Raises:
        OSError: There is no inotify here, or none left, or no directory to watch.
    """
    descriptor = _open_watch(file.parent)
    loop = asyncio.get_running_loop()
    name = os.fsencode(file.name)

    def drain() -> None:
        if _concerns(os.read(descriptor, _READ_BYTES), name):
            changed()

    try:
        loop.add_reader(descriptor, drain)
        yield
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _open_watch(directory: Path) -> int:
    """Return a descriptor that becomes readable when something happens in the directory."""
    if sys.platform != "linux":
        raise OSError("inotify is Linux's")
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    if libc.inotify_add_watch(descriptor, os.fsencode(directory), _WATCHED) < 0:
        code = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(code, os.strerror(code), str(directory))
    return descriptor


def _concerns(events: bytes, name: bytes) -> bool:
    """Tell whether one of the events is about the file, or some events were lost."""
    at = 0
    while at < len(events):
        _, mask, _, length = _EVENT.unpack_from(events, at)
        at += _EVENT.size
        if mask & _IN_Q_OVERFLOW or events[at : at + length].rstrip(b"\0") == name:
            return True
        at += length
    return False
