import pytest

from orchestrator.store.engine import Database, now


@pytest.mark.anyio
async def test_now(database: Database) -> None:
    assert (await database.read(now)).tzinfo is not None
