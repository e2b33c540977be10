"""Walkie-talkie lanes end to end: real daemons, both databases, a vendor that enforces Sequence."""

from itertools import pairwise

import pytest

from tests.daemon.application import delete_task, insert, quoted, update_task
from tests.daemon.running import USER, Scene, task
from tests.daemon.talk import (
    START,
    STOP,
    WALKIE,
    assert_rising,
    cancel,
    effects,
    lane_of,
    move,
    press,
    pressings,
    release,
    settled,
    spoken,
    states,
    talk_to,
    verdicts,
    wait_for_code,
    wait_until_seen,
    wires,
)

pytestmark = pytest.mark.anyio

LONG_MS, SHORT_MS = 60_000, 200
"""Longer than a test, and so short that nobody waits for it."""


async def talking(scene: Scene, gap_timeout_ms: int = LONG_MS) -> None:
    """Start a daemon whose commands live long, and an agent that listens."""
    scene.settings["lanes"] = {"gap_timeout_ms": gap_timeout_ms, "command_ttl_ms": LONG_MS}
    await scene.start_daemon()
    await talk_to(scene, "call")


# --- order and numbers


async def test_a_press_and_its_release(scene: Scene) -> None:
    await talking(scene)
    await scene.app.write(press("call", "p", 1), release("call", "r", 2))
    assert await states(scene, "p", "r") == ["done", "done"]
    assert await wires(scene) == [(START, 1), (STOP, 2)]
    rows = [await spoken(scene, id_) for id_ in ("p", "r")]
    assert all(row["request_id"] and "Round" in str(row["result"]) for row in rows)
    lane = await lane_of(scene, "call")
    assert (lane["last_sequence"], lane["listening"], lane["command_id"]) == (2, False, None)


async def test_the_daemon_numbers_what_has_no_number(scene: Scene) -> None:
    await talking(scene)
    ids = [f"c{n}" for n in range(8)]
    for n, id_ in enumerate(ids):
        await scene.app.write((press, release)[n % 2]("call", id_))
    rows = await settled(scene, *ids)
    assert [row["state"] for row in rows] == ["done"] * 8
    seen = await effects(scene)
    assert [number for _, number in seen] == [row["sequence"] for row in rows]
    assert [action for action, _ in seen] == [START, STOP] * 4
    assert all(later > earlier for (_, earlier), (_, later) in pairwise(seen))


async def test_shuffled_commands_leave_in_order(scene: Scene) -> None:
    await talking(scene)
    for n in (4, 2, 1, 6, 3, 5):
        await scene.app.write((release, press)[n % 2]("call", f"c{n}", n))
    ids = [f"c{n}" for n in range(1, 7)]
    # Whether 2 or 4 was sent before 1 was there is open: the first of a lane waits for nobody.
    outcomes = dict(zip(ids, await states(scene, *ids), strict=True))
    sent = [n for n in range(1, 7) if outcomes[f"c{n}"] == "done"]
    assert [number for _, number in await effects(scene)] == sent
    assert {outcomes[f"c{n}"] for n in range(1, 7) if n not in sent} <= {"superseded"}
    assert sent[-2:] == [5, 6]


async def test_a_gap_is_waited_for_and_filled(scene: Scene) -> None:
    await talking(scene)
    await scene.app.write(press("call", "c57", 57))
    assert await states(scene, "c57") == ["done"]
    await scene.app.write(press("call", "c59", 59))
    await wait_until_seen(scene, "c59")
    assert (await spoken(scene, "c59"))["state"] == "queued"
    assert (await lane_of(scene, "call"))["gap_since"] is not None
    await scene.app.write(release("call", "c58", 58))
    assert await states(scene, "c58", "c59") == ["done", "done"]
    assert await wires(scene) == [(START, 57), (STOP, 58), (START, 59)]
    assert await scene.app.read("SELECT id FROM agent_event WHERE event = 'gap'") == []


async def test_a_gap_is_recorded_and_what_comes_late_is_superseded(scene: Scene) -> None:
    await talking(scene, gap_timeout_ms=SHORT_MS)
    await scene.app.write(press("call", "c1", 1))
    assert await states(scene, "c1") == ["done"]
    await scene.app.write(release("call", "c4", 4))
    assert await states(scene, "c4") == ["done"]
    (gap,) = await scene.app.read("SELECT * FROM agent_event WHERE event = 'gap'")
    assert (gap["command_id"], gap["message"]) == ("c4", "sequence 2 to 3 did not come in time")
    await scene.app.write(press("call", "c3", 3), press("call", "again4", 4))
    assert await verdicts(scene, "c3", "again4") == [("superseded", "Superseded")] * 2
    assert await wires(scene) == [(START, 1), (STOP, 4)]
    await scene.app.write(press("call", "c5", 5))
    assert await states(scene, "c5") == ["done"]


