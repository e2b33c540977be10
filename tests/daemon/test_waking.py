"""How a daemon hears of rows when nobody tells it: no notifications, or ears that died silently."""

import pytest
from sqlalchemy.engine import make_url

from tests.daemon.application import update_task
from tests.daemon.customers import CUSTOMERS
from tests.daemon.running import Scene, task, until
from tests.fault_proxy import fault_proxy

pytestmark = pytest.mark.anyio

IDS = [f"heard-{one.name}" for one in CUSTOMERS]


async def live_through(scene: Scene) -> None:
    """Lead an agent of each vendor through its life, after a rest."""
    await scene.app.write(*(task(one, f"heard-{one.name}") for one in CUSTOMERS))
    for id_ in IDS:
        await scene.wait(id_, phase="running")
    await scene.app.write(*(update_task(id_, desired_state="'stopped'") for id_ in IDS))
    for id_ in IDS:
        await scene.wait(id_, phase="stopped")


async def test_a_daemon_that_polls_needs_nobody_to_notify_it(postgres_scene: Scene) -> None:
    """As behind a pooler, where a LISTEN would be somebody else's."""
    scene = postgres_scene
    scene.settings["database"]["wake"] = "poll"
    daemon = await scene.start_daemon()
    (told,) = await scene.app.read("SELECT wake, asleep FROM daemon")
    assert (told["wake"], told["asleep"]) == ("poll", False)
    await live_through(scene)
    assert daemon.events("waker_listens") == []
    assert await daemon.stop() == 0


async def test_ears_that_died_silently_delay_a_row_and_lose_none(postgres_scene: Scene) -> None:
    scene = postgres_scene
    server = make_url(scene.database_url)
    async with fault_proxy(server.host or "127.0.0.1", server.port or 5432) as proxy:
        ears = server.set(host="127.0.0.1", port=proxy.port)
        scene.settings["database"]["listen_url"] = ears.render_as_string(hide_password=False)
        daemon = await scene.start_daemon()

        async def listens() -> bool | None:
            return True if daemon.events("waker_listens") else None

        await until(listens, daemon.describe)
        proxy.is_half_open = True
        await live_through(scene)

        async def is_told() -> bool | None:
            return True if daemon.events("waker_deaf") else None

        await until(is_told, daemon.describe)
        assert daemon.events("database_away") == []
        proxy.is_half_open = False

        async def listens_again() -> bool | None:
            return True if len(daemon.events("waker_listens")) > 1 else None

        await until(listens_again, daemon.describe)
        assert await daemon.stop() == 0
