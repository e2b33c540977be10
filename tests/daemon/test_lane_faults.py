"""Walkie-talkie lanes when replies are lost and daemons die: in order, once, and none in the way.

What is asserted is what the vendor saw: numbers that rise, a repeat only of the call before it, and
microphones that are closed at the end.
"""

import random
import signal
from datetime import datetime
from itertools import pairwise

import pytest

from orchestrator.daemon.lane_scheduler import LISTENING_IN_FLIGHT
from tests.daemon.running import PATIENCE_S, Scene, task
from tests.daemon.talk import (
    START,
    STOP,
    WALKIE,
    Pressing,
    assert_rising,
    by_handle,
    command,
    effects,
    lane_of,
    press,
    pressings,
    release,
    settled,
    spoken,
    states,
    talk_to,
    verdicts,
    wires,
)

pytestmark = pytest.mark.anyio

LOST = ("lose_request", "lose_reply", "hang")
LONG_MS = 120_000
MANY = LISTENING_IN_FLIGHT + 8
"""More than one daemon has in flight at a time: where there are two, both have a part."""
HELD_MS = 40
"""How long the vendor holds an answer back."""


async def prepare(scene: Scene, *ids: str) -> None:
    """Insert tasks whose agents listen; commands live long, and no limit is in the way."""
    scene.settings["lanes"] = {"gap_timeout_ms": 30_000, "command_ttl_ms": LONG_MS}
    scene.account(WALKIE)["qps"] = {"CreateAgentInstance": 0, START: 0, STOP: 0}
    await scene.vendors.turn(zego_qps=0, zego_capacity=2 * MANY)
    await scene.app.write(*(task(WALKIE, id_) for id_ in ids))


async def running(scene: Scene, *ids: str) -> None:
    for id_ in ids:
        await scene.wait(id_, phase="running")


async def assert_closed(scene: Scene, *ids: str) -> None:
    """The newest listening call that had its effect, of every agent, is a release."""
    for id_ in ids:
        assert not (await lane_of(scene, id_))["listening"]
    for ours in by_handle(await pressings(scene)).values():
        assert [one.action for one in ours if one.had_effect][-1] == STOP


# --- one call goes wrong


@pytest.mark.parametrize("equal", ["reject", "legacy_pairing"])
@pytest.mark.parametrize("fault", LOST)
async def test_what_was_lost_is_sent_again_under_its_number(
    scene: Scene, fault: str, equal: str
) -> None:
    ids = (START, STOP)
    await scene.vendors.turn(zego_equal_sequence=equal)
    await prepare(scene, *ids)
    await scene.start_daemon()
    await running(scene, *ids)
    for action in ids:
        await scene.vendors.script(action, fault)
        await scene.app.write(press(action, f"p-{action}", 1), release(action, f"r-{action}", 2))
        assert await states(scene, f"p-{action}", f"r-{action}") == ["done", "done"]
    again = 1 if fault == "lose_request" else 2
    assert await wires(scene) == [
        *[(START, 1)] * again,
        (STOP, 2),
        (START, 1),
        *[(STOP, 2)] * again,
    ]
    assert await effects(scene) == [(START, 1), (STOP, 2)] * 2
    assert_rising(await pressings(scene))
    assert [(await lane_of(scene, id_))["last_sequence"] for id_ in ids] == [2, 2]


@pytest.mark.parametrize("fault", LOST)
async def test_a_press_is_repeated_where_the_vendor_takes_an_equal_number(
    scene: Scene, fault: str
) -> None:
    await scene.vendors.turn(zego_equal_sequence="accept")
    await prepare(scene, "call")
    await scene.start_daemon()
    await running(scene, "call")
    await scene.vendors.script(START, fault)
    await scene.app.write(press("call", "p", 1), release("call", "r", 2))
    assert await states(scene, "p", "r") == ["done", "done"]
    rounds = {row["result"] for row in await settled(scene, "p", "r")}
    assert len(rounds) == 1
    again = 1 if fault == "lose_request" else 2
    assert await wires(scene) == [*[(START, 1)] * again, (STOP, 2)]
    await assert_closed(scene, "call")


async def test_a_press_goes_on_after_a_release_that_nobody_can_confirm(scene: Scene) -> None:
    """Where an equal number is taken, the second stop finds nothing to close, and says so."""
    await scene.vendors.turn(zego_equal_sequence="accept")
    await prepare(scene, "call")
    await scene.start_daemon()
    await running(scene, "call")
    await scene.vendors.script(STOP, "lose_reply")
    late = scene.app.in_seconds(2)
    await scene.app.write(
        press("call", "p", 1), release("call", "r", 2, expires_at=late), press("call", "q", 3)
    )
    assert await verdicts(scene, "p", "r", "q") == [
        ("done", None),
        ("failed", "OutcomeUnknown"),
        ("done", None),
    ]
    assert await effects(scene) == [(START, 1), (STOP, 2), (START, 3)]


# --- neighbours


async def test_a_hanging_lane_delays_no_other(scene: Scene) -> None:
    await prepare(scene, "slow", "quick")
    await scene.start_daemon()
    await running(scene, "slow", "quick")
    await scene.vendors.script(START, "hang")
    await scene.app.write(press("slow", "hangs", 1))
    await scene.wait_for_faults()
    await scene.app.write(
        press("quick", "p", 1), release("quick", "r", 2), command("slow", "cut", "interrupt")
    )
    assert await states(scene, "p", "r", "cut") == ["done"] * 3
    hanging = await spoken(scene, "hangs")
    assert (hanging["state"], hanging["done_at"]) == ("sending", None)
    assert await states(scene, "hangs") == ["done"]


