"""What a service manager hears: the protocol on a real socket, and when a daemon says what."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from orchestrator.config import ServiceManager, read_service_manager
from orchestrator.daemon.pulse import Loop, Pulse
from orchestrator.daemon.sd_notify import SILENT, STATUS_MAX, Notifier
from orchestrator.daemon.service import Service, spell
from orchestrator.store.engine import Database
from orchestrator.store.headline import Headline

PATIENCE_S = 30.0
AT_ONCE_S = 1e-9
"""A patience that has always run out a quarter by the next turn."""


class Listener:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.settimeout(0)

    def heard(self) -> list[str]:
        """Return what was sent since the last time."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    abstract = f"@orchestrator-test-{uuid4()}"
    listening = Listener(str(tmp_path / "notify") if request.param == "path" else abstract)
    with closing(listening.socket):
        yield listening


def test_each_message_is_one_datagram(listener: Listener) -> None:
    notifier = Notifier(listener.address, None)
    notifier.ready()
    notifier.alive()
    notifier.stopping(2.5)
    assert listener.heard() == ["READY=1", "WATCHDOG=1", "STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000"]
    notifier.reloading()
    (reloading,) = listener.heard()
    first, second = reloading.splitlines()
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdecimal()


def test_a_status_is_one_line_and_is_said_once(listener: Listener) -> None:
    notifier = Notifier(listener.address, None)
    for text in ("one\n  line\tREADY=1", "one line READY=1", "x" * 1_000):
        notifier.status(text)
    assert listener.heard() == ["STATUS=one line READY=1", f"STATUS={'x' * STATUS_MAX}"]


@pytest.mark.parametrize("address", [None, "/nowhere/notify", "@nobody-listens-here"])
def test_nobody_need_listen(address: str | None) -> None:
    notifier = Notifier(address, 10.0)
    notifier.ready()
    notifier.status("well")
    assert notifier.is_heard == (address is not None)


def test_a_listener_that_does_not_read_is_not_waited_for(listener: Listener) -> None:
    notifier = Notifier(listener.address, None)
    for _ in range(10_000):
        notifier.alive()
    assert 0 < len(listener.heard()) < 10_000


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, (None, None)),
        ({"NOTIFY_SOCKET": "/run/notify"}, ("/run/notify", None)),
        ({"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "0"}, (None, None)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000"}, ("@n", 30.0)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "7"}, ("@n", 1.5)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "8"}, ("@n", None)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "soon"}, ("@n", None)),
    ],
)
def test_the_environment_says_who_listens(
    environ: dict[str, str], found: tuple[str | None, float | None]
) -> None:
    told = read_service_manager(environ, 7)
    assert told == ServiceManager(socket=found[0], watchdog_s=found[1])


@pytest.mark.anyio
async def test_ready_is_said_again_to_who_was_too_busy_to_hear_it(
    listener: Listener, database: Database
) -> None:
    pulse, notifier = Pulse(), Notifier(listener.address, None)
    Service(notifier, pulse, database, lambda: False)
    while notifier.ready():  # until nothing more is taken
        pass
    for loop in Loop:
        pulse.turn(loop, passed=True)
    listener.heard()
    pulse.turn(Loop.TASKS, passed=True)
    pulse.turn(Loop.TASKS, passed=True)
    assert listener.heard() == ["READY=1"]


@pytest.mark.anyio
async def test_ready_is_said_once_after_each_loop_has_passed(
    listener: Listener, database: Database
) -> None:
    pulse = Pulse()
    Service(Notifier(listener.address, None), pulse, database, lambda: False)
    for loop, passed in ((Loop.TASKS, True), (Loop.TASKS, True), (Loop.LANES, False)):
        pulse.turn(loop, passed=passed)
        assert listener.heard() == []
    pulse.turn(Loop.LANES, passed=True)
    assert listener.heard() == ["READY=1"]
    pulse.turn(Loop.TASKS, passed=True)
    assert listener.heard() == []


@pytest.mark.anyio
async def test_a_sign_of_life_needs_a_turn_of_every_loop(
    listener: Listener, database: Database
) -> None:
    pulse = Pulse()
    Service(Notifier(listener.address, AT_ONCE_S), pulse, database, lambda: False)
    for _ in range(2):
        for _ in range(3):
            pulse.turn(Loop.TASKS, passed=False)
            assert listener.heard() == []
        pulse.turn(Loop.LANES, passed=False)
        assert listener.heard() == ["WATCHDOG=1"]


@pytest.mark.anyio
async def test_signs_of_life_are_no_more_than_are_needed(
    listener: Listener, database: Database
) -> None:
    pulse = Pulse()
    Service(Notifier(listener.address, 4 * 3_600.0), pulse, database, lambda: False)
    for _ in range(100):
        for loop in Loop:
            pulse.turn(loop, passed=False)
    assert listener.heard() == []


@pytest.mark.anyio
@pytest.mark.parametrize("draining", [False, True])
async def test_the_status_has_figures(
    listener: Listener,
    database: Database,
    draining: bool,
) -> None:
    service = Service(Notifier(listener.address, None), Pulse(), database, lambda: draining)
    heard: list[str] = []
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.describe)
            while not heard:
                await anyio.sleep(0.01)
                heard = listener.heard()
            tasks.cancel_scope.cancel()
    figures = "0 running, 0 starting, 0 stopping; 0 not as desired, 0 orphans"
    assert heard == [f"STATUS={'draining: ' if draining else ''}{figures}"]


@pytest.mark.anyio
async def test_nothing_is_read_where_nobody_listens(database: Database) -> None:
    await database.close()
    with anyio.fail_after(PATIENCE_S):
        await Service(SILENT, Pulse(), database, lambda: False).describe()


def test_figures_that_are_bounds_say_so() -> None:
    found = Headline(
        running=10_000, starting=1, stopping=2, unconverged=3, orphans=4, is_partial=True
    )
    assert spell(found).startswith("at least 10000 running, 1 starting, 2 stopping; 3 not")
