"""What users say to running agents, as rows; and what of it reached the simulated vendor.

Rule: the wire is judged by what the vendor saw (`/_sim/calls`), and not by what the daemon says.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from tests.daemon.application import Row, insert, quoted
from tests.daemon.customers import ZEGO, Customer
from tests.daemon.running import PATIENCE_S, Scene, as_json, until

START, STOP = "StartListening", "StopListening"
PRESS, RELEASE = "start_listening", "stop_listening"
SETTLED = frozenset({"done", "failed", "superseded", "expired"})
WALKIE = replace(ZEGO, spec={**ZEGO.spec, "AdvancedConfig": {"CommunicationMode": 2}})
"""ZEGO's customer with agents that listen while a button is held."""

Wire = tuple[str, int]
"""A listening call as the vendor saw it: its action and Sequence."""


@dataclass(frozen=True)
class Pressing:
    """One listening call that reached the vendor."""

    action: str
    sequence: int
    code: str
    fault: str | None
    handle: str
    at: str
    """When it reached the vendor, as ISO 8601."""

    @property
    def wire(self) -> Wire:
        return self.action, self.sequence

    @property
    def had_effect(self) -> bool:
        return not self.code


def command(task_id: str, id_: str, kind: str, **columns: str) -> str:
    """Return the INSERT of a command; `columns` are SQL."""
    given = {"id": quoted(id_), "task_id": quoted(task_id), "kind": quoted(kind)}
    return insert("agent_command", **{**given, **columns})


def press(task_id: str, id_: str, sequence: int | None = None, **columns: str) -> str:
    """Return the INSERT of a press of the button."""
    return command(task_id, id_, PRESS, **_numbered(sequence), **columns)


def release(task_id: str, id_: str, sequence: int | None = None, **columns: str) -> str:
    """Return the INSERT of its release."""
    return command(task_id, id_, RELEASE, **_numbered(sequence), **columns)


def say(task_id: str, id_: str, kind: str, payload: Mapping[str, Any], **columns: str) -> str:
    """Return the INSERT of a command with a payload."""
    return command(task_id, id_, kind, payload=as_json(payload), **columns)


def cancel(id_: str) -> str:
    """Return what takes a command back."""
    return insert("task_change", task_id=quoted(id_), what="'cancel_command'")


def _numbered(sequence: int | None) -> dict[str, str]:
    return {} if sequence is None else {"sequence": str(sequence)}


async def talk_to(scene: Scene, id_: str, customer: Customer = WALKIE) -> str:
    """Insert a task and wait until its agent runs; return its id."""
    await scene.ask_for(customer, id_)
    await scene.wait(id_, phase="running")
    return id_


async def spoken(scene: Scene, id_: str) -> Row:
    """Return a command's row."""
    (row,) = await scene.app.read(f"{_COMMAND}{quoted(id_)}")
    return row


async def settled(scene: Scene, *ids: str, within_s: float = PATIENCE_S) -> list[Row]:
    """Wait until these commands are settled; return them."""

    async def look() -> list[Row] | None:
        rows = [await spoken(scene, id_) for id_ in ids]
        return rows if all(row["state"] in SETTLED for row in rows) else None

    async def awaited() -> str:
        return f"{ids} to be settled\n{await told(scene)}"

    return await until(look, awaited, within_s)


async def states(scene: Scene, *ids: str, within_s: float = PATIENCE_S) -> list[str]:
    """Wait until these commands are settled; return their states."""
    return [row["state"] for row in await settled(scene, *ids, within_s=within_s)]


async def verdicts(
    scene: Scene, *ids: str, within_s: float = PATIENCE_S
) -> list[tuple[str, str | None]]:
    """Wait until these commands are settled; return the state and reason of each."""
    rows = await settled(scene, *ids, within_s=within_s)
    return [(row["state"], row["reason"]) for row in rows]


async def told(scene: Scene) -> str:
    """Return all there is to know of commands, for a failure."""
    parts = {
        "commands": await scene.app.read("SELECT * FROM agent_command ORDER BY position"),
        "lanes": await scene.app.read("SELECT * FROM lane"),
        "tasks": await scene.app.read("SELECT * FROM agent_status"),
        "events": await scene.app.read(
            "SELECT * FROM agent_event WHERE command_id IS NOT NULL ORDER BY id"
        ),
        "wire": [vars(one) for one in await pressings(scene)],
    }
    lines = [f"{name}: {json.dumps(part, default=str)}" for name, part in parts.items()]
    return "\n".join([*lines, scene.logs()])


async def lane_of(scene: Scene, task_id: str, user_id: str = "human") -> Row:
    """Return a lane's row."""
    where = f"task_id = {quoted(task_id)} AND user_id = {quoted(user_id)}"
    (row,) = await scene.app.read(f"SELECT * FROM lane WHERE {where}")  # noqa: S608 - a test's own words
    return row


async def pressings(scene: Scene) -> list[Pressing]:
    """Return the listening calls that the vendor read, in its order."""
    return [
        Pressing(
            action=call["action"],
            sequence=call["ids"].get("sequence", 0),
            code=call["code"],
            fault=call["fault"],
            handle=call["ids"].get("task_id", ""),
            at=call["at"],
        )
        for call in await scene.vendors.calls()
        if call["action"] in {START, STOP} and call["fault"] != "lose_request"
    ]


async def wires(scene: Scene) -> list[Wire]:
    """Return action and Sequence of every listening call, in the vendor's order."""
    return [one.wire for one in await pressings(scene)]


async def effects(scene: Scene) -> list[Wire]:
    """Return those that had their effect."""
    return [one.wire for one in await pressings(scene) if one.had_effect]


def by_handle(everything: Sequence[Pressing]) -> dict[str, list[Pressing]]:
    """Return listening calls by the instance that they went to."""
    found: dict[str, list[Pressing]] = {}
    for one in everything:
        found.setdefault(one.handle, []).append(one)
    return found


def assert_rising(everything: Sequence[Pressing]) -> None:
    """To each instance numbers never fall, a repeat is the same call, and effects come once."""
    for ours in by_handle(everything).values():
        for earlier, later in pairwise(ours):
            assert later.sequence > earlier.sequence or later.wire == earlier.wire, ours
        had_effect = [one.sequence for one in ours if one.had_effect]
        assert had_effect == sorted(set(had_effect)), ours


async def move(scene: Scene, task_id: str, user_id: str, do: str) -> None:
    """Let a user publish in a task's room, and the like."""
    await scene.vendors.move_user(WALKIE.name, f"room-{task_id}", user_id, do)


async def wait_for_code(scene: Scene, code: str, count: int = 1) -> None:
    """Wait until so many listening calls were answered with a code."""

    async def look() -> bool | None:
        found = [one for one in await pressings(scene) if one.code == code]
        return True if len(found) >= count else None

    async def awaited() -> str:
        return f"{count} answers {code}\n{await told(scene)}"

    await until(look, awaited)


async def wait_until_seen(scene: Scene, id_: str) -> None:
    """Wait until the daemon has looked at a command, whatever came of it."""

    async def look() -> bool | None:
        return True if (await spoken(scene, id_))["seen_at"] is not None else None

    async def awaited() -> str:
        return f"a look at {id_}\n{await told(scene)}"

    await until(look, awaited)


_COMMAND = "SELECT * FROM agent_command WHERE id = "
