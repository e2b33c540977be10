"""How a daemon ends: what is in flight may finish, what it came to is written down."""

import signal

import pytest

from tests.daemon.application import update
from tests.daemon.customers import CUSTOMERS
from tests.daemon.running import Scene, task

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_calls_in_flight_are_settled_before_the_end(
    scene: Scene, number: signal.Signals
) -> None:
    daemon = await scene.start_daemon()
    await scene.vendors.script("*", "delay_reply", n=len(CUSTOMERS), ms=600)
    ids = [f"in-flight-{customer.name}" for customer in CUSTOMERS]
    await scene.app.write(*(task(one, f"in-flight-{one.name}") for one in CUSTOMERS))
    for id_ in ids:
        await scene.wait(id_, intent="start")
    daemon.process.send_signal(number)
    assert await daemon.ended(within_s=10) == 0
    for id_ in ids:
        row = await scene.status(id_)
        assert (row["phase"], row["intent"], row["lease_owner"]) == ("running", None, None)
    assert await scene.app.read("SELECT * FROM daemon") == []
    assert len(await scene.vendors.live()) == len(ids)
    assert daemon.events("stopped") != []


async def test_a_call_that_does_not_end_is_left_announced(scene: Scene) -> None:
    scene.settings["daemon"]["shutdown_timeout_s"] = 1
    for customer in CUSTOMERS:
        scene.account(customer)["call_timeout_ms"] = 3_000
    daemon = await scene.start_daemon()
    await scene.vendors.script("*", "hang", n=len(CUSTOMERS))
    ids = [f"hangs-{customer.name}" for customer in CUSTOMERS]
    await scene.app.write(*(task(one, f"hangs-{one.name}") for one in CUSTOMERS))
    for id_ in ids:
        await scene.wait(id_, intent="start")
    await scene.wait_for_faults()
    assert await daemon.stop() == 0
    for id_ in ids:
        row = await scene.status(id_)
        assert (row["phase"], row["intent"]) == ("starting", "start")
    assert await scene.app.read("SELECT * FROM daemon") == []
    await scene.start_daemon("next")
    for id_ in ids:
        await scene.wait(id_, phase="running")
    assert len(await scene.vendors.live()) == len(ids)


async def test_a_second_daemon_may_begin_where_the_first_ended(scene: Scene) -> None:
    await scene.app.write(task(CUSTOMERS[0], "lasting"))
    for name in ("first", "second"):
        daemon = await scene.start_daemon(name)
        await scene.wait("lasting", phase="running", incarnation=1)
        assert await daemon.stop() == 0
    assert len(await scene.vendors.agents()) == 1
    await scene.app.write(update("agent_task", "true", desired_state="'stopped'"))
    await scene.start_daemon("third")
    await scene.wait("lasting", phase="stopped")
