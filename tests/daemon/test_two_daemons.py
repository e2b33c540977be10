"""Several daemons: on Postgres they share the rows, on an SQLite file the second refuses."""

import signal

import pytest

from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO
from tests.daemon.running import Scene, task
from tests.daemon.vendors import doubled

pytestmark = pytest.mark.anyio

MANY = 30


async def test_two_daemons_share_the_rows_and_the_limits(postgres_scene: Scene) -> None:
    scene = postgres_scene
    scene.account(VOLCENGINE)["qps"] = {VOLCENGINE.start: 10, VOLCENGINE.stop: 10}
    await scene.start_daemon("one")
    await scene.start_daemon("two")
    ids = [f"shared-{n}" for n in range(MANY)]
    await scene.app.write(*(task(VOLCENGINE, id_) for id_ in ids))
    for id_ in ids:
        await scene.wait(id_, phase="running")
    await scene.app.write("UPDATE agent_task SET desired_state = 'stopped'")
    for id_ in ids:
        await scene.wait(id_, phase="stopped")
    agents = await scene.vendors.agents()
    assert doubled(agents) == []
    assert len(agents) == MANY
    worst = await scene.vendors.busiest_seconds()
    assert worst[VOLCENGINE.name, VOLCENGINE.start] <= 10
    assert worst[VOLCENGINE.name, VOLCENGINE.stop] <= 10
    actors = await scene.app.read("SELECT DISTINCT actor FROM agent_event WHERE event = 'call'")
    assert {row["actor"] for row in actors} == {"one", "two"}


async def test_the_other_takes_over_from_one_that_was_killed(postgres_scene: Scene) -> None:
    scene = postgres_scene
    customers = (VOLCENGINE, TENCENT, ZEGO)
    first = await scene.start_daemon("one")
    for customer in customers:
        await scene.vendors.script(customer.start, "hang")
    ids = [f"taken-{customer.name}" for customer in customers]
    await scene.app.write(*(task(customer, f"taken-{customer.name}") for customer in customers))
    await scene.wait_for_faults()
    # At once: until then it may give its calls up, and go on by itself.
    await first.kill()
    second = await scene.start_daemon("two")
    for id_ in ids:
        await scene.wait(id_, phase="running")
        calls = await scene.calls(id_)
        assert calls[-1]["actor"] == "two"
    assert doubled(await scene.vendors.agents()) == []
    await scene.app.write("DELETE FROM agent_task")
    for id_ in ids:
        await scene.wait_gone(id_)
    assert await scene.vendors.live() == []
    assert await second.stop() == 0


async def test_a_daemon_frozen_beyond_its_lease_settles_nothing(postgres_scene: Scene) -> None:
    scene = postgres_scene
    first = await scene.start_daemon("one")
    await scene.vendors.script(TENCENT.start, "delay_reply", ms=1_000)
    await scene.ask_for(TENCENT, "frozen")
    await scene.wait_for_faults()
    first.process.send_signal(signal.SIGSTOP)
    await scene.start_daemon("two")
    await scene.wait("frozen", phase="running")
    row = await scene.status("frozen")
    first.process.send_signal(signal.SIGCONT)
    assert await first.stop() == 0
    after = await scene.status("frozen")
    assert (after["phase"], after["vendor_task_id"]) == ("running", row["vendor_task_id"])
    assert doubled(await scene.vendors.agents()) == []
    assert len(await scene.vendors.live()) == 1


async def test_the_only_daemon_killed_in_the_middle_goes_on_where_it_was(scene: Scene) -> None:
    daemon = await scene.start_daemon()
    customers = (VOLCENGINE, TENCENT, ZEGO)
    for customer in customers:
        await scene.vendors.script(customer.start, "hang")
    await scene.app.write(*(task(customer, f"mid-{customer.name}") for customer in customers))
    await scene.wait_for_faults()
    await daemon.kill()
    await scene.start_daemon("again")
    for customer in customers:
        await scene.wait(f"mid-{customer.name}", phase="running")
    assert doubled(await scene.vendors.agents()) == []
    assert len(await scene.vendors.live()) == len(customers)


async def test_a_second_daemon_on_the_same_file_is_told_who_holds_it(sqlite_scene: Scene) -> None:
    first = await sqlite_scene.start_daemon("holder")
    second = sqlite_scene.launch("late")
    assert await second.ended() == 2
    assert f"held by the daemon holder pid {first.pid} on " in second.log()
    assert first.process.poll() is None