async def test_numbers_are_all_given_or_all_drawn(scene: Scene) -> None:
    await talking(scene)
    await scene.app.write(press("call", "given", 1), release("call", "drawn"))
    assert await verdicts(scene, "given", "drawn") == [("done", None), ("failed", "MixedSequence")]
    await scene.app.write(release("call", "after", 2))
    assert await states(scene, "after") == ["done"]
    other = await talk_to(scene, "other")
    await scene.app.write(press(other, "first"), release(other, "second", 2))
    assert await verdicts(scene, "first", "second") == [
        ("done", None),
        ("failed", "MixedSequence"),
    ]


async def test_each_user_has_a_lane(scene: Scene) -> None:
    await talking(scene)
    both = ("human", "guest")
    for n, user in enumerate(both):
        await scene.app.write(
            press("call", f"p-{user}", 1, user_id=quoted(user)),
            release("call", f"r-{user}", 2, user_id=quoted(user)),
        )
        assert await states(scene, f"p-{user}", f"r-{user}") == ["done", "done"]
        assert len(await effects(scene)) == 2 * (n + 1)
    assert [(await lane_of(scene, "call", user))["last_sequence"] for user in both] == [2, 2]


async def test_a_lane_that_is_behind_the_vendor(scene: Scene) -> None:
    """As after a restored backup: a press fails, and a release goes out under a higher number."""
    await talking(scene)
    await scene.app.write(press("call", "c8", 8), release("call", "c9", 9))
    assert await states(scene, "c8", "c9") == ["done", "done"]
    await scene.app.write("UPDATE lane SET last_sequence = 1, passed_sequence = NULL")
    await scene.app.write(press("call", "c2", 2))
    assert await verdicts(scene, "c2") == [("failed", "StaleSequence")]
    await scene.app.write(release("call", "c3", 3))
    await settled(scene, "c3")
    (action, jumped) = (await wires(scene))[-1]
    assert action == STOP
    assert jumped > 9
    assert (await lane_of(scene, "call"))["last_sequence"] == jumped


# --- time


async def test_an_old_press_is_not_sent(scene: Scene) -> None:
    await talking(scene)
    past = scene.app.in_seconds(-1)
    await scene.app.write(press("call", "old", 1, expires_at=past))
    await scene.app.write(release("call", "pointless", 2, expires_at=past))
    assert await verdicts(scene, "old", "pointless") == [("expired", "Expired")] * 2
    assert await wires(scene) == []
    await scene.app.write(press("call", "new", 3))
    assert await states(scene, "new") == ["done"]


async def test_a_late_release_of_a_press_that_was_sent_is_sent(scene: Scene) -> None:
    await talking(scene)
    await scene.app.write(press("call", "p", 1))
    assert await states(scene, "p") == ["done"]
    await scene.app.write(release("call", "r", 2, expires_at=scene.app.in_seconds(-1)))
    assert await states(scene, "r") == ["done"]
    assert await wires(scene) == [(START, 1), (STOP, 2)]


async def test_a_command_that_is_taken_back(scene: Scene) -> None:
    """It bars nothing: what was missing before it may come yet."""
    await talking(scene)
    await scene.app.write(press("call", "p", 1))
    assert await states(scene, "p") == ["done"]
    await scene.app.write(press("call", "waits", 3))
    await wait_until_seen(scene, "waits")
    await scene.app.write(cancel("waits"), cancel("p"), cancel("nobody"))
    assert await verdicts(scene, "waits") == [("superseded", "Cancelled")]
    await scene.app.write(release("call", "r", 2, expires_at=scene.app.in_seconds(-1)))
    assert await verdicts(scene, "p", "r") == [("done", None), ("done", None)]
    assert await wires(scene) == [(START, 1), (STOP, 2)]


# --- the user


@pytest.mark.parametrize("number", [1, None])
async def test_a_user_who_does_not_publish_yet(scene: Scene, number: int | None) -> None:
    await talking(scene)
    await scene.vendors.turn(zego_refused_start_counts=number is None)
    await move(scene, "call", USER, "unpublish")
    await scene.app.write(press("call", "p", number))
    await wait_for_code(scene, "410001046", count=2)
    row = await spoken(scene, "p")
    assert row["state"] != "done"
    await move(scene, "call", USER, "publish")
    assert await states(scene, "p") == ["done"]
    assert_rising(await pressings(scene))
    assert len(await effects(scene)) == 1


