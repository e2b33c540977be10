"""What happened to the rows of a broken promise, told from all sides."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tests.chaos.agreement import Picture
from tests.chaos.checkers import Finding
from tests.chaos.stage import Stage
from tests.daemon.application import quoted

TOLD: Final = 3
"""Rows that are told of at most."""

_QUERIES: Final = {
    "status": "SELECT * FROM agent_status WHERE task_id = ",
    "ledger": "SELECT * FROM vendor_agent WHERE task_id = ",
    "events": "SELECT * FROM agent_event WHERE task_id = ",
    "commands": "SELECT * FROM agent_command WHERE task_id = ",
}


async def tell(findings: Iterable[Finding], stage: Stage, picture: Picture) -> dict[str, str]:
    """Return the history of each row that something was found about, up to a few."""
    concerned = dict.fromkeys(id_ for finding in findings for id_ in finding.task_ids)
    return {id_: await _tell(id_, stage, picture) for id_ in list(concerned)[:TOLD]}


async def _tell(task_id: str, stage: Stage, picture: Picture) -> str:
    agents = [agent for agent in picture.agents if agent.task_id == task_id]
    names = {agent.handle for agent in agents if agent.handle} | {f"room-{task_id}"}
    parts: dict[str, Sequence[Any]] = {
        "edits": stage.diary.shown(task_id),
        "agents": [vars(agent) for agent in agents],
        "calls": [
            vars(call) for call in stage.vendors.called if {call.handle, call.room_id} & names
        ],
        "troubles": [vars(spell) for spell in stage.diary.spells],
    }
    for name, query in _QUERIES.items():
        parts[name] = await stage.client.read(query + quoted(task_id))
    return "\n".join(f"{name}:{_lines(part)}" for name, part in parts.items())


def _lines(rows: Sequence[Any]) -> str:
    return "".join(f"\n  {json.dumps(dict(row), default=str)}" for row in rows)
