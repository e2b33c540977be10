"""Agents that no row stands for: who starts them, who reports them, and what is said of them."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.clock import utc_now
from orchestrator.providers.signing import volcengine_notification_signature
from orchestrator.simulator.keys import VolcengineKeys
from tests.chaos.strangers import Stranger, start_strangers
from tests.daemon.application import Row, insert, quoted
from tests.daemon.customers import CUSTOMERS, Customer
from tests.daemon.posts import Written
from tests.daemon.running import PATIENCE_S, Scene, until
from tests.daemon.vendors import Agent

_ORPHANS = "SELECT * FROM orphan_overview"

FORGET = (
    "DELETE FROM agent_task",
    "DELETE FROM agent_status",
    "DELETE FROM vendor_agent",
    "DELETE FROM task_change",
    "DELETE FROM vendor_fact",
)
"""Statements after which the rows are those of a backup from before all tasks."""


async def start_stranger(scene: Scene, customer: Customer, name: str, room_id: str = "") -> Agent:
    """Start an agent with the account's own keys, past the daemon; return it as the vendor does."""
    room_id = room_id or f"room-of-{name}"
    await start_strangers(scene.vendors.url, [Stranger(customer, room_id, name)])
    (agent,) = await scene.vendors.live(account=customer.name, agent_user_id=name)
    return agent


async def report(scene: Scene, customer: Customer, id_: str, **columns: str) -> str:
    """Insert an orphan as an operator; `columns` are texts. Return its id."""
    literals = {name: quoted(value) for name, value in columns.items()}
    await scene.app.write(
        insert("orphan_task", id=quoted(id_), account=quoted(customer.name), **literals)
    )
    return id_


async def orphans(scene: Scene, **wanted: object) -> list[Row]:
    """Return the orphans with these values."""
    found = await scene.app.read(_ORPHANS)
    return [row for row in found if all(row[name] == wanted[name] for name in wanted)]


async def wait_orphan(scene: Scene, within_s: float = PATIENCE_S, **wanted: object) -> Row:
    """Wait until one orphan has these values, and no other; return it."""

    async def look() -> Row | None:
        found = await orphans(scene, **wanted)
        return found[0] if len(found) == 1 else None

    return await until(look, lambda: describe(scene, wanted), within_s)


async def describe(scene: Scene, wanted: object = "") -> str:
    """Return all there is to know of orphans, for a failure."""
    parts = {
        "orphans": await scene.app.read("SELECT * FROM orphan_task"),
        "statuses": await scene.app.read("SELECT * FROM agent_status"),
        "ledger": await scene.app.read("SELECT * FROM vendor_agent"),
        "facts": await scene.app.read("SELECT * FROM vendor_fact"),
        "history": await scene.app.read("SELECT * FROM agent_event ORDER BY id"),
    }
    told = [
        f"{name}: {json.dumps([dict(r) for r in rows], default=str)}"
        for name, rows in parts.items()
    ]
    return "\n".join([f"an orphan with {wanted}", *told, scene.logs()])


async def events(scene: Scene, orphan_id: str) -> list[Row]:
    """Return an orphan's history."""
    where = f"orphan_id = {quoted(orphan_id)} ORDER BY id"
    return await scene.app.read(f"SELECT * FROM agent_event WHERE {where}")  # noqa: S608 - our own words


async def calls_about(scene: Scene, agent: Agent) -> list[Mapping[str, Any]]:
    """Return the calls in which the vendor read the agent's handle, but for its start."""
    starts = {customer.start for customer in CUSTOMERS}
    calls = [one for one in await scene.vendors.calls() if one["action"] not in starts]
    return [one for one in calls if agent["handle"] in one["ids"].values()]


async def is_live(scene: Scene, agent: Agent) -> bool:
    """Return whether the agent runs, and bills."""
    return any(one["id"] == agent["id"] for one in await scene.vendors.live())


async def wait_ended(scene: Scene, agent: Agent) -> None:
    """Wait until an agent has ended."""

    async def look() -> bool | None:
        return None if await is_live(scene, agent) else True

    await until(look, lambda: describe(scene, agent))


def volcengine(customer: Customer, agent: Agent, stage: str) -> Written:
    """Return a message notification of Volcengine's about an agent."""
    keys = customer.keys
    assert isinstance(keys, VolcengineKeys)
    now = utc_now()
    data = {
        "AppId": keys.app_id,
        "RoomId": agent["room_id"],
        "TaskId": agent["handle"],
        "UserID": agent["user_id"],
        "EventTime": int(now.timestamp() * 1000),
        "EventType": 0,
        "RunStage": stage,
    }
    body = {
        "EventType": "VoiceChat",
        "EventData": json.dumps(data),
        "EventTime": now.isoformat(),
        "EventId": f"{stage}-{agent['handle']}",
        "AppId": keys.app_id,
        "Version": "2020-12-01",
        "Nonce": "1234",
    }
    signature = volcengine_notification_signature(body, secret_key=str(keys.callback_secret))
    return Written(customer.name, json.dumps(body | {"Signature": signature}).encode())