# --- daemons die


async def test_a_daemon_killed_while_buttons_are_pressed(scene: Scene) -> None:
    ids = (START, STOP)
    await prepare(scene, *ids)
    daemon = await scene.start_daemon()
    await running(scene, *ids)
    for action in ids:
        await scene.vendors.script(action, "hang")
        await scene.app.write(press(action, f"p-{action}", 5))
    await scene.app.write(release(STOP, "r-StopListening", 6))
    await scene.wait_for_faults()
    await daemon.kill()
    await scene.app.write(release(START, "r-StartListening", 6))
    await scene.start_daemon("again")
    commands = [f"{kind}-{action}" for kind in "pr" for action in ids]
    assert await states(scene, *commands) == ["done"] * 4
    assert_rising(await pressings(scene))
    await assert_closed(scene, *ids)
    await scene.app.write(*(press(id_, f"next-{id_}") for id_ in ids))
    assert [v[1] for v in await verdicts(scene, *(f"next-{id_}" for id_ in ids))] == [
        "MixedSequence"
    ] * 2


async def test_everything_at_once(scene: Scene) -> None:
    """Shuffled commands, every seventh call lost or hanging, and two kills."""
    ids = [f"call-{n}" for n in range(4)]
    await prepare(scene, *ids)
    daemon = await scene.start_daemon("first")
    await running(scene, *ids)
    for action in (START, STOP):
        for fault, ratio in (("lose_request", 0.05), ("lose_reply", 0.06), ("hang", 0.02)):
            await scene.vendors.script(action, fault, ratio=ratio)
    lots = random.Random(7)
    # The first of a lane waits for nobody, so it is there first.
    await scene.app.write(*(press(id_, f"{id_}-1", 1) for id_ in ids))
    waiting = [(id_, n) for id_ in ids for n in range(2, 9)]
    lots.shuffle(waiting)
    for part in range(3):
        for id_, n in waiting[part::3]:
            await scene.app.write((release, press)[n % 2](id_, f"{id_}-{n}", n))
        if part < 2:
            await scene.wait_for_calls(START, len(ids) * (part + 1))
            await daemon.kill()
            daemon = await scene.start_daemon(f"after-{part}")
    every = [f"{id_}-{n}" for id_ in ids for n in range(1, 9)]
    assert set(await states(scene, *every, within_s=2 * PATIENCE_S)) == {"done"}
    assert_rising(await pressings(scene))
    expected = [((STOP, START)[n % 2], n) for n in range(1, 9)]
    for ours in by_handle(await pressings(scene)).values():
        assert [one.wire for one in ours if one.had_effect] == expected
    await assert_closed(scene, *ids)


# --- several daemons


def began_at(one: Pressing) -> datetime:
    return datetime.fromisoformat(one.at)


async def test_two_daemons_share_many_lanes(postgres_scene: Scene) -> None:
    scene = postgres_scene
    ids = [f"call-{n}" for n in range(MANY)]
    await prepare(scene, *ids)
    await scene.start_daemon("one")
    await scene.start_daemon("two")
    await running(scene, *ids)
    for action in (START, STOP):
        await scene.vendors.script(action, "delay_reply", ratio=1.0, ms=HELD_MS)
    for n in range(6):
        await scene.app.write(*((press, release)[n % 2](id_, f"{id_}-{n}") for id_ in ids))
    every = [f"{id_}-{n}" for id_ in ids for n in range(6)]
    assert set(await states(scene, *every)) == {"done"}
    everything = await pressings(scene)
    assert_rising(everything)
    lanes = by_handle(everything)
    assert len(lanes) == MANY
    for ours in lanes.values():
        assert [one.action for one in ours] == [START, STOP] * 3
        # Each answer is held back for so long: an earlier next call had been in flight with it.
        gaps = [began_at(later) - began_at(earlier) for earlier, later in pairwise(ours)]
        assert min(gaps).total_seconds() >= HELD_MS / 1000
    actors = await scene.app.read("SELECT DISTINCT actor FROM agent_event WHERE event = 'command'")
    assert {row["actor"] for row in actors} == {"one", "two"}


async def test_a_daemon_frozen_beyond_a_lanes_lease(postgres_scene: Scene) -> None:
    """The other takes the lane over; what the first hears afterwards counts for nothing."""
    scene = postgres_scene
    await prepare(scene, "call")
    first = await scene.start_daemon("one")
    await running(scene, "call")
    await scene.vendors.script(START, "delay_reply", ms=1_000)
    await scene.app.write(press("call", "p", 1))
    await scene.wait_for_faults()
    first.process.send_signal(signal.SIGSTOP)
    await scene.start_daemon("two")
    await scene.app.write(release("call", "r", 2))
    assert await states(scene, "p", "r") == ["done", "done"]
    before = await settled(scene, "p", "r")
    first.process.send_signal(signal.SIGCONT)
    assert await first.stop() == 0
    assert await settled(scene, "p", "r") == before
    assert await effects(scene) == [(START, 1), (STOP, 2)]
    await talk_to(scene, "next")