async def test_a_user_who_never_publishes(scene: Scene) -> None:
    await talking(scene)
    await move(scene, "call", USER, "unpublish")
    await scene.app.write(press("call", "p", 1, expires_at=scene.app.in_seconds(2)))
    (row,) = await settled(scene, "p")
    assert (row["state"], row["reason"]) == ("expired", "410001046")
    assert await effects(scene) == []


# --- the agent


async def test_a_press_waits_for_its_agent(scene: Scene) -> None:
    scene.settings["lanes"] = {"command_ttl_ms": LONG_MS}
    await scene.start_daemon()
    await scene.app.write(
        task(WALKIE, "call"), press("call", "p", 1), release("call", "r", 2), press("call", "q", 3)
    )
    assert await states(scene, "p", "r", "q") == ["done"] * 3
    assert await wires(scene) == [(START, 1), (STOP, 2), (START, 3)]


async def test_presses_go_on_when_their_account_is_free_again(scene: Scene) -> None:
    await talking(scene)
    await scene.app.write("UPDATE account_control SET frozen = true")
    await scene.app.write(press("call", "p", 1))
    await wait_until_seen(scene, "p")
    assert await wires(scene) == []
    await scene.app.write("UPDATE account_control SET frozen = false")
    assert await states(scene, "p") == ["done"]


async def test_what_is_said_to_an_account_that_nobody_has(scene: Scene) -> None:
    """It ends with its task, which fails, if not before; and the daemon goes on."""
    await talking(scene)
    typo = {"id": "'typo'", "account": "'nowhere'", "room_id": "'r'", "user_id": "'u'"}
    await scene.app.write(
        insert("agent_task", **typo),
        press("typo", "back", 1),
        cancel("back"),
        press("typo", "late", 2, expires_at=scene.app.in_seconds(1)),
    )
    assert set(await states(scene, "back", "late")) <= {"superseded", "expired", "failed"}
    await scene.app.write(press("call", "p", 1))
    assert await states(scene, "p") == ["done"]
    assert await wires(scene) == [(START, 1)]


@pytest.mark.parametrize("is_given", [True, False])
async def test_the_next_incarnation_goes_on_with_rising_numbers(
    scene: Scene, *, is_given: bool
) -> None:
    numbers = iter((1, 2, 4)) if is_given else iter((None, None, None))
    await talking(scene)
    await scene.app.write(press("call", "p", next(numbers)))
    assert await states(scene, "p") == ["done"]
    await move(scene, "call", USER, "unpublish")
    waiting = press("call", "waits", 3) if is_given else press("call", "waits")
    await scene.app.write(release("call", "r", next(numbers)), waiting)
    await wait_for_code(scene, "410001046")
    await scene.app.write(update_task("call", restart_token="'again'"))
    assert [state for state, _ in await verdicts(scene, "waits")] == ["expired"]
    await scene.wait("call", phase="running", incarnation=2)
    await move(scene, "call", USER, "publish")
    await scene.app.write(press("call", "new", next(numbers)))
    assert await states(scene, "new") == ["done"]
    everything = await pressings(scene)
    assert len({one.handle for one in everything}) == 2
    seen = [one.sequence for one in everything]
    assert seen == sorted(seen)


@pytest.mark.parametrize("ending", [update_task("call", desired_state="'stopped'")])
async def test_a_task_that_has_ended(scene: Scene, ending: str) -> None:
    await talking(scene)
    await scene.app.write(ending)
    await scene.wait("call", phase="stopped")
    await scene.app.write(press("call", "late", 1), release("call", "later", 2))
    assert await verdicts(scene, "late", "later") == [("failed", "TaskEnded")] * 2
    assert await wires(scene) == []


async def test_a_deleted_task_leaves_no_command_open(scene: Scene) -> None:
    await talking(scene)
    await scene.app.write(press("call", "p", 1))
    assert await states(scene, "p") == ["done"]
    await scene.app.write(press("call", "waits", 3))
    await wait_until_seen(scene, "waits")
    await scene.app.write(delete_task("call"))
    await scene.wait_gone("call")
    (row,) = await settled(scene, "waits")
    assert (row["state"], row["reason"]) in {("expired", "AgentEnded"), ("failed", "TaskEnded")}
    assert await wires(scene) == [(START, 1)]
