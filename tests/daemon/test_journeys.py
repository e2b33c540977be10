"""What an application writes, and what then is at the vendor: every vendor, both databases."""

import pytest

from tests.daemon.application import delete_task, quoted, update_task
from tests.daemon.customers import CUSTOMERS, Customer
from tests.daemon.running import GIVEN, USER, Scene, as_json, task
from tests.daemon.vendors import Agent, doubled, overlapping

pytestmark = pytest.mark.anyio


async def only_live(scene: Scene, customer: Customer, id_: str) -> Agent:
    (agent,) = await scene.vendors.live(account=customer.name, room_id=f"room-{id_}")
    return agent


async def ask_everywhere(scene: Scene, **columns: str) -> list[tuple[Customer, str]]:
    """Insert a task in each account, all in one transaction."""
    asked = [(customer, f"task-{customer.name}") for customer in CUSTOMERS]
    await scene.app.write(*(task(customer, id_, **columns) for customer, id_ in asked))
    return asked


async def test_a_row_leads_an_agent_through_its_whole_life(scene: Scene) -> None:
    await scene.start_daemon()
    asked = await ask_everywhere(scene)
    first = {id_: await assert_runs(scene, customer, id_) for customer, id_ in asked}

    await scene.app.write(*(update_task(id_, desired_state="'stopped'") for _, id_ in asked))
    for customer, id_ in asked:
        await assert_stopped(scene, customer, id_)

    await scene.app.write(*(update_task(id_, desired_state="'running'") for _, id_ in asked))
    for customer, id_ in asked:
        again = await assert_runs(scene, customer, id_, incarnation=2)
        assert again["agent_user_id"] != first[id_]["agent_user_id"]

    await scene.app.write(*(delete_task(id_) for _, id_ in asked))
    for _, id_ in asked:
        await scene.wait_gone(id_)
    assert await scene.vendors.live() == []
    assert doubled(await scene.vendors.agents()) == []


async def assert_runs(scene: Scene, customer: Customer, id_: str, incarnation: int = 1) -> Agent:
    row = await scene.wait(id_, phase="running", confirmed_at=GIVEN, incarnation=incarnation)
    agent = await only_live(scene, customer, id_)
    assert agent["user_id"] == USER
    assert agent["agent_user_id"] == row["agent_user_id"]
    if agent["version"] != "2024-06-01":  # which knows no handle but room and user
        assert agent["handle"] == row["vendor_task_id"]
    ledger = (await scene.ledger(id_))[-1]
    assert (ledger["name"], ledger["vendor_task_id"], ledger["ended_at"]) == (
        row["agent_user_id"],
        row["vendor_task_id"],
        None,
    )
    assert (row["reason"], row["waiting_for"], row["end_reason"]) == (None, None, None)
    return agent


async def assert_stopped(scene: Scene, customer: Customer, id_: str) -> None:
    row = await scene.wait(id_, phase="stopped", stopped_at=GIVEN, confirmed_at=None)
    assert row["end_reason"] == "requested"
    assert await scene.vendors.live(account=customer.name) == []
    (agent,) = await scene.vendors.agents(account=customer.name)
    assert abs(row["ran_s"] - agent["billed_s"]) <= 3  # the horizon's proof included
    (ledger,) = await scene.ledger(id_)
    assert ledger["ended_at"] is not None
    assert ledger["evidence"] in {"stopped", "absent"}


async def test_the_same_id_inserted_again_waits_for_the_end_of_the_old_agent(scene: Scene) -> None:
    await scene.start_daemon()
    asked = await ask_everywhere(scene)
    for _, id_ in asked:
        await scene.wait(id_, phase="running")
    for customer, id_ in asked:
        elsewhere = task(customer, id_, room_id=quoted(f"other-{id_}"))
        await scene.app.write(delete_task(id_), elsewhere)
    for customer, id_ in asked:
        await scene.wait(id_, phase="running", room_id=f"other-{id_}")
        agents = await scene.vendors.agents(account=customer.name)
        assert [a["room_id"] for a in agents] == [f"room-{id_}", f"other-{id_}"]
        assert overlapping(agents) == []


@pytest.mark.parametrize("change", ["restart_token", "spec"])
async def test_a_running_agent_is_replaced_one_at_a_time(scene: Scene, change: str) -> None:
    await scene.start_daemon()
    asked = await ask_everywhere(scene)
    for _, id_ in asked:
        await scene.wait(id_, phase="running")
    for customer, id_ in asked:
        new = as_json(customer.other_spec) if change == "spec" else "'again'"
        await scene.app.write(update_task(id_, **{change: new}))
    for customer, id_ in asked:
        await scene.wait(id_, phase="running", incarnation=2)
        assert [one["incarnation"] for one in await scene.ledger(id_)] == [1, 2]
        agents = await scene.vendors.agents(account=customer.name)
        assert [a["ended_at"] is None for a in agents] == [False, True]
        assert doubled(agents) == []


async def test_a_stop_at_once_wins_over_the_start(scene: Scene) -> None:
    await scene.start_daemon()
    await scene.vendors.script("*", "delay_reply", n=len(CUSTOMERS), ms=300)
    asked = await ask_everywhere(scene)
    for _, id_ in asked:
        await scene.wait(id_, intent="start")
        await scene.app.write(update_task(id_, desired_state="'stopped'"))
    for _, id_ in asked:
        await scene.wait(id_, phase="stopped", end_reason="requested")
    assert await scene.vendors.live() == []
