"""Walkie-talkie lanes end to end: real daemons, both databases, a vendor that enforces Sequence."""

from itertools import pairwise

import pytest

from tests.daemon.running import Scene
from tests.daemon.talk import (
    START,
    STOP,
    WALKIE,
    effects,
    lane_of,
    press,
    release,
    settled,
    states,
    talk_to,
    wires,
)

pytestmark = pytest.mark.anyio


async def test_a_press_and_its_release(scene: Scene) -> None:
    await scene.start_daemon()
    await talk_to(scene, "call")
    await scene.app.write(press("call", "p", 1), release("call", "r", 2))
    assert await states(scene, "p", "r") == ["done", "done"]
    assert await wires(scene) == [(START, 1), (STOP, 2)]
    lane = await lane_of(scene, "call")
    assert (lane["last_sequence"], lane["listening"]) == (2, False)


async def test_the_daemon_numbers_what_has_no_number(scene: Scene) -> None:
    await scene.start_daemon()
    await talk_to(scene, "call")
    ids = [f"c{n}" for n in range(8)]
    for n, id_ in enumerate(ids):
        await scene.app.write((press, release)[n % 2]("call", id_))
    rows = await settled(scene, *ids)
    assert [row["state"] for row in rows] == ["done"] * 8
    seen = await effects(scene)
    assert [number for _, number in seen] == [row["sequence"] for row in rows]
    assert [action for action, _ in seen] == [START, STOP] * 4
    assert all(later > earlier for (_, earlier), (_, later) in pairwise(seen))
