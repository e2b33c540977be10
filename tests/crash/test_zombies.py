"""A daemon that wakes after others took its rows: late requests, late handles, late bytes."""

import signal
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread

from tests.crash.conftest import MakeDatabase
from tests.crash.worlds import PATIENCE_S, Wish, Wished, World, launch, open_world, run_side_by_side
from tests.daemon.application import delete_task
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO, Customer
from tests.daemon.running import Daemon, until

pytestmark = pytest.mark.anyio

SENDER = Path(__file__).with_name("sender.py")
TAKEN_OVER = (VOLCENGINE, TENCENT, ZEGO)

WakeZombie = Callable[[Customer, Wish], Coroutine[None, None, None]]


async def test_a_start_sent_by_a_zombie_while_its_signature_is_good(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    arrived: list[int] = []

    async def wake(customer: Customer, wish: Wish) -> None:
        url = await make_database("postgresql")
        row = Wished("zombie", customer, wish)
        async with open_world(url, tmp_path / f"{customer.name}-{wish}", [row]) as world:
            first = await freeze(world, "sending")
            sent_before = len(await world.scene.vendors.calls(customer.start))
            second = await take_over(world)
            await world.wake(first, second)
            assert sent_before == 0
            if wish is Wish.DELETE:  # the second never started it
                arrived.append(len(await world.scene.vendors.calls(customer.start)))

    await at_once(wake)
    # What a woken process writes may die with the connection that its deadline resets at once.
    assert any(arrived), "no zombie's start reached its vendor: nothing was tested"


async def test_a_start_sent_by_a_zombie_after_its_signature_ran_out(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    async def wake(customer: Customer, wish: Wish) -> None:
        url = await make_database("postgresql")
        row = Wished("zombie", customer, wish)
        async with open_world(url, tmp_path / f"{customer.name}-{wish}", [row]) as world:
            first = await freeze(world, "sending")
            second = await take_over(world)
            await world.wait_settled()
            before = await world.scene.vendors.agents()
            first.process.send_signal(signal.SIGCONT)
            assert await first.stop() == 0
            assert [a["id"] for a in await world.scene.vendors.agents()] == [
                a["id"] for a in before
            ]
            await world.wait_settled()
            assert await second.stop() == 0

    await at_once(wake)


async def test_what_a_zombie_had_learnt_counts_when_all_is_settled_without_it(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    async def wake(customer: Customer, wish: Wish) -> None:
        url = await make_database("postgresql")
        row = Wished("zombie", customer, wish)
        async with open_world(url, tmp_path / f"{customer.name}-{wish}", [row]) as world:
            first = await freeze(world, "replied")
            second = await take_over(world)
            await world.wait_settled()
            await world.wake(first, second)
            assert await events(world) >= {"late"}

    await at_once(wake)


@pytest.mark.parametrize("forgotten", [False, True], ids=["open", "forgotten"])
async def test_a_handle_that_arrives_late_is_the_only_trace_of_its_agent(
    make_database: MakeDatabase, tmp_path: Path, forgotten: bool
) -> None:
    # A vendor whose kick ends nothing: the agent leaves the room, runs on, and bills.
    url = await make_database("postgresql")
    row = Wished("late", ZEGO, Wish.DELETE)
    async with open_world(url, tmp_path / "late", [row]) as world:
        scene = world.scene
        await scene.vendors.turn(zego_kick_ends=False)
        first = await freeze(world, "replied")
        await scene.app.write(delete_task("late"))
        second = await world.start("two")
        if forgotten:
            await scene.wait_gone("late")
            assert [agent["ended_at"] for agent in await scene.ledger("late")] != [None]
        else:
            await scene.wait_for_calls("KickoutUser", 1)
        assert len(await scene.vendors.live()) == 1
        first.process.send_signal(signal.SIGCONT)
        await wait_told(world, "late")
        await world.wait_settled()
        assert await scene.vendors.live() == []
        (agent,) = await scene.vendors.agents()
        (known,) = await scene.ledger("late")
        assert known["vendor_task_id"] == agent["handle"]
        assert [await first.stop(), await second.stop()] == [0, 0]


async def test_bytes_that_had_not_arrived_die_with_their_sender() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        port = listener.getsockname()[1]
        process = launch(SENDER, str(port))
        peer, _ = await to_thread.run_sync(listener.accept)
        with peer:
            await wait_stuck(peer)
            process.kill()
            process.wait()
            read = await to_thread.run_sync(read_all, peer)
    assert isinstance(read, int), "the connection ended in good order, with all its bytes"
    assert read < 1_000_000


def read_all(peer: socket.socket) -> int | None:
    """Return how many bytes came before the reset; None if there was none."""
    count = 0
    try:
        while piece := peer.recv(65_536):
            count += len(piece)
    except ConnectionResetError:
        return count
    return None


async def wait_stuck(peer: socket.socket) -> None:
    """Wait until so much has arrived that the rest waits in the sender's buffers."""
    seen = -1

    async def look() -> bool | None:
        nonlocal seen
        there = len(peer.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        stuck, seen = there == seen, there
        return True if stuck else None

    async def awaited() -> str:
        return f"a full buffer, {seen} bytes"

    await to_thread.run_sync(lambda: peer.recv(1, socket.MSG_PEEK))
    await until(look, awaited)


async def at_once(wake: WakeZombie) -> None:
    """Run a world for each vendor and wish at the same time."""
    works = {
        f"{customer.name}-{wish}": partial(wake, customer, wish)
        for customer in TAKEN_OVER
        for wish in (Wish.RUN, Wish.DELETE)
    }
    await run_side_by_side(works)


async def freeze(world: World, step: str) -> Daemon:
    """Freeze a daemon at a step of a start: `sending` is before its first byte."""
    first = await world.start("one")
    world.set_trap(step, "start", "SIGSTOP")
    await world.insert()
    await world.wait_sprung(first)
    return first


async def take_over(world: World) -> Daemon:
    """Change the user's mind, and let another daemon take what the frozen one had."""
    await world.change_minds()
    second = await world.start("two")
    await world.wait_taken_over("one")
    return second


async def wait_told(world: World, event: str) -> None:
    """Wait for an event in the history."""

    async def look() -> bool | None:
        return True if event in await events(world) else None

    async def awaited() -> str:
        return f"the event {event}\n{await world.describe()}"

    await until(look, awaited, PATIENCE_S)


async def events(world: World) -> set[str]:
    """Return what has happened, by its names in the history."""
    rows = await world.scene.app.read("SELECT event FROM agent_event")
    return {row["event"] for row in rows}
