import struct
from pathlib import Path

import anyio
import pytest

from orchestrator.wake.inotify import _concerns, watch_file

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif("sys.platform != 'linux'", reason="inotify is Linux's"),
]


class Changes:
    def __init__(self) -> None:
        self._event = anyio.Event()

    def note(self) -> None:
        self._event.set()

    async def take(self) -> None:
        with anyio.fail_after(10):
            await self._event.wait()
        # What else has been written so far belongs to the same change.
        await anyio.wait_all_tasks_blocked()
        self._event = anyio.Event()

    @property
    def is_noted(self) -> bool:
        return self._event.is_set()


async def test_file_is_made_written_deleted_and_made_again(tmp_path: Path) -> None:
    log = tmp_path / "db-wal"
    changes = Changes()
    with watch_file(log, changes.note):
        for content in (b"one", b"two"):
            log.write_bytes(content)
            await changes.take()
            with log.open("r+b") as opened:
                opened.write(b"more")
                opened.flush()
                await changes.take()
            log.unlink()


async def test_other_files_do_not_count(tmp_path: Path) -> None:
    log, beside = tmp_path / "db-wal", tmp_path / "db-wal-2"
    changes, others = Changes(), Changes()
    with watch_file(log, changes.note), watch_file(beside, others.note):
        beside.write_bytes(b"x")
        await others.take()
        assert not changes.is_noted


def open_files() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = open_files()
    with watch_file(tmp_path / "db-wal", lambda: None):
        assert len(open_files()) == len(before) + 1
    assert open_files() == before


async def test_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    before = open_files()
    with (
        pytest.raises(FileNotFoundError, match="absent"),
        watch_file(tmp_path / "absent" / "db-wal", lambda: None),
    ):
        pass
    assert open_files() == before


def event(mask: int, name: bytes) -> bytes:
    padded = name + b"\0" * (-len(name) % 16) if name else b""
    return struct.pack("iIII", 1, mask, 0, len(padded)) + padded


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (b"", False),
        (event(2, b"db-wal"), True),
        (event(2, b"db-shm") + event(2, b"db-wal"), True),
        (event(2, b"db-shm") + event(2, b"db"), False),
        (event(0x4000, b""), True),  # IN_Q_OVERFLOW
        (event(0x8000, b""), False),  # IN_IGNORED
    ],
)
def test_events_are_told_apart(events: bytes, expected: bool) -> None:
    assert _concerns(events, b"db-wal") is expected
