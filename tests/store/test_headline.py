"""The figures of one line: what is counted as what, and that every count has its bound."""

from collections.abc import Mapping

import pytest
from sqlalchemy import Connection, text

from orchestrator.store.engine import Database
from orchestrator.store.headline import WORK_MAX, read_headline

pytestmark = pytest.mark.anyio

_TASK = "INSERT INTO agent_task (id, account, room_id, user_id) VALUES (:id, 'main', :id, 'human')"
_STATUS = (
    "UPDATE agent_status SET phase = :phase, waiting_for = :waiting_for,"
    " due_at = '2026-03-01 12:00:00.000000' WHERE task_id = :id"
)

Rows = Mapping[str, tuple[str, str | None]]
"""Phase and what it waits for, by id."""

ROWS: Rows = {
    "runs": ("running", None),
    "runs-too": ("running", None),
    "starts": ("starting", None),
    "stops": ("stopping", "retry"),
    "waits": ("pending", "capacity"),
    "later": ("pending", "start_at"),
    "rests": ("stopped", None),
    "failed": ("failed", None),
}


def insert(connection: Connection, rows: Rows) -> None:
    for id_, (phase, waiting_for) in rows.items():
        connection.execute(text(_TASK), {"id": id_})
        values = {"id": id_, "phase": phase, "waiting_for": waiting_for}
        connection.execute(text(_STATUS), values)


async def test_each_phase_is_counted_once(database: Database) -> None:
    await database.write(insert, ROWS)
    found = await database.read(read_headline)
    assert (found.running, found.starting, found.stopping) == (2, 1, 1)
    assert (found.unconverged, found.orphans, found.is_partial) == (3, 0, False)


async def test_a_count_stops_at_its_bound(database: Database) -> None:
    rows: Rows = {f"waits-{number}": ("pending", "capacity") for number in range(WORK_MAX + 1)}
    await database.write(insert, rows)
    found = await database.read(read_headline)
    assert (found.unconverged, found.is_partial) == (WORK_MAX, True)
