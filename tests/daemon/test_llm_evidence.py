"""Who asks for words is alive, whatever the rows say: found, confirmed, or stopped again.

An agent that has ended at its vendor asks as a zombie: it is not there, and talks.
"""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from sqlalchemy.engine import make_url

from orchestrator.core import names
from tests.daemon.application import Row, quoted, update_task
from tests.daemon.customers import (
    CUSTOMERS,
    TENCENT,
    VOLCENGINE,
    VOLCENGINE_NEXT,
    ZEGO,
    Customer,
)
from tests.daemon.llm import (
    TEXT,
    WORDS,
    Exchange,
    Gate,
    Heard,
    Talker,
    asking,
    open_gate,
    politely,
    said,
)
from tests.daemon.orphanage import (
    FORGET,
    calls_about,
    describe,
    is_live,
    orphans,
    start_stranger,
    wait_ended,
    wait_orphan,
)
from tests.daemon.running import GIVEN, Scene, as_json, until
from tests.daemon.vendors import Agent
from tests.fault_proxy import fault_proxy

pytestmark = pytest.mark.anyio

REFUSED = {VOLCENGINE: "InternalError", TENCENT: "InternalError", ZEGO: "410000002"}
"""A code with which each vendor says that something went wrong on its side."""


def own_words(customer: Customer, handle: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields and headers in which a vendor's request names its agent."""
    if customer is ZEGO:
        return {"agent_info": {"agent_instance_id": handle}}, {}
    return {}, {"X-Task-Id": handle} if customer is TENCENT else {}


async def ask_as(agent: Talker, customer: Customer, handle: str) -> Heard:
    """Ask in the vendor's own words."""
    fields, headers = own_words(customer, handle)
    return await agent.ask(said("Hi", **fields), headers)


async def say(gate: Gate, agent: Agent, *, zombie: bool = False) -> dict[str, Any]:
    """Let the agent's user say something at the simulated vendor; return the turn."""
    url = f"{gate.scene.vendors.url}/_sim/agents/{agent['id']}/say"
    async with gate.client.post(url, json={"text": "Hello?", "zombie": zombie}) as answered:
        turn: dict[str, Any] = await answered.json()
        assert answered.status == 200, turn
        return turn


async def stop(gate: Gate, *ids: str) -> None:
    """Stop tasks, and wait until that is certain."""
    await gate.scene.app.write(*(update_task(id_, desired_state="'stopped'") for id_ in ids))
    for id_ in ids:
        await gate.scene.wait(id_, phase="stopped")


async def last_turn(gate: Gate, id_: str) -> tuple[str, str | None]:
    """Return what the newest turn of a task came to."""
    turn = (await gate.wait_for_turns(id_, 1))[-1]
    return turn["outcome"], turn["reason"]


# --- whom nobody wants ---


async def test_who_asks_after_its_end_is_ended_politely_and_stopped_again(gate: Gate) -> None:
    await gate.scene.start_daemon()
    agents = {one: await gate.start_agent(one, one.name) for one in CUSTOMERS}
    handles = {one: (await gate.scene.ledger(one.name))[-1]["vendor_task_id"] for one in CUSTOMERS}
    await stop(gate, *(one.name for one in CUSTOMERS))
    stops = len(await gate.scene.vendors.calls(VOLCENGINE.stop))

    for customer, agent in agents.items():
        row = await ask_until_orphan(gate, agent, customer, handles[customer])
        assert (row["source"], bool(row["ours"]), row["action"]) == ("gateway", True, "stop")
        assert row["vendor_task_id"] == handles[customer]
        assert await last_turn(gate, customer.name) == ("ended", "AgentGone")
        assert await count_turns_without_event(gate, customer.name) == 0
    for customer in CUSTOMERS:
        await wait_no_open_orphan(gate, customer)
        assert (await gate.scene.status(customer.name))["phase"] == "stopped"
    assert len(await gate.scene.vendors.calls(VOLCENGINE.stop)) > stops
    assert gate.model.asked == []


async def test_who_asks_in_no_understandable_words_is_alive_all_the_same(gate: Gate) -> None:
    await gate.scene.start_daemon()
    agent = await gate.start_agent(VOLCENGINE, "call")
    await stop(gate, "call")
    assert (await agent.ask(b"[]")).status == 400
    row = await wait_orphan(gate.scene, phase="stopped")
    assert (row["source"], bool(row["ours"])) == ("gateway", True)


async def count_turns_without_event(gate: Gate, id_: str) -> int:
    """Return how many turns more than events there are of a task, in one look."""
    of_task = f"task_id = {quoted(id_)}"
    (row,) = await gate.scene.app.read(
        f"SELECT (SELECT count(*) FROM llm_turn WHERE {of_task})"  # noqa: S608 - our own words
        f" - (SELECT count(*) FROM agent_event WHERE event = 'llm_turn' AND {of_task}) AS missing"
    )
    missing: int = row["missing"]
    return missing


async def ask_until_orphan(gate: Gate, agent: Talker, customer: Customer, handle: str) -> Row:
    """Ask as a zombie does, again and again, until it is known as an orphan; return that."""

    async def look() -> Row | None:
        heard = await ask_as(agent, customer, handle)
        assert (heard.status, heard.text) == (200, "")
        found = await orphans(gate.scene, account=customer.name)
        return found[0] if found else None

    return await until(look, lambda: describe(gate.scene))


async def wait_no_open_orphan(gate: Gate, customer: Customer) -> None:
    """Wait until all orphans of an account are stopped, with evidence."""

    async def look() -> bool | None:
        found = await orphans(gate.scene, account=customer.name)
        return all(row["phase"] == "stopped" for row in found) or None

    await until(look, lambda: describe(gate.scene))


async def test_a_zombie_at_the_simulated_vendor_is_found_and_stopped(gate: Gate) -> None:
    await gate.scene.start_daemon()
    customers = (VOLCENGINE, TENCENT, ZEGO)
    for customer in customers:
        await gate.start_agent(customer, customer.name)
    agents = {one: (await gate.scene.vendors.live(account=one.name))[0] for one in customers}
    for agent in agents.values():
        turn = await say(gate, agent)
        assert (turn["answered"], turn["fault"]) == (TEXT, None)
    await stop(gate, *(one.name for one in customers))
    asked = len(gate.model.asked)

    for customer, agent in agents.items():

        async def look(customer: Customer = customer, agent: Agent = agent) -> Row | None:
            turn = await say(gate, agent, zombie=True)
            assert (turn["answered"], turn["fault"], turn["zombie"]) == ("", None, True)
            found = await orphans(gate.scene, account=customer.name)
            return found[0] if found else None

        row = await until(look, lambda: describe(gate.scene))
        assert (row["source"], row["vendor_task_id"]) == ("gateway", agent["handle"])
    for customer in customers:
        await wait_no_open_orphan(gate, customer)
    assert len(gate.model.asked) == asked


async def test_an_agent_that_a_restored_database_does_not_know_is_stopped(gate: Gate) -> None:
    daemon = await gate.scene.start_daemon()
    customers = (VOLCENGINE, VOLCENGINE_NEXT, TENCENT, ZEGO)
    agents = {}
    for customer in customers:
        await gate.start_agent(customer, customer.name)
        (agents[customer],) = await gate.scene.vendors.live(account=customer.name)
    await daemon.stop()
    await gate.scene.app.write(*FORGET)
    await gate.scene.start_daemon("after")
    for customer, agent in agents.items():
        turn = await say(gate, agent)
        assert (turn["answered"], turn["fault"]) == ("", None)
        assert await last_turn(gate, customer.name) == ("ended", "AgentUnknown")
    for customer, agent in agents.items():
        await wait_ended(gate.scene, agent)
        row = await wait_orphan(gate.scene, account=customer.name, phase="stopped")
        assert (row["source"], bool(row["ours"])) == ("gateway", True)
    assert gate.model.asked == []


async def test_who_asks_while_it_is_being_stopped_is_ended_and_no_orphan(gate: Gate) -> None:
    await gate.scene.start_daemon()
    for customer, code in REFUSED.items():
        agent = await gate.start_agent(customer, customer.name)
        await gate.scene.vendors.script(customer.stop, "code", 1_000, code=code, status=500)
        await gate.scene.app.write(update_task(customer.name, desired_state="'stopped'"))
        await gate.scene.wait(customer.name, phase="stopping")
        assert (await agent.ask()).text == ""
        assert await last_turn(gate, customer.name) == ("ended", "TaskStopped")
    heard = "SELECT DISTINCT account FROM agent_event WHERE event = 'gateway' ORDER BY account"

    async def look() -> bool | None:
        return len(await gate.scene.app.read(heard)) == len(REFUSED) or None

    await until(look, lambda: describe(gate.scene))
    await clear_faults(gate)
    for customer in REFUSED:
        await gate.scene.wait(customer.name, phase="stopped")
    assert await gate.scene.vendors.live() == []
    assert await orphans(gate.scene) == []
    assert gate.model.asked == []


async def clear_faults(gate: Gate) -> None:
    url = f"{gate.scene.vendors.url}/_sim/faults"
    async with gate.client.post(url, json={"clear": True}) as answered:
        assert answered.status == 200


async def test_who_was_superseded_is_ended_and_its_successor_is_served(gate: Gate) -> None:
    await gate.scene.start_daemon()
    for customer in CUSTOMERS:
        id_ = customer.name
        earlier = await gate.start_agent(customer, id_)
        await gate.scene.app.write(update_task(id_, restart_token="'again'"))
        await gate.scene.wait(id_, phase="running", incarnation=2)
        later = await gate.talker(customer, id_)
        assert later.url != earlier.url
        assert ((await earlier.ask()).text, (await later.ask()).text) == ("", TEXT)
        turns = await gate.wait_for_turns(id_, 2)
        told = {turn["incarnation"]: (turn["outcome"], turn["reason"]) for turn in turns}
        assert told[1] in {("ended", "AgentSuperseded"), ("ended", "AgentGone")}
        assert told[2] == ("answered", None)
        assert (await gate.scene.status(id_))["incarnation"] == 2
    assert len(gate.model.asked) == len(CUSTOMERS)


async def test_an_agent_of_another_database_is_never_stopped(gate: Gate) -> None:
    """Two databases may share a vendor account, and the secret of the tokens."""
    sister = names.compose("orc", "aaaaa", bytes(range(16)))
    await gate.scene.start_daemon()
    stranger = await start_stranger(gate.scene, ZEGO, sister, room_id="room-theirs")
    agent = gate.talker_of(ZEGO, "theirs", sister)
    assert (await ask_as(agent, ZEGO, stranger["handle"])).text == ""
    row = await wait_orphan(gate.scene, account=ZEGO.name)
    assert (row["source"], bool(row["ours"]), row["action"]) == ("gateway", False, "report")
    # It is looked at, as what is only reported is.
    await gate.scene.wait_for_calls(ZEGO.look, 1)
    assert (await ask_as(agent, ZEGO, stranger["handle"])).text == ""
    actions = {call["action"] for call in await calls_about(gate.scene, stranger)}
    assert actions <= {ZEGO.look}
    assert await is_live(gate.scene, stranger)


# --- whom somebody wants ---


async def test_a_start_whose_answer_was_lost_is_adopted_when_its_agent_asks(gate: Gate) -> None:
    for customer in (VOLCENGINE, TENCENT, ZEGO):
        gate.scene.account(customer)["poll_s"] = 3_600
    await gate.scene.start_daemon()
    for customer in (VOLCENGINE, TENCENT, ZEGO):
        await lose_the_start(gate, customer)
        await gate.scene.ask_for(customer, customer.name, spec=as_json(asking(customer)))
        agent = await living(gate, customer)
        turn = await say(gate, agent)
        assert (turn["answered"], turn["fault"]) == (TEXT, None)
        if customer is TENCENT:  # whose handle nobody believes before the vendor has told its name
            await gate.scene.wait(customer.name, phase="running")
            await say(gate, agent)
        row = await gate.scene.wait(
            customer.name, phase="running", vendor_task_id=agent["handle"], confirmed_at=GIVEN
        )
        assert row["incarnation"] == 1
        assert await heard_of(gate, customer.name) == {("gateway", "alive")}
        (known,) = await gate.scene.ledger(customer.name)
        assert known["told_at"] is None  # it is polled as often as before
    assert len(await gate.scene.vendors.live()) == 3
    assert await orphans(gate.scene) == []


async def lose_the_start(gate: Gate, customer: Customer) -> None:
    """Let the answer of the next start be lost, and nothing else tell what became of it."""
    vendors = gate.scene.vendors
    await vendors.script(customer.start, "lose_reply")
    await vendors.script(customer.start, "throttle", 1_000)
    if customer is ZEGO:
        await vendors.script(customer.look, "throttle", 1_000)
        await vendors.script("DescribeUserList", "throttle", 1_000)


async def living(gate: Gate, customer: Customer) -> Agent:
    """Wait until an account has one agent; return it."""

    async def look() -> Agent | None:
        found = await gate.scene.vendors.live(account=customer.name)
        return found[0] if found else None

    return await until(look, lambda: gate.scene.describe(customer.name))


async def heard_of(gate: Gate, id_: str) -> set[tuple[str, str]]:
    """Return what was heard of a task without asking."""
    query = (
        f"SELECT event, action FROM agent_event WHERE task_id = {quoted(id_)} AND actor = 'vendor'"  # noqa: S608 - our own words
    )
    return {(row["event"], row["action"]) for row in await gate.scene.app.read(query)}


async def test_the_first_request_confirms_and_the_next_ones_write_no_facts(gate: Gate) -> None:
    gate.scene.account(TENCENT)["poll_s"] = 3_600
    await gate.scene.start_daemon()
    agent = await gate.start_agent(TENCENT, "call")
    assert (await gate.scene.status("call"))["confirmed_at"] is None
    await agent.ask()
    await gate.scene.wait("call", confirmed_at=GIVEN)
    facts = "SELECT key FROM vendor_fact"
    known = await gate.scene.app.read(facts)
    for _ in range(5):
        await agent.ask()
    await gate.wait_for_turns("call", 6)
    assert await gate.scene.app.read(facts) == known
    (row,) = await gate.scene.ledger("call")
    assert row["told_at"] is None


async def test_while_the_database_is_away_a_talking_user_is_served(postgres_scene: Scene) -> None:
    scene = postgres_scene
    url = make_url(scene.database_url)
    assert url.host is not None
    assert url.port is not None
    async with fault_proxy(url.host, url.port) as proxy, open_gate(scene) as gate:
        away = url.set(host="127.0.0.1", port=proxy.port)
        scene.settings["database"]["url"] = away.render_as_string(hide_password=False)
        daemon = await scene.start_daemon()
        agent = await gate.start_agent(ZEGO, "call")
        proxy.is_half_open = True
        for _ in range(2):
            assert (await agent.ask()).text == TEXT
        proxy.is_half_open = False
        proxy.cut()
        turns = await gate.wait_for_turns("call", 2)
        assert {turn["outcome"] for turn in turns} == {"answered"}
        assert await daemon.stop() == 0


# --- who hangs up ---


async def test_who_hangs_up_is_not_paid_for_and_asks_again_as_the_same_round(gate: Gate) -> None:
    async def wait(one: Exchange) -> None:
        await one.begin()
        if "words" in one.fields["messages"][-1]["content"]:
            await one.say(*WORDS)
        try:
            await anyio.sleep_forever()
        finally:
            one.has_left.set()

    await gate.scene.start_daemon()
    agent = await gate.start_agent(VOLCENGINE, "call")
    gate.model.script = wait
    await hang_up(gate, agent, said("before the first", round_id="r1"), b"")
    await hang_up(gate, agent, said("after some words", round_id="r1"), WORDS[-1].encode())
    gate.model.script = politely
    assert (await agent.ask(said("Hi", round_id="r1"))).text == TEXT
    assert (await agent.ask(said("Hi", round_id="r2"))).text == TEXT
    turns = await gate.wait_for_turns("call", 4)
    assert [(turn["round"], turn["try"], turn["outcome"]) for turn in turns] == [
        ("r1", 1, "interrupted"),
        ("r1", 2, "interrupted"),
        ("r1", 3, "answered"),
        ("r2", 1, "answered"),
    ]
    assert [turn["first_token_ms"] is None for turn in turns] == [True, False, False, False]
    troubles = "SELECT id FROM agent_event WHERE event = 'llm_turn'"
    assert await gate.scene.app.read(troubles) == []


async def hang_up(gate: Gate, agent: Talker, fields: dict[str, Any], after: bytes) -> None:
    """Ask, hang up when this has come, and wait until the upstream has been left, too."""
    count = len(gate.model.asked)
    async with agent.post(fields) as response:
        got = b""
        while after not in got:
            got += await response.content.readany()
        await until_asked(gate.model.asked, count + 1)
        response.close()
    with anyio.fail_after(30):
        await gate.model.asked[count].has_left.wait()


async def until_asked(asked: Sequence[Exchange], count: int) -> None:
    async def look() -> bool | None:
        return len(asked) >= count or None

    async def awaited() -> str:
        return f"{count} requests at the model, not {len(asked)}"

    await until(look, awaited)


async def test_who_hangs_up_with_the_last_word_was_answered(gate: Gate) -> None:
    """An upstream may keep its connection open behind the end of its answer."""
    has_left = anyio.Event()

    async def linger(one: Exchange) -> None:
        await politely(one)
        with anyio.move_on_after(30):
            await has_left.wait()

    await gate.scene.start_daemon()
    agent = await gate.start_agent(VOLCENGINE, "call")
    gate.model.script = linger
    async with agent.post(said("Hi")) as response:
        got = b""
        while b"[DONE]" not in got:
            got += await response.content.readany()
        response.close()
    (turn,) = await gate.wait_for_turns("call", 1)
    has_left.set()
    assert (turn["outcome"], turn["reason"]) == ("answered", None)


async def test_a_round_that_the_simulated_vendor_asks_for_twice(gate: Gate) -> None:
    await gate.scene.start_daemon()
    await gate.start_agent(TENCENT, "call")
    agent = await living(gate, TENCENT)
    url = f"{gate.scene.vendors.url}/_sim/agents/{agent['id']}/say"
    asked = {"text": "Hello?", "repeat": True}
    async with gate.client.post(url, json=asked) as answered:
        turn = await answered.json()
        assert (turn["answered"], turn["fault"], turn["requests"]) == (TEXT, None, 2)

    async def look() -> list[Row] | None:
        turns = await gate.turns("call")
        return turns if any(one["outcome"] == "answered" for one in turns) else None

    turns = await until(look, lambda: gate.scene.describe("call"))
    # Of a request that is given up at once not a byte may have been read.
    assert [one["outcome"] for one in turns] in (["answered"], ["interrupted", "answered"])
    assert turns[-1]["round"] == turn["request_id"]
