"""What must be true in the end, whatever happened: the vendors' world equals the rows.

The rows are asked first, until they say that all is done. Then the vendors are asked, once: what
the rows say must be so, and must have been so at every instant before.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from tests.daemon.application import Row
from tests.daemon.running import Scene, until
from tests.daemon.vendors import Agent, doubled

PATIENCE_S = 60.0
"""Several horizons, on a machine that has other things to do."""

Wanted = Mapping[str, str | None]
"""The phase that each task has to come to; null: it is deleted, and has no status in the end."""


async def wait_converged(scene: Scene, wanted: Wanted, within_s: float = PATIENCE_S) -> None:
    """Wait until the rows are as wanted; then fail if the vendors' world is not, or was not."""

    async def look() -> bool | None:
        return None if await _find_unsettled(scene, wanted) else True

    async def awaited() -> str:
        return f"{await _find_unsettled(scene, wanted)}\n{await describe(scene)}"

    await until(look, awaited, within_s)
    await _check_world(scene)


async def _find_unsettled(scene: Scene, wanted: Wanted) -> list[str]:
    """Return what is not yet as it has to be, by the rows alone."""
    phases = {row["task_id"]: row["phase"] for row in await scene.app.read(_PHASES)}
    wrong = [f"{id_} is {phases.get(id_)}" for id_ in wanted if phases.get(id_) != wanted[id_]]
    if wrong:
        return wrong
    alive = Counter(row["task_id"] for row in await scene.app.read(_OPEN))
    expected = Counter(id_ for id_, phase in wanted.items() if phase == "running")
    changes = await scene.app.read("SELECT seq FROM task_change")
    return [f"open in the ledger: {alive}"] * (alive != expected) + ["changes"] * bool(changes)


async def _check_world(scene: Scene) -> None:
    """Compare the vendors' world with the rows, now and at every instant of the past."""
    agents = await scene.vendors.agents()
    live = {_room_and_handle(agent) for agent in agents if agent["live"]}
    rows = await scene.app.read(_OPEN)
    known = {(f"room-{row['task_id']}", row["vendor_task_id"]) for row in rows}
    wrong = {
        "together": together(agents),
        "unproven": await scene.app.read(_UNPROVEN),
        "leaked": live - known,
        "gone": known - live,
    }
    if any(wrong.values()):
        pytest.fail(f"{wrong}\n{await describe(scene)}")


def together(agents: Sequence[Agent]) -> list[tuple[Agent, Agent]]:
    """Return agents of one row that lived at the same time.

    At ZEGO the later one evicts the earlier when it joins; until then both may be there.
    """
    return doubled([_as_joined(agent) if agent["vendor"] == "zego" else agent for agent in agents])


def _as_joined(agent: Agent) -> Agent:
    return {**agent, "started_at": agent["joined_at"] or agent["started_at"]}


def _room_and_handle(agent: Agent) -> tuple[str, str]:
    """Return where an agent is, and its handle; version 2024-06-01 of Volcengine's gives none."""
    return agent["room_id"], agent["handle"] or agent["agent_user_id"]


async def describe(scene: Scene) -> str:
    """Return all there is to know, for a failure."""
    parts: dict[str, Sequence[Row]] = {
        "rows": await scene.app.read("SELECT * FROM agent_status ORDER BY task_id"),
        "ledger": await scene.app.read("SELECT * FROM vendor_agent ORDER BY task_id"),
        "history": await scene.app.read("SELECT * FROM agent_event ORDER BY id"),
        "agents": await scene.vendors.agents(),
    }
    told = [f"{name}:{_lines(part)}" for name, part in parts.items()]
    return "\n".join([*told, scene.logs()])


def _lines(rows: Sequence[Row]) -> str:
    shown = ({k: v for k, v in row.items() if v is not None} for row in rows)
    return "".join(f"\n  {json.dumps(row, default=str)}" for row in shown)


_PHASES = "SELECT task_id, phase FROM agent_status"
_OPEN = "SELECT task_id, vendor_task_id FROM vendor_agent WHERE ended_at IS NULL"
_UNPROVEN = "SELECT * FROM vendor_agent WHERE ended_at IS NOT NULL AND evidence IS NULL"
