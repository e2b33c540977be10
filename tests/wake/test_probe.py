from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from orchestrator.store.engine import DatabaseAway
from orchestrator.wake.probe import CHANNEL, time_notification
from tests.ports import unused_port

pytestmark = pytest.mark.anyio

Connection = asyncpg.Connection


@pytest.fixture
async def application(empty_postgres_url: str) -> AsyncIterator["Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(empty_postgres_url)
    yield connection
    await connection.close()


async def test_a_notification_of_another_connection_is_heard(
    empty_postgres_url: str, application: "Connection[asyncpg.Record]"
) -> None:
    async def tell(channel: str, payload: str) -> None:
        await application.execute("SELECT pg_notify($1, $2)", channel, payload)

    took = await time_notification(empty_postgres_url, tell)
    assert took is not None
    assert took > timedelta(0)


async def test_another_check_s_notification_is_not_ours(
    empty_postgres_url: str,
    application: "Connection[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.wake.probe.PATIENCE_S", 0.5)

    async def tell(channel: str, payload: str) -> None:
        assert (channel, bool(payload)) == (CHANNEL, True)
        await application.execute("SELECT pg_notify($1, 'another')", channel)

    assert await time_notification(empty_postgres_url, tell) is None


async def test_where_one_cannot_connect_that_is_told_without_the_password() -> None:
    async def tell(_channel: str, _payload: str) -> None:
        pytest.fail("nobody listens")

    url = f"postgresql://me:fake-password@127.0.0.1:{unused_port()}/db"
    with pytest.raises(DatabaseAway) as away:
        await time_notification(url, tell)
    assert "fake-password" not in str(away.value)


async def test_nothing_is_left_listening(
    empty_postgres_url: str, application: "Connection[asyncpg.Record]"
) -> None:
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"

    async def tell(channel: str, payload: str) -> None:
        assert await application.fetchval(others) == 2
        await application.execute("SELECT pg_notify($1, $2)", channel, payload)

    await time_notification(empty_postgres_url, tell)
    # It sees the end of its connection when it looks next; nothing else makes it look.
    while await application.fetchval(others) != 1:
        pass
